//! What every [`Tree`] must do, as cases that run on any of them: the real disk in `tests`, the
//! simulated one in its own crate (feature `suite`). A case gets a tree of its own, empty.
//!
//! ```text
//! for case in suite::cases::<Disk>() {
//!     println!("{}", case.name);
//!     (case.run)(&fresh_tree());
//! }
//! ```
//!
//! **Invariant:** a case asserts what the callers of a tree rely on, and no more.
//! **May not:** act on files but through the tree, or through [`Outside`].
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "test code, also where it is built for another crate")]

use recsync_proto::SharePath;

use super::{Kind, Place, RootError, Tree, TreeError, Writer, trash_place};

/// One thing that must hold, on a fresh `T`.
#[derive(Debug)]
pub struct Case<T> {
    /// What it says.
    pub name: &'static str,
    /// Panics if it does not hold.
    pub run: fn(&T),
}

/// A tree whose files others can get at: users, programs, administrators.
pub trait Outside {
    /// The tree.
    type Tree: Tree;
    /// Holds a file open for writing until dropped.
    type Writer;

    /// Returns the tree, of a share with its marker.
    fn tree(&self) -> &Self::Tree;
    /// A program opens an existing file of the share for writing.
    fn open_for_writing(&self, path: &SharePath) -> Self::Writer;
    /// Someone makes a FIFO.
    fn make_fifo(&self, path: &SharePath);
    /// Someone puts this text in the place of the marker; none removes it.
    fn set_marker(&self, text: Option<&str>);
    /// Returns the marker's text.
    fn marker(&self) -> String;
    /// Someone moves the root's directory away, and leaves an empty one under its name or none.
    fn move_root_away(&self, leave_empty: bool);
    /// Someone undoes that.
    fn move_root_back(&self);
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => { vec![$(Case { name: stringify!($name), run: $name }),*] };
}

/// Returns the cases that need nothing but a tree.
pub fn cases<T: Tree>() -> Vec<Case<T>> {
    cases![
        a_stat_tells_what_is_there,
        a_stat_of_many_tells_what_each_tells,
        what_is_absent_is_not_found,
        a_file_in_the_middle_of_a_path_is_refused,
        a_symlink_in_the_middle_of_a_path_is_refused,
        a_symlink_at_the_end_is_not_followed,
        an_object_of_another_kind_is_refused,
        names_are_bytes,
        a_listing_is_whole,
        a_listing_of_the_root_leaves_out_recsync,
        reads_and_writes_are_at_offsets,
        an_open_file_outlives_its_name,
        lengths_can_be_set_and_holes_read_as_zeros,
        ranges_are_copied_up_to_the_end,
        modes_are_exact,
        mtimes_are_exact,
        a_directory_has_the_mode_it_was_made_with,
        making_what_exists_is_refused,
        a_rename_keeps_the_object,
        a_rename_replaces_nothing,
        a_directory_is_not_moved_into_itself,
        an_exchange_swaps_files,
        an_exchange_swaps_a_file_and_a_full_directory,
        an_exchange_needs_both,
        only_empty_directories_are_removed,
        temporaries_are_private,
        temporaries_have_plain_names,
        trash_makes_its_own_directories,
        a_trash_name_fits,
        the_tops_are_not_to_be_changed,
        nothing_in_the_share_is_removed_as_private,
        directories_can_be_synced,
        a_file_has_a_writer_while_it_is_open_for_writing,
        there_is_room,
    ]
}

/// Returns the cases in which others act on the files.
pub fn outside_cases<O: Outside>() -> Vec<Case<O>> {
    cases![
        a_writer_is_seen_until_it_closes,
        a_fifo_is_looked_at_and_never_opened,
        a_root_without_its_marker_is_not_touched,
        a_root_with_another_marker_is_not_touched,
        a_root_that_was_moved_is_not_touched,
    ]
}

fn path(text: &str) -> SharePath {
    SharePath::new(text).unwrap()
}

fn at(text: &str) -> Place {
    Place::Share(path(text))
}

fn root() -> Place {
    Place::Share(SharePath::root())
}

fn temp(name: &str) -> Place {
    Place::Temp(name.to_owned())
}

/// Makes a file as apply does: a temporary, renamed.
fn put<T: Tree>(tree: &T, place: &Place, bytes: &[u8]) {
    let file = tree.create_temp("put").unwrap();
    tree.write_at(&file, 0, bytes).unwrap();
    tree.sync(&file).unwrap();
    drop(file);
    tree.rename(&temp("put"), place).unwrap();
}

fn get<T: Tree>(tree: &T, place: &Place) -> Vec<u8> {
    read_all(tree, &tree.open(place).unwrap())
}

