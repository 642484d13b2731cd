//! Stands in for `watch` and the kernel's inotify: notices of directories become dirty paths, late,
//! merged, under stale names, or lost when the queue runs over.
//!
//! As in production a directory is watched first and listed second, names of watches are never
//! trusted after a move, and lost notices become a scan with all watches made anew.
//! **Invariant:** a change in the share is reported, or a scan is, once everything is read.

use std::collections::{BTreeMap, BTreeSet};

use recsync::engine::Hint;
use recsync::tree::{Kind, Place, Tree};
use recsync_proto::SharePath;

use crate::disk::{Meanwhile, SimTree};
use crate::fs::{Change, Id};

/// What the watcher reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A path may have changed.
    Dirty(SharePath, Hint),
    /// Likewise; it was found in a directory that was moved here.
    Along(SharePath, Hint),
    /// A directory is watched from now on: what was in it before and is gone was not heard of.
    Watched(SharePath),
    /// A directory and all below it must be compared with the index.
    Scan(SharePath),
}

/// The watches of one life of a node.
#[derive(Debug)]
pub struct Watcher {
    /// Watched directories and the names that they had then.
    dirs: BTreeMap<Id, SharePath>,
    /// Directories that could not be listed: what is in them is not watched, and tried again.
    unlisted: BTreeSet<SharePath>,
    /// Notices that the kernel's queue holds.
    room: usize,
}

impl Watcher {
    /// Watches every directory; the scan that must follow is the first report.
    pub fn start<M: Meanwhile>(tree: &SimTree<M>, room: usize) -> (Self, Vec<Report>) {
        let mut watcher = Watcher { dirs: BTreeMap::new(), unlisted: BTreeSet::new(), room };
        watcher.renew(tree, &SharePath::root(), Report::Dirty, &mut Vec::new());
        (watcher, vec![Report::Scan(SharePath::root())])
    }

    /// Reads what the kernel has queued.
    pub fn read<M: Meanwhile>(&mut self, tree: &SimTree<M>) -> Vec<Report> {
        let mut reports = Vec::new();
        for path in self.unlisted.clone() {
            // What is in it was not heard of, and is no news: a scan tells.
            self.renew(tree, &path, Report::Dirty, &mut Vec::new());
            reports.push(Report::Scan(path));
        }
        let notices = tree.disk().fs.take_notices();
        if notices.len() > self.room && recsync::mutant!(IgnoreOverflow) {
            return Vec::new();
        }
        if notices.len() > self.room {
            self.dirs.clear();
            tree.disk().fs.unwatch_all();
            self.renew(tree, &SharePath::root(), Report::Dirty, &mut Vec::new());
            return vec![Report::Scan(SharePath::root())];
        }
        for notice in notices {
            let Some(dir) = self.dirs.get(&notice.dir) else { continue };
            // Within recsync's own directory, or a name that cannot be synced.
            let Ok(path) = dir.join(&notice.name) else { continue };
            let hint = match notice.change {
                Change::Created | Change::MovedTo => Hint::Created,
                Change::Closed => Hint::Written,
                Change::Attributes => Hint::Attributes,
                Change::Deleted => Hint::Deleted,
                Change::MovedFrom => Hint::MovedAway,
            };
            reports.push(Report::Dirty(path.clone(), hint));
            let came = notice.change == Change::MovedTo;
            let found = if came { Report::Along } else { Report::Dirty };
            let known = self.dirs.values().any(|dir| *dir == path);
            match notice.change {
                Change::Created if notice.is_dir && !known => {
                    self.renew(tree, &path, found, &mut reports);
                    reports.push(Report::Watched(path));
                }
                Change::MovedTo | Change::MovedFrom | Change::Deleted if known => {
                    self.forget(tree, &path);
                    self.renew(tree, &path, found, &mut reports);
                    reports.push(Report::Scan(path));
                }
                Change::MovedTo => {
                    self.renew(tree, &path, found, &mut reports);
                    if notice.is_dir {
                        reports.push(Report::Watched(path));
                    }
                }
                _ => {}
            }
        }
        reports
    }

    /// True if some directories could not be listed.
    pub fn is_incomplete(&self) -> bool {
        !self.unlisted.is_empty()
    }

    fn forget<M: Meanwhile>(&mut self, tree: &SimTree<M>, path: &SharePath) {
        let fs = &mut tree.disk().fs;
        self.dirs.retain(|id, dir| {
            let below = dir == path || dir.is_below(path);
            if below {
                fs.unwatch(*id);
            }
            !below
        });
    }

    /// Watches a directory, if one is there, then lists it: what is in it may be news, and is reported as
    /// `found`.
    fn renew<M: Meanwhile>(
        &mut self,
        tree: &SimTree<M>,
        path: &SharePath,
        found: fn(SharePath, Hint) -> Report,
        reports: &mut Vec<Report>,
    ) {
        {
            let fs = &mut tree.disk().fs;
            let names = path.as_bytes().split(|&byte| byte == b'/');
            let names: Vec<&[u8]> = names.filter(|name| !name.is_empty()).collect();
            match fs.resolve(&names) {
                Ok(id) if fs.is_dir(id) => {
                    fs.watch(id);
                    self.dirs.insert(id, path.clone());
                }
                _ => {
                    self.unlisted.remove(path);
                    return;
                }
            }
        }
        let place = Place::Share(path.clone());
        let Ok(entries) = tree.list(&place) else {
            // It cannot be read now; only a scan finds what is in it.
            self.unlisted.insert(path.clone());
            reports.push(Report::Scan(path.clone()));
            return;
        };
        self.unlisted.remove(path);
        for entry in entries {
            let Ok(below) = path.join(&entry.name) else { continue };
            let is_file = entry.kind == Some(Kind::File);
            let hint = if is_file { Hint::Written } else { Hint::Created };
            reports.push(found(below.clone(), hint));
            if !is_file {
                self.renew(tree, &below, found, reports);
            }
        }
    }
}
