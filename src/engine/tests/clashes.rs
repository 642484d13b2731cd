//! Renames of every kind, whenever they happened, and what two nodes did to the same names while
//! they were apart: a named row each.

use std::time::Duration;

use recsync_proto::message::{INLINE_LEN_MAX, Lane};

use super::harness::{What, World, path};
use crate::engine::{Event, Input};
use crate::index::IndexRead as _;

const SECOND: Duration = Duration::from_secs(1);

/// Two linked nodes with these files, consistent.
fn with_files(files: &[(&str, &str)]) -> World {
    let mut world = World::pair();
    for (name, bytes) in files {
        world.write(0, name, bytes);
    }
    world.settle();
    world.check_quiet();
    world.forget();
    world
}

/// Bytes too long to travel inside an announcement.
fn long(tag: &str) -> String {
    tag.repeat(usize::try_from(INLINE_LEN_MAX).unwrap() / tag.len() + 1)
}

/// The tree of a node, each file with its first bytes; a conflict copy's name ends with `!`.
fn tree(world: &World, of: usize) -> Vec<String> {
    let mut tree: Vec<_> = world.nodes[of]
        .disk
        .objects
        .iter()
        .map(|(path, object)| {
            let name = path.to_string();
            let name =
                name.split_once(".conflict-").map_or(name.clone(), |(stem, _)| format!("{stem}!"));
            match &object.what {
                What::File(bytes) => {
                    let bytes = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).into_owned();
                    format!("{name} = {bytes}")
                }
                What::Dir => format!("{name}/"),
                What::Link(target) => format!("{name} -> {}", String::from_utf8_lossy(target)),
                What::Special => format!("{name} special"),
            }
        })
        .collect();
    tree.sort();
    tree
}

/// The winner's node has not told of it yet, for that waits behind a backlog: the other one must not take its version
/// for safe meanwhile, nor if the link goes down then.
#[test]
fn a_version_that_lost_is_not_acknowledged_as_durable_before_its_copy_is_there() {
    let mut world = World::pair();
    world.cut(0, 1);
    world.write(0, "call.wav", "lost");
    world.run_for(SECOND);
    world.write(1, "call.wav", "won");
    world.run_for(SECOND);
    world.forget();
    world.hold_up(1, 0, Lane::Bulk);
    world.link(0, 1);
    world.run_for(10 * SECOND);
    let replicated = |world: &World| {
        let is_it = |event: &&Event| matches!(event, Event::Replicated { path, .. } if path.name() == b"call.wav");
        world.nodes[0].events().filter(is_it).count()
    };
    let (of, peer) = (&world.nodes[0], &world.nodes[1].name);
    let seq = of.entry("call.wav").seq;
    assert!(of.index.is_held(peer, seq).unwrap(), "it is known there, and not there");
    assert_eq!(replicated(&world), 0);
    world.check_file(0, "call.wav", "lost");

    world.let_go();
    world.settle();
    assert_eq!(tree(&world, 0), ["call! = lost", "call.wav = won"]);
    assert_eq!(tree(&world, 1), tree(&world, 0));
    world.check_quiet();
}

// ---- renames ---------------------------------------------------------------------------------

/// When the renames happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// While everything was up.
    Live,
    /// While the daemon was down.
    Down,
    /// While the nodes were apart.
    Apart,
    /// While the nodes were apart, and then the daemon was started again.
    ApartAndRestarted,
}

const WHENS: [When; 4] = [When::Live, When::Down, When::Apart, When::ApartAndRestarted];

type Deeds = fn(&mut World);

