//! Looks and scans on a real disk, with failures and other people's hands at every step.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use recsync_proto::{Content, Epoch, SharePath};

use super::faults::{Fault, Faulty};
use super::fixture::{Act, Share, hash_of, share_path, wall_ns};
use super::{ScanError, ScanItem, ScanReport, Synced, look, scan};
use crate::engine::{Hint, Look};
use crate::index::{Entry, Index as _, IndexRead as _, Installed, Memory, Write};
use crate::tree::{Kind, Place, Tree};

const SETTLE: Duration = Duration::from_millis(20);
const SECOND: i64 = 1_000_000_000;

/// Looks as the daemon does a while after the last change.
fn look_later<T: Tree>(tree: &T, path: &str, installed: Option<&Installed>, hint: Hint) -> Look {
    look(tree, &Synced::default(), &share_path(path), installed, hint, SETTLE, || {
        wall_ns() + 3 * SECOND
    })
}

fn written<T: Tree>(tree: &T, path: &str) -> Look {
    look_later(tree, path, None, Hint::Written)
}

fn found(share: &Share, path: &str) -> Look {
    let Installed { content, fingerprint, owner, .. } = share.installed(path);
    Look::Found { content, fingerprint, owner }
}

#[test]
fn a_look_tells_what_is_there() {
    let share = Share::new();
    share.put("dir/file", b"bytes");
    share.put("dir/empty", b"");
    share.put_link("dir/link", "nowhere");
    share.put_fifo("dir/fifo");
    for path in ["dir", "dir/file", "dir/empty", "dir/link"] {
        assert_eq!(written(&share.tree, path), found(&share, path), "{path}");
    }
    assert_eq!(written(&share.tree, "dir/fifo"), Look::Special);
    assert_eq!(written(&share.tree, "dir/none"), Look::Absent);
    assert_eq!(written(&share.tree, "none/none"), Look::Absent);
}

#[test]
fn nothing_is_below_a_file_or_a_link() {
    let share = Share::new();
    share.put("file", b"bytes");
    share.put_dir("dir");
    share.put_link("link", "dir");
    assert_eq!(written(&share.tree, "file/a"), Look::Absent);
    assert_eq!(written(&share.tree, "file/a/b"), Look::Absent);
    share.put("dir/a", b"elsewhere");
    assert_eq!(written(&share.tree, "link/a"), Look::Absent);
    assert_eq!(written(&share.tree, "link/a/b"), Look::Absent);
}

#[test]
fn what_is_installed_is_unchanged_and_not_read() {
    let share = Share::new();
    share.put("file", b"bytes");
    let installed = share.installed("file");
    let tree = Faulty::new(&share.tree, 1, Fault::Stop);
    assert_eq!(look_later(&tree, "file", Some(&installed), Hint::Created), Look::Unchanged);
}

#[test]
fn a_change_of_mode_alone_is_found_without_reading() {
    let share = Share::new();
    share.put("file", b"bytes");
    let mut installed = share.installed("file");
    // What was never in the file: it is told only if the file is not read.
    installed.content = Content::File { size: 5, hash: hash_of(b"other") };
    share.set_mode("file", 0o600);
    let look = |hint| look_later(&share.tree, "file", Some(&installed), hint);
    let fingerprint = share.stat("file");
    let (content, owner) = (installed.content.clone(), installed.owner.clone());
    assert_eq!(look(Hint::Attributes), Look::Found { content, fingerprint, owner });
    assert_eq!(look(Hint::Written), found(&share, "file"));
    share.put("file", b"other bytes");
    assert_eq!(look(Hint::Attributes), found(&share, "file"));
}

#[test]
fn a_file_that_is_open_for_writing_is_busy() {
    let share = Share::new();
    share.put("file", b"bytes");
    let writer = share.open_for_writing("file");
    for hint in [Hint::Written, Hint::Attributes, Hint::Created] {
        assert_eq!(look_later(&share.tree, "file", None, hint), Look::Busy);
    }
    drop(writer);
    assert_eq!(written(&share.tree, "file"), found(&share, "file"));
}

