//! What people ask of conflict copies: which there are, how they differ, and what becomes of them.
//!
//! **Invariant:** a version that is not kept goes to the trash; nothing is overwritten. To the engine
//! all of it is somebody's change.

use std::sync::Arc;

use recsync_proto::{Content, SharePath};

use super::Node;
use super::host::Host;
use super::share::ToShare;
use super::site::Site;
use super::trash::{read, site_of};
use crate::engine::conflict::{self, Copy};
use crate::engine::{Hint, Noticed};
use crate::index::{IndexRead as _, Installed, Logged, Trashed, Why, Write};
use crate::serve::api::{
    ConflictCopy, ConflictPage, ConflictRole, ConflictSide, ConflictView, Keep, NotResolved,
    Renamed, Resolved,
};
use crate::serve::{CommandError, ConflictQuery, Named, Resolve};
use crate::telemetry::Timestamp;
use crate::trash::{DisplaceError, displace};
use crate::tree::{Kind, Place, Tree as _, TreeError, trash_place};

/// Copies read at once.
const ROWS: usize = 256;
/// Names tried for a copy that is to stay.
const NAMES_MAX: u32 = 9;

/// A conflict copy, and whose it is.
struct Found {
    logged: Logged,
    copy: Copy,
}

impl Node {
    /// Lists a part of the conflict copies, by directory and name.
    pub(super) fn conflict_page(
        &self,
        query: &ConflictQuery,
    ) -> Result<ConflictPage, CommandError> {
        let (mut hosts, below) = match &query.path {
            Some(named) => {
                let (host, path) = self.locate(query.share.as_ref(), named)?;
                (vec![host], path)
            }
            None => (self.select(query.share.as_ref())?, SharePath::root()),
        };
        let mut after = SharePath::root();
        if let Some((share, path)) = &query.after {
            let at = hosts.iter().position(|host| host.name == *share);
            hosts.drain(..at.unwrap_or(hosts.len()));
            after = path.clone();
        }
        let mut page = ConflictPage::default();
        let Some(host) = hosts.first() else { return Ok(page) };
        let site = site_of(host)?;
        let rows = read(&site, |index| index.copies(&after, query.limit))?;
        let next =
            |host: &Host, path: &SharePath| Some(format!("{}:{}", host.name, hex(path.as_bytes())));
        page.next = match rows.last() {
            Some(last) if rows.len() == query.limit => next(host, &last.path),
            _ => hosts.get(1).and_then(|host| next(host, &SharePath::root())),
        };
        let found = rows.into_iter().filter_map(found).filter(|found| is_of(found, &below));
        page.copies = found
            .map(|Found { logged, copy }| {
                let installed = logged.entry.installed.as_ref();
                ConflictCopy {
                    share: host.name.to_string(),
                    path: copy.of.to_string(),
                    copy: logged.path.to_string(),
                    node: copy.node,
                    size: installed.map_or(0, |installed| installed.content.size()),
                    mtime: Timestamp::from_ns(installed.map_or(0, |installed| installed.mtime_ns)),
                    hash: installed.and_then(hash_of),
                }
            })
            .collect();
        Ok(page)
    }

    /// Shows both sides of the conflicts of a path.
    pub(super) fn conflict_view(&self, named: &Named) -> Result<ConflictView, CommandError> {
        let (host, path) = self.locate(None, named)?;
        let site = site_of(&host)?;
        let copies = copies_of(&site, &path)?;
        let of = match copies.as_slice() {
            [] => return Err(none_of(&host, &path)),
            [first, ..] => first.copy.of.clone(),
        };
        if let Some(other) = copies.iter().find(|found| found.copy.of != of) {
            let (one, other) = (of, &other.copy.of);
            return Err(CommandError::Invalid(format!(
                "{path} holds several files with conflicts, {one} and {other} among them; show one of them"
            )));
        }
        let winner = read(&site, |index| index.entry(&of))?.unwrap_or_default();
        let best = winner.installed.as_ref().map(|installed| installed.content.clone());
        let mut sides = Vec::new();
        if let Some(installed) = &winner.installed {
            let values = winner.record.values.iter();
            let wrote =
                values.filter(|value| value.content == installed.content).map(|v| &v.stamp.node);
            sides.push(ConflictSide {
                role: ConflictRole::Winner,
                path: of.to_string(),
                node: wrote.max().map(ToString::to_string),
                size: installed.content.size(),
                mtime: Timestamp::from_ns(installed.mtime_ns),
                hash: hash_of(installed),
                same: None,
            });
        }
        for Found { logged, copy } in copies {
            let Some(installed) = &logged.entry.installed else { continue };
            sides.push(ConflictSide {
                role: ConflictRole::Copy,
                path: logged.path.to_string(),
                node: Some(copy.node),
                size: installed.content.size(),
                mtime: Timestamp::from_ns(installed.mtime_ns),
                hash: hash_of(installed),
                same: best.as_ref().map(|best| *best == installed.content),
            });
        }
        Ok(ConflictView { share: host.name.to_string(), path: of.to_string(), sides })
    }

