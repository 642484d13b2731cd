//! What people ask of the trash: what is in it, put it back, erase it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use recsync_proto::path::Escaped;
use recsync_proto::record::hash_of;
use recsync_proto::{Content, ShareName, SharePath};

use super::Node;
use super::host::Host;
use super::service::unready;
use super::share::ToShare;
use super::site::Site;
use crate::engine::{Hint, Noticed};
use crate::index::{IndexError, IndexRead as _, TrashKey, Trashed, Why};
use crate::serve::api::{
    NotRestored, Purged, Restored, TrashCursor, TrashEntry, TrashKind, TrashPage, TrashWhy,
};
use crate::serve::{CommandError, Purge, Restore, TrashQuery};
use crate::telemetry::Timestamp;
use crate::trash::{self, Pass, RestoreError};
use crate::tree::{Kind, Place, Tree as _};

/// Rows read at once.
const ROWS: usize = 256;
/// Rows looked through for one answer of a list; the next question goes on there.
const ROWS_MAX: usize = 16_384;
/// Paths that an answer names; more are counted.
const NAMED_MAX: usize = 1_000;

impl Node {
    /// Lists a part of the trash, the newest first.
    pub(super) fn trash_page(&self, query: &TrashQuery) -> Result<TrashPage, CommandError> {
        let (mut hosts, below) = match &query.path {
            Some(named) => {
                let (host, path) = self.locate(query.share.as_ref(), named)?;
                (vec![host], path)
            }
            None => (self.select(query.share.as_ref())?, SharePath::root()),
        };
        let mut before = TrashKey::LAST;
        if let Some(cursor) = &query.after {
            let at = hosts.iter().position(|host| host.name.as_str() == cursor.share);
            hosts.drain(..at.unwrap_or(hosts.len()));
            before = TrashKey { since_ns: cursor.since_ns, id: cursor.id };
        }
        let Some(host) = hosts.first() else { return Ok(TrashPage::default()) };
        let site = site_of(host)?;
        let mut page = TrashPage::default();
        let mut seen = 0;
        while page.entries.len() < query.limit && seen < ROWS_MAX {
            let rows = read(&site, |index| index.trash_before(before, ROWS))?;
            let Some(last) = rows.last() else {
                page.next = hosts.get(1).map(|next| cursor(&next.name, TrashKey::LAST));
                return Ok(page);
            };
            before = last.key();
            seen += rows.len();
            let wanted = rows.iter().filter(|row| row.path.is_at_or_below(&below));
            page.entries.extend(wanted.filter_map(|row| entry(host, &site, row)));
        }
        page.next = Some(cursor(&host.name, before));
        Ok(page)
    }

    /// Puts back what lay under a path, or below it: of each name what was displaced last.
    pub(super) fn restore(&self, restore: &Restore) -> Result<Restored, CommandError> {
        let (host, path) = self.locate(restore.share.as_ref(), &restore.path)?;
        let site = site_of(&host)?;
        let to = match &restore.to {
            None => None,
            Some(to) => {
                let (there, to) = self.locate(Some(&host.name), to)?;
                debug_assert_eq!(there.name, host.name, "it was asked for this share");
                Some(to)
            }
        };
        let mut answer = Restored::default();
        let mut tried = BTreeSet::new();
        let mut before = TrashKey::LAST;
        loop {
            let rows = read(&site, |index| index.trash_before(before, ROWS))?;
            let Some(last) = rows.last() else { break };
            before = last.key();
            for row in rows {
                let wanted = restore.at.is_none_or(|id| id == row.id)
                    && row.path.is_at_or_below(&path)
                    && tried.insert(hash_of(row.path.as_bytes()).0[..8].to_vec());
                if wanted {
                    self.restore_one(
                        &site,
                        &row,
                        target(&site, &row, &path, to.as_ref())?,
                        &mut answer,
                    );
                }
            }
        }
        if answer.count == 0 && answer.failed.is_empty() {
            let which = restore.at.map(|id| format!(" with the id {id:x}")).unwrap_or_default();
            return Err(CommandError::Unknown(format!(
                "nothing that was {path}{which} is in the trash of {} on this node; \
                 `recsync trash list` shows what is",
                host.name
            )));
        }
        Ok(answer)
    }

    fn restore_one(&self, site: &Site, row: &Trashed, to: SharePath, answer: &mut Restored) {
        match trash::restore(&*site.tree, row, &to) {
            Ok(write) => {
                site.tell(ToShare::Note(vec![write]));
                let noticed = Noticed::Watcher(self.clock.now().mono);
                site.dirty(to.clone(), Hint::Created, noticed);
                answer.count += 1;
                if answer.paths.len() < NAMED_MAX {
                    answer.paths.push(to.to_string());
                }
            }
            // Somebody removed it meanwhile.
            Err(RestoreError::Gone) => {}
            Err(why) => {
                answer.failed_count += 1;
                if answer.failed.len() < NAMED_MAX {
                    let (path, why) = (row.path.to_string(), why.to_string());
                    answer.failed.push(NotRestored { path, id: format!("{:x}", row.id), why });
                }
            }
        }
    }