fn read_all<T: Tree>(tree: &T, file: &T::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match tree.read_at(file, bytes.len() as u64, &mut buffer).unwrap() {
            0 => return bytes,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn names<T: Tree>(tree: &T, dir: &Place) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = tree.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[track_caller]
fn refused<V>(result: Result<V, TreeError>, why: &TreeError) {
    assert_eq!(result.err().as_ref(), Some(why));
}

fn a_stat_tells_what_is_there<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"12345");
    tree.make_dir(&at("dir"), 0o750).unwrap();
    tree.make_link(&at("link"), b"file").unwrap();

    let file = tree.stat(&at("file")).unwrap();
    assert_eq!((file.kind, file.size, file.mode, file.nlink), (Kind::File, 5, 0o600, 1));
    assert_eq!(tree.stat_file(&tree.open(&at("file")).unwrap()), Ok(file));
    assert_eq!(tree.stat(&at("file")), Ok(file), "looking changes nothing");

    let dir = tree.stat(&at("dir")).unwrap();
    assert_eq!((dir.kind, dir.mode), (Kind::Dir, 0o750));
    let link = tree.stat(&at("link")).unwrap();
    assert_eq!((link.kind, link.size), (Kind::Symlink, 4));
    assert_eq!(tree.stat(&root()).unwrap().kind, Kind::Dir);

    assert!(file.ino != dir.ino && dir.ino != link.ino && file.ino != link.ino);
    assert!(file.fs == dir.fs && dir.fs == link.fs);
}

fn a_stat_of_many_tells_what_each_tells<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"12345");
    for dir in ["dir", "dir/inner", "dir-"] {
        tree.make_dir(&at(dir), 0o750).unwrap();
    }
    put(tree, &at("dir/file"), b"123");
    put(tree, &at("dir/inner/file"), b"1");
    tree.make_link(&at("link"), b"dir").unwrap();
    tree.make_link(&at("dir/loose"), b"absent").unwrap();
    let mut paths = vec![SharePath::root()];
    paths.extend(["absent", "dir", "dir-", "dir-/file", "dir/absent", "dir/absent/x"].map(path));
    paths.extend(["dir/file", "dir/file/x", "dir/inner", "dir/loose", "dir/loose/x"].map(path));
    paths.extend(["dir/inner/file", "file", "file/x", "link", "link/file", "link/inner"].map(path));
    paths.push(SharePath::root());
    for paths in [&paths[..], &paths[1..4], &paths[7..], &[]] {
        let each = paths.iter().map(|path| tree.stat(&Place::Share(path.clone())));
        assert_eq!(tree.stat_all(paths), each.collect::<Vec<_>>());
    }
}

fn what_is_absent_is_not_found<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"");
    for absent in [at("absent"), at("absent/below"), at("absent/far/below")] {
        refused(tree.stat(&absent), &TreeError::NotFound);
        refused(tree.list(&absent), &TreeError::NotFound);
        refused(tree.read_link(&absent), &TreeError::NotFound);
        refused(tree.open(&absent), &TreeError::NotFound);
        refused(tree.open_for_metadata(&absent), &TreeError::NotFound);
        refused(tree.set_mtime_of(&absent, 0), &TreeError::NotFound);
        refused(tree.remove_dir(&absent), &TreeError::NotFound);
        refused(tree.sync_dir(&absent), &TreeError::NotFound);
        refused(tree.rename(&absent, &at("free")), &TreeError::NotFound);
        refused(tree.exchange(&absent, &at("file")), &TreeError::NotFound);
    }
    refused(tree.make_dir(&at("absent/dir"), 0o755), &TreeError::NotFound);
    refused(tree.make_link(&at("absent/link"), b"x"), &TreeError::NotFound);
    refused(tree.rename(&at("file"), &at("absent/file")), &TreeError::NotFound);
    refused(tree.open_temp("absent"), &TreeError::NotFound);
    refused(tree.remove_private(&temp("absent")), &TreeError::NotFound);
    assert_eq!(names(tree, &root()), [b"file"]);
}

/// Tries everything below `middle/`, where nothing may be reached.
fn nothing_is_reached_below<T: Tree>(tree: &T, middle: &str) {
    put(tree, &at("mover"), b"");
    let below = at(&format!("{middle}/inner"));
    let free = at(&format!("{middle}/free"));
    refused(tree.stat(&below), &TreeError::WrongKind);
    refused(tree.list(&below), &TreeError::WrongKind);
    refused(tree.read_link(&below), &TreeError::WrongKind);
    refused(tree.open(&below), &TreeError::WrongKind);
    refused(tree.open_for_metadata(&below), &TreeError::WrongKind);
    refused(tree.set_mtime_of(&below, 0), &TreeError::WrongKind);
    refused(tree.make_dir(&free, 0o755), &TreeError::WrongKind);
    refused(tree.make_link(&free, b"x"), &TreeError::WrongKind);
    refused(tree.rename(&below, &at("free")), &TreeError::WrongKind);
    refused(tree.rename(&at("mover"), &free), &TreeError::WrongKind);
    refused(tree.exchange(&below, &at("mover")), &TreeError::WrongKind);
    refused(tree.exchange(&at("mover"), &below), &TreeError::WrongKind);
    refused(tree.remove_dir(&below), &TreeError::WrongKind);
    refused(tree.sync_dir(&below), &TreeError::WrongKind);
}