    /// Resolves the conflict of one copy, or all of a path's, or of all paths below a directory.
    pub(super) fn resolve(&self, resolve: &Resolve) -> Result<Resolved, CommandError> {
        let (host, path) = self.locate(resolve.share.as_ref(), &resolve.path)?;
        let site = site_of(&host)?;
        site.tree.check_root().map_err(|error| CommandError::Refused(error.to_string()))?;
        let copies = copies_of(&site, &path)?;
        if copies.is_empty() {
            return Err(none_of(&host, &path));
        }
        if resolve.keep == Keep::Copy && copies.len() > 1 {
            let names: Vec<_> =
                copies.iter().take(10).map(|one| one.logged.path.to_string()).collect();
            return Err(CommandError::Invalid(format!(
                "there are {} copies; say which one is to keep the name: {}",
                copies.len(),
                names.join(", ")
            )));
        }
        let mut desk = Desk { node: self, site: &site, answer: Resolved::default(), used: 0 };
        for found in copies {
            let done = match resolve.keep {
                Keep::Winner => desk.keep_winner(&found),
                Keep::Copy => desk.keep_copy(&found),
                Keep::Both => desk.keep_both(&found),
            };
            if let Err(why) = done {
                let path = found.logged.path.to_string();
                desk.answer.failed.push(NotResolved { path, why: why.to_string() });
            }
        }
        Ok(desk.answer)
    }
}

/// Carries one request out.
struct Desk<'a> {
    node: &'a Node,
    site: &'a Arc<Site>,
    answer: Resolved,
    /// Numbers used for the trash.
    used: u64,
}

