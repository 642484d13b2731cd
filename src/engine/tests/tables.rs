//! The two decision tables, a named row for every pair. The expectations are matches without a
//! wildcard over what can vary: a new variant does not compile until it has its rows.

use std::collections::BTreeSet;
use std::time::Duration;

use recsync_proto::{Content, Owner};

use super::harness::{START_NS, file, owner};
use crate::engine::Look;
use crate::engine::absorb::{Local, absorb, is_suspect};
use crate::engine::plan::{Circumstances, Step, plan};
use crate::engine::version::Winner;
use crate::index::Installed;
use crate::tree::{Fingerprint, Kind, TreeError};

fn link(target: &[u8]) -> Content {
    Content::Symlink { target: target.to_vec() }
}

fn fingerprint(content: &Content) -> Fingerprint {
    let kind = match content {
        Content::Dir => Kind::Dir,
        Content::File { .. } => Kind::File,
        Content::Symlink { .. } => Kind::Symlink,
    };
    Fingerprint {
        kind,
        fs: 1,
        ino: 7,
        size: content.size(),
        mtime_ns: START_NS,
        ctime_ns: START_NS,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
    }
}

fn installed(content: &Content) -> Installed {
    let fingerprint = fingerprint(content);
    let owner = Some(owner(0));
    Installed { content: content.clone(), fingerprint, mtime_ns: START_NS, mode: 0o644, owner }
}

// ---- absorb ----------------------------------------------------------------------------------

/// How what a look found stats, against what is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stat {
    /// In all respects as before.
    Same,
    /// Another ctime and inode.
    Moved,
    /// Another mtime too.
    Touched,
    /// Another mode too.
    Moded,
    /// Both.
    Both,
}

const STATS: [Stat; 5] = [Stat::Same, Stat::Moved, Stat::Touched, Stat::Moded, Stat::Both];

impl Stat {
    fn of(self, content: &Content) -> Fingerprint {
        let mut found = fingerprint(content);
        if self != Stat::Same {
            (found.ino, found.ctime_ns) = (8, START_NS + 1);
        }
        if matches!(self, Stat::Touched | Stat::Both) {
            found.mtime_ns += 1;
        }
        if matches!(self, Stat::Moded | Stat::Both) {
            found.mode = 0o600;
        }
        found
    }
}

/// What a look showed, without the details that cannot matter.
#[derive(Debug, Clone)]
enum Shown {
    Found(Content, Stat),
    Other(Look),
}

impl Shown {
    fn look(&self) -> Look {
        match self {
            Shown::Found(content, stat) => {
                let fingerprint = stat.of(content);
                let owner = Some(owner(fingerprint.uid));
                Look::Found { content: content.clone(), fingerprint, owner }
            }
            Shown::Other(look) => look.clone(),
        }
    }
}

fn shown() -> Vec<Shown> {
    let contents = [Content::Dir, file(b"a"), file(b"b"), link(b"a"), link(b"b")];
    let found = contents.iter().flat_map(|content| STATS.map(|stat| (content.clone(), stat)));
    let mut shown: Vec<_> = found.map(|(content, stat)| Shown::Found(content, stat)).collect();
    let others = [
        Look::Absent,
        Look::Unchanged,
        Look::Busy,
        Look::Unstable,
        Look::TooFresh(Duration::from_secs(1)),
        Look::Ignored,
        Look::Special,
        Look::Unsyncable("a name of 300 bytes".to_owned()),
        Look::Unknown(TreeError::Denied),
    ];
    shown.extend(others.map(Shown::Other));
    shown
}