fn a_file_in_the_middle_of_a_path_is_refused<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"");
    nothing_is_reached_below(tree, "file");
}

fn a_symlink_in_the_middle_of_a_path_is_refused<T: Tree>(tree: &T) {
    tree.make_dir(&at("dir"), 0o755).unwrap();
    tree.make_dir(&at("dir/inner"), 0o755).unwrap();
    tree.make_dir(&at("outer"), 0o755).unwrap();
    for (name, target) in [("near", "dir"), ("up", ".."), ("far", "/"), ("loose", "absent")] {
        tree.make_link(&at(name), target.as_bytes()).unwrap();
        nothing_is_reached_below(tree, name);
        tree.make_link(&at(&format!("outer/{name}")), target.as_bytes()).unwrap();
        tree.rename(&at("mover"), &at(&format!("mover-{name}"))).unwrap();
    }
    assert_eq!(names(tree, &at("dir")), [b"inner"]);
}

fn a_symlink_at_the_end_is_not_followed<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"bytes");
    tree.make_dir(&at("dir"), 0o755).unwrap();
    for target in ["file", "dir", "absent", "/"] {
        let link = at("link");
        tree.make_link(&link, target.as_bytes()).unwrap();
        assert_eq!(tree.read_link(&link).unwrap(), target.as_bytes());
        assert_eq!(tree.stat(&link).unwrap().kind, Kind::Symlink);
        refused(tree.open(&link), &TreeError::WrongKind);
        refused(tree.open_for_metadata(&link), &TreeError::WrongKind);
        refused(tree.list(&link), &TreeError::WrongKind);
        refused(tree.sync_dir(&link), &TreeError::WrongKind);
        refused(tree.remove_dir(&link), &TreeError::WrongKind);
        refused(tree.make_dir(&link, 0o755), &TreeError::Exists);
        tree.rename(&link, &temp("link")).unwrap();
        refused(tree.open_temp("link"), &TreeError::WrongKind);
        refused(tree.create_temp("link"), &TreeError::Exists);
        tree.remove_private(&temp("link")).unwrap();
    }
    assert_eq!(names(tree, &root()), [&b"dir"[..], b"file"]);
}

fn an_object_of_another_kind_is_refused<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"");
    tree.make_dir(&at("dir"), 0o755).unwrap();
    refused(tree.open(&at("dir")), &TreeError::WrongKind);
    refused(tree.list(&at("file")), &TreeError::WrongKind);
    refused(tree.sync_dir(&at("file")), &TreeError::WrongKind);
    refused(tree.remove_dir(&at("file")), &TreeError::WrongKind);
    refused(tree.read_link(&at("file")), &TreeError::WrongKind);
    refused(tree.read_link(&at("dir")), &TreeError::WrongKind);
    tree.rename(&at("dir"), &temp("dir")).unwrap();
    refused(tree.open_temp("dir"), &TreeError::WrongKind);
    refused(tree.remove_private(&temp("dir")), &TreeError::WrongKind);
    tree.remove_dir(&temp("dir")).unwrap();
}

fn names_are_bytes<T: Tree>(tree: &T) {
    let longest = vec![b'x'; 255];
    let odd: [&[u8]; 5] = [b"\xff\xfe", b"new\nline", "größe".as_bytes(), b" ", b"...".as_slice()];
    let mut expected: Vec<Vec<u8>> = odd.iter().map(|name| name.to_vec()).collect();
    expected.push(longest.clone());
    for name in &expected {
        let place = Place::Share(SharePath::new(&name[..]).unwrap());
        put(tree, &place, name);
        assert_eq!(get(tree, &place), *name);
    }
    expected.sort();
    assert_eq!(names(tree, &root()), expected);
    refused(tree.create_temp(&"x".repeat(256)), &TreeError::BadName);
    tree.make_link(&at("link"), b"\xff/\xfe").unwrap();
    assert_eq!(tree.read_link(&at("link")).unwrap(), b"\xff/\xfe");
}