#[test]
fn a_file_that_changed_in_this_instant_is_unstable() {
    let share = Share::new();
    share.put("file", b"bytes");
    let ctime_ns = share.stat("file").ctime_ns;
    let at = |age_ms: i64| {
        let wall_ns = || ctime_ns + age_ms * 1_000_000;
        let tree = Faulty::new(&share.tree, usize::MAX, Fault::Stop);
        look(&tree, &Synced::default(), &share_path("file"), None, Hint::Written, SETTLE, wall_ns)
    };
    assert_eq!(at(9), Look::Unstable);
    // The default settle is longer than that: it holds up nothing.
    assert_eq!(at(20), found(&share, "file"));
    assert_eq!(at(-1), found(&share, "file"));
}

#[test]
fn a_directory_that_did_not_change_is_synced_once() {
    let share = Share::new();
    share.put("dir/one", b"bytes");
    let synced = Synced::default();
    let syncs = |path: &str| {
        let counting = Faulty::new(&share.tree, usize::MAX, Fault::Stop);
        let later = || wall_ns() + 3 * SECOND;
        let look = look(&counting, &synced, &share_path(path), None, Hint::Written, SETTLE, later);
        assert_eq!(look, found(&share, path));
        counting.dirs_synced()
    };
    assert_eq!(syncs("dir/one"), 2, "the root and the directory");
    assert_eq!(syncs("dir/one"), 0);
    share.put("dir/two", b"bytes");
    assert_eq!(syncs("dir/two"), 1, "a new name in it");
    assert_eq!(syncs("dir/one"), 0);
    share.rename("dir", "other");
    share.put("dir/one", b"bytes");
    assert_eq!(syncs("dir/one"), 2, "another directory under the name");
}

#[test]
fn where_every_change_shows_nothing_waits_for_the_clock() {
    let share = Share::new();
    share.put("file", b"bytes");
    let ctime_ns = share.stat("file").ctime_ns;
    let at_once = look(
        &share.tree,
        &Synced::default(),
        &share_path("file"),
        None,
        Hint::Written,
        SETTLE,
        || ctime_ns,
    );
    let exact = share.tree.has_exact_times();
    assert_eq!(at_once, if exact { found(&share, "file") } else { Look::Unstable });
}

#[test]
fn without_the_kernels_word_a_file_must_be_old_enough() {
    let wav = |told: u32, len: usize| {
        let mut bytes = [b"RIFF", &told.to_le_bytes()[..], b"WAVE"].concat();
        bytes.resize(len, 0);
        bytes
    };
    let weak = SETTLE * 8;
    let unfinished = Duration::from_secs(600);
    let cases: [(&str, Vec<u8>, Duration); 8] = [
        ("text", b"some text".to_vec(), weak),
        ("short", b"RIFF".to_vec(), weak),
        ("empty", Vec::new(), unfinished),
        ("header of a recording under way", wav(0, 1_000), unfinished),
        ("header updated early", wav(500, 1_000), unfinished),
        ("finished", wav(992, 1_000), weak),
        ("finished, padded", wav(991, 1_000), weak),
        ("longer than a header can tell", wav(u32::MAX, 1_000), weak),
    ];
    for (name, bytes, needed) in cases {
        let share = Share::new();
        share.put("file", &bytes);
        let tree = Faulty::without_leases(&share.tree);
        let ctime_ns = share.stat("file").ctime_ns;
        let at = |age: Duration| {
            let wall_ns = || ctime_ns + i64::try_from(age.as_nanos()).unwrap();
            look(
                &tree,
                &Synced::default(),
                &share_path("file"),
                None,
                Hint::Written,
                SETTLE,
                wall_ns,
            )
        };
        let young = needed - Duration::from_millis(1);
        assert_eq!(at(young), Look::TooFresh(Duration::from_millis(1)), "{name}");
        assert_eq!(at(needed), found(&share, "file"), "{name}");
    }
}

#[test]
fn a_file_beyond_the_protocol_is_not_synced() {
    let share = Share::new();
    share.put("file", b"");
    share.open_for_writing("file").set_len((1 << 40) + 1).unwrap();
    assert!(matches!(written(&share.tree, "file"), Look::Unsyncable(_)));
}

#[test]
fn a_failure_at_any_step_is_evidence_of_nothing() {
    let share = Share::new();
    share.put("file", b"bytes");
    share.put_link("link", "nowhere");
    share.put_dir("dir");
    for path in ["file", "link", "dir", "file/below"] {
        let truth = written(&share.tree, path);
        for step in 0.. {
            let tree = Faulty::new(&share.tree, step, Fault::Fail(1));
            let seen = written(&tree, path);
            let known = !matches!(seen, Look::Unknown(_));
            assert!(!known || seen == truth, "{path}: step {step} fails: {seen:?}");
            if !tree.was_met() {
                assert!(known);
                break;
            }
        }
    }
}