/// The row for what is installed and what a look shows: its name, and what happened locally.
fn absorb_row(installed: Option<&Content>, shown: &Shown) -> (&'static str, Local) {
    use Content::{Dir, File, Symlink};
    let (mode, mtime_ns) = (Some(0o600), Some(START_NS + 1));
    let metadata = |mode, mtime_ns| Local::Metadata { mode, mtime_ns, owner: None };
    let (found, stat) = match shown {
        Shown::Found(content, stat) => (content, *stat),
        Shown::Other(look) => return absorb_row_without_object(installed, look),
    };
    let written = || Local::Written(found.clone());
    match (installed, found) {
        (None, Dir) => ("a directory is new", written()),
        (None, File { .. }) => ("a file is new", written()),
        (None, Symlink { .. }) => ("a link is new", written()),
        (Some(Dir), Dir) => match stat {
            Stat::Same => ("the directory is as it was", Local::Nothing),
            Stat::Moved => ("the directory is another one", Local::Refresh),
            Stat::Touched => ("the directory's mtime moves with its entries", Local::Refresh),
            Stat::Moded => ("the directory has another mode", metadata(mode, None)),
            Stat::Both => {
                ("the directory has another mode, its mtime is no news", metadata(mode, None))
            }
        },
        (Some(Dir), File { .. }) => ("a file is in the directory's place", written()),
        (Some(Dir), Symlink { .. }) => ("a link is in the directory's place", written()),
        (Some(File { .. }), Dir) => ("a directory is in the file's place", written()),
        (Some(File { .. }), Symlink { .. }) => ("a link is in the file's place", written()),
        (Some(was @ File { .. }), File { .. }) => match (was == found, stat) {
            (false, _) => ("the file has other bytes, whatever its stat", written()),
            (true, Stat::Same) => ("the file is as it was", Local::Nothing),
            (true, Stat::Moved) => ("the file was put there again", Local::Refresh),
            (true, Stat::Touched) => ("the file was touched", metadata(None, mtime_ns)),
            (true, Stat::Moded) => ("the file has another mode", metadata(mode, None)),
            (true, Stat::Both) => ("the file has another mode and mtime", metadata(mode, mtime_ns)),
        },
        (Some(Symlink { .. }), Dir) => ("a directory is in the link's place", written()),
        (Some(Symlink { .. }), File { .. }) => ("a file is in the link's place", written()),
        (Some(was @ Symlink { .. }), Symlink { .. }) => match (was == found, stat) {
            (false, _) => ("the link points elsewhere, whatever its stat", written()),
            (true, Stat::Same) => ("the link is as it was", Local::Nothing),
            (true, Stat::Moved) => ("the link was made again", Local::Refresh),
            (true, Stat::Touched) => ("the link was touched", metadata(None, mtime_ns)),
            (true, Stat::Moded) => ("a link's mode is no news", Local::Refresh),
            (true, Stat::Both) => {
                ("the link was touched, its mode is no news", metadata(None, mtime_ns))
            }
        },
    }
}

fn absorb_row_without_object(installed: Option<&Content>, look: &Look) -> (&'static str, Local) {
    let nothing = |name| (name, Local::Nothing);
    match (installed.is_some(), look) {
        (_, Look::Found { .. } | Look::Hollow(_)) => unreachable!("that one shows an object"),
        (false, Look::Absent) => nothing("nothing was there and nothing is"),
        (true, Look::Absent) => ("it is gone", Local::Deleted),
        (false, Look::Unchanged) => nothing("nothing was installed, and that is unchanged"),
        (true, Look::Unchanged) => nothing("exactly what was installed is there"),
        (false, Look::Busy) => nothing("a new file is being written"),
        (true, Look::Busy) => nothing("what was installed is being written"),
        (false, Look::Unstable) => nothing("a new file changed while it was read"),
        (true, Look::Unstable) => nothing("what was installed changed while it was read"),
        (false, Look::TooFresh(_)) => nothing("a new file is too young to be trusted"),
        (true, Look::TooFresh(_)) => nothing("a changed file is too young to be trusted"),
        (false, Look::Ignored) => nothing("what is there is ignored"),
        (true, Look::Ignored) => nothing("what is there is ignored since, which is no delete"),
        (false, Look::Special) => nothing("a socket, FIFO or device is there"),
        (true, Look::Special) => nothing("a special file is in its place, which is no delete"),
        (false, Look::Unsyncable(_)) => nothing("what is there cannot be synced"),
        (true, Look::Unsyncable(_)) => nothing("what cannot be synced is in its place, no delete"),
        (false, Look::Unknown(_)) => nothing("nobody knows what is there"),
        (true, Look::Unknown(_)) => nothing("it cannot be looked at, which is no delete"),
    }
}

#[test]
fn absorb_has_a_row_for_every_pair() {
    let bases = [None, Some(Content::Dir), Some(file(b"a")), Some(link(b"a"))];
    let mut rows = BTreeSet::new();
    for base in &bases {
        for shown in shown() {
            let (name, expected) = absorb_row(base.as_ref(), &shown);
            rows.insert(name);
            let found = absorb(base.as_ref().map(installed).as_ref(), &shown.look());
            assert_eq!(found, expected, "{name}: {base:?} and {shown:?}");
        }
    }
    assert_eq!(rows.len(), 44, "a row without a case, or two with one name: {rows:#?}");
}