fn a_listing_is_whole<T: Tree>(tree: &T) {
    assert_eq!(tree.list(&root()), Ok(vec![]));
    tree.make_dir(&at("dir"), 0o755).unwrap();
    let mut expected = Vec::new();
    for number in 0..1000 {
        let name = format!("{number:04}-{}", "n".repeat(100));
        tree.make_link(&at(&format!("dir/{name}")), b"x").unwrap();
        expected.push(name.into_bytes());
    }
    assert_eq!(names(tree, &at("dir")), expected);

    put(tree, &at("file"), b"");
    tree.make_link(&at("link"), b"x").unwrap();
    for entry in tree.list(&root()).unwrap() {
        let place = Place::Share(SharePath::new(entry.name).unwrap());
        let kind = tree.stat(&place).unwrap().kind;
        assert!(entry.kind.is_none_or(|told| told == kind), "{place}: {:?}", entry.kind);
    }
}

fn a_listing_of_the_root_leaves_out_recsync<T: Tree>(tree: &T) {
    tree.make_dir(&at("dir"), 0o755).unwrap();
    tree.make_dir(&at("dir/.recsync"), 0o755).unwrap();
    tree.make_dir(&at(".recsyncs"), 0o755).unwrap();
    assert_eq!(names(tree, &root()), [&b".recsyncs"[..], b"dir"]);
    assert_eq!(names(tree, &at("dir")), [b".recsync"], "it is reserved at the root only");
}

fn reads_and_writes_are_at_offsets<T: Tree>(tree: &T) {
    let file = tree.create_temp("file").unwrap();
    tree.write_at(&file, 0, b"0123456789").unwrap();
    tree.write_at(&file, 4, b"abc").unwrap();
    tree.write_at(&file, 100, b"").unwrap();
    let mut buffer = [b'.'; 4];
    assert_eq!(tree.read_at(&file, 3, &mut buffer), Ok(4));
    assert_eq!(&buffer, b"3abc");
    assert_eq!(tree.read_at(&file, 8, &mut buffer), Ok(2));
    assert_eq!(&buffer, b"89bc");
    assert_eq!(tree.read_at(&file, 10, &mut buffer), Ok(0));
    assert_eq!(tree.read_at(&file, 1 << 40, &mut buffer), Ok(0));
    tree.start_sync(&file);
    tree.sync_data(&file).unwrap();
    tree.sync(&file).unwrap();
    let again = tree.open_temp("file").unwrap();
    tree.write_at(&again, 10, b"!").unwrap();
    assert_eq!(read_all(tree, &file), b"0123abc789!");
}

fn an_open_file_outlives_its_name<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"old");
    let file = tree.open(&at("file")).unwrap();
    let before = tree.stat_file(&file).unwrap();
    put(tree, &at("new"), b"new");
    tree.exchange(&at("file"), &at("new")).unwrap();
    tree.rename(&at("new"), &temp("gone")).unwrap();
    tree.remove_private(&temp("gone")).unwrap();
    assert_eq!(read_all(tree, &file), b"old");
    let after = tree.stat_file(&file).unwrap();
    assert!(after.same_bytes(&before));
    assert_eq!(after.nlink, 0);
    assert_eq!(get(tree, &at("file")), b"new");
}

fn lengths_can_be_set_and_holes_read_as_zeros<T: Tree>(tree: &T) {
    let file = tree.create_temp("file").unwrap();
    tree.write_at(&file, 0, b"head").unwrap();
    tree.set_len(&file, 20_000).unwrap();
    tree.write_at(&file, 20_010, b"tail").unwrap();
    let mut expected = b"head".to_vec();
    expected.resize(20_010, 0);
    expected.extend_from_slice(b"tail");
    assert_eq!(read_all(tree, &file), expected);
    tree.set_len(&file, 2).unwrap();
    tree.set_len(&file, 6).unwrap();
    assert_eq!(read_all(tree, &file), b"he\0\0\0\0", "what was cut off does not come back");
    assert_eq!(tree.stat(&temp("file")).unwrap().size, 6);
}

fn ranges_are_copied_up_to_the_end<T: Tree>(tree: &T) {
    let bytes: Vec<u8> = (0..400_000_u32).map(|n| (n % 251) as u8).collect();
    put(tree, &at("source"), &bytes);
    let source = tree.open(&at("source")).unwrap();
    let target = tree.create_temp("target").unwrap();
    assert_eq!(tree.copy_range(&source, &target, 1000, 300_000), Ok(300_000));
    let mut expected = vec![0; 1000];
    expected.extend_from_slice(&bytes[1000..301_000]);
    assert!(read_all(tree, &target) == expected);

    assert_eq!(tree.copy_range(&source, &target, 399_000, 5000), Ok(1000));
    assert_eq!(tree.copy_range(&source, &target, 400_000, 5000), Ok(0));
    assert_eq!(tree.copy_range(&source, &target, 500_000, 5000), Ok(0));
    assert_eq!(tree.copy_range(&source, &target, 0, 0), Ok(0));
    assert_eq!(tree.copy_range(&source, &target, 0, u64::MAX), Ok(400_000));
    assert!(read_all(tree, &target) == bytes);
}