    /// Removes for good.
    pub(super) fn purge(&self, purge: &Purge) -> Result<Purged, CommandError> {
        let (hosts, path) = match &purge.path {
            Some(named) => {
                let (host, path) = self.locate(purge.share.as_ref(), named)?;
                (vec![host], path)
            }
            None => (self.select(purge.share.as_ref())?, SharePath::root()),
        };
        let now = self.clock.now().wall_ns;
        let age = i64::try_from(purge.older_than.unwrap_or(Duration::ZERO).as_nanos());
        let until = purge.older_than.map(|_| now.saturating_sub(age.unwrap_or(i64::MAX)));
        let mut answer = Purged::default();
        for host in hosts {
            let site = site_of(&host)?;
            let mut pass = Pass::default();
            loop {
                let mut rows = read(&site, |index| pass.next(index, ROWS))?;
                let last = rows.last().map(|row| row.since_ns);
                rows.retain(|row| {
                    until.is_none_or(|until| row.since_ns <= until)
                        && purge.at.is_none_or(|id| id == row.id)
                        && row.path.is_at_or_below(&path)
                });
                remove(&site, &rows, &mut answer);
                if last.is_none_or(|last| until.is_some_and(|until| last > until)) {
                    break;
                }
            }
        }
        Ok(answer)
    }
}

fn remove(site: &Site, rows: &[Trashed], answer: &mut Purged) {
    // What is gone by now was not purged.
    let there: Vec<u64> =
        rows.iter().filter_map(|row| Some(site.tree.stat(&row.place()).ok()?.size)).collect();
    let (gone, failed) = trash::remove(&*site.tree, rows);
    answer.count += (there.len() - failed.len().min(there.len())) as u64;
    answer.bytes += there.iter().sum::<u64>();
    if !gone.is_empty() {
        site.tell(ToShare::Note(gone));
    }
    for (place, why) in failed {
        answer.bytes -= site.tree.stat(&place).map_or(0, |stat| stat.size).min(answer.bytes);
        answer.failed.push(format!("{place}: {why}"));
    }
}

/// Returns where something goes: under the name that it had, or below the one that was given.
fn target(
    site: &Site,
    row: &Trashed,
    asked: &SharePath,
    to: Option<&SharePath>,
) -> Result<SharePath, CommandError> {
    let Some(to) = to else { return Ok(row.path.clone()) };
    let too_long = |error| CommandError::Invalid(format!("{}: {error}", row.path));
    let below = row.path.as_bytes().strip_prefix(asked.as_bytes()).unwrap_or_default();
    let is_dir = to.is_root()
        || site.tree.stat(&Place::Share(to.clone())).is_ok_and(|found| found.kind == Kind::Dir);
    match below {
        // As `mv` does: into a directory that is there, else to the name.
        [] if is_dir => to.join(row.path.name()).map_err(too_long),
        [] => Ok(to.clone()),
        below => {
            let below = below.strip_prefix(b"/").unwrap_or(below);
            let parts = below.split(|&byte| byte == b'/');
            parts.into_iter().try_fold(to.clone(), |dir, name| dir.join(name)).map_err(too_long)
        }
    }
}

pub(super) fn site_of(host: &Host) -> Result<Arc<Site>, CommandError> {
    match host.board.get().running {
        Some(running) => Ok(running.site),
        None => Err(CommandError::Refused(format!(
            "the share cannot be used now: {}",
            unready(host).unwrap_or_else(|| format!("{}: it is being started", host.name))
        ))),
    }
}

pub(super) fn read<R>(
    site: &Site,
    read: impl FnOnce(&crate::index::Reader) -> Result<R, IndexError>,
) -> Result<R, CommandError> {
    site.readers.with(read).map_err(|error| CommandError::Failed(error.to_string()))
}

fn cursor(share: &ShareName, key: TrashKey) -> TrashCursor {
    TrashCursor { share: share.to_string(), since_ns: key.since_ns, id: key.id }
}

/// Returns a row as it is shown; none if its file is not there.
fn entry(host: &Host, site: &Site, row: &Trashed) -> Option<TrashEntry> {
    let found = site.tree.stat(&row.place()).ok()?;
    Some(TrashEntry {
        id: format!("{:x}", row.id),
        share: host.name.to_string(),
        path: row.path.to_string(),
        kind: if found.kind == Kind::Symlink { TrashKind::Symlink } else { TrashKind::File },
        size: found.size,
        hash: match &row.content {
            Some(Content::File { hash, .. }) if row.stat.same_bytes(&found) => {
                Some(hash.to_string())
            }
            _ => None,
        },
        time: Timestamp::from_ns(row.since_ns),
        why: match row.why {
            Why::Resolved => TrashWhy::Resolved,
            Why::Deleted => TrashWhy::Deleted,
            Why::Replaced => TrashWhy::Replaced,
            Why::Found => TrashWhy::Found,
        },
        by: row.peer.as_ref().map(ToString::to_string),
        file: format!(".recsync/trash/{}/{}", row.day, Escaped(row.at.as_bytes())),
    })
}