/// Renames in the tree `d/1` (short), `d/2`, `d/e/3` (long): the tree that they leave, and how many
/// files' bytes may cross the wire for them.
const RENAMES: [(&str, Deeds, &[&str], usize); 11] = [
    (
        "a file gets another name",
        |world| world.rename(0, "d/1", "d/x"),
        &["d/", "d/2 = two,two,two,", "d/e/", "d/e/3 = three,three,", "d/x = one"],
        0,
    ),
    (
        "a file moves to another directory",
        |world| world.rename(0, "d/2", "archive/2026/2"),
        &[
            "archive/",
            "archive/2026/",
            "archive/2026/2 = two,two,two,",
            "d/",
            "d/1 = one",
            "d/e/",
            "d/e/3 = three,three,",
        ],
        0,
    ),
    (
        "a directory gets another name",
        |world| world.rename(0, "d", "x"),
        &["x/", "x/1 = one", "x/2 = two,two,two,", "x/e/", "x/e/3 = three,three,"],
        0,
    ),
    (
        "a directory moves into a new one",
        |world| world.rename(0, "d/e", "archive/e"),
        &[
            "archive/",
            "archive/e/",
            "archive/e/3 = three,three,",
            "d/",
            "d/1 = one",
            "d/2 = two,two,two,",
        ],
        0,
    ),
    (
        "a file is renamed twice",
        |world| {
            world.rename(0, "d/2", "d/t");
            world.rename(0, "d/t", "d/u");
        },
        &["d/", "d/1 = one", "d/e/", "d/e/3 = three,three,", "d/u = two,two,two,"],
        0,
    ),
    (
        "a directory is renamed twice",
        |world| {
            world.rename(0, "d", "t");
            world.rename(0, "t", "u");
        },
        &["u/", "u/1 = one", "u/2 = two,two,two,", "u/e/", "u/e/3 = three,three,"],
        0,
    ),
    (
        "a chain: each file takes the next one's name",
        |world| {
            world.rename(0, "d/e/3", "d/4");
            world.rename(0, "d/2", "d/e/3");
            world.rename(0, "d/1", "d/2");
        },
        &["d/", "d/2 = one", "d/4 = three,three,", "d/e/", "d/e/3 = two,two,two,"],
        3,
    ),
    (
        "a swap: two files change names",
        |world| {
            world.rename(0, "d/2", "t");
            world.rename(0, "d/e/3", "d/2");
            world.rename(0, "t", "d/e/3");
        },
        &["d/", "d/1 = one", "d/2 = three,three,", "d/e/", "d/e/3 = two,two,two,"],
        2,
    ),
    (
        "a replacement: converted to a temporary name, renamed over",
        |world| {
            world.write(0, "d/.2.tmp", "converted");
            world.rename(0, "d/.2.tmp", "d/2");
        },
        &["d/", "d/1 = one", "d/2 = converted", "d/e/", "d/e/3 = three,three,"],
        1,
    ),
    (
        "a file renamed over another",
        |world| world.rename(0, "d/2", "d/1"),
        &["d/", "d/1 = two,two,two,", "d/e/", "d/e/3 = three,three,"],
        0,
    ),
    (
        "a copy elsewhere, and the first one deleted, as mv does between file systems",
        |world| {
            let bytes = long("two,");
            world.write(0, "archive/2", &bytes);
            world.run_for(SECOND);
            world.remove(0, "d/2");
        },
        &[
            "archive/",
            "archive/2 = two,two,two,",
            "d/",
            "d/1 = one",
            "d/e/",
            "d/e/3 = three,three,",
        ],
        0,
    ),
];

#[test]
fn renames_move_no_content_whenever_they_happen() {
    for (name, deeds, expected, crossing) in RENAMES {
        for when in WHENS {
            let mut world =
                with_files(&[("d/1", "one"), ("d/2", &long("two,")), ("d/e/3", &long("three,"))]);
            let apart = matches!(when, When::Apart | When::ApartAndRestarted);
            if apart {
                world.cut(0, 1);
                world.settle();
            }
            deeds(&mut world);
            if when == When::Down {
                world.nodes[0].inbox.clear();
                world.restart(0);
            }
            world.settle();
            if when == When::ApartAndRestarted {
                world.restart(0);
                world.settle();
            }
            if apart {
                world.link(0, 1);
                world.settle();
            }
            world.check_quiet();
            assert_eq!(tree(&world, 1), expected, "{name}, {when:?}");
            assert_eq!(world.nodes[1].conflicts(), 0);
            let inside =
                world.nodes[0].announced().iter().filter(|one| one.inline.is_some()).count();
            let crossed = inside + world.nodes[1].fetches();
            // What a node noted as a rename before it was started again it knows by hash alone: small
            // files travel in their announcements then.
            let short = usize::from(when == When::ApartAndRestarted);
            assert!(crossed <= crossing + short, "{name}, {when:?}: {crossed} files crossed");
        }
    }
}