fn modes_are_exact<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"bytes");
    tree.make_dir(&at("dir"), 0o755).unwrap();
    for place in [at("file"), at("dir")] {
        let before = tree.stat(&place).unwrap();
        let object = tree.open_for_metadata(&place).unwrap();
        for mode in [0o000, 0o777, 0o640, 0o1755, 0o644] {
            tree.set_mode(&object, mode).unwrap();
            assert_eq!(tree.stat_file(&object).unwrap().mode, mode);
            let now = tree.stat(&place).unwrap();
            assert_eq!(now.mode, mode);
            assert!(now.same_bytes(&before) && now.ctime_ns >= before.ctime_ns);
        }
        tree.sync(&object).unwrap();
    }
}

fn mtimes_are_exact<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"bytes");
    tree.make_dir(&at("dir"), 0o755).unwrap();
    tree.make_link(&at("link"), b"file").unwrap();
    const S: i64 = 1_000_000_000;
    // From 1902 to 2261, nanoseconds to the last; -1 is 1969.
    let times = [0, 1, -1, -S, -S - 1, -2_140_000_000 * S + 7, 9_200_000_000 * S + 999_999_999];
    for mtime_ns in times {
        for place in [at("file"), at("dir")] {
            let object = tree.open_for_metadata(&place).unwrap();
            tree.set_mtime(&object, mtime_ns).unwrap();
            assert_eq!(tree.stat_file(&object).unwrap().mtime_ns, mtime_ns);
            assert_eq!(tree.stat(&place).unwrap().mtime_ns, mtime_ns);
        }
        tree.set_mtime_of(&at("link"), mtime_ns + 1).unwrap();
        assert_eq!(tree.stat(&at("link")).unwrap().mtime_ns, mtime_ns + 1);
        assert_eq!(tree.stat(&at("file")).unwrap().mtime_ns, mtime_ns, "not through the link");
        tree.set_mtime_of(&at("file"), mtime_ns + 2).unwrap();
        assert_eq!(tree.stat(&at("file")).unwrap().mtime_ns, mtime_ns + 2);
    }
    assert_eq!(get(tree, &at("file")), b"bytes");
}

fn a_directory_has_the_mode_it_was_made_with<T: Tree>(tree: &T) {
    for mode in [0o777, 0o755, 0o700, 0o1777, 0o500, 0o000] {
        let place = at(&format!("{mode:o}"));
        tree.make_dir(&place, mode).unwrap();
        assert_eq!(tree.stat(&place).unwrap().mode, mode);
    }
}

fn making_what_exists_is_refused<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"bytes");
    tree.make_dir(&at("dir"), 0o700).unwrap();
    tree.make_link(&at("link"), b"file").unwrap();
    for taken in [at("file"), at("dir"), at("link")] {
        let before = tree.stat(&taken).unwrap();
        refused(tree.make_dir(&taken, 0o755), &TreeError::Exists);
        refused(tree.make_link(&taken, b"x"), &TreeError::Exists);
        assert_eq!(tree.stat(&taken), Ok(before));
    }
}

fn a_rename_keeps_the_object<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"bytes");
    tree.make_dir(&at("dir"), 0o755).unwrap();
    tree.make_dir(&at("other"), 0o755).unwrap();
    let before = tree.stat(&at("file")).unwrap();
    tree.rename(&at("file"), &at("dir/file")).unwrap();
    let after = tree.stat(&at("dir/file")).unwrap();
    assert!(after.same_bytes(&before));
    assert!(after.ctime_ns >= before.ctime_ns);
    assert_eq!((after.mode, after.uid, after.gid), (before.mode, before.uid, before.gid));
    refused(tree.stat(&at("file")), &TreeError::NotFound);

    let dir = tree.stat(&at("dir")).unwrap();
    tree.rename(&at("dir"), &at("other/dir")).unwrap();
    assert_eq!(tree.stat(&at("other/dir")).unwrap().ino, dir.ino);
    assert_eq!(get(tree, &at("other/dir/file")), b"bytes");
    tree.make_link(&at("link"), b"x").unwrap();
    tree.rename(&at("link"), &at("moved")).unwrap();
    assert_eq!(tree.read_link(&at("moved")).unwrap(), b"x");
}

