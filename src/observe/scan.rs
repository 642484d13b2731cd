//! Walks a directory and compares it with the index: finds what the watcher may have missed.
//!
//! A finding is a dirty path, not a verdict: each is looked at before anything is decided.
//!
//! **Invariant:** absences come last, after the root was checked again, and never from below a
//! directory that could not be listed; memory holds one directory's names, the directories still
//! to be entered, and at most [`ABSENT_MAX`] absences.
//! **May not:** read a file's bytes, or follow a symbolic link or a mount.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::ops::ControlFlow;

use recsync_proto::SharePath;
use thiserror::Error;

use super::names::{self, Named, Names};
use crate::engine::Hint;
use crate::index::{IndexError, IndexRead, Installed};
use crate::tree::{Fingerprint, Kind, Place, RootError, Tree, TreeError, temporary_of};

/// Absences held back until the walk is done; beyond that they are told early, so that memory
/// stays bounded, and renames among them are seen as a delete first.
const ABSENT_MAX: usize = 100_000;
/// Special files, and names that cannot be synced, that a report names.
const NAMED_MAX: usize = 10;
/// Unreadable places that a report names; beyond that they are only counted.
const UNREADABLE_MAX: usize = 1_000;

/// A path that differs from the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanItem {
    /// Which.
    pub path: SharePath,
    /// [`Hint::Written`] for what is there, [`Hint::Attributes`] where only owner or mode differ;
    /// [`Hint::MovedAway`] for what is not: its new name may be among the findings.
    pub hint: Hint,
}

/// A place that could not be looked at: nothing is known of it or of what is below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Which.
    pub path: SharePath,
    /// Why; [`TreeError::CrossDevice`] is a mount point, which is never entered.
    pub why: TreeError,
}

/// What a scan saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanReport {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories, without the one that was scanned.
    pub dirs: u64,
    /// Sockets, FIFOs and devices, which are never synced.
    pub special: u64,
    /// The first of them.
    pub special_named: Vec<SharePath>,
    /// Names that no [`SharePath`] can hold (too long), with all below them.
    pub unsyncable: u64,
    /// The directories of the first of them.
    pub unsyncable_in: Vec<SharePath>,
    /// Names that are left alone, by the rule that has them so; of an ignored directory only itself.
    pub ignored: BTreeMap<String, u64>,
    /// Places that could not be looked at.
    pub unreadable: u64,
    /// The first of them.
    pub unreadable_named: Vec<Unreadable>,
    /// Paths told as dirty because they differ.
    pub differing: u64,
    /// Paths told as dirty because they are gone.
    pub absent: u64,
    /// True if the receiver of the findings stopped the scan.
    pub stopped: bool,
}

impl ScanReport {
    /// Returns the mount points that were met, which are never entered.
    pub fn mounts(&self) -> Vec<SharePath> {
        let mounts = self.unreadable_named.iter().filter(|one| one.why == TreeError::CrossDevice);
        mounts.map(|one| one.path.clone()).collect()
    }

    /// Returns what is to be scanned again, after a scan of `dir`: all that could not be looked at
    /// but mount points.
    pub fn again(&self, dir: &SharePath) -> Vec<SharePath> {
        let named = self.unreadable_named.iter();
        let passing = named.filter(|one| one.why != TreeError::CrossDevice);
        let rest = self.unreadable > self.unreadable_named.len() as u64;
        passing.map(|one| one.path.clone()).chain(rest.then(|| dir.clone())).collect()
    }

    /// True if everything was seen.
    pub fn is_complete(&self) -> bool {
        !self.stopped && self.unreadable == 0
    }
}

/// Why a scan ended early; what it told until then holds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScanError {
    /// The share may not be touched: no absence was told on its strength.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The index did not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Scans a directory and all below it, and tells `emit` each path that differs from the index:
/// first what is there, then what is gone. `emit` may stop the scan.
///
/// # Errors
/// If the root is not fit to be touched, before or after the walk, or the index does not answer.
pub fn scan<T: Tree, I: IndexRead>(
    tree: &T,
    index: &I,
    dir: &SharePath,
    emit: &mut dyn FnMut(ScanItem) -> ControlFlow<()>,
) -> Result<ScanReport, ScanError> {
    tree.check_root()?;
    let mut scan = Scan {
        tree,
        index,
        emit,
        fs: tree.stat(&Place::Share(dir.clone())).ok().map(|found| found.fs),
        to_enter: Vec::new(),
        absent: Vec::new(),
        report: ScanReport::default(),
    };
    match scan.walk(dir).and_then(|()| scan.tell_absent()) {
        Ok(()) => Ok(scan.report),
        Err(End::Stopped) => Ok(ScanReport { stopped: true, ..scan.report }),
        Err(End::Failed(error)) => Err(error),
    }
}

