//! What notify tells, in the few words that matter here.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Created,
    DirCreated,
    Written,
    Attributes,
    Deleted,
    MovedAway,
    MovedHere,
}

/// Something happened to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) what: What,
    /// Relative to the root; empty for the root itself. Any bytes.
    pub(super) path: Box<[u8]>,
    /// When it was heard, by the monotonic clock.
    pub(super) at: Duration,
}

/// What one event of notify means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Change(What, Box<[u8]>),
    /// Events were lost.
    Lost,
    Nothing,
}

/// Translates an event of notify's inotify watcher for directories below `root`.
pub(super) fn translate(root: &Path, event: &notify::Result<notify::Event>) -> Heard {
    // An error of the event stream names no path that could be looked at instead.
    let Ok(event) = event else { return Heard::Lost };
    if event.need_rescan() {
        return Heard::Lost;
    }
    let what = match event.kind {
        EventKind::Create(CreateKind::Folder) => What::DirCreated,
        EventKind::Create(_) => What::Created,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => What::Written,
        EventKind::Modify(ModifyKind::Metadata(_)) => What::Attributes,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => What::MovedAway,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => What::MovedHere,
        EventKind::Remove(_) => What::Deleted,
        // `RenameMode::Both` repeats a From and a To, and not for every pair.
        _ => return Heard::Nothing,
    };
    let Some(path) = event.paths.first().and_then(|path| below(root, path)) else {
        return Heard::Nothing;
    };
    // A directory tells of its own move (IN_MOVE_SELF, which has no cookie) after its parent did,
    // and under a name that may be another's by now. Nobody else tells of the root's.
    if what == What::MovedAway && event.tracker().is_none() && !path.is_empty() {
        return Heard::Nothing;
    }
    Heard::Change(what, path.into())
}

/// Returns the bytes of a path relative to the root. By bytes and not by components: those would
/// be right too, but this runs for every event.
fn below<'a>(root: &Path, path: &'a Path) -> Option<&'a [u8]> {
    let root = root.as_os_str().as_bytes();
    let rest = path.as_os_str().as_bytes().strip_prefix(root)?;
    match rest.split_first() {
        None => Some(rest),
        Some((b'/', name)) => Some(name),
        // The root is `/` itself, or the path is beside it: `/rec2` for `/rec`.
        Some(_) => (root == b"/").then_some(rest),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::PathBuf;

    use notify::event::{DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    fn check(kind: EventKind, path: &[u8], expected: Heard) {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let event = notify::Event::new(kind).add_path(path).set_tracker(1);
        assert_eq!(translate(Path::new("/rec"), &Ok(event)), expected, "{kind:?}");
    }

    fn change(what: What, path: &[u8]) -> Heard {
        Heard::Change(what, path.into())
    }

    #[test]
    fn every_kind_has_its_word() {
        let name = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let close = |mode| EventKind::Access(AccessKind::Close(mode));
        let path = b"/rec/a/b.wav";
        let to = |what| change(what, b"a/b.wav");
        check(EventKind::Create(CreateKind::File), path, to(What::Created));
        check(EventKind::Create(CreateKind::Folder), path, to(What::DirCreated));
        check(close(AccessMode::Write), path, to(What::Written));
        check(close(AccessMode::Read), path, Heard::Nothing);
        check(name(RenameMode::From), path, to(What::MovedAway));
        check(name(RenameMode::To), path, to(What::MovedHere));
        check(name(RenameMode::Both), path, Heard::Nothing);
        check(EventKind::Remove(RemoveKind::Folder), path, to(What::Deleted));
        check(EventKind::Remove(RemoveKind::Other), path, to(What::Deleted));
        let attributes = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
        check(attributes, path, to(What::Attributes));
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        check(data, path, Heard::Nothing);
    }

    #[test]
    fn paths_are_relative_bytes_and_the_root_is_empty() {
        let kind = EventKind::Create(CreateKind::File);
        check(kind, b"/rec", change(What::Created, b""));
        check(kind, b"/rec/\xff\xfe", change(What::Created, b"\xff\xfe"));
        check(kind, b"/rec2/a", Heard::Nothing);
        check(kind, b"/other", Heard::Nothing);
        let event = notify::Event::new(kind).add_path(PathBuf::from("/a"));
        assert_eq!(translate(Path::new("/"), &Ok(event)), change(What::Created, b"a"));
    }

    #[test]
    fn only_the_root_speaks_of_its_own_move() {
        let kind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        let event = |path: &str| Ok(notify::Event::new(kind).add_path(path.into()));
        let root = Path::new("/rec");
        assert_eq!(translate(root, &event("/rec")), change(What::MovedAway, b""));
        assert_eq!(translate(root, &event("/rec/a")), Heard::Nothing);
    }

    #[test]
    fn an_overflow_and_an_error_are_losses() {
        let root = Path::new("/rec");
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(translate(root, &Ok(overflow)), Heard::Lost);
        assert_eq!(translate(root, &Err(notify::Error::generic("read"))), Heard::Lost);
    }
}