#[test]
fn what_is_found_belongs_to_its_fingerprint_whoever_acts_at_any_step() {
    let hands: [(&str, Act); 6] = [
        ("writes in place", |share| share.put("dir/file", b"something longer")),
        ("cuts it", |share| share.put("dir/file", b"")),
        ("saves another", |share| share.put_anew("dir/file", b"something else")),
        ("removes it", |share| share.remove("dir/file")),
        ("puts a link there", |share| {
            share.remove("dir/file");
            share.put_link("dir/file", "nowhere");
        }),
        ("moves its directory", |share| {
            share.rename("dir", "elsewhere");
            share.put("dir/file", b"another");
        }),
    ];
    for (name, act) in hands {
        for step in 0.. {
            let share = Share::new();
            share.put("dir/file", b"some bytes");
            let tree = Faulty::act(&share.tree, step, || act(&share));
            if let Look::Found { content, fingerprint, .. } = written(&tree, "dir/file") {
                let now = share.tree.stat(&Place::Share(share_path("dir/file"))).ok();
                if now == Some(fingerprint) {
                    assert_eq!(content, share.installed("dir/file").content, "{name} at {step}");
                } else {
                    // Whoever acted came after the last look.
                    let before = Content::File { size: 10, hash: hash_of(b"some bytes") };
                    assert_eq!(content, before, "{name} at {step}");
                    assert!(!tree.was_met(), "{name} at {step} was missed");
                }
            }
            if !tree.was_met() {
                break;
            }
        }
    }
}

#[test]
fn a_writer_that_comes_at_any_step_is_seen_or_comes_too_late() {
    for step in 0.. {
        let share = Share::new();
        share.put("file", b"some bytes");
        let writer = std::sync::Mutex::new(None);
        let tree = Faulty::act(&share.tree, step, || {
            *writer.lock().unwrap() = Some(share.open_for_writing("file"));
        });
        let seen = written(&tree, "file");
        let was_met = tree.was_met();
        drop(tree);
        // The last two steps: the second probe, and the stat after it.
        let came = writer.into_inner().unwrap().is_some();
        assert!(matches!(seen, Look::Busy | Look::Found { .. }), "{seen:?}");
        if seen != Look::Busy && came {
            assert_eq!(seen, found(&share, "file"), "step {step}");
            let next = Faulty::new(&share.tree, step + 1, Fault::Stop);
            let _whole = written(&next, "file");
            assert!(!next.was_met(), "a writer at step {step} was missed before the last one");
        }
        if !was_met {
            break;
        }
    }
}

// Scans.

fn install(index: &mut Memory, share: &Share, path: &str) {
    let entry = Entry { installed: Some(share.installed(path)), ..Entry::default() };
    index.write(&Write::Entry(share_path(path), entry)).unwrap();
}

fn index_of(share: &Share) -> Memory {
    let mut index = Memory::new(Epoch(1));
    for (path, _) in share.world() {
        if share.stat(&path).kind != Kind::Special {
            install(&mut index, share, &path);
        }
    }
    index
}

fn scanned<T: Tree>(
    tree: &T,
    index: &Memory,
    dir: &str,
) -> (Vec<ScanItem>, Result<ScanReport, ScanError>) {
    let mut items = Vec::new();
    let report = scan(tree, index, &share_path(dir), &mut |item| {
        items.push(item);
        ControlFlow::Continue(())
    });
    (items, report)
}

fn told(items: &[ScanItem]) -> Vec<String> {
    items.iter().map(|item| format!("{} {:?}", item.path, item.hint)).collect()
}

fn populated() -> Share {
    let share = Share::new();
    share.put("2026/10/a", b"a");
    share.put("2026/10/b", b"bb");
    share.put("2026/11/c", b"ccc");
    share.put("2026.txt", b"t");
    share.put_link("latest", "2026/11");
    share
}

#[test]
fn a_tree_that_is_as_the_index_says_has_no_findings() {
    let share = populated();
    let (items, report) = scanned(&share.tree, &index_of(&share), "");
    assert_eq!(items, []);
    let report = report.unwrap();
    assert!(report.is_complete());
    assert_eq!((report.files, report.bytes, report.dirs), (4, 7, 3));
}