#[test]
fn what_the_disk_or_a_machine_that_went_down_may_have_left_is_suspect() {
    let under = |mtime_ns: i64, content: Content| {
        let fingerprint = Fingerprint { mtime_ns, ..fingerprint(&content) };
        Look::Found { content, fingerprint, owner: Some(owner(0)) }
    };
    let look = |content| under(START_NS + 1, content);
    let put_back = |content| match under(START_NS, content) {
        Look::Found { content, fingerprint, owner } => {
            let fingerprint = Fingerprint { ctime_ns: fingerprint.ctime_ns + 1, ..fingerprint };
            Look::Found { content, fingerprint, owner }
        }
        look => look,
    };
    let hollow = |content| Look::Hollow(Box::new(look(content)));
    let suspect = |was: Option<&Content>, look: &Look, went_down| {
        is_suspect(was.map(installed).as_ref(), look, went_down)
    };
    let was = file(b"a recording");
    for (name, was, look, expected) in [
        ("empty", Some(&was), look(file(b"")), true),
        ("shorter", Some(&was), look(file(b"a rec")), true),
        ("zeros at its end", Some(&was), hollow(file(b"a rec\0\0\0\0\0\0")), true),
        ("longer, with zeros at its end", Some(&was), hollow(file(b"a recording\0\0")), true),
        ("the same", Some(&was), look(was.clone()), false),
        ("the same, which ends in zeros", Some(&was), hollow(was.clone()), false),
        ("other bytes of one length", Some(&was), look(file(b"A RECORDING")), false),
        ("longer", Some(&was), look(file(b"a recording goes on")), false),
        ("longer, with its mtime", Some(&was), put_back(file(b"a recording and all")), true),
        ("other bytes, with its mtime", Some(&was), put_back(file(b"A RECORDING")), true),
        ("other bytes, with its stat", Some(&was), under(START_NS, file(b"A RECORDING")), true),
        ("new", None, look(file(b"")), false),
        ("it was empty", Some(&file(b"")), hollow(file(b"\0")), false),
        ("a link", Some(&was), look(link(b"a")), false),
        ("it was a link", Some(&link(b"long target")), look(file(b"a")), false),
        ("gone", Some(&was), Look::Absent, false),
        ("open", Some(&was), Look::Busy, false),
    ] {
        assert_eq!(suspect(was, &look, true), expected, "{name}");
        // While the machine runs, a change that leaves any trace in the stat is somebody's.
        assert_eq!(suspect(was, &look, false), name.ends_with("with its stat"), "{name}");
    }
    let hollow = hollow(file(b"b\0"));
    assert_eq!(absorb(None, &hollow), absorb(None, hollow.found()), "else it is what it is");
}

#[test]
fn a_change_of_links_alone_is_no_news() {
    for content in [file(b"a"), link(b"a")] {
        let found = Fingerprint { nlink: 2, ..fingerprint(&content) };
        let look =
            Look::Found { content: content.clone(), fingerprint: found, owner: Some(owner(0)) };
        assert_eq!(absorb(Some(&installed(&content)), &look), Local::Refresh);
    }
}

#[test]
fn an_object_that_is_given_away_is_news_by_name() {
    let metadata = |mode, owner| Local::Metadata { mode, mtime_ns: None, owner: Some(owner) };
    let given: [fn(&mut Fingerprint); 2] = [|f| f.uid = 5, |f| f.gid = 5];
    for content in [Content::Dir, file(b"a"), link(b"a")] {
        let was = installed(&content);
        let look = |fingerprint, owner: Option<Owner>| {
            absorb(Some(&was), &Look::Found { content: content.clone(), fingerprint, owner })
        };
        for change in given {
            let mut found = fingerprint(&content);
            change(&mut found);
            assert_eq!(look(found, Some(owner(5))), metadata(None, owner(5)));
            // Nobody knows their names, or owners are left alone.
            assert_eq!(look(found, None), Local::Refresh);
        }
        // The number has another name than it had: nobody gave anything away.
        assert_eq!(look(fingerprint(&content), Some(owner(9))), Local::Nothing);
        if !matches!(content, Content::Symlink { .. }) {
            let found = Fingerprint { uid: 5, mode: 0o600, ..fingerprint(&content) };
            assert_eq!(look(found, Some(owner(5))), metadata(Some(0o600), owner(5)));
        }
    }
}