/// Why a walk ends before its time.
enum End {
    Stopped,
    Failed(ScanError),
}

impl<E: Into<ScanError>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}

struct Scan<'a, T, I> {
    tree: &'a T,
    index: &'a I,
    emit: &'a mut dyn FnMut(ScanItem) -> ControlFlow<()>,
    /// The filesystem of the directory that was asked for, if that is there.
    fs: Option<u64>,
    to_enter: Vec<SharePath>,
    absent: Vec<SharePath>,
    report: ScanReport,
}

impl<T: Tree, I: IndexRead> Scan<'_, T, I> {
    fn walk(&mut self, dir: &SharePath) -> Result<(), End> {
        if dir.is_root() {
            self.to_enter.push(dir.clone());
        } else {
            let installed = self.installed(dir)?;
            self.compare(dir, self.tree.stat(&Place::Share(dir.clone())), installed.as_ref())?;
        }
        while let Some(dir) = self.to_enter.pop() {
            self.enter(&dir)?;
        }
        Ok(())
    }

    fn enter(&mut self, dir: &SharePath) -> Result<(), End> {
        let listed = match names::list(self.tree, dir) {
            Ok(listed) => listed,
            // It was a directory a moment ago: look at it, and at all that was below.
            Err(TreeError::NotFound | TreeError::WrongKind) if !dir.is_root() => {
                self.differs(dir, Hint::Written)?;
                return self.gone_below(dir);
            }
            Err(why) => {
                self.unreadable(dir, why);
                return Ok(());
            }
        };
        let first_to_enter = self.to_enter.len();
        let mut names = Names::new(self.tree, self.index, dir, &listed, b"");
        for named in names.by_ref() {
            let Named { path, found, installed } = named?;
            match found {
                Some(found) => self.compare(&path, found, installed.as_ref())?,
                None => self.gone(&path, installed.as_ref())?,
            }
        }
        if names.unsyncable() > 0 {
            self.report.unsyncable += names.unsyncable();
            name_some(&mut self.report.unsyncable_in, dir);
        }
        self.gone_unnamed(dir, &listed)?;
        // The last one pushed is entered first: names in order.
        self.to_enter[first_to_enter..].reverse();
        Ok(())
    }

    /// Compares what a listed name holds with what is installed there.
    fn compare(
        &mut self,
        path: &SharePath,
        found: Result<Fingerprint, TreeError>,
        installed: Option<&Installed>,
    ) -> Result<(), End> {
        let found = match found {
            Ok(found) => found,
            // Or something above it is no directory any more: nothing is below that.
            Err(TreeError::NotFound | TreeError::WrongKind) => return self.gone(path, installed),
            Err(why) => {
                self.unreadable(path, why);
                return Ok(());
            }
        };
        if self.fs.is_some_and(|fs| fs != found.fs) {
            self.unreadable(path, TreeError::CrossDevice);
            return Ok(());
        }
        let rule = self.tree.ignored_by(path, found.kind == Kind::Dir);
        if let Some(rule) = rule {
            self.ignored(rule);
            return Ok(());
        }
        if installed.is_none()
            && let Some(tool) = temporary_of(path.name())
        {
            self.ignored(tool.to_owned());
        }
        self.count(path, &found);
        if found.kind == Kind::Dir {
            self.to_enter.push(path.clone());
        }
        let same = installed.is_some_and(|installed| is_same(&installed.fingerprint, &found));
        // A special file is no finding by itself, but what it replaced is gone.
        if same || found.kind == Kind::Special && installed.is_none() {
            return Ok(());
        }
        let known = installed.map(|installed| &installed.fingerprint);
        let hint = if known.is_some_and(|known| is_dressed_anew(known, &found)) {
            Hint::Attributes
        } else {
            Hint::Written
        };
        self.differs(path, hint)?;
        if found.kind == Kind::Dir { Ok(()) } else { self.gone_below(path) }
    }

    fn count(&mut self, path: &SharePath, found: &Fingerprint) {
        match found.kind {
            Kind::File => {
                self.report.files += 1;
                self.report.bytes += found.size;
            }
            Kind::Dir => self.report.dirs += 1,
            Kind::Symlink => {}
            Kind::Special => {
                self.report.special += 1;
                name_some(&mut self.report.special_named, path);
            }
        }
    }

    fn differs(&mut self, path: &SharePath, hint: Hint) -> Result<(), End> {
        self.report.differing += 1;
        self.tell(path.clone(), hint)
    }

    fn tell(&mut self, path: SharePath, hint: Hint) -> Result<(), End> {
        match (self.emit)(ScanItem { path, hint }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(End::Stopped),
        }
    }

    fn installed(&self, path: &SharePath) -> Result<Option<Installed>, End> {
        Ok(self.index.entry(path)?.and_then(|entry| entry.installed))
    }

    /// Notes that a path is not there.
    fn gone(&mut self, path: &SharePath, installed: Option<&Installed>) -> Result<(), End> {
        if installed.is_some() {
            self.hold_back(path.clone())?;
        }
        // Most absences are files: only a directory is asked for what was below it. One that is
        // not installed itself may still have been implied by something below.
        if installed.is_none_or(|installed| installed.content.is_dir()) {
            self.gone_below(path)?;
        }
        Ok(())
    }

    /// Notes what is installed below names in a directory that are not listed and where nothing is
    /// installed either: what is below has implied them.
    fn gone_unnamed(&mut self, dir: &SharePath, listed: &[Vec<u8>]) -> Result<(), End> {
        let mut from = Vec::new();
        let mut told = BTreeSet::new();
        while let Some(holder) = self.index.next_installed_dir(dir, &from)? {
            let mut above = iter::once(holder.clone()).chain(holder.ancestors());
            let Some(child) = above.find(|path| path.parent() == *dir) else { break };
            // Its own subtree lies behind its neighbours `child-` and `child.`, which come next.
            let next = if holder == child { b'\0' } else { b'/' + 1 };
            from = [child.as_bytes(), &[next]].concat();
            let is_listed = listed.binary_search_by(|name| name[..].cmp(child.name())).is_ok();
            if !is_listed && self.installed(&child)?.is_none() && told.insert(child.clone()) {
                self.gone_below(&child)?;
            }
        }
        Ok(())
    }

    /// Notes that all that is installed below a path is not there.
    fn gone_below(&mut self, dir: &SharePath) -> Result<(), End> {
        if !self.index.has_installed_below(dir)? {
            return Ok(());
        }
        let mut next = Some(dir.clone());
        while let Some(holder) = next {
            for named in Names::new(self.tree, self.index, &holder, &[], b"") {
                self.hold_back(named?.path)?;
            }
            next = self.index.next_installed_dir(dir, &[holder.as_bytes(), b"\0"].concat())?;
        }
        Ok(())
    }

    fn hold_back(&mut self, path: SharePath) -> Result<(), End> {
        self.absent.push(path);
        if self.absent.len() < ABSENT_MAX { Ok(()) } else { self.tell_absent() }
    }

    fn tell_absent(&mut self) -> Result<(), End> {
        self.tree.check_root()?;
        if mutant!(ScanForgetsAbsent) {
            self.absent.clear();
        }
        for path in std::mem::take(&mut self.absent) {
            self.report.absent += 1;
            self.tell(path, Hint::MovedAway)?;
        }
        Ok(())
    }

    fn ignored(&mut self, rule: String) {
        *self.report.ignored.entry(rule).or_default() += 1;
    }

    fn unreadable(&mut self, path: &SharePath, why: TreeError) {
        self.report.unreadable += 1;
        if self.report.unreadable_named.len() < UNREADABLE_MAX {
            self.report.unreadable_named.push(Unreadable { path: path.clone(), why });
        }
    }
}

/// True if a stat shows what is installed. A directory's size and times move with what is in it.
fn is_same(installed: &Fingerprint, found: &Fingerprint) -> bool {
    if installed.kind == Kind::Dir && found.kind == Kind::Dir {
        let key = |dir: &Fingerprint| (dir.fs, dir.ino, dir.mode, dir.uid, dir.gid);
        return key(installed) == key(found);
    }
    installed == found
}

/// True if a file has another owner or mode, which is why its ctime moved, and the same bytes as
/// far as a stat can tell: `chown -R` over a million recordings must not have them all read.
fn is_dressed_anew(installed: &Fingerprint, found: &Fingerprint) -> bool {
    let key = |file: &Fingerprint| (file.mode, file.uid, file.gid);
    installed.same_bytes(found) && key(installed) != key(found)
}

fn name_some(named: &mut Vec<SharePath>, path: &SharePath) {
    if named.len() < NAMED_MAX && named.last() != Some(path) {
        named.push(path.clone());
    }
}