fn a_rename_replaces_nothing<T: Tree>(tree: &T) {
    let objects = ["file", "twin", "dir", "empty", "link"].map(at);
    put(tree, &objects[0], b"bytes");
    put(tree, &objects[1], b"bytes");
    tree.make_dir(&objects[2], 0o755).unwrap();
    tree.make_dir(&at("dir/sub"), 0o755).unwrap();
    tree.make_dir(&objects[3], 0o755).unwrap();
    tree.make_link(&objects[4], b"absent").unwrap();
    let before: Vec<_> = objects.iter().map(|place| tree.stat(place).unwrap()).collect();
    for from in &objects {
        for to in objects.iter().filter(|&to| to != from) {
            refused(tree.rename(from, to), &TreeError::Exists);
        }
    }
    let after: Vec<_> = objects.iter().map(|place| tree.stat(place).unwrap()).collect();
    assert_eq!(after, before);
}

fn a_directory_is_not_moved_into_itself<T: Tree>(tree: &T) {
    tree.make_dir(&at("dir"), 0o755).unwrap();
    tree.make_dir(&at("dir/sub"), 0o755).unwrap();
    for into in [at("dir/moved"), at("dir/sub/moved")] {
        let answer = tree.rename(&at("dir"), &into);
        assert!(matches!(answer, Err(TreeError::Io(_))), "{answer:?}");
    }
    assert_eq!(names(tree, &at("dir")), [b"sub"]);
}

fn an_exchange_swaps_files<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"one");
    let file = tree.create_temp("staged").unwrap();
    tree.write_at(&file, 0, b"another").unwrap();
    drop(file);
    let (one, other) = (tree.stat(&at("file")).unwrap(), tree.stat(&temp("staged")).unwrap());
    tree.exchange(&temp("staged"), &at("file")).unwrap();
    assert!(tree.stat(&at("file")).unwrap().same_bytes(&other));
    assert!(tree.stat(&temp("staged")).unwrap().same_bytes(&one));
    assert_eq!(get(tree, &at("file")), b"another");
    tree.exchange(&temp("staged"), &at("file")).unwrap();
    assert_eq!(get(tree, &at("file")), b"one");
}

fn an_exchange_swaps_a_file_and_a_full_directory<T: Tree>(tree: &T) {
    put(tree, &at("one"), b"file");
    tree.make_dir(&at("two"), 0o755).unwrap();
    put(tree, &at("two/inner"), b"inner");
    tree.make_link(&at("link"), b"x").unwrap();
    tree.exchange(&at("one"), &at("two")).unwrap();
    assert_eq!(get(tree, &at("two")), b"file");
    assert_eq!(get(tree, &at("one/inner")), b"inner");
    tree.exchange(&at("link"), &at("one")).unwrap();
    assert_eq!(get(tree, &at("link/inner")), b"inner");
    assert_eq!(tree.read_link(&at("one")).unwrap(), b"x");
}

fn an_exchange_needs_both<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"bytes");
    refused(tree.exchange(&at("file"), &at("absent")), &TreeError::NotFound);
    refused(tree.exchange(&at("absent"), &at("file")), &TreeError::NotFound);
    assert_eq!(get(tree, &at("file")), b"bytes");
    assert_eq!(names(tree, &root()), [b"file"]);
}

fn only_empty_directories_are_removed<T: Tree>(tree: &T) {
    tree.make_dir(&at("dir"), 0o755).unwrap();
    put(tree, &at("dir/file"), b"");
    refused(tree.remove_dir(&at("dir")), &TreeError::NotEmpty);
    tree.rename(&at("dir/file"), &at("file")).unwrap();
    tree.remove_dir(&at("dir")).unwrap();
    refused(tree.stat(&at("dir")), &TreeError::NotFound);
    assert_eq!(names(tree, &root()), [b"file"]);
}

fn temporaries_are_private<T: Tree>(tree: &T) {
    assert_eq!(tree.list_temp(), Ok(vec![]));
    drop(tree.create_temp("one.part").unwrap());
    assert_eq!(tree.stat(&temp("one.part")).unwrap().mode, 0o600);
    refused(tree.create_temp("one.part"), &TreeError::Exists);
    drop(tree.create_temp("two").unwrap());
    tree.rename(&temp("one.part"), &temp("one")).unwrap();
    refused(tree.rename(&temp("one"), &temp("two")), &TreeError::Exists);
    let mut listed = tree.list_temp().unwrap();
    listed.sort();
    assert_eq!(listed, ["one", "two"]);
    assert_eq!(names(tree, &temp("")), [b"one", b"two"]);
    assert_eq!(tree.stat(&temp("")).unwrap().mode, 0o700);
    tree.remove_private(&temp("one")).unwrap();
    tree.remove_private(&temp("two")).unwrap();
    assert_eq!(tree.list_temp(), Ok(vec![]));
    assert_eq!(names(tree, &root()), Vec::<Vec<u8>>::new());
}

