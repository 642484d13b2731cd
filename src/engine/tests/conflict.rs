//! Names of conflict copies: the contract's examples, the corners, and that every name is legal.

use std::collections::BTreeSet;

use proptest::prelude::*;
use recsync_proto::path::{COMPONENT_LEN_MAX, PATH_LEN_MAX};
use recsync_proto::{Content, Dot, Epoch, Register, Seq, SharePath, Stamp, Value};

use super::harness::{START_NS, node};
use crate::engine::conflict::{Digits, copy_path, kept_apart, parse_copy, utc, utc_day, version};

const DOT: Dot = Dot { epoch: Epoch(0x0123_4567_89ab_cdef), seq: Seq(42) };
/// The first 8 bytes of BLAKE3 over `DOT`'s 16 bytes, little-endian.
const SUFFIX: &str = ".conflict-fs1-20261122T100000Z-b34ceaa8";

fn loser(dot: Dot, writer: &str, mtime_ns: i64) -> Value {
    let stamp = Stamp { hlc: 1, node: node(writer) };
    let mtime_ns = Register { value: mtime_ns, stamp: stamp.clone() };
    Value { dot, stamp, content: Content::Dir, mtime_ns, lacks: BTreeSet::new() }
}

fn copy_of(name: &[u8]) -> Vec<u8> {
    let path = SharePath::new(name).unwrap();
    copy_path(&path, &loser(DOT, "fs1", START_NS), Digits::Eight).as_bytes().to_vec()
}

/// Checks that a copy of `stem` and `extension` joined is named from these two.
fn check(stem: &str, extension: &str) {
    let name = format!("{stem}{extension}");
    let found = String::from_utf8(copy_of(name.as_bytes())).unwrap();
    assert_eq!(found, format!("{stem}{SUFFIX}{extension}"));
}

#[test]
fn the_version_is_the_beginning_of_blake3_over_the_dot() {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
    bytes[8..].copy_from_slice(&42_u64.to_le_bytes());
    let hash = blake3::hash(&bytes).to_hex();
    assert_eq!(version(DOT, Digits::Eight), hash[..8]);
    assert_eq!(version(DOT, Digits::Sixteen), hash[..16]);
    assert!(SUFFIX.ends_with(&hash[..8]), "{hash}");
}

#[test]
fn the_extension_is_what_follows_the_last_dot() {
    check("call", ".wav");
    check("2026/11/22/call", ".wav");
    check("a.b/call", "");
    check("archive.tar", ".gz");
    check("call", "");
    check("call", ".");
    check(".hidden", "");
    check(".hidden", ".txt");
    check("..", ".txt");
    check(" ", "");
}

#[test]
fn a_copy_of_a_copy_is_named_from_the_first_stem() {
    for first in [
        ".conflict-fs2-20250101T000000Z-00c0ffee",
        ".conflict-a.b-c.d-20250101T000000Z-00c0ffee00c0ffee",
    ] {
        for extension in [".wav", "", "."] {
            let found = copy_of(format!("d/call{first}{extension}").as_bytes());
            let found = String::from_utf8(found).unwrap();
            assert_eq!(found, format!("d/call{SUFFIX}{extension}"), "{first}");
        }
    }
}

#[test]
fn a_name_that_only_looks_like_a_copys_is_left_alone() {
    check("notes.conflict-of-interest", ".txt");
    check("a.conflict-fs2-20250101T000000Z-00c0ffe", ".txt");
    check("a.conflict-fs2-2025010aT000000Z-00c0ffee", ".txt");
    check("a.conflict--20250101T000000Z-00c0ffee", ".txt");
    check(".conflict-fs2-20250101T000000Z-00c0ffee", ".txt");
    check("a.conflict-fs2-20250101T000000Z-00c0ffee0", ".txt");
}

#[test]
fn a_long_stem_loses_its_end() {
    let name = "x".repeat(COMPONENT_LEN_MAX - 4) + ".wav";
    let found = String::from_utf8(copy_of(name.as_bytes())).unwrap();
    assert_eq!(found.len(), COMPONENT_LEN_MAX);
    assert!(found.ends_with(&format!("x{SUFFIX}.wav")), "{found}");
}

#[test]
fn a_stem_is_not_cut_within_a_character() {
    for character in ["é", "€", "🎧"] {
        for shift in 0..4 {
            let stem = "x".repeat(shift) + &character.repeat(COMPONENT_LEN_MAX);
            let stem = &stem[..stem.floor_char_boundary(COMPONENT_LEN_MAX - 4)];
            let found = copy_of(format!("{stem}.wav").as_bytes());
            assert!(found.len() > COMPONENT_LEN_MAX - 4, "no more is cut than must be");
            let found = String::from_utf8(found).expect("it was cut within a character");
            assert!(stem.starts_with(found.split_once(".conflict-").unwrap().0));
        }
    }
}

#[test]
fn a_name_that_is_no_utf8_keeps_its_bytes() {
    let found = copy_of(b"d/\xff\xfe\x80.w\xf0v");
    assert_eq!(found, [b"d/\xff\xfe\x80", SUFFIX.as_bytes(), b".w\xf0v"].concat());
    let name = [0x80; COMPONENT_LEN_MAX];
    assert!(copy_of(&name).len() > COMPONENT_LEN_MAX - 4);
}