#[test]
fn a_directory_of_many_files_is_renamed_as_a_whole() {
    let names: Vec<String> = (0..1_000).map(|call| format!("d/{}/{call}.wav", call % 10)).collect();
    for apart in [false, true] {
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        let mut world = with_files(&files);
        if apart {
            world.cut(0, 1);
        }
        world.rename(0, "d", "2026/archive");
        world.run_for(100 * SECOND);
        world.link(0, 1);
        world.run_for(100 * SECOND);
        world.check_quiet();
        assert_eq!(world.nodes[1].disk.objects.len(), 2 + 10 + 1_000);
        assert_eq!(world.nodes[1].fetches(), 0);
        assert!(world.nodes[0].announced().iter().all(|one| one.inline.is_none()), "{apart}");
        assert_eq!(world.nodes[1].disk.trash, []);
    }
}

// ---- clashes ---------------------------------------------------------------------------------

/// What the first node did and what the second one did, a second later, and the tree of both in the
/// end. Before there were `a`, `b` and `d/1`.
const CLASHES: [(&str, Deeds, Deeds, &[&str]); 19] = [
    (
        "renamed here, modified there",
        |world| world.rename(0, "a", "x"),
        |world| world.write(1, "a", "theirs"),
        &["a = theirs", "b = two", "d/", "d/1 = three", "x = one"],
    ),
    (
        "modified here, renamed there",
        |world| world.write(0, "a", "ours"),
        |world| world.rename(1, "a", "x"),
        &["a = ours", "b = two", "d/", "d/1 = three", "x = one"],
    ),
    (
        "modified and renamed here, modified there",
        |world| {
            world.write(0, "a", "ours");
            world.rename(0, "a", "x");
        },
        |world| world.write(1, "a", "theirs"),
        &["a = theirs", "b = two", "d/", "d/1 = three", "x = ours"],
    ),
    (
        "one file renamed to two names",
        |world| world.rename(0, "a", "x"),
        |world| world.rename(1, "a", "y"),
        &["b = two", "d/", "d/1 = three", "x = one", "y = one"],
    ),
    (
        "one file renamed to the same name on both",
        |world| world.rename(0, "a", "x"),
        |world| world.rename(1, "a", "x"),
        &["b = two", "d/", "d/1 = three", "x = one"],
    ),
    (
        "two files renamed to one name",
        |world| world.rename(0, "a", "x"),
        |world| world.rename(1, "b", "x"),
        &["d/", "d/1 = three", "x = two", "x! = one"],
    ),
    (
        "renamed here, deleted there",
        |world| world.rename(0, "a", "x"),
        |world| world.remove(1, "a"),
        &["b = two", "d/", "d/1 = three", "x = one"],
    ),
    (
        "swapped here, one modified there",
        |world| {
            world.rename(0, "a", "t");
            world.rename(0, "b", "a");
            world.rename(0, "t", "b");
        },
        |world| world.write(1, "a", "theirs"),
        &["a = theirs", "a! = two", "b = one", "d/", "d/1 = three"],
    ),
    (
        "a directory deleted here, a file made in it there",
        |world| world.remove(0, "d"),
        |world| world.write(1, "d/2", "new"),
        &["a = one", "b = two", "d/", "d/2 = new"],
    ),
    (
        "a directory deleted here, a file in it modified there",
        |world| world.remove(0, "d"),
        |world| world.write(1, "d/1", "theirs"),
        &["a = one", "b = two", "d/", "d/1 = theirs"],
    ),
    (
        "a directory deleted here, a file moved into it there",
        |world| world.remove(0, "d"),
        |world| world.rename(1, "a", "d/a"),
        &["b = two", "d/", "d/a = one"],
    ),
    (
        "a directory deleted here, a directory made in it there",
        |world| world.remove(0, "d"),
        |world| world.mkdir(1, "d/e"),
        &["a = one", "b = two", "d/", "d/e/"],
    ),
    (
        "a directory renamed here, a file made in it there",
        |world| world.rename(0, "d", "e"),
        |world| world.write(1, "d/2", "new"),
        &["a = one", "b = two", "d/", "d/2 = new", "e/", "e/1 = three"],
    ),
    (
        "a directory renamed here, a file in it modified there",
        |world| world.rename(0, "d", "e"),
        |world| world.write(1, "d/1", "theirs"),
        &["a = one", "b = two", "d/", "d/1 = theirs", "e/", "e/1 = three"],
    ),
    (
        "a directory replaced by a file here, a file made in it there",
        |world| {
            world.remove(0, "d");
            world.write(0, "d", "a file");
        },
        |world| world.write(1, "d/2", "new"),
        &["a = one", "b = two", "d! = a file", "d/", "d/2 = new"],
    ),
    (
        "the mode changed here, the bytes there",
        |world| world.chmod(0, "a", 0o600),
        |world| world.write(1, "a", "theirs"),
        &["a = theirs", "b = two", "d/", "d/1 = three"],
    ),
    (
        "the bytes changed here, mode and mtime there",
        |world| world.write(0, "a", "ours"),
        |world| {
            world.chmod(1, "a", 0o600);
            world.touch(1, "a", 1_000_000_007);
        },
        &["a = ours", "b = two", "d/", "d/1 = three"],
    ),
    (
        "the mode changed on both",
        |world| world.chmod(0, "a", 0o640),
        |world| world.chmod(1, "a", 0o600),
        &["a = one", "b = two", "d/", "d/1 = three"],
    ),
    (
        "the same bytes written on both",
        |world| world.write(0, "a", "same"),
        |world| world.write(1, "a", "same"),
        &["a = same", "b = two", "d/", "d/1 = three"],
    ),
];