#[test]
fn an_owner_that_differs_is_set_with_the_rest_of_the_metadata() {
    let circumstances = Circumstances { installed_is_version: true, installed_below: false };
    for content in [Content::Dir, file(b"a"), link(b"a")] {
        let step = |owner: Option<Owner>, differs| {
            let winner = Winner { owner, ..winner(&content, differs) };
            plan(Some(&winner), Some(&installed(&content)), circumstances)
        };
        let metadata = |mode| Step::Metadata { mode, mtime_ns: None, owner: Some(owner(5)) };
        assert_eq!(step(Some(owner(5)), Differs::Nothing), metadata(None));
        assert_eq!(step(None, Differs::Nothing), Step::Nothing, "nobody told any");
        if !matches!(content, Content::Symlink { .. }) {
            assert_eq!(step(Some(owner(5)), Differs::Mode), metadata(Some(0o600)));
        }
    }
}

// ---- plan ------------------------------------------------------------------------------------

/// Which of a winner's metadata differs from what is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Differs {
    Nothing,
    Mode,
    Mtime,
    Both,
    /// Nobody told any.
    Untold,
}

const DIFFERS: [Differs; 5] =
    [Differs::Nothing, Differs::Mode, Differs::Mtime, Differs::Both, Differs::Untold];

fn winner(content: &Content, differs: Differs) -> Winner {
    let (mut mode, mut mtime_ns) = (Some(0o644), Some(START_NS));
    match differs {
        Differs::Nothing => {}
        Differs::Mode => mode = Some(0o600),
        Differs::Mtime => mtime_ns = Some(START_NS + 1),
        Differs::Both => (mode, mtime_ns) = (Some(0o600), Some(START_NS + 1)),
        Differs::Untold => (mode, mtime_ns) = (None, None),
    }
    Winner { content: content.clone(), mtime_ns, mode, owner: Some(owner(0)) }
}

