//! The name of a conflict copy: made from the losing version alone, so that all nodes choose the
//! same one with no talk.
//!
//! **Invariant:** two versions of one path get two names; a name is a legal path component.
//! **May not:** touch disk, network, clock, randomness or logs.

use recsync_proto::path::COMPONENT_LEN_MAX;
use recsync_proto::{Dot, NodeName, SharePath, Value};

use crate::index::COPY_MARK;

/// How many hex digits of the version the name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// The usual.
    Eight,
    /// If the usual name is taken by something else.
    Sixteen,
}

impl Digits {
    fn len(self) -> usize {
        match self {
            Digits::Eight => 8,
            Digits::Sixteen => 16,
        }
    }
}

/// Returns `stem.conflict-NODE-YYYYMMDDTHHMMSSZ-VERSION.ext` beside `path`: NODE wrote the losing
/// version, the time is its mtime in UTC, VERSION is the beginning of BLAKE3 over its dot. A stem
/// too long for a component loses its end; a copy of a copy is named from the first stem.
pub fn copy_path(path: &SharePath, loser: &Value, digits: Digits) -> SharePath {
    name(path, &loser.stamp.node, loser.mtime_ns.value, &version(loser.dot, digits))
}

/// Returns the names that a losing version's copy may have, the usual one first ([`copy_path`]).
pub fn copy_paths(path: &SharePath, loser: &Value) -> [SharePath; 2] {
    [Digits::Eight, Digits::Sixteen].map(|digits| copy_path(path, loser, digits))
}

/// Returns the name that a conflict copy's content lost; none if the name is no conflict copy's.
pub fn original(copy: &SharePath) -> Option<SharePath> {
    let (stem, extension) = split_copy(copy.name())?;
    copy.parent().join(&[stem, extension].concat()).ok()
}

/// Returns the name under which an object is kept that was found in the way after a crash and has
/// never been a version: as a conflict copy's, with a dot that stands for nothing else.
pub fn kept_path(path: &SharePath, node: &NodeName, wall_ns: i64, dot: Dot) -> SharePath {
    name(path, node, wall_ns, &version(dot, Digits::Eight))
}

fn name(path: &SharePath, node: &NodeName, wall_ns: i64, version: &str) -> SharePath {
    let (stem, extension) = match split_copy(path.name()) {
        Some(split) => split,
        None => split_extension(path.name()),
    };
    let suffix = format!(".conflict-{node}-{}-{version}", utc(wall_ns));
    // An extension that leaves no room is cut too: never seen, but a component must stay legal.
    let extension = &extension[..extension.len().min(COMPONENT_LEN_MAX - suffix.len() - 1)];
    let room = COMPONENT_LEN_MAX - suffix.len() - extension.len();
    let mut name = cut(stem, room).to_vec();
    name.extend_from_slice(suffix.as_bytes());
    name.extend_from_slice(extension);
    let parent = path.parent();
    parent.join(&name).unwrap_or_else(|_| {
        // Only a path at the very limit of its length has no room: then at the share's root.
        SharePath::root().join(&name).expect("one component of legal length without a slash")
    })
}

/// Returns the hex digits that stand for a version: BLAKE3 over the dot's 16 little-endian bytes.
pub fn version(dot: Dot, digits: Digits) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&dot.epoch.0.to_le_bytes());
    bytes[8..].copy_from_slice(&dot.seq.0.to_le_bytes());
    let hex = recsync_proto::record::hash_of(&bytes).to_string();
    hex[..digits.len()].to_owned()
}

/// The extension is what follows the last dot, none for `.hidden`.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, &[]),
    }
}

/// What the name of a conflict copy tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The path that it lost; the end of a long name is missing.
    pub of: SharePath,
    /// Who wrote it.
    pub node: String,
    /// Its mtime, `YYYYMMDDTHHMMSSZ`.
    pub time: String,
}

/// Returns what a path's name tells if it is a conflict copy's.
pub fn parse_copy(path: &SharePath) -> Option<Copy> {
    let name = path.name();
    let (stem, extension) = split_copy(name)?;
    let of = path.parent().join(&[stem, extension].concat()).ok()?;
    let middle = &name[stem.len() + COPY_MARK.len()..name.len() - extension.len()];
    let middle = str::from_utf8(middle).ok()?;
    // NODE-TIME-VERSION; the node may hold `-`.
    let (rest, _) = middle.rsplit_once('-')?;
    let (node, time) = rest.rsplit_once('-')?;
    Some(Copy { of, node: node.to_owned(), time: time.to_owned() })
}

/// Returns an ordinary name for a copy that is to stay: `stem-NODE-TIME.ext`, then with `-2`, `-3` …
pub fn kept_apart(path: &SharePath, taken: u32) -> Option<SharePath> {
    let copy = parse_copy(path)?;
    let (stem, extension) = split_copy(path.name())?;
    let number = if taken == 0 { String::new() } else { format!("-{}", taken + 1) };
    let suffix = format!("-{}-{}{number}", copy.node, copy.time);
    let room = COMPONENT_LEN_MAX.checked_sub(suffix.len() + extension.len())?;
    let name = [cut(stem, room), suffix.as_bytes(), extension].concat();
    path.parent().join(&name).ok()
}

/// Splits the name of a conflict copy into the stem and the extension of the name it was made
/// from; none if the name is no conflict copy's.
fn split_copy(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = name.windows(COPY_MARK.len()).rposition(|window| window == COPY_MARK);
    let at = at.filter(|&at| at > 0)?;
    let rest = &name[at + COPY_MARK.len()..];
    // NODE may hold `-` and `.`: what follows it tells where it ends.
    let (node, len) =
        (1..rest.len()).find_map(|end| Some((&rest[..end], version_len(&rest[end..])?)))?;
    let extension = &rest[node.len() + len..];
    let is_node = str::from_utf8(node).is_ok_and(|node| NodeName::new(node).is_ok());
    let is_extension = extension.is_empty() || extension[0] == b'.';
    (is_node && is_extension).then_some((&name[..at], extension))
}

/// Returns the length of a leading `-YYYYMMDDTHHMMSSZ-VERSION`, if that is what bytes begin with.
fn version_len(bytes: &[u8]) -> Option<usize> {
    const TIME: &[u8] = b"-00000000T000000Z-";
    let matches = |(pattern, byte): (&u8, &u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        other => other == byte,
    };
    if bytes.len() < TIME.len() || !TIME.iter().zip(bytes).all(matches) {
        return None;
    }
    let digits = bytes[TIME.len()..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    [Digits::Eight, Digits::Sixteen]
        .iter()
        .any(|known| known.len() == digits)
        .then_some(TIME.len() + digits)
}

/// Shortens to at most `room` bytes, not within a UTF-8 character.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let is_continuation = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    let mut end = room;
    while end > room.saturating_sub(3) && is_continuation(stem[end]) {
        end -= 1;
    }
    &stem[..end]
}

/// Returns `YYYYMMDDTHHMMSSZ` of a time in nanoseconds since 1970.
pub fn utc(wall_ns: i64) -> String {
    let seconds = wall_ns.div_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Returns `YYYY-MM-DD` of a time in nanoseconds since 1970.
pub fn utc_day(wall_ns: i64) -> String {
    let (year, month, day) = civil(wall_ns.div_euclid(86_400 * 1_000_000_000));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970 to year, month, day. Source: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