#[test]
fn everything_is_new_to_an_empty_index() {
    let share = populated();
    let (items, _) = scanned(&share.tree, &Memory::new(Epoch(1)), "");
    insta::assert_snapshot!(told(&items).join("\n"), @r"
    2026 Written
    2026.txt Written
    latest Written
    2026/10 Written
    2026/11 Written
    2026/10/a Written
    2026/10/b Written
    2026/11/c Written
    ");
}

#[test]
fn what_is_there_is_told_before_what_is_gone() {
    let share = populated();
    let index = index_of(&share);
    share.rename("2026/10", "2026/old");
    share.remove("2026.txt");
    share.put("2026/11/c", b"changed");
    share.put_fifo("fifo");
    let (items, report) = scanned(&share.tree, &index, "");
    insta::assert_snapshot!(told(&items).join("\n"), @r"
    2026/old Written
    2026/11/c Written
    2026/old/a Written
    2026/old/b Written
    2026.txt MovedAway
    2026/10 MovedAway
    2026/10/a MovedAway
    2026/10/b MovedAway
    ");
    let report = report.unwrap();
    assert_eq!((report.differing, report.absent, report.special), (4, 4, 1));
    assert_eq!(report.special_named, [share_path("fifo")]);
}

#[test]
fn a_scan_of_a_part_tells_of_that_part() {
    let share = populated();
    let index = index_of(&share);
    share.put("2026/10/new", b"n");
    share.put("elsewhere", b"e");
    share.remove("2026/10/a");
    let (items, _) = scanned(&share.tree, &index, "2026/10");
    insta::assert_snapshot!(told(&items).join("\n"), @r"
    2026/10/new Written
    2026/10/a MovedAway
    ");
    // A directory that is gone itself.
    share.remove("2026/10/new");
    share.remove("2026/10/b");
    share.remove_dir("2026/10");
    let (items, _) = scanned(&share.tree, &index, "2026/10");
    insta::assert_snapshot!(told(&items).join("\n"), @r"
    2026/10 MovedAway
    2026/10/a MovedAway
    2026/10/b MovedAway
    ");
}

#[test]
fn what_was_below_a_directory_that_is_a_file_now_is_gone() {
    let share = populated();
    let index = index_of(&share);
    share.rename("2026/10", "elsewhere");
    share.put("2026/10", b"a file now");
    let (items, _) = scanned(&share.tree, &index, "2026");
    insta::assert_snapshot!(told(&items).join("\n"), @r"
    2026/10 Written
    2026/10/a MovedAway
    2026/10/b MovedAway
    ");
}

#[test]
fn what_was_below_names_that_the_index_does_not_know_is_gone() {
    let share = Share::new();
    let mut index = Memory::new(Epoch(1));
    for path in ["d/a/b/1", "d/a-b/2", "d/a/3", "d/kept/c/4", "e/f/5"] {
        share.put(path, b"a call");
        install(&mut index, &share, path);
    }
    share.rename("d", "moved");
    share.put_dir("d");
    share.rename("moved/kept", "d/kept");
    share.rename("e", "elsewhere");
    let gone = |dir| {
        let mut told = told(&scanned(&share.tree, &index, dir).0);
        told.retain(|item| item.ends_with("MovedAway"));
        told.join(", ")
    };
    assert_eq!(gone("d"), "d/a/3 MovedAway, d/a/b/1 MovedAway, d/a-b/2 MovedAway");
    assert_eq!(gone(""), format!("e/f/5 MovedAway, {}", gone("d")));
    assert_eq!(gone("e/f"), "e/f/5 MovedAway");
}

#[test]
fn names_are_compared_in_pages() {
    let share = Share::new();
    for number in 0..2_500 {
        share.put(&format!("dir/{number:05}"), b"x");
    }
    let index = index_of(&share);
    share.remove("dir/01023");
    share.remove("dir/01024");
    share.put("dir/02047x", b"x");
    share.remove("dir/02499");
    let (items, _) = scanned(&share.tree, &index, "");
    insta::assert_snapshot!(told(&items).join("\n"), @r"
    dir/02047x Written
    dir/01023 MovedAway
    dir/01024 MovedAway
    dir/02499 MovedAway
    ");
}

#[test]
fn a_failure_at_any_step_makes_nothing_absent() {
    let share = populated();
    let index = index_of(&share);
    share.remove("2026.txt");
    for step in 0.. {
        let tree = Faulty::new(&share.tree, step, Fault::Fail(1));
        let (items, report) = scanned(&tree, &index, "");
        let absent: BTreeSet<SharePath> = (items.into_iter())
            .filter(|item| item.hint == Hint::MovedAway)
            .map(|item| item.path)
            .collect();
        let only = BTreeSet::from([share_path("2026.txt")]);
        assert!(absent.is_subset(&only), "step {step}: {absent:?}");
        if !tree.was_met() {
            assert!(report.unwrap().is_complete());
            break;
        }
        assert!(!report.is_ok_and(|report| report.is_complete()) || absent == only);
    }
}

#[test]
fn below_what_is_a_file_by_now_all_is_gone() {
    let share = Share::new();
    share.put("a/b/c", b"1");
    let index = index_of(&share);
    share.remove("a/b/c");
    share.remove_dir("a/b");
    share.remove_dir("a");
    share.put("a", b"2");
    let (items, report) = scanned(&share.tree, &index, "a/b");
    assert_eq!(told(&items), ["a/b MovedAway", "a/b/c MovedAway"]);
    assert!(report.unwrap().is_complete());
}

#[test]
fn what_a_failure_hides_is_to_be_scanned_again() {
    let share = populated();
    let index = Memory::new(Epoch(1));
    let (everything, _) = scanned(&share.tree, &index, "");
    for step in 0.. {
        let tree = Faulty::new(&share.tree, step, Fault::Fail(1));
        let (items, report) = scanned(&tree, &index, "");
        let again = report.map_or(vec![share_path("")], |report| report.again(&share_path("")));
        for item in &everything {
            let covered = again.iter().any(|dir| item.path == *dir || item.path.is_below(dir));
            assert!(items.contains(item) || covered, "step {step}: {}", item.path);
        }
        if !tree.was_met() {
            assert_eq!(again, []);
            break;
        }
    }
}

#[test]
fn without_the_marker_nothing_is_absent() {
    for step in 0.. {
        let share = populated();
        let index = index_of(&share);
        share.remove("2026.txt");
        let tree = Faulty::act(&share.tree, step, || {
            share.remove(".recsync/share.toml");
            share.remove("2026/10/a");
        });
        let (items, report) = scanned(&tree, &index, "");
        if !tree.was_met() {
            break;
        }
        let absent = items.iter().filter(|item| item.hint == Hint::MovedAway).count();
        assert!(absent == 0 && report.is_err(), "step {step}: {items:?}");
    }
}

#[test]
fn a_scan_stops_when_it_is_told() {
    let share = populated();
    let mut items = 0;
    let report = scan(&share.tree, &Memory::new(Epoch(1)), &SharePath::root(), &mut |_| {
        items += 1;
        if items == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.unwrap();
    assert_eq!((items, report.stopped, report.is_complete()), (3, true, false));
}

#[test]
fn a_scan_has_no_file_read_that_only_has_another_owner_or_mode() {
    let share = Share::new();
    for name in ["given", "moded", "moved", "written"] {
        share.put(name, b"bytes");
    }
    let mut index = index_of(&share);
    // As if it had belonged to somebody else before.
    let given = share_path("given");
    let mut entry = index.entry(&given).unwrap().unwrap();
    entry.installed.as_mut().unwrap().fingerprint.uid += 1;
    index.write(&Write::Entry(given, entry)).unwrap();
    share.set_mode("moded", 0o600);
    share.set_mode("written", 0o600);
    share.put("written", b"other");
    share.rename("moved", "aside");
    share.rename("aside", "moved");
    let (items, _) = scanned(&share.tree, &index, "");
    insta::assert_snapshot!(told(&items).join("\n"), @r"
    given Attributes
    moded Attributes
    moved Written
    written Written
    ");
}

#[test]
fn a_file_whose_last_block_is_zeros_is_told_apart() {
    let share = Share::new();
    for (name, bytes, hollow) in [
        ("empty", vec![], false),
        ("short", vec![0; 3], true),
        ("sound", [vec![7; 5_000], vec![0; 4_095]].concat(), false),
        ("zeros at its end", [vec![7; 5_000], vec![0; 4_096]].concat(), true),
        ("zeros in between", [vec![0; 9_000], vec![7; 1]].concat(), false),
    ] {
        share.put("file", &bytes);
        let look = written(&share.tree, "file");
        assert_eq!(matches!(look, Look::Hollow(_)), hollow, "{name}");
        assert_eq!(*look.found(), found(&share, "file"), "{name}");
    }
}
