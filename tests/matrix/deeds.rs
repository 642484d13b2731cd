//! What a user does to the files of one cell while the nodes are apart.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::hash;

/// Who writes: the bytes, link targets, modes and times are the author's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    Base,
    Node(usize),
    Both,
}

impl Author {
    fn number(self) -> usize {
        match self {
            Author::Base => 0,
            Author::Node(number) => number,
            Author::Both => 3,
        }
    }
}

/// One deed. The names: `call.wav` and `b.wav` are files, `day/old.wav` and `box/kept.wav` lie in directories,
/// `new.wav` and `moved` are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Nothing,
    /// A new file `new.wav`.
    Create,
    /// `call.wav` in place, same length.
    Modify,
    /// Another file is renamed over `call.wav`.
    Replace,
    Delete,
    /// `call.wav` to `new.wav`.
    Rename,
    /// `call.wav` becomes a directory with a file in it.
    ToDir,
    /// `call.wav` becomes a symbolic link.
    ToLink,
    /// A new directory of the name `new.wav`.
    MakeDir,
    /// A new link of the name `new.wav`.
    MakeLink,
    /// A new file in `day`.
    Add,
    /// `day` and all in it.
    RemoveDir,
    /// `day` to `moved`.
    MoveDir,
    /// `day` becomes a file.
    DirToFile,
    Chmod,
    Touch,
    // Only in stories:
    /// `day/old.wav` in place.
    ModifyInDir,
    /// `call.wav` and `b.wav` change their names.
    Swap,
    /// `call.wav` to `c.wav`, `b.wav` to `call.wav`.
    Chain,
    /// A name to another one.
    Move(&'static str, &'static str),
    /// A name is deleted.
    Remove(&'static str),
    /// A file of this name.
    Write(&'static str),
    /// A link of this name.
    Link(&'static str),
    /// A directory of this name.
    Mkdir(&'static str),
}

/// The rows and columns of the table for what both did differently.
pub(crate) const DEEDS: [Deed; 16] = [
    Deed::Nothing,
    Deed::Create,
    Deed::Modify,
    Deed::Replace,
    Deed::Delete,
    Deed::Rename,
    Deed::ToDir,
    Deed::ToLink,
    Deed::MakeDir,
    Deed::MakeLink,
    Deed::Add,
    Deed::RemoveDir,
    Deed::MoveDir,
    Deed::DirToFile,
    Deed::Chmod,
    Deed::Touch,
];

/// Those of the table in which both write the same bytes.
pub(crate) const WRITING: [Deed; 11] = [
    Deed::Create,
    Deed::Modify,
    Deed::Replace,
    Deed::ToDir,
    Deed::ToLink,
    Deed::MakeDir,
    Deed::MakeLink,
    Deed::Add,
    Deed::DirToFile,
    Deed::Chmod,
    Deed::Touch,
];

/// What is no square: several deeds in a row, and other names.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) deeds: [&'static [Deed]; 2],
}

pub(crate) const STORIES: [Story; 21] = [
    Story { name: "names swapped", deeds: [&[Deed::Swap], &[]] },
    Story { name: "names swapped on both", deeds: [&[Deed::Swap], &[Deed::Swap]] },
    Story { name: "names swapped × one of them changed", deeds: [&[Deed::Swap], &[Deed::Modify]] },
    Story { name: "a chain of names moved up", deeds: [&[Deed::Chain], &[]] },
    Story { name: "a chain of names × one deleted", deeds: [&[Deed::Chain], &[Deed::Delete]] },
    Story {
        name: "renamed a → b → c",
        deeds: [&[Deed::Rename, Deed::Move("new.wav", "last.wav")], &[]],
    },
    Story {
        name: "renamed and back",
        deeds: [&[Deed::Rename, Deed::Move("new.wav", "call.wav")], &[Deed::Touch]],
    },
    Story {
        name: "renamed to two names",
        deeds: [&[Deed::Move("call.wav", "by-1.wav")], &[Deed::Move("call.wav", "by-2.wav")]],
    },
    Story {
        name: "two files renamed to one name",
        deeds: [&[Deed::Rename], &[Deed::Move("b.wav", "new.wav")]],
    },
    Story {
        name: "a directory moved to two names",
        deeds: [&[Deed::Move("day", "by-1")], &[Deed::Move("day", "by-2")]],
    },
    Story {
        name: "a directory moved × a file in it changed",
        deeds: [&[Deed::MoveDir], &[Deed::ModifyInDir]],
    },
    Story {
        name: "a directory deleted × a file in it changed",
        deeds: [&[Deed::RemoveDir], &[Deed::ModifyInDir]],
    },
    Story {
        name: "a directory deleted × a file moved into it",
        deeds: [&[Deed::RemoveDir], &[Deed::Move("call.wav", "day/call.wav")]],
    },
    Story {
        name: "a directory becomes a link × a file in it changed",
        deeds: [&[Deed::Remove("day"), Deed::Link("day")], &[Deed::ModifyInDir]],
    },
    Story {
        name: "a file in a directory changed × the directory becomes a link",
        deeds: [&[Deed::ModifyInDir], &[Deed::Remove("day"), Deed::Link("day")]],
    },
    Story {
        name: "a directory becomes a link × a file made deep in it",
        deeds: [
            &[Deed::Remove("day"), Deed::Link("day")],
            &[Deed::Mkdir("day/a"), Deed::Mkdir("day/a/b"), Deed::Write("day/a/b/c.wav")],
        ],
    },
    Story {
        name: "two directories moved into each other",
        deeds: [&[Deed::Move("day", "box/day")], &[Deed::Move("box", "day/box")]],
    },
    Story {
        name: "two directories swapped × files changed in both",
        deeds: [
            &[Deed::Move("day", "aside"), Deed::Move("box", "day"), Deed::Move("aside", "box")],
            &[Deed::ModifyInDir, Deed::Write("box/kept.wav")],
        ],
    },
    Story {
        name: "a directory deleted × deleted and made again",
        deeds: [&[Deed::RemoveDir], &[Deed::Remove("day"), Deed::Mkdir("day"), Deed::ModifyInDir]],
    },
    Story {
        name: "deleted and made again × changed",
        deeds: [&[Deed::Delete, Deed::Write("call.wav")], &[Deed::Modify]],
    },
    Story {
        name: "a file × a link × a directory of one name, deep",
        deeds: [
            &[
                Deed::Mkdir("deep"),
                Deed::Write("deep/a"),
                Deed::Mkdir("deep/b"),
                Deed::Link("deep/c"),
            ],
            &[
                Deed::Mkdir("deep"),
                Deed::Link("deep/a"),
                Deed::Write("deep/b"),
                Deed::Mkdir("deep/c"),
            ],
        ],
    },
];

impl Deed {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Deed::Nothing => "nothing",
            Deed::Create => "create",
            Deed::Modify => "modify",
            Deed::Replace => "replace",
            Deed::Delete => "delete",
            Deed::Rename => "rename",
            Deed::ToDir => "→ dir",
            Deed::ToLink => "→ link",
            Deed::MakeDir => "mkdir",
            Deed::MakeLink => "ln -s",
            Deed::Add => "add in",
            Deed::RemoveDir => "rm -r",
            Deed::MoveDir => "mv dir",
            Deed::DirToFile => "→ file",
            Deed::Chmod => "chmod",
            Deed::Touch => "touch",
            _ => "a story",
        }
    }

    pub(crate) fn act(self, dir: &Path, author: Author) {
        let number = author.number();
        let write = |name: &str, len: usize| write(dir, name, author, len);
        let target = format!("target-of-{number}");
        match self {
            Deed::Nothing => {}
            Deed::Create => write("new.wav", 1_500),
            Deed::Modify => write("call.wav", 2_000),
            Deed::Replace => {
                write(".part", 900);
                fs::rename(dir.join(".part"), dir.join("call.wav")).unwrap();
            }
            Deed::Delete => remove(dir, "call.wav"),
            Deed::Rename => rename(dir, "call.wav", "new.wav"),
            Deed::ToDir => {
                remove(dir, "call.wav");
                fs::create_dir(dir.join("call.wav")).unwrap();
                write("call.wav/in.wav", 700);
            }
            Deed::ToLink => {
                remove(dir, "call.wav");
                symlink(target, dir.join("call.wav")).unwrap();
            }
            Deed::MakeDir => fs::create_dir(dir.join("new.wav")).unwrap(),
            Deed::MakeLink => symlink(target, dir.join("new.wav")).unwrap(),
            Deed::Add => write("day/late.wav", 600),
            Deed::RemoveDir => remove(dir, "day"),
            Deed::MoveDir => rename(dir, "day", "moved"),
            Deed::DirToFile => {
                remove(dir, "day");
                write("day", 500);
            }
            Deed::Chmod => {
                let mode = [0o644, 0o600, 0o640, 0o660][number];
                fs::set_permissions(dir.join("call.wav"), Permissions::from_mode(mode)).unwrap();
            }
            Deed::Touch => {
                let time = UNIX_EPOCH + Duration::new(1_500_000_000 + number as u64, 123_456_789);
                let times = FileTimes::new().set_accessed(time).set_modified(time);
                File::open(dir.join("call.wav")).unwrap().set_times(times).unwrap();
            }
            Deed::ModifyInDir => write("day/old.wav", 2_000),
            Deed::Swap => {
                rename(dir, "call.wav", ".aside");
                rename(dir, "b.wav", "call.wav");
                rename(dir, ".aside", "b.wav");
            }
            Deed::Chain => {
                rename(dir, "call.wav", "c.wav");
                rename(dir, "b.wav", "call.wav");
            }
            Deed::Move(from, to) => rename(dir, from, to),
            Deed::Remove(name) => remove(dir, name),
            Deed::Write(name) => write(name, 400),
            Deed::Link(name) => symlink(target, dir.join(name)).unwrap(),
            Deed::Mkdir(name) => fs::create_dir(dir.join(name)).unwrap(),
        }
    }
}

/// Fills a cell's directory.
pub(crate) fn prepare(dir: &Path) {
    fs::create_dir_all(dir.join("day")).unwrap();
    fs::create_dir(dir.join("box")).unwrap();
    for name in ["call.wav", "b.wav", "day/old.wav", "box/kept.wav"] {
        write(dir, name, Author::Base, 2_000);
    }
}

/// Bytes that tell where they belong and who wrote them.
fn write(dir: &Path, name: &str, author: Author, len: usize) {
    let text = format!("{} {name} {}", dir.file_name().unwrap().display(), author.number());
    let bytes: Vec<u8> = hash(text.as_bytes()).into_iter().cycle().take(len).collect();
    fs::write(dir.join(name), bytes).unwrap();
}

fn rename(dir: &Path, from: &str, to: &str) {
    fs::rename(dir.join(from), dir.join(to)).unwrap();
}

fn remove(dir: &Path, name: &str) {
    let path = dir.join(name);
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
}
