//! The algebra of records: dotted version vector sets with values compared by content.
//!
//! Merging is a join and makes no decision, so it cannot be wrong; who keeps a name is the later,
//! local and pure [`winner`]. Source: Preguiça, Baquero, Almeida et al., "Dotted version vectors"
//! (2010); the variant with visibility by content and conflicts resolved by the node that holds
//! the losing bytes is checked by the model run in `tests/sim`.
//!
//! **Invariant:** [`merge`] is commutative, associative and idempotent; a local event removes only
//! the content that its author could see.
//! **May not:** touch disk, network, clock, randomness or logs.

use recsync_proto::{Content, Dot, Owner, Record, Register, Stamp, Value};

/// Returns the join of two records: every value that neither side knows to be superseded.
pub fn merge(one: &Record, other: &Record) -> Record {
    let mut merged = Record { context: one.context.clone(), ..Record::default() };
    merged.context.join(&other.context);
    #[cfg(feature = "mutants")]
    if let Some(wrong) = crate::mutants::wrongly_merged(one, other) {
        return wrong;
    }
    for value in &one.values {
        let twin = other.values.iter().find(|twin| twin.dot == value.dot);
        if twin.is_some() || !other.context.contains(value.dot) {
            let mut value = value.clone();
            if let Some(twin) = twin {
                value.mtime_ns.join(&twin.mtime_ns);
                value.join_lacks(&twin.lacks);
            }
            merged.values.push(value);
        }
    }
    for value in &other.values {
        if !one.context.contains(value.dot) {
            merged.values.push(value.clone());
        }
    }
    merged.values.sort_by_key(|value| value.dot);
    merged.mode = join(&one.mode, &other.mode);
    merged.owner = join(&one.owner, &other.owner);
    merged.join_lost(&one.lost);
    merged.join_lost(&other.lost);
    merged
}

fn join<T: Clone + Ord>(
    one: &Option<Register<T>>,
    other: &Option<Register<T>>,
) -> Option<Register<T>> {
    match (one.clone(), other) {
        (Some(mut register), Some(twin)) => {
            register.join(twin);
            Some(register)
        }
        (register, twin) => register.or_else(|| twin.clone()),
    }
}

/// Notes a local write: `value` takes the place of the content its author saw (`seen`).
pub fn write(record: &mut Record, seen: Option<&Content>, value: Value) {
    if let Some(seen) = seen {
        drop_content(record, seen);
    }
    record.context.insert(value.dot);
    record.values.push(value);
    record.values.sort_by_key(|value| value.dot);
}

/// Notes a local delete of the content its author saw.
pub fn delete(record: &mut Record, seen: &Content, dot: Dot) {
    record.context.insert(dot);
    if mutant!(BlindDelete) {
        record.values.clear();
    }
    drop_content(record, seen);
}

/// Drops a content whose bytes live on under another name (a conflict copy): its values go, their
/// dots stay known.
pub fn drop_content(record: &mut Record, content: &Content) {
    record.values.retain(|value| value.content != *content);
}

/// Drops a version whose bytes no node has: it stays known, as one that nobody wanted gone.
pub fn give_up(record: &mut Record, dot: Dot) {
    record.values.retain(|value| value.dot != dot);
    record.join_lost(&[dot].into());
}

/// Who keeps the name, and with which metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Winner {
    /// What the name is to hold.
    pub content: Content,
    /// Its modification time, nanoseconds since 1970; none for an implied directory.
    pub mtime_ns: Option<i64>,
    /// Its permission bits, if anyone told them.
    pub mode: Option<u32>,
    /// Owner and group, if anyone told them.
    pub owner: Option<Owner>,
}

/// Returns what the name is to hold: a directory if one is wanted or implied by something live
/// below it, else the file with the greatest stamp, else the symbolic link with the greatest.
pub fn winner(record: &Record, live_below: bool) -> Option<Winner> {
    let rank = |value: &Value| match value.content {
        Content::Dir => 2,
        Content::File { .. } => 1,
        Content::Symlink { .. } => 0,
    };
    let best = record
        .values
        .iter()
        .max_by(|a, b| (rank(a), &a.stamp, a.dot).cmp(&(rank(b), &b.stamp, b.dot)));
    let mode = record.mode.as_ref().map(|mode| mode.value);
    let owner = record.owner.as_ref().map(|owner| owner.value.clone());
    match best {
        Some(value) if value.content.is_dir() || !live_below => Some(Winner {
            content: value.content.clone(),
            mtime_ns: Some(latest_mtime(record, &value.content)),
            mode: if value.content.is_dir() { mode.map(of_dir) } else { mode },
            owner,
        }),
        _ if live_below => {
            Some(Winner { content: Content::Dir, mtime_ns: None, mode: mode.map(of_dir), owner })
        }
        _ => None,
    }
}

/// The bits were perhaps meant for a file that had the name: who may read may enter then.
fn of_dir(mode: u32) -> u32 {
    if mode & 0o111 == 0 { mode | (mode & 0o444) >> 2 } else { mode }
}

/// Returns the mtime last set on any value with this content.
fn latest_mtime(record: &Record, content: &Content) -> i64 {
    let mut twins = record.values.iter().filter(|value| value.content == *content);
    let first = twins.next().expect("the winner is one of the values").mtime_ns.clone();
    let latest = twins.fold(first, |mut latest: Register<i64>, twin| {
        latest.join(&twin.mtime_ns);
        latest
    });
    latest.value
}

/// True if the record still holds this content as one of its values.
pub fn holds(record: &Record, content: &Content) -> bool {
    record.values.iter().any(|value| value.content == *content)
}

/// Writes a register here: later than what it replaces, even if that came from a clock far ahead.
pub fn overwrite<T>(register: &mut Register<T>, value: T, stamp: &Stamp) {
    let hlc = stamp.hlc.max(register.stamp.hlc.saturating_add(1));
    *register = Register { value, stamp: Stamp { hlc, node: stamp.node.clone() } };
}

/// Writes a register here that may not have been written before.
pub fn set<T>(register: &mut Option<Register<T>>, value: T, stamp: &Stamp) {
    match register {
        Some(register) => overwrite(register, value, stamp),
        None => *register = Some(Register { value, stamp: stamp.clone() }),
    }
}

/// True if two records hold the same contents: what is new is metadata alone.
pub fn same_values(one: &Record, other: &Record) -> bool {
    let contents = |record: &Record| {
        let mut contents: Vec<_> =
            record.values.iter().map(|value| value.content.clone()).collect();
        contents.sort();
        contents.dedup();
        contents
    };
    contents(one) == contents(other)
}

/// Returns the value that names a losing content's conflict copy: the same on all nodes.
pub fn loser<'a>(record: &'a Record, content: &Content) -> Option<&'a Value> {
    record
        .values
        .iter()
        .filter(|value| value.content == *content)
        .max_by(|a, b| (&a.stamp, a.dot).cmp(&(&b.stamp, b.dot)))
}