#[test]
fn what_two_nodes_did_apart_has_one_answer() {
    for (name, ours, theirs, expected) in CLASHES {
        // In whatever order the two are heard of, and whether or not they were up meanwhile.
        for restart in [None, Some(0), Some(1)] {
            let mut world = with_files(&[("a", "one"), ("b", "two"), ("d/1", "three")]);
            world.cut(0, 1);
            world.settle();
            ours(&mut world);
            world.run_for(SECOND);
            theirs(&mut world);
            world.run_for(SECOND);
            if let Some(of) = restart {
                world.restart(of);
                world.settle();
            }
            world.link(0, 1);
            world.settle();
            world.check_quiet();
            assert_eq!(tree(&world, 0), expected, "{name}, {restart:?}");
            let chmods = name.contains("mode");
            let a = world.nodes[1].disk.objects.iter().find(|(path, _)| path.as_bytes() == b"a");
            assert!(!chmods || a.unwrap().1.mode == 0o600, "{name}: the mode survives");
        }
    }
}

#[test]
fn a_conflict_of_a_conflict_copy_keeps_all_three() {
    let mut world = with_files(&[("a.wav", "one")]);
    world.cut(0, 1);
    world.settle();
    world.write(0, "a.wav", "ours");
    world.run_for(SECOND);
    world.write(1, "a.wav", "theirs");
    world.settle();
    world.link(0, 1);
    world.settle();
    assert_eq!(tree(&world, 0), ["a! = ours", "a.wav = theirs"]);
    let copy = world.nodes[0].disk.objects.keys().map(ToString::to_string);
    let copy = copy.into_iter().find(|name| name.contains(".conflict-")).unwrap();
    world.cut(0, 1);
    world.settle();
    world.write(0, &copy, "ours, edited here");
    world.run_for(SECOND);
    world.write(1, &copy, "ours, edited there");
    world.settle();
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    assert_eq!(tree(&world, 1), ["a! = ours, edited", "a! = ours, edited", "a.wav = theirs"]);
    let twice = |name: &str| name.matches(".conflict-").count() > 1;
    assert!(world.nodes[0].disk.objects.keys().all(|path| !twice(&path.to_string())));
    world.check_file(0, &copy, "ours, edited there");
}