#[test]
fn a_path_without_room_has_its_copy_at_the_root() {
    let dir = "d/".repeat(PATH_LEN_MAX / 2 - 2);
    let found = copy_of(&format!("{dir}call.wav").as_bytes()[..PATH_LEN_MAX]);
    let found = String::from_utf8(found).unwrap();
    assert!(!found.contains('/'), "{found}");
    assert!(found.contains(SUFFIX));
}

#[test]
fn sixteen_digits_begin_with_the_eight() {
    let path = SharePath::new("call.wav").unwrap();
    let loser = loser(DOT, "fs1", START_NS);
    let eight = copy_path(&path, &loser, Digits::Eight).to_string();
    let sixteen = copy_path(&path, &loser, Digits::Sixteen).to_string();
    assert_eq!(sixteen.len(), eight.len() + 8);
    assert!(sixteen.starts_with(eight.strip_suffix(".wav").unwrap()));
}

#[test]
fn times_are_utc_and_proleptic() {
    for (seconds, text) in [
        (0, "19700101T000000Z"),
        (-1, "19691231T235959Z"),
        (951_782_400, "20000229T000000Z"),
        (1_795_341_600, "20261122T100000Z"),
        (4_107_542_400, "21000301T000000Z"),
    ] {
        assert_eq!(utc(seconds * 1_000_000_000), text);
        assert_eq!(utc(seconds * 1_000_000_000 + 999_999_999), text, "rounded down");
    }
    assert_eq!(utc_day(-1), "1969-12-31");
    assert_eq!(utc(i64::MIN), "16770921T001243Z");
    assert_eq!(utc(i64::MAX), "22620411T234716Z");
}

#[test]
fn a_copys_name_tells_whose_it_is_and_gives_way_to_an_ordinary_one() {
    for (name, of, node, apart) in [
        (
            "d/a.conflict-fs1-20261122T100000Z-b34ceaa8.wav",
            "d/a.wav",
            "fs1",
            "d/a-fs1-20261122T100000Z.wav",
        ),
        (
            ".x.conflict-a-b.c-20261122T100000Z-b34ceaa8b34ceaa8",
            ".x",
            "a-b.c",
            ".x-a-b.c-20261122T100000Z",
        ),
    ] {
        let path = SharePath::new(name).unwrap();
        let copy = parse_copy(&path).unwrap();
        assert_eq!(
            (copy.of.to_string(), &*copy.node, &*copy.time),
            (of.into(), node, "20261122T100000Z")
        );
        assert_eq!(kept_apart(&path, 0).unwrap().to_string(), apart);
        assert_ne!(kept_apart(&path, 1), kept_apart(&path, 0));
        assert_eq!(parse_copy(&kept_apart(&path, 1).unwrap()), None);
    }
    for name in [
        "a.conflict-",
        "a.conflict-fs1-2026-b34ceaa8.wav",
        "a.wav",
        ".conflict-fs1-20261122T100000Z-b34ceaa8",
    ] {
        assert_eq!(parse_copy(&SharePath::new(name).unwrap()), None, "{name}");
    }
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let alphabet = prop::sample::select(b"ab.-\xc3\xa9\xff~ ".to_vec());
    let bytes = prop_oneof![alphabet, any::<u8>().prop_filter("legal", |b| !b"/\0".contains(b))];
    prop::collection::vec(bytes, 1..=COMPONENT_LEN_MAX)
        .prop_filter("legal", |name| name != b"." && name != b".." && name != b".recsync")
}

proptest! {
    #[test]
    fn every_name_is_legal_and_a_copys_copy_grows_no_longer(
        name in names(),
        depth in 0_usize..5,
        seq in any::<u64>(),
        mtime_ns in any::<i64>(),
        writer in "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,31}",
        digits in prop::sample::select(vec![Digits::Eight, Digits::Sixteen]),
    ) {
        let path = SharePath::new([b"d/".repeat(depth), name].concat()).unwrap();
        let loser = loser(Dot { epoch: Epoch(7), seq: Seq(seq) }, &writer, mtime_ns);
        let copy = copy_path(&path, &loser, digits);
        prop_assert_ne!(&copy, &path);
        prop_assert_eq!(copy.parent(), path.parent());
        prop_assert_eq!(SharePath::new(copy.as_bytes()), Ok(copy.clone()));
        // The same version under the name of the copy: as from the first name, if nothing was cut.
        let again = copy_path(&copy, &loser, digits);
        prop_assert!(again.name().len() <= copy.name().len());
        if copy.name().len() < COMPONENT_LEN_MAX - 3 {
            prop_assert_eq!(again, copy);
        }
    }

    #[test]
    fn two_versions_of_one_path_have_two_names(
        name in names(),
        one in any::<(u64, u64)>(),
        other in any::<(u64, u64)>(),
    ) {
        prop_assume!(one != other);
        let path = SharePath::new(name).unwrap();
        let named = |(epoch, seq)| {
            let dot = Dot { epoch: Epoch(epoch), seq: Seq(seq) };
            copy_path(&path, &loser(dot, "fs1", 0), Digits::Sixteen)
        };
        prop_assert_ne!(named(one), named(other));
    }
}