impl Desk<'_> {
    fn keep_winner(&mut self, found: &Found) -> Result<(), String> {
        if self.stat(&found.copy.of)?.is_none() {
            return Err(format!(
                "{} is gone, so this is its only version; `--keep copy` gives it the name back",
                found.copy.of
            ));
        }
        self.discard(&found.logged.path, installed(found))
    }

    fn keep_copy(&mut self, found: &Found) -> Result<(), String> {
        let (copy, of) = (&found.logged.path, &found.copy.of);
        match self.stat(of)? {
            None => self.rename(copy, of)?,
            Some(Kind::Dir) => {
                return Err(format!("{of} is a directory now; `--keep both` renames the copy"));
            }
            Some(_) => {
                let winner = read(self.site, |index| index.entry(of)).map_err(|e| e.to_string())?;
                // In one instant: no reader misses the name. What lost it is under the copy's now.
                let (a, b) = (Place::Share(copy.clone()), Place::Share(of.clone()));
                self.site.tree.exchange(&a, &b).map_err(|why| refused(of, &why))?;
                let lost = self.discard(copy, winner.and_then(|entry| entry.installed));
                if lost.is_err() {
                    // Somebody writes to it, or the trash takes nothing: as it was.
                    let back = self.site.tree.exchange(&a, &b);
                    self.look_at([copy, of]);
                    back.map_err(|why| refused(of, &why))?;
                    return lost;
                }
            }
        }
        self.look_at([copy, of]);
        self.answer.kept.push(of.to_string());
        Ok(())
    }

    fn keep_both(&mut self, found: &Found) -> Result<(), String> {
        let copy = &found.logged.path;
        for number in 0..NAMES_MAX {
            let Some(to) = conflict::kept_apart(copy, number) else {
                return Err("its name leaves no room for another one; rename it by hand".to_owned());
            };
            if self.stat(&to)?.is_some() {
                continue;
            }
            self.rename(copy, &to)?;
            self.look_at([copy, &to]);
            let (from, to) = (copy.to_string(), to.to_string());
            self.answer.renamed.push(Renamed { from, to });
            return Ok(());
        }
        Err("every ordinary name for it is taken; rename it by hand".to_owned())
    }

    fn stat(&self, path: &SharePath) -> Result<Option<Kind>, String> {
        match self.site.tree.stat(&Place::Share(path.clone())) {
            Ok(found) => Ok(Some(found.kind)),
            Err(TreeError::NotFound) => Ok(None),
            Err(why) => Err(refused(path, &why)),
        }
    }

    fn rename(&self, from: &SharePath, to: &SharePath) -> Result<(), String> {
        let tree = &self.site.tree;
        tree.rename(&Place::Share(from.clone()), &Place::Share(to.clone()))
            .and_then(|()| tree.sync_dir(&Place::Share(to.parent())))
            .map_err(|why| refused(to, &why))
    }

    fn discard(&mut self, path: &SharePath, was: Option<Installed>) -> Result<(), String> {
        let now = self.node.clock.now().wall_ns;
        self.used += 1;
        let id = u64::try_from(now).unwrap_or(0) + self.used;
        let place = trash_place(&conflict::utc_day(now), path, id);
        let stat = displace(&*self.site.tree, path, &place).map_err(|error| match error {
            DisplaceError::Writer => format!("{path}: somebody writes to it; try again afterwards"),
            DisplaceError::Refused(why) => refused(path, &why),
        })?;
        if let Place::Trash { day, path: at } = place {
            let content =
                was.filter(|was| was.fingerprint.same_bytes(&stat)).map(|was| was.content);
            let (path, why) = (path.clone(), Why::Resolved);
            let trashed =
                Trashed { since_ns: now, id, day, at, path, content, stat, why, peer: None };
            self.site.tell(ToShare::Note(vec![Write::Trashed(trashed)]));
        }
        self.look_at([path]);
        self.answer.trashed.push(path.to_string());
        Ok(())
    }

    fn look_at<'p>(&self, paths: impl IntoIterator<Item = &'p SharePath>) {
        let noticed = Noticed::Watcher(self.node.clock.now().mono);
        for path in paths {
            self.site.dirty(path.clone(), Hint::Written, noticed);
        }
    }
}

fn refused(path: &SharePath, why: &TreeError) -> String {
    format!("{path}: {why}")
}

fn installed(found: &Found) -> Option<Installed> {
    found.logged.entry.installed.clone()
}

fn none_of(host: &Host, path: &SharePath) -> CommandError {
    CommandError::Unknown(format!(
        "there is no conflict copy of {path} in {}; `recsync conflicts list` shows those that there are",
        host.name
    ))
}

/// Returns the copies of a path, or the copy that it is, or those below it.
fn copies_of(site: &Site, path: &SharePath) -> Result<Vec<Found>, CommandError> {
    let mut copies = Vec::new();
    let mut after = SharePath::root();
    loop {
        let rows = read(site, |index| index.copies(&after, ROWS))?;
        let Some(last) = rows.last() else { return Ok(copies) };
        after = last.path.clone();
        copies.extend(rows.into_iter().filter_map(found).filter(|found| is_of(found, path)));
    }
}

fn is_of(found: &Found, path: &SharePath) -> bool {
    found.logged.path == *path || found.copy.of.is_at_or_below(path)
}

fn found(logged: Logged) -> Option<Found> {
    let is_dir = logged.entry.installed.as_ref().is_none_or(|installed| installed.content.is_dir());
    let copy = conflict::parse_copy(&logged.path).filter(|_| !is_dir)?;
    Some(Found { logged, copy })
}

/// Returns the BLAKE3 of a file in hex.
pub(super) fn hash_of(installed: &Installed) -> Option<String> {
    match &installed.content {
        Content::File { hash, .. } => Some(hash.to_string()),
        Content::Dir | Content::Symlink { .. } => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
