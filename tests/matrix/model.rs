//! What is expected where two nodes that were apart meet again: the rules of docs/semantics.md,
//! path by path, written down once more and on purpose without any code of the program.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Object, Tree};

/// What became of a cell, from the least to the most remarkable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    /// Neither node did anything.
    Nothing,
    /// What one node did is on both.
    Done,
    /// Both had made the same.
    Same,
    /// What both did is on both.
    Both,
    /// Of two times, or of two modes, the one that was set later.
    Later,
    /// The new content: the other node had set the time or mode of the old one.
    New,
    /// Deleted, though its time or mode was changed elsewhere.
    Gone,
    /// What one node changed stays, though the other one deleted or renamed what it was.
    Stays,
    /// Two versions: that of fs1 became the conflict copy.
    Copy1,
    /// Two versions: that of fs2 became the conflict copy.
    Copy2,
}

impl Word {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Word::Nothing => "–",
            Word::Done => "done",
            Word::Same => "same",
            Word::Both => "both",
            Word::Later => "later",
            Word::New => "new",
            Word::Gone => "gone",
            Word::Stays => "stays",
            Word::Copy1 => "copy 1",
            Word::Copy2 => "copy 2",
        }
    }
}

/// A conflict copy by all that its name must tell: the path that was fought over, and who wrote it.
pub(crate) type Copy = (Vec<u8>, String);

/// What both nodes must hold.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) tree: Tree,
    pub(crate) copies: BTreeMap<Copy, Object>,
    pub(crate) word: Word,
}

/// Returns what must become of `base` when fs1 made `one` of it and fs2, a little later, `two`.
pub(crate) fn meet(base: &Tree, one: &Tree, two: &Tree) -> Expected {
    let mut words = BTreeSet::new();
    let mut expected =
        Expected { tree: Tree::default(), copies: BTreeMap::new(), word: Word::Nothing };
    let paths: BTreeSet<_> = [base, one, two].iter().flat_map(|tree| tree.0.keys()).collect();
    // The deepest first: a directory lives as long as something in it does.
    for path in paths.into_iter().rev() {
        let [base, one, two] = [base, one, two].map(|tree| tree.get(path));
        let mut met = meet_path(base, one, two);
        let below = [path.as_slice(), b"/"].concat();
        let lives_below = expected.tree.0.keys().any(|path| path.starts_with(&below));
        if lives_below && !matches!(met.winner, Some(Object::Dir { .. })) {
            met.word = Word::Stays;
            if let Some(file) = met.winner.replace(Object::Dir { mode: 0 }) {
                met.loser = Some((if Some(&file) == one { 1 } else { 2 }, file));
            }
        }
        if let Some((node, object)) = met.loser {
            met.word = if node == 1 { Word::Copy1 } else { Word::Copy2 };
            expected.copies.insert((path.clone(), format!("fs{node}")), object);
        }
        if let Some(winner) = met.winner {
            expected.tree.0.insert(path.clone(), winner);
        }
        words.insert(met.word);
    }
    expected.word = sum_up(&words, base, one, two);
    expected
}

fn sum_up(words: &BTreeSet<Word>, base: &Tree, one: &Tree, two: &Tree) -> Word {
    let most = words.last().copied().unwrap_or(Word::Nothing);
    let differs = |tree: &Tree| !base.difference(tree).is_empty();
    match most {
        Word::Done | Word::Same if differs(one) && differs(two) => {
            if words.contains(&Word::Done) {
                Word::Both
            } else {
                Word::Same
            }
        }
        most => most,
    }
}

struct Met {
    winner: Option<Object>,
    loser: Option<(u8, Object)>,
    word: Word,
}

fn met(winner: Option<Object>, word: Word) -> Met {
    Met { winner, loser: None, word }
}

fn meet_path(base: Option<&Object>, one: Option<&Object>, two: Option<&Object>) -> Met {
    let is_news = |now: Option<&Object>| !same_content(base, now);
    match (is_news(one), is_news(two)) {
        (false, false) => metadata(base, one, two),
        (true, false) => one_alone(base, one, two),
        (false, true) => one_alone(base, two, one),
        (true, true) => match (one, two) {
            (None, None) => met(None, Word::Same),
            (Some(stays), None) | (None, Some(stays)) => met(Some(stays.clone()), Word::Stays),
            (Some(_), Some(two)) if same_content(one, Some(two)) => {
                met(Some(two.clone()), Word::Same)
            }
            (Some(one), Some(two)) => {
                let (winner, loser) =
                    if rank(one) > rank(two) { (one, (2, two)) } else { (two, (1, one)) };
                let loser = (loser.0, loser.1.clone());
                Met { loser: Some(loser), ..met(Some(winner.clone()), Word::Copy1) }
            }
        },
    }
}

/// One node changed the content, the other one at most its metadata.
fn one_alone(base: Option<&Object>, news: Option<&Object>, other: Option<&Object>) -> Met {
    let touched = base != other;
    let Some(news) = news else {
        return met(None, if touched { Word::Gone } else { Word::Done });
    };
    let mut news = news.clone();
    let mut word = if touched { Word::New } else { Word::Done };
    if let (Object::File { mode, .. }, Some(Object::File { mode: theirs, .. })) = (&mut news, other)
        && matches!(base, Some(Object::File { mode, .. }) if mode != theirs)
    {
        *mode = *theirs;
        word = Word::Both;
    }
    met(Some(news), word)
}

/// The content is as it was: the mode and the time that were set, and of two the later.
fn metadata(base: Option<&Object>, one: Option<&Object>, two: Option<&Object>) -> Met {
    let (
        Some(Object::File { mode: mode_0, mtime_ns: time_0, size, hash }),
        Some(Object::File { mode: mode_1, mtime_ns: time_1, .. }),
        Some(Object::File { mode: mode_2, mtime_ns: time_2, .. }),
    ) = (base, one, two)
    else {
        return met(two.cloned(), Word::Nothing);
    };
    let mode = if mode_2 == mode_0 { mode_1 } else { mode_2 };
    let time = if time_2 == time_0 { time_1 } else { time_2 };
    let file = Object::File { mode: *mode, mtime_ns: *time, size: *size, hash: *hash };
    let is_clash = |base, one, two| base != one && base != two && one != two;
    let clash = is_clash(*mode_0, *mode_1, *mode_2)
        || (time_0 != time_1 && time_0 != time_2 && time_1 != time_2);
    let word = match (base != one, base != two) {
        (false, false) => Word::Nothing,
        (true, true) if clash => Word::Later,
        (true, true) if one == two => Word::Same,
        (true, true) => Word::Both,
        _ => Word::Done,
    };
    met(Some(file), word)
}

/// A directory before a file before a link.
fn rank(object: &Object) -> u8 {
    match object {
        Object::Dir { .. } => 2,
        Object::File { .. } => 1,
        Object::Symlink { .. } | Object::Special => 0,
    }
}

pub(crate) fn same_content(one: Option<&Object>, two: Option<&Object>) -> bool {
    match (one, two) {
        (Some(Object::File { hash: one, .. }), Some(Object::File { hash: two, .. })) => one == two,
        (Some(Object::Dir { .. }), Some(Object::Dir { .. })) | (None, None) => true,
        (Some(Object::Symlink { target: one, .. }), Some(Object::Symlink { target: two, .. })) => {
            one == two
        }
        _ => false,
    }
}