fn temporaries_have_plain_names<T: Tree>(tree: &T) {
    for name in [".", "..", "a/b", "../share.toml", "/", "a\0b"] {
        refused(tree.create_temp(name), &TreeError::BadName);
        refused(tree.open_temp(name), &TreeError::BadName);
        refused(tree.remove_private(&temp(name)), &TreeError::BadName);
        let day = Place::Trash { day: name.to_owned(), path: path("x") };
        refused(tree.stat(&day), &TreeError::BadName);
        refused(tree.remove_private(&day), &TreeError::BadName);
    }
    refused(tree.stat(&Place::Trash { day: String::new(), path: path("x") }), &TreeError::BadName);
}

fn trash_makes_its_own_directories<T: Tree>(tree: &T) {
    let day = |path: SharePath| Place::Trash { day: "2026-11-22".to_owned(), path };
    let all = Place::Trash { day: String::new(), path: SharePath::root() };
    assert_eq!(tree.list(&all), Ok(vec![]));
    put(tree, &at("file"), b"bytes");
    let before = tree.stat(&at("file")).unwrap();
    let place = trash_place("2026-11-22", &path("deep/down/file"), 0x2a);
    tree.rename(&at("file"), &place).unwrap();
    assert!(tree.stat(&place).unwrap().same_bytes(&before));
    assert_eq!(place, day(path("deep/down/file~2a")));
    for made in [day(SharePath::root()), day(path("deep")), day(path("deep/down")), all.clone()] {
        assert_eq!(tree.stat(&made).unwrap().mode, 0o700);
    }
    assert_eq!(names(tree, &all), [b"2026-11-22"]);
    assert_eq!(names(tree, &day(path("deep/down"))), [b"file~2a"]);
    let above = std::iter::successors(place.parent(), Place::parent);
    assert_eq!(above.map(|dir| tree.sync_dir(&dir).unwrap()).count(), 4);

    put(tree, &at("file"), b"again");
    refused(tree.rename(&at("file"), &place), &TreeError::Exists);
    tree.rename(&at("file"), &day(path("deep/file"))).unwrap();
    refused(tree.rename(&at("file"), &day(path("elsewhere/file"))), &TreeError::NotFound);

    tree.rename(&place, &at("restored")).unwrap();
    assert_eq!(get(tree, &at("restored")), b"bytes");
    tree.remove_private(&day(path("deep/file"))).unwrap();
    refused(tree.remove_dir(&day(path("deep"))), &TreeError::NotEmpty);
    tree.remove_dir(&day(path("deep/down"))).unwrap();
    tree.remove_dir(&day(path("deep"))).unwrap();
    refused(tree.stat(&day(path("deep"))), &TreeError::NotFound);
}

fn a_trash_name_fits<T: Tree>(tree: &T) {
    let longest = "n".repeat(255);
    put(tree, &at("file"), b"");
    let place = trash_place("2026-11-22", &path(&longest), u64::MAX);
    tree.rename(&at("file"), &place).unwrap();

    // The longest path there can be; made from the bottom up, as it is too long for some calls.
    let dir = "d".repeat(99);
    let deep = vec![dir.as_str(); 40].join("/");
    let deepest = path(&deep[..recsync_proto::path::PATH_LEN_MAX - 1]);
    put(tree, &at("other"), b"bytes");
    let place = trash_place("2026-11-22", &deepest, u64::MAX);
    tree.rename(&at("other"), &place).unwrap();
    assert_eq!(get(tree, &place), b"bytes");
}

fn the_tops_are_not_to_be_changed<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"");
    let trash = Place::Trash { day: String::new(), path: SharePath::root() };
    for top in [root(), temp(""), trash] {
        assert_eq!(top.parent(), None);
        refused(tree.make_dir(&top, 0o755), &TreeError::Denied);
        refused(tree.make_link(&top, b"x"), &TreeError::Denied);
        refused(tree.rename(&top, &at("free")), &TreeError::Denied);
        refused(tree.rename(&at("file"), &top), &TreeError::Denied);
        refused(tree.exchange(&top, &at("file")), &TreeError::Denied);
        refused(tree.remove_dir(&top), &TreeError::Denied);
        refused(tree.remove_private(&top), &TreeError::Denied);
        assert_eq!(tree.stat(&top).unwrap().kind, Kind::Dir);
    }
}

fn nothing_in_the_share_is_removed_as_private<T: Tree>(tree: &T) {
    put(tree, &at("file"), b"bytes");
    refused(tree.remove_private(&at("file")), &TreeError::Denied);
    refused(tree.remove_private(&at("absent")), &TreeError::Denied);
    assert_eq!(get(tree, &at("file")), b"bytes");
}

fn directories_can_be_synced<T: Tree>(tree: &T) {
    tree.make_dir(&at("dir"), 0o755).unwrap();
    let trash = Place::Trash { day: String::new(), path: SharePath::root() };
    for dir in [root(), at("dir"), temp(""), trash] {
        tree.sync_dir(&dir).unwrap();
    }
}