/// The row for a winner, what is installed and the circumstances: its name, and the step.
fn plan_row(
    winner: Option<&(Content, Differs)>,
    installed: Option<&Content>,
    around: Circumstances,
) -> (&'static str, Step) {
    use Content::{Dir, File, Symlink};
    let Circumstances { installed_is_version: version, installed_below: below } = around;
    let replace = |lost: &'static str, old: &'static str| {
        (if version { lost } else { old }, Step::Replace { keep: version })
    };
    let wait = |name| (name, Step::Wait);
    let (mode, mtime_ns) = (Some(0o600), Some(START_NS + 1));
    let metadata = |mode, mtime_ns| Step::Metadata { mode, mtime_ns, owner: None };
    match (winner, installed) {
        (None, None) => ("nothing is to be there and nothing is", Step::Nothing),
        (None, Some(Dir)) if below => wait("the directory goes after what it holds"),
        (None, Some(Dir)) => ("the empty directory goes", Step::Remove),
        (None, Some(File { .. })) => ("the file goes", Step::Remove),
        (None, Some(Symlink { .. })) => ("the link goes", Step::Remove),
        (Some((Dir, Differs::Untold)), None) => {
            ("an implied directory is made with what it holds", Step::Nothing)
        }
        (Some((Dir, _)), None) => ("a directory is to be made", Step::Install),
        (Some((File { .. }, _)), None) => ("a file is to be put there", Step::Install),
        (Some((Symlink { .. }, _)), None) => ("a link is to be made", Step::Install),
        (Some((Dir, differs)), Some(Dir)) => match differs {
            Differs::Nothing => ("the directory is there", Step::Nothing),
            Differs::Mode => ("the directory gets its mode", metadata(mode, None)),
            Differs::Mtime => ("a directory's mtime is not set", Step::Nothing),
            Differs::Both => ("the directory gets its mode, not its mtime", metadata(mode, None)),
            Differs::Untold => ("an implied directory keeps its mode", Step::Nothing),
        },
        (Some((Dir, _)), Some(File { .. })) => replace(
            "a directory takes the losing file's name",
            "a directory takes the old file's place",
        ),
        (Some((Dir, _)), Some(Symlink { .. })) => replace(
            "a directory takes the losing link's name",
            "a directory takes the old link's place",
        ),
        (Some((File { .. }, _)), Some(Dir)) if below => {
            wait("a file waits for what the directory holds")
        }
        (Some((File { .. }, _)), Some(Dir)) => replace(
            "a file takes a losing directory's name",
            "a file takes the empty directory's place",
        ),
        (Some((file @ File { .. }, differs)), Some(was @ File { .. })) => {
            match (file == was, differs) {
                (false, _) => replace(
                    "a file takes the losing file's name",
                    "a file takes the old file's place",
                ),
                (true, Differs::Nothing) => ("the file is there", Step::Nothing),
                (true, Differs::Mode) => ("the file gets its mode", metadata(mode, None)),
                (true, Differs::Mtime) => ("the file gets its mtime", metadata(None, mtime_ns)),
                (true, Differs::Both) => {
                    ("the file gets its mode and mtime", metadata(mode, mtime_ns))
                }
                (true, Differs::Untold) => ("a file without told metadata stays", Step::Nothing),
            }
        }
        (Some((File { .. }, _)), Some(Symlink { .. })) => {
            replace("a file takes the losing link's name", "a file takes the old link's place")
        }
        (Some((Symlink { .. }, _)), Some(Dir)) if below => {
            wait("a link waits for what the directory holds")
        }
        (Some((Symlink { .. }, _)), Some(Dir)) => replace(
            "a link takes a losing directory's name",
            "a link takes the empty directory's place",
        ),
        (Some((Symlink { .. }, _)), Some(File { .. })) => {
            replace("a link takes a losing file's name", "a link takes the old file's place")
        }
        (Some((link @ Symlink { .. }, differs)), Some(was @ Symlink { .. })) => {
            match (link == was, differs) {
                (false, _) => replace(
                    "a link takes the losing link's name",
                    "a link takes the old link's place",
                ),
                (true, Differs::Nothing) => ("the link is there", Step::Nothing),
                (true, Differs::Mode) => ("a link's mode is not set", Step::Nothing),
                (true, Differs::Mtime) => ("the link gets its mtime", metadata(None, mtime_ns)),
                (true, Differs::Both) => {
                    ("the link gets its mtime, not its mode", metadata(None, mtime_ns))
                }
                (true, Differs::Untold) => ("a link without told metadata stays", Step::Nothing),
            }
        }
    }
}

#[test]
fn plan_has_a_row_for_every_case() {
    let contents = [Content::Dir, file(b"a"), file(b"b"), link(b"a"), link(b"b")];
    let winners =
        contents.iter().flat_map(|content| DIFFERS.map(|differs| (content.clone(), differs)));
    let winners: Vec<_> = [None].into_iter().chain(winners.map(Some)).collect();
    let bases = [None, Some(Content::Dir), Some(file(b"a")), Some(link(b"a"))];
    let mut rows = BTreeSet::new();
    for around in [(false, false), (false, true), (true, false), (true, true)] {
        let (installed_is_version, installed_below) = around;
        let around = Circumstances { installed_is_version, installed_below };
        for (wanted, base) in winners.iter().flat_map(|w| bases.iter().map(move |base| (w, base))) {
            let (name, expected) = plan_row(wanted.as_ref(), base.as_ref(), around);
            rows.insert(name);
            let wins = wanted.as_ref().map(|(content, differs)| winner(content, *differs));
            let found = plan(wins.as_ref(), base.as_ref().map(installed).as_ref(), around);
            assert_eq!(found, expected, "{name}: {wanted:?} over {base:?}, {around:?}");
        }
    }
    assert_eq!(rows.len(), 42, "a row without a case, or two with one name: {rows:#?}");
}

#[test]
fn metadata_is_compared_with_what_is_stood_for_and_not_with_what_the_disk_could_store() {
    let mut coarse = installed(&file(b"a"));
    coarse.fingerprint.mtime_ns = START_NS / 1_000_000_000 * 1_000_000_000 - 1;
    coarse.fingerprint.mode = 0o600;
    let circumstances = Circumstances { installed_is_version: true, installed_below: false };
    let wins = winner(&file(b"a"), Differs::Nothing);
    assert_eq!(plan(Some(&wins), Some(&coarse), circumstances), Step::Nothing);
}
