//! From one raw event to reports, and to what it means for the watches.

use recsync_proto::SharePath;
use recsync_proto::path::PathError;

use super::cover::Found;
use super::dirs::State;
use super::raw::{Raw, What};
use super::{Event, Watcher, Why};
use crate::engine::Hint;
use crate::tree::Tree;

impl<T: Tree, S: FnMut(Event)> Watcher<T, S> {
    /// Turns one raw event into reports, and follows the directories.
    pub(super) fn take(&mut self, raw: Raw) {
        let Raw { what, path, at } = raw;
        let found = Found { at, came_along: what == What::MovedHere };
        let path = match SharePath::new(path.as_ref()) {
            Ok(path) => path,
            Err(PathError::Empty) => return self.take_root(what, found),
            Err(PathError::Reserved) => {
                if matches!(what, What::Deleted | What::MovedAway) {
                    (self.sink)(Event::Root);
                }
                return;
            }
            Err(why) => return self.unsyncable(&path, why),
        };
        let hint = match what {
            What::Attributes => Hint::Attributes,
            What::Created | What::DirCreated | What::MovedHere => Hint::Created,
            What::Written => Hint::Written,
            What::Deleted => Hint::Deleted,
            What::MovedAway => Hint::MovedAway,
        };
        (self.sink)(Event::Dirty { path: path.clone(), hint, at, came_along: false });

        let known = self.dirs.state(&path);
        match what {
            // A directory that is watched already was found by a listing before its event came.
            What::DirCreated if known != Some(State::Watched) => self.renew(&path, found),
            What::MovedHere | What::MovedAway if known.is_some() => {
                self.check(&path, found);
                (self.sink)(Event::Scan { dir: path, why: Why::MovedAway });
            }
            What::MovedHere => self.check(&path, found),
            What::Deleted if known.is_some() => {
                self.check_deleted(&path, found);
                (self.sink)(Event::Scan { dir: path, why: Why::Deleted });
            }
            What::Attributes if known == Some(State::Denied) => self.renew(&path, found),
            _ => {}
        }
    }

    fn take_root(&mut self, what: What, found: Found) {
        match what {
            // It may be back already, or have been exchanged.
            What::Deleted | What::MovedAway => self.rebuild(Why::Rewatched),
            What::Attributes if self.dirs.state(&SharePath::root()) == Some(State::Denied) => {
                self.renew(&SharePath::root(), found);
            }
            _ => {}
        }
    }

    fn unsyncable(&mut self, path: &[u8], why: PathError) {
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (dir, name) = match slash {
            Some(slash) => (SharePath::new(&path[..slash]), &path[slash + 1..]),
            None => (Ok(SharePath::root()), path),
        };
        // A directory whose own path cannot be synced is never watched.
        if let Ok(dir) = dir {
            (self.sink)(Event::Unsyncable { dir, name: name.to_vec(), why });
        }
    }

    /// Something happened to a name that was, or may be now, a directory's.
    fn check(&mut self, path: &SharePath, found: Found) {
        if self.may_be_dir(path) {
            self.renew(path, found);
        } else {
            self.forget(path);
        }
    }

    /// As [`check`](Self::check), without asking for the removal of the one watch that a removed
    /// directory takes with it: notify looks through all its watches for each such request.
    fn check_deleted(&mut self, path: &SharePath, found: Found) {
        if self.may_be_dir(path) {
            return self.renew(path, found);
        }
        let mut gone = self.dirs.take(path);
        gone.retain(|dir| dir != path);
        self.unwatch(&gone);
    }
}
