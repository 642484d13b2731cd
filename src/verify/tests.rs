//! Tests of verification: what is told of a real tree, with what the index knows of it.

use recsync_proto::message::{DIGESTS_MAX, DigestKind};
use recsync_proto::{Epoch, Hash, SharePath};

use super::*;
use crate::index::{Entry, Index as _, Memory, Write};
use crate::observe::fixture::{Share, hash_of, share_path};
use crate::tree::{Disk, IgnoreRules};

fn note(share: &Share, index: &mut Memory, path: &str) {
    let entry = Entry { installed: Some(share.installed(path)), ..Entry::default() };
    index.write(&Write::Entry(share_path(path), entry)).unwrap();
}

/// A share of files that hold their own paths, and an index that knows them.
fn noted(files: &[&str]) -> (Share, Memory) {
    let (share, mut index) = (Share::new(), Memory::new(Epoch(1)));
    for path in files {
        share.put(path, path.as_bytes());
        note(&share, &mut index, path);
    }
    (share, index)
}

/// All entries of a directory, one page after the other.
fn list(share: &Share, index: &Memory, dir: &str) -> Vec<DigestEntry> {
    let walk = Digests::walk(&share.tree, index).unwrap();
    let mut entries: Vec<DigestEntry> = Vec::new();
    loop {
        let after = entries.last().map_or(&[][..], |last| &last.name);
        let page = walk.page(&share.tree, index, &share_path(dir), after).unwrap();
        assert!(!page.more || !page.entries.is_empty(), "it would never end");
        entries.extend(page.entries);
        if !page.more {
            return entries;
        }
    }
}

/// The files in a directory, with the hash that is known of each.
fn files(share: &Share, index: &Memory, dir: &str) -> Vec<(String, Option<Hash>)> {
    let entries = list(share, index, dir).into_iter();
    let files = entries.filter_map(|entry| match entry.kind {
        DigestKind::File { hash, .. } => Some((String::from_utf8(entry.name).unwrap(), hash)),
        _ => None,
    });
    files.collect()
}

struct Other<'a> {
    tree: &'a Disk,
    index: &'a Memory,
    walk: Digests,
}

impl Far for Other<'_> {
    fn page(&mut self, dir: &SharePath, after: &[u8]) -> Result<Page, VerifyError> {
        self.walk.page(self.tree, self.index, dir, after)
    }
}

/// What differs between a share as one index knows it, and as another does.
fn differing(share: &Share, here: &Memory, there: &Memory) -> Vec<(String, DifferenceKind)> {
    let tree = &share.tree;
    let mut far = Other { tree, index: there, walk: Digests::walk(tree, there).unwrap() };
    let digests = Digests::walk(tree, here).unwrap();
    let near = Comparison { tree, index: here, digests: &digests };
    let found = compare(&near, &mut far).unwrap();
    found.into_iter().map(|one| (one.path.to_string(), one.kind)).collect()
}

#[test]
fn each_name_gets_its_own_hash_however_names_sort() {
    // Of whole paths `a-b` comes before `a/b`, `a0` after; in a directory only names count.
    let paths = ["a!", "a-b", "a.b/x", "a/b", "a/b-c", "a/b.d/x", "a/b0", "a0", "a\u{fc}"];
    let (share, index) = noted(&paths);
    for dir in ["", "a", "a.b", "a/b.d"] {
        let expected = paths.iter().map(|path| share_path(path));
        let expected = expected.filter(|path| path.parent() == share_path(dir)).map(|path| {
            let name = String::from_utf8(path.name().to_vec()).unwrap();
            (name, Some(hash_of(path.as_bytes())))
        });
        assert_eq!(files(&share, &index, dir), expected.collect::<Vec<_>>(), "{dir}");
    }
}

#[test]
fn a_directory_of_many_names_is_told_whole() {
    let (share, mut index) = (Share::new(), Memory::new(Epoch(1)));
    let mut expected = Vec::new();
    for number in 0..DIGESTS_MAX + 50 {
        let name = format!("{number:05}");
        let path = format!("d/{name}");
        share.put(&path, path.as_bytes());
        // Some are not in the index, of some only the index knows: whole pages of them too.
        let (is_new, is_gone) =
            (number % 3 == 0, number % 7 == 0 || (900..1_500).contains(&number));
        if !is_new {
            note(&share, &mut index, &path);
        }
        if is_gone {
            share.remove(&path);
        } else {
            expected.push((name, (!is_new).then(|| hash_of(path.as_bytes()))));
        }
    }
    assert_eq!(files(&share, &index, "d"), expected);
    let walk = Digests::walk(&share.tree, &index).unwrap();
    assert_eq!(walk.totals(), (expected.len() as u64, 7 * expected.len() as u64));
    assert_eq!(differing(&share, &index, &index), []);
    let none = Memory::new(Epoch(2));
    assert_eq!(differing(&share, &index, &none).len(), expected.len());
}

#[test]
fn what_is_ignored_ends_no_page() {
    let (share, mut index) = noted(&["z.wav"]);
    for number in 0..DIGESTS_MAX + 50 {
        share.put(&format!("{number}.tmp"), b"");
    }
    let rules = IgnoreRules::new(vec!["*.tmp".to_owned()]).unwrap();
    let share = share.with_ignore(rules);
    assert_eq!(files(&share, &index, ""), [("z.wav".to_owned(), Some(hash_of(b"z.wav")))]);
    let before = index.clone();
    share.put_anew("z.wav", b"another");
    note(&share, &mut index, "z.wav");
    assert_eq!(differing(&share, &index, &before), [("z.wav".to_owned(), DifferenceKind::Content)]);
}

#[test]
fn a_hash_counts_for_the_state_that_was_hashed_alone() {
    let (share, mut index) = noted(&["d/a", "d/b", "d/c", "e/a"]);
    let before = index.clone();
    share.put_anew("d/b", b"another");
    assert_eq!(files(&share, &index, "d")[1], ("b".to_owned(), None));
    assert_eq!(files(&share, &index, "d")[2].1, Some(hash_of(b"d/c")));
    note(&share, &mut index, "d/b");
    assert_eq!(files(&share, &index, "d")[1].1, Some(hash_of(b"another")));
    assert_eq!(differing(&share, &index, &before), [("d/b".to_owned(), DifferenceKind::Content)]);
    assert_eq!(differing(&share, &index, &index), []);
}