fn a_file_has_a_writer_while_it_is_open_for_writing<T: Tree>(tree: &T) {
    let ours = tree.create_temp("file").unwrap();
    tree.rename(&temp("file"), &at("file")).unwrap();
    let file = tree.open(&at("file")).unwrap();
    assert_ne!(tree.writer(&file), Ok(Writer::None));
    drop(ours);
    assert_ne!(tree.writer(&file), Ok(Writer::Some));
    let reader = tree.open(&at("file")).unwrap();
    assert_eq!(tree.writer(&file), tree.writer(&reader), "readers do not matter");
}

fn there_is_room<T: Tree>(tree: &T) {
    let space = tree.space().unwrap();
    assert!(0 < space.available && space.available <= space.total, "{space:?}");
}

fn a_writer_is_seen_until_it_closes<O: Outside>(outside: &O) {
    let tree = outside.tree();
    put(tree, &at("file"), b"bytes");
    let file = tree.open(&at("file")).unwrap();
    let quiet = tree.writer(&file).unwrap();
    assert_ne!(quiet, Writer::Some);
    let one = outside.open_for_writing(&path("file"));
    let two = outside.open_for_writing(&path("file"));
    let busy = if quiet == Writer::None { Writer::Some } else { Writer::Unknown };
    assert_eq!(tree.writer(&file), Ok(busy));
    drop(one);
    assert_eq!(tree.writer(&file), Ok(busy));
    drop(two);
    assert_eq!(tree.writer(&file), Ok(quiet));
    drop(outside.open_for_writing(&path("file")));
}

fn a_fifo_is_looked_at_and_never_opened<O: Outside>(outside: &O) {
    let tree = outside.tree();
    outside.make_fifo(&path("fifo"));
    assert_eq!(tree.stat(&at("fifo")).unwrap().kind, Kind::Special);
    refused(tree.open(&at("fifo")), &TreeError::WrongKind);
    refused(tree.open_for_metadata(&at("fifo")), &TreeError::WrongKind);
    refused(tree.list(&at("fifo")), &TreeError::WrongKind);
    refused(tree.read_link(&at("fifo")), &TreeError::WrongKind);
    assert_eq!(names(tree, &root()), [b"fifo"]);
    tree.rename(&at("fifo"), &temp("fifo")).unwrap();
    refused(tree.open_temp("fifo"), &TreeError::WrongKind);
}

fn a_root_without_its_marker_is_not_touched<O: Outside>(outside: &O) {
    let tree = outside.tree();
    assert_eq!(tree.check_root(), Ok(()));
    let marker = outside.marker();
    outside.set_marker(None);
    assert!(matches!(tree.check_root(), Err(RootError::NoMarker { .. })));
    outside.set_marker(Some(&marker));
    assert_eq!(tree.check_root(), Ok(()));
}

fn a_root_with_another_marker_is_not_touched<O: Outside>(outside: &O) {
    let tree = outside.tree();
    let marker = outside.marker();
    let id = marker.rsplit('"').nth(1).unwrap();
    let other_id = marker.replace(id, "0123456789abcdef0123456789abcdef");
    let other_share = marker.replace("share = \"", "share = \"other-");
    for other in [other_id, other_share] {
        assert_ne!(other, marker);
        outside.set_marker(Some(&other));
        assert!(matches!(tree.check_root(), Err(RootError::OtherRoot { .. })));
    }
    outside.set_marker(Some(""));
    assert!(tree.check_root().is_err(), "a marker that says nothing is none");
    outside.set_marker(Some(&marker));
    assert_eq!(tree.check_root(), Ok(()));
}

fn a_root_that_was_moved_is_not_touched<O: Outside>(outside: &O) {
    let tree = outside.tree();
    put(tree, &at("file"), b"bytes");
    outside.move_root_away(true);
    assert!(matches!(tree.check_root(), Err(RootError::NoMarker { .. })));
    assert_eq!(get(tree, &at("file")), b"bytes", "the tree stays with what it opened");
    outside.set_marker(Some("share = \"x\"\nid = \"0123456789abcdef0123456789abcdef\"\n"));
    assert!(matches!(tree.check_root(), Err(RootError::OtherRoot { .. })));
    outside.move_root_back();
    assert_eq!(tree.check_root(), Ok(()));

    let marker = outside.marker();
    outside.move_root_away(true);
    outside.set_marker(Some(&marker));
    let found = tree.check_root();
    assert!(matches!(found, Err(RootError::OtherRoot { .. })), "a copy is another root: {found:?}");
    outside.move_root_back();
    outside.move_root_away(false);
    assert!(matches!(tree.check_root(), Err(RootError::NoRoot { .. })));
    outside.move_root_back();
    assert_eq!(tree.check_root(), Ok(()));
}
