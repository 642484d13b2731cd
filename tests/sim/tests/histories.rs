//! The short run of every commit: a thousand histories of whole clusters, always the same ones. More of
//! them, others, and the story of a failure: `cargo run --release -p recsync-sim -- --help`.

use recsync_sim::campaign::{Campaign, run};
use recsync_sim::history::{History, Part};
use recsync_sim::story::Telling;
use recsync_sim::world::play;

/// Histories of one run; they take some 15 s without optimisation.
const HISTORIES: u64 = 1_000;

/// Histories that once ended wrong, and what was wrong.
const ONCE_WRONG: &[(&str, &[u64])] = &[
    ("a directory whose mode was set as recsync made it had two modes", &[31]),
    (
        "what was written to a new file in the instant in which it was taken back was lost",
        &[1_077_822, 1_089_990, 1_095_604, 1_096_821],
    ),
    (
        "a file was in the trash or in .recsync/tmp, as its directory or name went in that instant",
        &[1_001_636, 1_005_215, 1_016_402, 1_018_266],
    ),
    (
        "a conflict copy that was renamed over the file it lost to was in the trash",
        &[1_000_326, 1_011_850, 1_018_678, 1_019_765],
    ),
    (
        "what was on its way out, or kept from its name by a directory, was acknowledged as there",
        &[1_000_598, 1_007_535, 1_012_960],
    ),
    ("a file in the place of a link whose time was set was taken for the link", &[1_029_579]),
    ("a rename that an earlier run had made was taken for the users'", &[1_001_787]),
    ("a name waited for bytes whose fetch another one had replaced", &[1_004_697]),
    ("older bytes under a newer mtime, after a power cut, were a version", &[1_013_390]),
    ("what had ended in doubt was forgotten with the run", &[3_101, 1_023_736]),
    ("what a user put under a rename's new name was moved to the old one", &[3_010_203, 3_068_497]),
    ("what had gone with the machine was acknowledged as there", &[3_066_869]),
    ("other bytes under the old mtime were not read, as a change of mode followed", &[3_017_013]),
    (
        "what was deleted in a directory that recsync had made and not yet watched came back",
        &[2_000_902, 3_008_534, 3_018_389, 3_037_779, 3_072_053, 3_087_718],
    ),
    ("a directory that was only implied had two modes", &[3_076_273]),
    ("what is below a name was told before the name, which went by the other lane", &[3_029_123]),
    (
        "what an earlier run had put in place was taken for the users', the next version having been heard of",
        &[1_011_029, 3_007_037, 3_055_346, 3_083_858],
    ),
    ("what an earlier run had exchanged was forgotten with the next one", &[3_054_578, 3_060_096]),
    ("a directory that was taken back was kept, and so was what an exchange had put", &[3_063_145]),
    ("a copy of which a peer had a newer version counted as lacking", &[13_070_432]),
    ("a file was found below another one, and made it give way", &[15_075_551]),
    ("what waited below the supposed new name of a renamed file was forgotten", &[11_008_178]),
    (
        "a content that was put again was taken for shipped as the copy that it was then",
        &[10_027_571],
    ),
    ("what a failed sync had dropped was not told from what a later one said", &[10_103_716]),
    (
        "an exchange whose displaced object was taken away before the next start was taken for not made",
        &[10_039_534],
    ),
    ("a mode set after the power cut made news of what the cut had left of a file", &[9_076_535]),
    (
        "what a power cut left of a file that was being written was taken for what a user of the other node removed",
        &[9_001_718],
    ),
    (
        "what was appended to a new object that was taken back superseded the old one alone",
        &[3_003_122],
    ),
    (
        "a file clashed with a directory that had had its name for an instant",
        &[4_005_631, 4_052_788],
    ),
    ("what could not be replaced was taken for the users' version", &[4_074_070]),
    ("what was staged and could not be read was taken for a local change", &[4_007_482]),
    (
        "what recovery could not settle stayed in .recsync/tmp until the next start",
        &[4_026_628, 4_047_287],
    ),
    (
        "what a power cut left under the stat that was, and a later version replaced, was lost",
        &[4_005_557, 4_059_282, 4_088_439],
    ),
    (
        "what a user took away and back as its name was synced was acknowledged as there",
        &[4_046_402],
    ),
    ("a loser that was kept in doubt came back with the winner's end", &[4_033_922]),
    ("a copy renamed to a name that had waited for its bytes was taken for these", &[4_018_837]),
    ("a copy renamed over the same bytes that were to make room was in the trash", &[4_076_876]),
    ("what a power cut left of a file that was deleted kept no directory", &[4_073_137]),
    ("what stood where a rename could not be taken back was taken for a user's", &[4_036_927]),
    ("a write that an unread look passes over was to be told from what it replaced", &[4_079_989]),
    ("what was said to an index that was gone was held against its successor", &[16_994, 38_183]),
    ("what could neither be put in place nor back was hidden until the next start", &[27_462]),
    ("what a directory's maker could not look at was taken for its users'", &[6_029_523]),
    (
        "a name given to an open file stood for the same bytes that others had put there",
        &[6_025_656],
    ),
    ("an acknowledgement on its way was held against what came after it", &[7_021_097]),
    (
        "a file took the name of a directory before what was in that was known to be gone",
        &[7_031_049],
    ),
    ("a name that users took away and gave back was held against an announcement", &[4_026_866]),
    (
        "who touched what recsync put there in that instant had not seen its end",
        &[8_001_433, 4_085_360],
    ),
    ("what a node takes for bytes that it knows was renamed, and taken away", &[8_003_911]),
    ("an index was lost after a look at the trash", &[7_084_050]),
    ("a copy that was gone by then was held against an acknowledgement", &[7_058_222]),
    ("a copy of a copy was held against what had the first name", &[6_012_560]),
    ("what was written to in the trash was not looked at there", &[1_008_901]),
];

