//! Things in the trash of a real directory, and what becomes of them.
#![forbid(unsafe_code)]

use recsync_proto::Epoch;

use super::*;
use crate::index::{Index as _, Memory};
use crate::observe::fixture::{Share, share_path};
use crate::tree::trash_place;

const DAY: &str = "2026-11-22";
const ID: u64 = 0x189a_5d7c_1b2e_3f40;

/// Displaces a file of the share as an operation does.
fn displace(share: &Share, path: &str, id: u64) -> Trashed {
    let place = trash_place(DAY, &share_path(path), id);
    let content = Some(share.installed(path).content);
    share.tree.rename(&Place::Share(share_path(path)), &place).unwrap();
    let stat = share.tree.stat(&place).unwrap();
    let Place::Trash { day, path: at } = place else { unreachable!() };
    let (path, why) = (share_path(path), Why::Deleted);
    Trashed { since_ns: stat.ctime_ns, id, day, at, path, content, stat, why, peer: None }
}

fn put(share: &Share, path: &str, id: u64) -> Trashed {
    share.put(path, path.as_bytes());
    displace(share, path, id)
}

fn file_of(trashed: &Trashed) -> String {
    format!(".recsync/trash/{}/{}", trashed.day, trashed.at)
}

fn left(share: &Share) -> Vec<String> {
    share.below(".recsync/trash").into_keys().collect()
}

#[test]
fn a_look_tells_what_was_done_to_it() {
    let share = Share::new();
    let trashed = put(&share, "a", ID);
    assert_eq!(look(&share.tree, &trashed), Seen::Same);
    let mut open = share.open_for_writing(&file_of(&trashed));
    assert_eq!(look(&share.tree, &trashed), Seen::Writer);
    std::io::Write::write_all(&mut open, b"more").unwrap();
    assert_eq!(look(&share.tree, &trashed), Seen::Writer);
    drop(open);
    assert_eq!(look(&share.tree, &trashed), Seen::Changed);
    assert_eq!(unchanged(&share.tree, &trashed), None);
    share.put(&file_of(&trashed), b"a");
    assert_eq!(look(&share.tree, &trashed), Seen::Changed, "its mtime moved");
    let stat = unchanged(&share.tree, &trashed).unwrap();
    assert_eq!(look(&share.tree, &Trashed { stat, ..trashed.clone() }), Seen::Same);
    share.remove(&file_of(&trashed));
    assert_eq!(look(&share.tree, &trashed), Seen::Gone);
}

#[test]
fn a_write_by_another_name_is_no_change_of_what_was_displaced() {
    let share = Share::new();
    share.put("a", b"1");
    std::fs::hard_link(share.at("a"), share.at("b")).unwrap();
    let trashed = displace(&share, "a", ID);
    share.put("b", b"other bytes");
    assert_eq!(look(&share.tree, &trashed), Seen::Same);
}

#[test]
fn what_is_removed_takes_its_empty_directories_along() {
    let share = Share::new();
    let (one, other) = (put(&share, "d/e/a", ID), put(&share, "d/b", ID + 1));
    let (gone, failed) = remove(&share.tree, std::slice::from_ref(&one));
    assert_eq!((gone, failed), (vec![Write::TrashGone(one.key())], vec![]));
    assert_eq!(left(&share), [DAY, &format!("{DAY}/d"), &format!("{DAY}/{}", other.at)]);
    // Again, as after a crash before the commit.
    let (gone, failed) = remove(&share.tree, &[one.clone(), other.clone()]);
    assert_eq!((gone.len(), failed), (2, vec![]));
    assert_eq!(left(&share), [""; 0]);
}

#[test]
fn what_is_put_back_has_its_directories_and_overwrites_nothing() {
    let share = Share::new();
    let (first, last) = (put(&share, "d/e/a", ID), put(&share, "d/e/a", ID + 1));
    share.remove_dir("d/e");
    share.remove_dir("d");
    let path = share_path("d/e/a");
    assert_eq!(restore(&share.tree, &last, &path), Ok(Write::TrashGone(last.key())));
    assert_eq!(share.read("d/e/a"), b"d/e/a");
    assert_eq!(share.stat("d/e/a").mtime_ns, last.stat.mtime_ns);

    let taken = restore(&share.tree, &first, &path);
    assert_eq!(taken, Err(RestoreError::Taken(path.clone())));
    assert_eq!(restore(&share.tree, &last, &share_path("x/y")), Err(RestoreError::Gone));
    assert!(!share.at("x").exists(), "a directory was made for nothing");
    let below_a_file = restore(&share.tree, &first, &share_path("d/e/a/b"));
    assert!(matches!(below_a_file, Err(RestoreError::Refused { .. })), "{below_a_file:?}");
    assert!(restore(&share.tree, &first, &share_path("beside")).is_ok());
    assert_eq!(left(&share), [""; 0]);
}

#[test]
fn files_that_the_index_does_not_know_are_found_a_few_at_a_time() {
    let share = Share::new();
    let mut index = Memory::new(Epoch(1));
    let known = put(&share, "known", ID);
    index.write(&Write::Trashed(known.clone())).unwrap();
    for number in 0..7 {
        put(&share, &format!("d/{number}.wav"), ID + 1 + number);
    }
    share.put(".recsync/trash/by hand", b"x");
    let (mut walk, mut steps) = (Walk::default(), 0);
    while let Some(found) = walk.step(&share.tree, &index, 2).unwrap() {
        assert!(found.len() <= 2, "{found:?}");
        steps += 1;
        found.iter().for_each(|write| index.write(write).unwrap());
    }
    assert!(steps > 4, "{steps}");
    let all = index.trash_after(TrashKey::FIRST, usize::MAX).unwrap();
    let mut paths: Vec<_> = all.iter().map(|one| one.path.to_string()).collect();
    paths.sort();
    assert_eq!(paths[..3], ["d/0.wav", "d/1.wav", "d/2.wav"]);
    assert_eq!((paths.len(), &*paths[7]), (8, "known"));
    assert!(all.contains(&known), "what was known stays as it is");
}

#[test]
fn the_name_that_a_file_had_is_read_from_the_one_it_has() {
    for (name, expected) in [
        ("a.wav~189a5d7c1b2e3f40", ("a.wav", Some(ID))),
        ("a~b~189a5d7c1b2e3f40~1", ("a~b", Some(ID))),
        ("a~1", ("a~1", None)),
        ("~189a5d7c1b2e3f40", ("~189a5d7c1b2e3f40", None)),
        ("a", ("a", None)),
    ] {
        let (had, id) = split_id(name.as_bytes());
        assert_eq!((str::from_utf8(had).unwrap(), id), expected);
    }
}