#[test]
fn a_file_renamed_over_another_with_equal_bytes_is_a_version_of_its_own() {
    for restart in [false, true] {
        let mut world = with_files(&[("a.wav", "one"), ("b.wav", "one")]);
        world.cut(0, 1);
        world.settle();
        world.write(1, "a.wav", "two");
        world.settle();
        // Whoever deletes the one name here has put its bytes under the other.
        world.rename(0, "b.wav", "a.wav");
        if restart {
            world.restart(0);
        }
        world.settle();
        world.link(0, 1);
        world.settle();
        world.check_quiet();
        assert_eq!(tree(&world, 1), ["a! = two", "a.wav = one"], "restart: {restart}");
    }
}

#[test]
fn a_file_renamed_over_one_that_is_about_to_be_replaced_is_kept() {
    let mut world = with_files(&[("a.wav", "one"), ("b.wav", "one")]);
    world.cut(0, 1);
    world.settle();
    world.write(1, "a.wav", "two");
    world.settle();
    // The change is known here, and its bytes have not come.
    world.link(0, 1);
    while !world.nodes[0].entry("a.wav").pending {
        assert!(world.act(), "the change is heard of");
    }
    world.rename(0, "b.wav", "a.wav");
    world.settle();
    world.check_quiet();
    assert_eq!(tree(&world, 1), ["a! = two", "a.wav = one"]);
}

/// No clash is made up where a file became a directory: the peer hears of the directory first.
#[test]
fn what_is_below_a_name_is_told_after_the_name() {
    // While the file is under way, and what the peer says is not heard.
    let mut world = World::pair();
    world.hold_up(1, 0, Lane::Live);
    world.write(0, "a", "file");
    world.run_for(Duration::from_secs(1));
    world.remove(0, "a");
    world.write(0, "a/b", "below");
    world.run_for(Duration::from_secs(1));
    world.let_go();
    world.settle();
    world.check_quiet();
    assert_eq!([world.nodes[0].conflicts(), world.nodes[1].conflicts()], [0, 0]);
    // And where the directory was changed after that, and has a later place in the log.
    let mut world = World::pair();
    world.write(0, "a", "file");
    world.settle();
    world.cut(0, 1);
    world.remove(0, "a");
    world.write(0, "a/b", "below");
    world.run_for(Duration::from_secs(1));
    world.chmod(0, "a", 0o700);
    world.run_for(Duration::from_secs(1));
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    assert_eq!([world.nodes[0].conflicts(), world.nodes[1].conflicts()], [0, 0]);
    // And where some of what is below goes by the same lane as the directory, and the rest by the other one.
    let mut world = World::pair();
    world.hold_up(1, 0, Lane::Live);
    world.write(0, "a", "file");
    world.run_for(SECOND);
    world.remove(0, "a");
    world.write(0, "a/c", "below");
    world.run_for(SECOND);
    world.make_unheard(0, "a/b", "found");
    world.scan(0);
    world.run_for(SECOND);
    world.hold_up(0, 1, Lane::Live);
    world.run_for(SECOND);
    world.let_go();
    world.settle();
    world.check_quiet();
    assert_eq!([world.nodes[0].conflicts(), world.nodes[1].conflicts()], [0, 0]);
}

/// A directory that came and went under a name is no other version than the file that its user puts there then.
#[test]
fn a_file_where_a_directory_was_for_an_instant_is_no_clash() {
    let mut world = World::pair();
    world.mkdir(0, "a/b");
    // The name above was not looked at while it was there.
    world.nodes[0]
        .inbox
        .retain(|input| matches!(input, Input::Dirty { path, .. } if path.name() == b"b"));
    world.settle();
    world.nodes[0].disk.objects.remove(&path("a/b"));
    world.nodes[0].disk.objects.remove(&path("a"));
    world.write(0, "a", "hello");
    world.settle();
    assert_eq!([world.nodes[0].conflicts(), world.nodes[1].conflicts()], [0, 0]);
    world.check_quiet();
    world.check_file(1, "a", "hello");
}