#[test]
fn what_once_ended_wrong_ends_well() {
    for (what, seeds) in ONCE_WRONG {
        for &seed in *seeds {
            let end = play(History::new(seed), Telling::Silent);
            assert!(end.wrongs.is_empty(), "{what}: seed {seed}: {:?}", end.wrongs);
        }
    }
}

#[test]
fn a_thousand_histories_come_to_rest() {
    let tally = run(&Campaign { first: 0, count: HISTORIES, keep_going: true }, &|_| ());
    let told: Vec<String> = tally
        .failed
        .iter()
        .map(|(seed, wrong)| {
            format!("{wrong}\n  replay: cargo run --release -p recsync-sim -- --seed {seed}")
        })
        .collect();
    println!("{tally}\n{}", told.join("\n"));
    assert!(told.is_empty(), "{} failed", told.len());
}

#[test]
fn a_history_follows_from_its_seed() {
    for seed in [3, 11, 42] {
        let quiet = play(History::new(seed), Telling::Silent);
        let again = play(History::new(seed), Telling::Silent);
        let told = play(History::new(seed), Telling::Story);
        assert_eq!((quiet.steps, quiet.trace), (again.steps, again.trace), "seed {seed}");
        assert_eq!((quiet.steps, quiet.trace), (told.steps, told.trace), "told, seed {seed}");
        assert!(!told.story.is_empty());
    }
}

#[test]
fn a_deed_that_is_left_out_leaves_the_others() {
    let whole = History::new(5);
    let mut rest = whole.clone();
    let mut parts = whole.parts();
    parts.retain(|part| *part != Part::Deed(0));
    rest.retain(&parts);
    assert_eq!(rest.parts().len() + 1, whole.parts().len());
    let times = |history: &History| -> Vec<u64> {
        let deeds = history.deeds.iter().flatten();
        deeds.filter(|deed| deed.index != 0).map(|deed| deed.at_ns).collect()
    };
    assert_eq!(times(&rest), times(&whole));
    assert_eq!(History::new(5).deeds.first().unwrap().len(), whole.deeds[0].len());
}
