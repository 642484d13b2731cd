//! From a record to the disk: plans, operations, fetches, and what becomes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recsync_proto::message::{AckState, FileRef, INLINE_LEN_MAX, Lane};
use recsync_proto::{Content, Dot, Hash, NodeName, Owner, Record, Seq, SharePath};

use super::conflict;
use super::effect::{
    Action, AppliedKind, Done, Effect, Event, GuardEvent, Hint, IMPLIED_DIR_MODE, NotFetched,
    Noticed, Op, Outcome, Saved, Source,
};
use super::guard::Verdict;
use super::plan::{Circumstances, Step, plan};
use super::retry::{RETRIES_MAX, RETRY_MIN};
use super::version::{self, Winner};
use super::{Cx, Engine, FETCHES_MAX, OPS_MAX, OwnerPolicy, TWINS_MAX};
use crate::index::{Entry, IndexError, Installed, Intent, Trashed, Why, Write};
use crate::tree::{Fingerprint, Place, TreeError, trash_place};

/// Larger files are fetched on the bulk lane, however new they are.
const LIVE_LEN_MAX: u64 = 32 * INLINE_LEN_MAX;
/// Names of the same bytes that are looked through for one to copy from.
const TWINS_ASKED: usize = 4;
/// Pending paths visited by one pump.
const SWEEP_CHUNK: usize = 64;
/// A target that someone writes is tried again after this.
const WRITER_WAIT: Duration = Duration::from_secs(2);

/// An acknowledgement that a peer waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) peer: NodeName,
    pub(super) seq: Seq,
    /// The peer has been told that it is held.
    pub(super) held: bool,
    /// What it announced is a tombstone.
    pub(super) dead: bool,
    /// On which lane it did.
    pub(super) lane: Lane,
}

/// Acknowledgements that wait for a path: bounded by the peers' windows.
pub(super) type OwedByPath = BTreeMap<SharePath, Vec<Owed>>;

/// What waits for an operation above it; bounded by the peers' windows and the sweep's chunks.
pub(super) type BlockedBelow = BTreeMap<SharePath, Vec<Blocked>>;

/// Something that waits until the directory above it is there.
#[derive(Debug)]
pub(super) enum Blocked {
    /// A path, and its bytes if they came along.
    Path(SharePath, Option<Source>),
    /// A rename; both names are locked meanwhile.
    Move {
        /// The old name.
        from: SharePath,
        /// The new name.
        to: SharePath,
    },
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) path: SharePath,
    from: Option<SharePath>,
    /// What will be installed if it succeeds; none for a removal.
    pub(super) installs: Option<Content>,
    /// The versions that have it.
    versions: Vec<Dot>,
    mtime_ns: Option<i64>,
    mode: Option<u32>,
    owner: Option<Owner>,
    /// What was there before.
    before: Option<Installed>,
    /// The conflict copy that the displaced object becomes.
    copy: Option<SharePath>,
    /// A losing content that is kept, or was before, and leaves the record when this is done.
    drops: Option<Content>,
    intent: bool,
    kind: AppliedKind,
    saved: Option<(Saved, u64)>,
}

/// What an operation has put in place that ended in doubt.
#[derive(Debug)]
pub(super) struct Unsure {
    pub(super) put: Installed,
    /// The versions for which it was.
    pub(super) versions: Vec<Dot>,
    /// The operation: its intent outlives it.
    id: u64,
}

impl Running {
    /// Returns what is installed when this is done and stats so; none if that is nothing.
    fn installed(&self, fingerprint: Fingerprint) -> Option<Installed> {
        let before = self.before.as_ref();
        Some(Installed {
            content: self.installs.clone()?,
            fingerprint,
            mtime_ns: self
                .mtime_ns
                .or(before.map(|before| before.mtime_ns))
                .unwrap_or(fingerprint.mtime_ns),
            mode: self.mode.unwrap_or(fingerprint.mode),
            owner: self.owner.clone().or(before.and_then(|before| before.owner.clone())),
        })
    }

    fn was_file(&self) -> bool {
        self.before.as_ref().is_some_and(|before| matches!(before.content, Content::File { .. }))
    }
}

impl Running {
    fn removes_file(&self) -> bool {
        let was = self.before.as_ref().map(|before| &before.content);
        self.kind == AppliedKind::Delete && matches!(was, Some(Content::File { .. }))
    }
}

/// What becomes of an installed content that lost: under which name it lives on (none if it does
/// already), and that it leaves the record.
#[derive(Debug, Default)]
struct Kept {
    copy: Option<SharePath>,
    drops: Option<Content>,
}

/// True if to put this content there takes room on the disk that it does not take already.
fn takes_room(content: &Content, bytes: Option<&Source>) -> bool {
    content.size() > 0
        && matches!(content, Content::File { .. })
        && !matches!(bytes, Some(Source::Staged(_)))
}

/// Returns the error counter's label.
pub(super) fn kind_of(error: &TreeError) -> &'static str {
    match error {
        TreeError::NoSpace => "space",
        TreeError::Denied | TreeError::ReadOnly => "denied",
        TreeError::BadName => "name",
        _ => "io",
    }
}

impl Engine {
    /// True if the winner of the entry's record is not what is installed.
    pub(super) fn is_pending(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        entry: &Entry,
    ) -> Result<bool, IndexError> {
        let (_, step) = self.next_step(cx, path, entry)?;
        Ok(step != Step::Nothing)
    }

    pub(super) fn reconsider(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
    ) -> Result<(), IndexError> {
        self.reconsider_with(cx, path, None)
    }

    /// Plans a path anew: notes whether it is pending, settles what is owed for it, and starts
    /// the operation or the fetch that comes next. `bytes` are the winner's, if they came along.
    pub(super) fn reconsider_with(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        bytes: Option<Source>,
    ) -> Result<(), IndexError> {
        let unseen = self.settle.contains(path) || self.looking.contains_key(path);
        let Some(mut entry) = cx.index.entry(path)? else {
            if !unseen {
                self.retries.forgive(path);
            }
            self.settle_owed(path, AckState::Durable);
            return Ok(());
        };
        let (winner, step) = self.next_step(cx, path, &entry)?;
        let pending = step != Step::Nothing;
        if pending != entry.pending {
            entry.pending = pending;
            cx.put(path, entry.clone())?;
        }
        if !pending {
            if let Some(file) = self.fetching.remove(path) {
                self.wake_twins(cx, file.hash)?;
            }
            // A path that cannot be looked at goes on being tried ever more rarely.
            if !unseen {
                self.retries.forgive(path);
            }
            let clashed = entry.record.values.len() > 1 && !self.locked.contains(path) && !unseen;
            if self.is_ignored(winner.as_ref(), path, &entry) {
                self.settle_ignored(path);
                return Ok(());
            }
            // A file or link that only what is below keeps from its name is not here yet.
            let is_dir = winner.is_some_and(|winner| winner.content.is_dir());
            let waits = is_dir
                && !entry.record.is_tombstone()
                && !version::holds(&entry.record, &Content::Dir);
            // Nor is one that was let go, or a version that lost, before its node has made the copy. What comes of
            // that is another state of the path.
            let lacks =
                entry.let_go && entry.installed.is_none() || self.lacks_loser(cx, path, &entry)?;
            if clashed {
                self.drop_kept(cx, path, entry)?;
            }
            // What is installed may be on its way out: its operation ends first. Or it may have been
            // replaced already, or not outlived the machine's going down: the next look tells.
            let in_doubt = self.is_unsure(path) || unseen && self.doubting;
            if !self.locked.contains(path) && !in_doubt {
                match (lacks, waits) {
                    (true, _) => self.settle_ignored(path),
                    (false, true) => self.settle_owed(path, AckState::Held),
                    (false, false) => self.settle_owed(path, AckState::Durable),
                }
            }
            return Ok(());
        }
        if self.locked.contains(path) || unseen {
            return Ok(());
        }
        let comes = winner.as_ref().filter(|_| step == Step::Install);
        if let Some(winner) = comes
            && entry.record.context.len() > 1
            && self.is_kept(cx, path, &entry, &winner.content)?
        {
            // It had lost to one that is gone by now, and lives on under its copy's name.
            self.remember_wanted(cx, path, &entry)?;
            self.drop_kept(cx, path, entry)?;
            self.reconsider(cx, path)?;
            return self.reconsider_above(cx, path);
        }
        if self.retries.waits(path, cx.now.mono) && bytes.is_none() {
            self.settle_owed(path, AckState::Held);
            return Ok(());
        }
        if self.ops.len() >= OPS_MAX && bytes.is_none() {
            self.start_sweep();
            return Ok(());
        }
        self.take(cx, path, entry, winner, step, bytes)
    }

    fn take(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        entry: Entry,
        winner: Option<Winner>,
        step: Step,
        bytes: Option<Source>,
    ) -> Result<(), IndexError> {
        match (step, winner) {
            (Step::Nothing, _) => Ok(()),
            (Step::Wait, _) => {
                // For what is below, and that may be held or failing.
                self.settle_owed(path, AckState::Held);
                Ok(())
            }
            (Step::Metadata { mode, mtime_ns, owner }, _) => {
                let action = Action::Metadata { mode, mtime_ns, owner: owner.clone() };
                let content = entry.installed.as_ref().map(|installed| installed.content.clone());
                let running = Running {
                    installs: content,
                    mtime_ns,
                    mode,
                    owner,
                    ..self.running(path, &entry, AppliedKind::Metadata)
                };
                self.start(cx, &entry, action, None, running)
            }
            (Step::Remove, _) => self.remove(cx, path, &entry),
            (_, Some(winner))
                if self.room.is_none() && takes_room(&winner.content, bytes.as_ref()) =>
            {
                self.settle_owed(path, AckState::Held);
                Ok(())
            }
            (Step::Install, Some(winner)) => {
                if let Some(above) = self.blocked_above(cx, path)? {
                    if self.locked.contains(&above) {
                        let blocked = Blocked::Path(path.clone(), bytes);
                        self.blocked.entry(above).or_default().push(blocked);
                    } else {
                        // Above is a clash that waits to hear more.
                        self.settle_owed(path, AckState::Held);
                    }
                    return Ok(());
                }
                self.put(cx, path, &entry, winner, bytes, Kept::default())
            }
            (Step::Replace { keep }, Some(winner)) => {
                // A clash of kinds may dissolve once the peer has told everything; it tells on only
                // as what it told is answered.
                let keep = keep && !mutant!(NoConflictCopy);
                let clash = winner.content.is_dir() && keep;
                if clash && !self.heard_all() {
                    self.settle_owed(path, AckState::Held);
                    return Ok(());
                }
                let loser = entry.installed.as_ref().filter(|_| keep);
                let drops = loser.map(|loser| loser.content.clone());
                let copy = if keep { self.copy_for(cx, path, &entry)? } else { None };
                self.put(cx, path, &entry, winner, bytes, Kept { copy, drops })
            }
            (Step::Install | Step::Replace { .. }, None) => Ok(()),
        }
    }

    fn running(&self, path: &SharePath, entry: &Entry, kind: AppliedKind) -> Running {
        Running {
            path: path.clone(),
            from: None,
            installs: None,
            versions: Vec::new(),
            mtime_ns: None,
            mode: None,
            owner: None,
            before: entry.installed.clone(),
            copy: None,
            drops: None,
            intent: false,
            kind,
            saved: None,
        }
    }

    fn remove(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        entry: &Entry,
    ) -> Result<(), IndexError> {
        let content = entry.installed.as_ref().map(|installed| &installed.content);
        let is_file = matches!(content, Some(Content::File { .. }));
        if is_file && !self.may_remove(cx, path)? {
            return Ok(());
        }
        let running = self.running(path, entry, AppliedKind::Delete);
        let is_dir = content.is_some_and(Content::is_dir);
        let trash = (!is_dir).then(|| trash_place(&day(cx), path, self.next_op));
        self.start(cx, entry, Action::Remove, trash, running)
    }

    /// Asks the guard on what peers delete here.
    fn may_remove(&mut self, cx: &mut Cx<'_>, path: &SharePath) -> Result<bool, IndexError> {
        let (files, _) = cx.index.installed_files()?;
        // Those on their way out have passed, and would count as staying too.
        let going = self.ops.values().filter(|op| op.removes_file()).count() as u64;
        let files = files.saturating_sub(going);
        let verdict = self.remote_guard.judge(cx.now, path, files);
        if let Verdict::Trips { gone, of } = verdict {
            cx.event(Event::Guard(GuardEvent::DeletesHeld { gone, of }));
        }
        if verdict == Verdict::Pass {
            return Ok(true);
        }
        self.settle_owed(path, AckState::Held);
        Ok(false)
    }

    /// Returns the name above the path that is being changed, or where something other than a
    /// directory stands: that is dealt with first, and this path again when it is done.
    fn blocked_above(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
    ) -> Result<Option<SharePath>, IndexError> {
        for above in path.ancestors() {
            if self.locked.contains(&above) {
                return Ok(Some(above));
            }
            let installed = cx.entry(&above)?.installed;
            match installed {
                Some(installed) if installed.content.is_dir() => return Ok(None),
                Some(_) => {
                    self.reconsider(cx, &above)?;
                    return Ok(Some(above));
                }
                None => {}
            }
        }
        Ok(None)
    }

    /// Returns the name of the copy that keeps the installed content, which lost; none if that
    /// very version has been kept before.
    fn copy_for(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        entry: &Entry,
    ) -> Result<Option<SharePath>, IndexError> {
        let Some(installed) = &entry.installed else { return Ok(None) };
        let Some(loser) = version::loser(&entry.record, &installed.content) else {
            return Ok(None);
        };
        for copy in conflict::copy_paths(path, loser) {
            let Some(there) = cx.index.entry(&copy)? else { return Ok(Some(copy)) };
            let kept = version::holds(&there.record, &installed.content);
            if kept || there.record.is_tombstone() && there.installed.is_none() {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Drops versions that lost and whose bytes are installed here under their copies' names: what was
    /// stopped, failed or ended in doubt after the copy was made and before that was noted. Left in the
    /// record, such a version would come back with the winner's end.
    fn drop_kept(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        mut entry: Entry,
    ) -> Result<(), IndexError> {
        let here = entry.installed.as_ref().map(|installed| &installed.content);
        let contents = entry.record.values.iter().map(|value| &value.content);
        let losers: Vec<Content> = contents.filter(|&c| Some(c) != here).cloned().collect();
        let mut dropped = false;
        for content in losers {
            if self.is_kept(cx, path, &entry, &content)? {
                version::drop_content(&mut entry.record, &content);
                dropped = true;
            }
        }
        if dropped {
            (entry.seq, entry.via, entry.changed_ns) = (self.take_seq(), None, cx.now.wall_ns);
            cx.put(path, entry)?;
        }
        Ok(())
    }

    /// True if a file or link that lost is not on this node, neither under the name nor under its copy's.
    fn lacks_loser(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        entry: &Entry,
    ) -> Result<bool, IndexError> {
        let here = entry.installed.as_ref().map(|installed| &installed.content);
        for content in entry.record.values.iter().map(|value| &value.content) {
            let is_here = content.is_dir() || Some(content) == here;
            if !is_here && !self.is_kept(cx, path, entry, content)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_kept(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        entry: &Entry,
        content: &Content,
    ) -> Result<bool, IndexError> {
        let Some(loser) = version::loser(&entry.record, content) else { return Ok(false) };
        for copy in conflict::copy_paths(path, loser) {
            let there = cx.entry(&copy)?;
            let holds = there.installed.is_some_and(|installed| installed.content == *content);
            if holds && version::holds(&there.record, content) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Plans the path anew whose loser a conflict copy keeps, if that is what the name says.
    pub(super) fn reconsider_original(
        &mut self,
        cx: &mut Cx<'_>,
        copy: &SharePath,
    ) -> Result<(), IndexError> {
        match conflict::original(copy) {
            Some(original) => self.reconsider(cx, &original),
            None => Ok(()),
        }
    }

    /// Puts the winner at the path, from wherever its bytes are, or sends for them.
    fn put(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        entry: &Entry,
        winner: Winner,
        bytes: Option<Source>,
        Kept { copy, drops }: Kept,
    ) -> Result<(), IndexError> {
        let kind =
            if entry.installed.is_some() { AppliedKind::Update } else { AppliedKind::Create };
        let mut running = Running {
            installs: Some(winner.content.clone()),
            mtime_ns: winner.mtime_ns,
            mode: winner.mode,
            owner: winner.owner.clone(),
            copy: copy.clone(),
            drops,
            ..self.running(path, entry, kind)
        };
        let owner = winner.owner;
        let action = match winner.content {
            Content::Dir => Action::Dir { mode: winner.mode.unwrap_or(IMPLIED_DIR_MODE), owner },
            Content::Symlink { target } => {
                Action::Symlink { target, mtime_ns: winner.mtime_ns.unwrap_or(0), owner }
            }
            Content::File { size, hash } => {
                let source = match self.source(cx, path, size, hash, bytes)? {
                    Some(source) => source,
                    None => {
                        return self.fetch(
                            cx,
                            path,
                            entry,
                            FileRef { path: path.clone(), size, hash },
                        );
                    }
                };
                if matches!(source, Source::Local(_)) {
                    running.saved = Some((Saved::Dedup, size));
                }
                let mode = winner.mode.unwrap_or(0o644);
                let mtime_ns = winner.mtime_ns.unwrap_or(0);
                Action::File { size, hash, mtime_ns, mode, owner, source }
            }
        };
        let displaced = entry.installed.as_ref().map(|_| match copy {
            Some(copy) => Place::Share(copy),
            None => trash_place(&day(cx), path, self.next_op),
        });
        self.start(cx, entry, action, displaced, running)
    }

    /// Returns where a file's bytes can be had without asking anyone.
    fn source(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        size: u64,
        hash: Hash,
        bytes: Option<Source>,
    ) -> Result<Option<Source>, IndexError> {
        if bytes.is_some() {
            return Ok(bytes);
        }
        if size == 0 {
            return Ok(Some(Source::Inline(Vec::new().into())));
        }
        // A local copy that proved bad must not be chosen for ever: where peers have the bytes no more it
        // is by turns.
        let asks = self.retries.gone(path).is_none() || self.retries.failures(path) % 2 == 1;
        if asks && self.retries.has_failed(path) {
            return Ok(None);
        }
        let mut twins = cx.index.installed_with(&hash, TWINS_ASKED)?;
        twins.retain(|twin| !self.locked.contains(twin));
        // Dirty is also what was put there a moment ago and not yet looked at again.
        let clean = twins.iter().position(|twin| !self.settle.contains(twin)).unwrap_or(0);
        Ok((!twins.is_empty()).then(|| Source::Local(twins.swap_remove(clean))))
    }

    fn fetch(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        entry: &Entry,
        file: FileRef,
    ) -> Result<(), IndexError> {
        if self.fetching.get(path).is_some_and(|under_way| under_way.hash == file.hash) {
            return Ok(());
        }
        let under_way: u64 = self.fetching.values().map(|file| file.size).sum();
        if self.room.is_some_and(|room| under_way.saturating_add(file.size) > room) {
            return self.no_room_for(cx, path, &file, under_way > 0);
        }
        let lane = self.lane_of(path);
        // A backlog leaves room for the call that ended just now.
        let room = if lane == Lane::Live { 2 * FETCHES_MAX } else { FETCHES_MAX };
        if self.fetching.len() >= room {
            self.start_sweep();
            return Ok(());
        }
        // Other bytes are not asked for twice, unless those that came first were of no use here.
        if !self.retries.has_failed(path) && self.is_coming(file.hash) {
            self.twins.insert((file.hash, path.clone()));
            return Ok(());
        }
        let failures = self.retries.failures(path);
        let Some(peer) = self.source_for(entry.via.as_ref(), failures) else { return Ok(()) };
        let before = self.fetching.insert(path.clone(), file.clone());
        let lane = if file.size <= LIVE_LEN_MAX { lane } else { Lane::Bulk };
        let basis = entry.installed.as_ref().filter(|i| i.content.size() > 0);
        let basis = basis.map(|_| path.clone());
        cx.effects.push(Effect::Fetch {
            path: path.clone(),
            file,
            peer,
            lane,
            seq: entry.seq,
            basis,
        });
        // What comes of the fetch before is of no use here any more.
        before.map_or(Ok(()), |before| self.wake_twins(cx, before.hash))
    }

    /// True if these bytes are being fetched or put under another name.
    fn is_coming(&self, hash: Hash) -> bool {
        let installs = |op: &Running| matches!(op.installs, Some(Content::File { hash: new, .. }) if new == hash);
        self.fetching.values().any(|file| file.hash == hash) || self.ops.values().any(installs)
    }

    /// Goes on with the names that waited for bytes that were on their way to another one.
    fn wake_twins(&mut self, cx: &mut Cx<'_>, hash: Hash) -> Result<(), IndexError> {
        let first = (hash, SharePath::root());
        let waiting = self.twins.range(first..).take_while(|(of, _)| *of == hash);
        for twin in waiting.cloned().collect::<Vec<_>>() {
            self.twins.remove(&twin);
            self.reconsider(cx, &twin.1)?;
        }
        Ok(())
    }

    /// The disk has too little room for a file: it is tried again when others have come, or by and by.
    fn no_room_for(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        file: &FileRef,
        others_under_way: bool,
    ) -> Result<(), IndexError> {
        if others_under_way {
            let failures = self.retries.failures(path);
            self.retries.try_at(path, cx.now.mono + RETRY_MIN, failures);
            self.settle_owed(path, AckState::Held);
            return Ok(());
        }
        let retry = self.retries.backoff(path, cx.now.mono);
        let why = format!("no space left for its {} bytes beside min_free", file.size);
        cx.event(Event::Trouble { path: path.clone(), why, retry, kind: "space" });
        self.settle_owed(path, AckState::Held);
        Ok(())
    }

    /// Takes how much may be received.
    pub(super) fn room(&mut self, bytes: Option<u64>) {
        let opened = self.room.is_none() && bytes.is_some();
        self.room = bytes;
        if opened {
            self.start_sweep();
        }
    }

    pub(super) fn fetched(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        hash: Hash,
        source: Result<Source, NotFetched>,
    ) -> Result<(), IndexError> {
        if self.fetching.get(path).is_none_or(|under_way| under_way.hash != hash) {
            return Ok(());
        }
        self.fetching.remove(path);
        if source.is_err() {
            self.wake_twins(cx, hash)?;
        }
        let source = match source {
            Ok(source) => source,
            // The peer's file has changed or its link is down: news or a retry will come. Or
            // there is no room here.
            Err(error) => {
                let gone = (error == NotFetched::Gone).then(|| self.gone_again(path, hash));
                let retry = self.retries.backoff(path, cx.now.mono);
                let nowhere = |why: &str| format!("its bytes are not to be had now: {why}");
                let (why, kind) = match error {
                    NotFetched::Gone => (nowhere("the peer has these bytes no more"), "source"),
                    NotFetched::Peer(why) => (nowhere(&why), "source"),
                    NotFetched::Disk(error) => (error.to_string(), kind_of(&error)),
                };
                cx.event(Event::Trouble { path: path.clone(), why, retry, kind });
                // The peer may tell of a newer state only once it has heard of this one.
                self.settle_owed(path, AckState::Held);
                return gone.map_or(Ok(()), |gone| self.lack(cx, path, gone));
            }
        };
        let wanted = self.wants(cx, path, hash)?;
        self.reconsider_with(cx, path, wanted.then_some(source))?;
        // They may be of no use here any more, or not now: whoever waited for them goes on alone.
        if self.is_coming(hash) { Ok(()) } else { self.wake_twins(cx, hash) }
    }

    /// Renames here what a peer renamed; where that cannot be, each name is dealt with by itself.
    pub(super) fn move_or_put(
        &mut self,
        cx: &mut Cx<'_>,
        from: &SharePath,
        to: &SharePath,
        bytes: Option<Source>,
    ) -> Result<(), IndexError> {
        if self.try_move(cx, from, to)? {
            return Ok(());
        }
        self.reconsider_with(cx, to, bytes)?;
        self.reconsider(cx, from)
    }

    /// Starts a rename, or has it wait for the directory above, if the old name still holds the
    /// bytes that the new one wants. False if not.
    fn try_move(
        &mut self,
        cx: &mut Cx<'_>,
        from: &SharePath,
        to: &SharePath,
    ) -> Result<bool, IndexError> {
        let (old, new) = (cx.entry(from)?, cx.entry(to)?);
        let winner = self.winner(cx, to, &new.record)?;
        let (Some(winner), Some(there), None) = (winner, &old.installed, &new.installed) else {
            return Ok(false);
        };
        let at_rest = |engine: &Engine, path: &SharePath| {
            !engine.locked.contains(path)
                && !engine.settle.contains(path)
                && !engine.looking.contains_key(path)
        };
        let fits = there.content == winner.content
            && !winner.content.is_dir()
            && old.record.is_tombstone()
            && at_rest(self, from)
            && at_rest(self, to);
        if !fits {
            return Ok(false);
        }
        if let Some(above) = self.blocked_above(cx, to)? {
            let waits = self.locked.contains(&above);
            if waits {
                self.locked.extend([from.clone(), to.clone()]);
                let blocked = Blocked::Move { from: from.clone(), to: to.clone() };
                self.blocked.entry(above).or_default().push(blocked);
            }
            return Ok(waits);
        }
        let is_link = matches!(winner.content, Content::Symlink { .. });
        let action = Action::Move {
            from: from.clone(),
            from_expect: there.fingerprint,
            mtime_ns: winner.mtime_ns.unwrap_or(there.mtime_ns),
            mode: winner.mode.filter(|_| !is_link),
            owner: winner.owner.clone(),
        };
        let running = Running {
            from: Some(from.clone()),
            installs: Some(winner.content.clone()),
            mtime_ns: winner.mtime_ns,
            mode: winner.mode,
            owner: winner.owner.clone().or(there.owner.clone()),
            saved: Some((Saved::Rename, winner.content.size())),
            ..self.running(to, &new, AppliedKind::Rename)
        };
        self.locked.insert(from.clone());
        self.start(cx, &new, action, None, running)?;
        Ok(true)
    }

    fn start(
        &mut self,
        cx: &mut Cx<'_>,
        entry: &Entry,
        action: Action,
        displaced: Option<Place>,
        mut running: Running,
    ) -> Result<(), IndexError> {
        let id = self.next_op;
        self.next_op += 1;
        let expect = entry.installed.as_ref().map(|installed| installed.fingerprint);
        let installs = entry
            .record
            .values
            .iter()
            .filter(|value| Some(&value.content) == running.installs.as_ref());
        running.versions = installs.map(|value| value.dot).collect();
        if let (Some(expect), Some(displaced)) = (expect, &displaced) {
            running.intent = true;
            cx.index.write(&Write::Intent(Intent {
                id,
                path: running.path.clone(),
                expect,
                displaced: displaced.clone(),
                staged: running.installs.clone(),
                made: false,
            }))?;
        }
        if expect.is_none() {
            self.remember_above(cx, &running.path)?;
        }
        self.locked.insert(running.path.clone());
        if let Some(copy) = &running.copy {
            self.locked.insert(copy.clone());
        }
        let path = running.path.clone();
        // A number that no version of ours has: the name stands for nothing else.
        let dot = Dot { epoch: self.epoch, seq: Seq(id) };
        let beside = conflict::kept_path(&path, &self.settings.node, cx.now.wall_ns, dot);
        // A call may be waiting for the directory that it is in.
        let makes_dir = running.installs.as_ref().is_some_and(Content::is_dir);
        let lane = if makes_dir { Lane::Live } else { self.lane_of(&path) };
        self.ops.insert(id, running);
        let op = Op { id, path, expect, action, displaced, beside };
        cx.effects.push(Effect::Apply { op, lane });
        Ok(())
    }

    pub(super) fn applied(
        &mut self,
        cx: &mut Cx<'_>,
        id: u64,
        outcome: Outcome,
    ) -> Result<(), IndexError> {
        let Some(running) = self.ops.remove(&id) else { return Ok(()) };
        let others: Vec<_> = running.from.iter().chain(&running.copy).cloned().collect();
        for path in std::iter::once(&running.path).chain(&others) {
            self.locked.remove(path);
        }
        if running.intent && !matches!(outcome, Outcome::Stuck | Outcome::Unsure(_)) {
            cx.index.write(&Write::IntentDone(id))?;
        }
        let path = running.path.clone();
        let copied = matches!(running.saved, Some((Saved::Dedup, _)));
        let brought = match running.installs {
            Some(Content::File { hash, .. }) => Some(hash),
            _ => None,
        };
        let done = matches!(outcome, Outcome::Done(_) | Outcome::Unsure(_));
        if !done && running.kind == AppliedKind::Delete && running.was_file() {
            self.remote_guard.take_back();
        }
        match outcome {
            Outcome::Done(done) => self.done(cx, id, running, done)?,
            Outcome::Unsure(done) => {
                self.note_made(cx, &path, done.made)?;
                self.note_displaced(cx, id, &running, done.displaced)?;
                let put = done.fingerprint.and_then(|stat| running.installed(stat));
                self.begin_unsure(cx, id, running, put)?;
                self.look_first(cx, &path, &others);
            }
            // Not what was expected: what is there is absorbed first.
            Outcome::Changed => self.look_first(cx, &path, &others),
            Outcome::Stuck => {
                self.settle_later(cx, id)?;
                self.look_first(cx, &path, &others);
            }
            Outcome::Writer => {
                self.retries.try_at(&path, cx.now.mono + WRITER_WAIT, 0);
                self.settle_owed(&path, AckState::Held);
            }
            // It changed, or was about to: the bytes are asked for now.
            Outcome::BadSource if copied && !self.retries.has_failed(&path) => {
                self.retries.try_at(&path, cx.now.mono, 1);
            }
            Outcome::BadSource => {
                let retry = self.retries.backoff(&path, cx.now.mono);
                let why = "the bytes at hand are not the ones wanted; they are fetched".to_owned();
                cx.event(Event::Trouble { path: path.clone(), why, retry, kind: "source" });
            }
            Outcome::Failed(error) => {
                let retry = self.retries.backoff(&path, cx.now.mono);
                let kind = kind_of(&error);
                let why = error.to_string();
                cx.event(Event::Trouble { path: path.clone(), why, retry, kind });
                self.settle_owed(&path, AckState::Held);
                if let Some(from) = &running.from {
                    self.reconsider(cx, from)?;
                }
            }
        }
        for path in std::iter::once(&path).chain(&others) {
            // What was told of it meanwhile waits for an answer.
            if self.owed.contains_key(path) {
                self.reconsider(cx, path)?;
            }
        }
        if let Some(hash) = brought {
            self.wake_twins(cx, hash)?;
        }
        std::iter::once(&path).chain(&others).try_for_each(|path| self.wake_below(cx, path))
    }

    /// Starts what waited for a name above it to be let go.
    pub(super) fn wake_below(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
    ) -> Result<(), IndexError> {
        for blocked in self.blocked.remove(path).unwrap_or_default() {
            match blocked {
                Blocked::Path(path, bytes) => self.reconsider_with(cx, &path, bytes)?,
                Blocked::Move { from, to } => {
                    self.locked.remove(&from);
                    self.locked.remove(&to);
                    self.move_or_put(cx, &from, &to, None)?;
                    // What waits below one that is taken again waits on.
                    for name in [&from, &to] {
                        if !self.locked.contains(name) {
                            self.wake_below(cx, name)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Remembers what an operation has put in place that ended in doubt, beyond the end of this run: by its
    /// intent; under a free name, for which it had none, by one whose object went nowhere.
    fn begin_unsure(
        &mut self,
        cx: &mut Cx<'_>,
        id: u64,
        running: Running,
        put: Option<Installed>,
    ) -> Result<(), IndexError> {
        let Running { path, versions, before, intent, .. } = running;
        self.end_unsure(cx, &path)?;
        let Some(put) = put.filter(|_| self.unsure.len() < RETRIES_MAX) else {
            return if intent { cx.index.write(&Write::IntentDone(id)) } else { Ok(()) };
        };
        if before.is_none() {
            cx.index.write(&Write::Intent(Intent {
                id,
                path: path.clone(),
                expect: put.fingerprint,
                displaced: Place::Share(path.clone()),
                staged: Some(put.content.clone()),
                made: false,
            }))?;
        }
        self.unsure.insert(path, Unsure { put, versions, id });
        Ok(())
    }

    /// Forgets, with its intent, what an operation has put at a path that ended in doubt, and returns it.
    pub(super) fn end_unsure(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
    ) -> Result<Option<Unsure>, IndexError> {
        let Some(unsure) = self.unsure.remove(path) else { return Ok(None) };
        cx.index.write(&Write::IntentDone(unsure.id))?;
        Ok(Some(unsure))
    }

    /// Has what an operation was to change looked at, and the path tried again then: with growing
    /// delays if that happens again.
    fn look_first(&mut self, cx: &mut Cx<'_>, path: &SharePath, others: &[SharePath]) {
        if self.retries.has_failed(path) {
            self.retries.backoff(path, cx.now.mono);
            self.settle_owed(path, AckState::Held);
        } else {
            self.retries.try_at(path, cx.now.mono, 1);
        }
        for path in std::iter::once(path).chain(others) {
            self.dirty(cx, path.clone(), Hint::Written, Noticed::Scan);
        }
    }

    /// Notes the directories that had to be made above a path.
    pub(super) fn note_made(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        made: Vec<(SharePath, Fingerprint)>,
    ) -> Result<(), IndexError> {
        for (dir, fingerprint) in made {
            // Whatever makes the path be looked at may have happened to it too, before it was watched.
            if self.settle.contains(path) {
                self.settle.find(dir.clone(), Hint::Attributes, cx.now.mono);
            }
            self.forget_wanted(cx, &dir)?;
            let mut entry = cx.entry(&dir)?;
            // One that was there before is gone, though nobody has looked yet: the mode that this
            // one was made with is nobody's wish.
            if entry.installed.as_ref().is_none_or(|was| was.content.is_dir()) {
                self.look_below(cx, &dir, entry.installed.as_ref(), Some(&fingerprint))?;
                let mode = fingerprint.mode;
                let content = Content::Dir;
                entry.let_go = false;
                entry.installed =
                    Some(Installed { content, fingerprint, mtime_ns: 0, mode, owner: None });
                if entry.record == Record::default() {
                    // Nobody has told of it yet, or what was told is forgotten, as only what is in
                    // it keeps it: who knows its mode tells whoever shows to know nothing.
                    (entry.seq, entry.changed_ns) = (self.take_seq(), cx.now.wall_ns);
                }
                cx.put(&dir, entry)?;
                self.reconsider(cx, &dir)?;
            }
        }
        Ok(())
    }

    /// Notes what lies in the trash now. Returns the loser, if it lies under its copy's name.
    fn note_displaced(
        &mut self,
        cx: &mut Cx<'_>,
        id: u64,
        running: &Running,
        displaced: Option<(Place, Fingerprint)>,
    ) -> Result<Option<Installed>, IndexError> {
        let via = cx.entry(&running.path)?.via;
        match (&running.before, displaced) {
            (Some(before), Some((Place::Share(_), fingerprint))) => {
                Ok(Some(Installed { fingerprint, ..before.clone() }))
            }
            (Some(before), Some((Place::Trash { day, path: at }, stat))) => {
                let deleted = running.kind == AppliedKind::Delete;
                cx.index.write(&Write::Trashed(Trashed {
                    since_ns: cx.now.wall_ns,
                    id,
                    day,
                    at,
                    path: running.path.clone(),
                    content: Some(before.content.clone()),
                    stat,
                    why: if deleted { Why::Deleted } else { Why::Replaced },
                    peer: via,
                }))?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn done(
        &mut self,
        cx: &mut Cx<'_>,
        id: u64,
        running: Running,
        done: Done,
    ) -> Result<(), IndexError> {
        let displaced_nothing = done.displaced.is_none();
        let beside = self.note_displaced(cx, id, &running, done.displaced)?;
        let installed = done.fingerprint.and_then(|stat| running.installed(stat));
        let Running { path, from, versions, owner, before, copy, drops, kind, saved, .. } = running;
        self.retries.forgive(&path);
        self.end_unsure(cx, &path)?;
        self.forget_wanted(cx, &path)?;
        self.note_made(cx, &path, done.made)?;
        if let Some(from) = &from {
            let mut entry = cx.entry(from)?;
            entry.installed = None;
            cx.put(from, entry)?;
        }
        let mut entry = cx.entry(&path)?;
        let via = entry.via.clone();
        if let Some(before) = &before {
            self.mark_other_names(cx, &path, &before.fingerprint, Hint::Attributes)?;
        }
        entry.let_go = false;
        entry.installed = installed;
        entry.pending = self.is_pending(cx, &path, &entry)?;
        cx.put(&path, entry)?;
        self.keep_found(cx, &path, &versions)?;
        if let (Some(owner), Some(why)) = (owner, done.owner_left) {
            cx.event(Event::OwnerLeft { path: path.clone(), owner, why });
        }
        if let Some(copy) = copy.as_ref().filter(|_| displaced_nothing) {
            // Somebody has it already.
            self.dirty(cx, copy.clone(), Hint::Written, Noticed::Scan);
        }
        if let (Some(before), Some(beside), Some(copy)) = (before, beside, copy) {
            // Its bytes are the ones known; its mode and owner may have been set in the last moment,
            // which the next look finds.
            let Fingerprint { mode, uid, gid, .. } = before.fingerprint;
            let known = Fingerprint { mode, uid, gid, ..beside.fingerprint };
            if known != beside.fingerprint {
                self.dirty(cx, copy.clone(), Hint::Attributes, Noticed::Scan);
            }
            self.kept(cx, &path, &copy, Installed { fingerprint: known, ..before })?;
        }
        if let Some(content) = drops {
            let mut entry = cx.entry(&path)?;
            if mutant!(CompareDots) {
                let dot = version::loser(&entry.record, &content).map(|loser| loser.dot);
                entry.record.values.retain(|value| Some(value.dot) != dot);
            } else {
                version::drop_content(&mut entry.record, &content);
            }
            (entry.seq, entry.via, entry.changed_ns) = (self.take_seq(), None, cx.now.wall_ns);
            cx.put(&path, entry)?;
        }
        cx.event(Event::Applied { peer: via, path: path.clone(), kind, saved });
        self.reconsider(cx, &path)?;
        self.reconsider_original(cx, &path)?;
        if let Some(from) = &from {
            self.reconsider(cx, from)?;
            self.reconsider_above(cx, from)?;
        }
        if kind == AppliedKind::Delete {
            self.reconsider_above(cx, &path)?;
        } else if kind == AppliedKind::Update {
            // What waits below a name that became a directory can go on.
            self.start_sweep();
        }
        Ok(())
    }

    /// The losing version lives on under the copy's name: that is published before the version is
    /// dropped from the name it lost.
    fn kept(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        copy: &SharePath,
        kept: Installed,
    ) -> Result<(), IndexError> {
        let content = kept.content.clone();
        let mut there = cx.entry(copy)?;
        let seq = self.take_seq();
        let stamp = self.stamp(cx.now);
        let mtime_ns = recsync_proto::Register { value: kept.mtime_ns, stamp: stamp.clone() };
        let value = recsync_proto::Value {
            dot: self.dot(seq),
            stamp: stamp.clone(),
            content: content.clone(),
            mtime_ns,
            lacks: BTreeSet::new(),
        };
        let seen = there.installed.as_ref().map(|installed| &installed.content);
        version::write(&mut there.record, seen, value);
        if !matches!(content, Content::Symlink { .. }) {
            version::set(&mut there.record.mode, kept.mode, &stamp);
        }
        if let Some(owner) = &kept.owner {
            version::set(&mut there.record.owner, owner.clone(), &stamp);
        }
        (there.seq, there.via, there.changed_ns) = (seq, None, cx.now.wall_ns);
        there.installed = Some(kept);
        cx.put(copy, there)?;
        cx.event(Event::Conflict { path: path.clone(), copy: copy.clone() });
        self.reconsider(cx, copy)?;
        self.reconsider_above(cx, copy)
    }

    /// Plans the directories above a path anew that hang on what is below them: to be called when
    /// the path's record came to life or died, or what was installed there is gone.
    pub(super) fn reconsider_above(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
    ) -> Result<(), IndexError> {
        for above in path.ancestors() {
            let Some(entry) = cx.index.entry(&above)? else { continue };
            if !version::holds(&entry.record, &Content::Dir) {
                self.reconsider(cx, &above)?;
            }
            if !entry.record.is_tombstone() {
                // Whatever is higher up has this one live below it, as before.
                break;
            }
        }
        Ok(())
    }

    pub(super) fn owe(&mut self, path: &SharePath, owed: Owed) {
        self.owed.entry(path.clone()).or_default().push(owed);
    }

    /// Returns whether peers told of a path as of a new change, or as of the backlog.
    fn lane_of(&self, path: &SharePath) -> Lane {
        let mut owed = self.owed.get(path).into_iter().flatten();
        if owed.any(|owed| owed.lane == Lane::Live) { Lane::Live } else { Lane::Bulk }
    }

    pub(super) fn settle_owed(&mut self, path: &SharePath, state: AckState) {
        if state == AckState::Held && self.owed.len() < RETRIES_MAX {
            // The promise stays open: `Durable` follows when the path is installed.
            let mut untold = Vec::new();
            for owed in self.owed.get_mut(path).into_iter().flatten().filter(|owed| !owed.held) {
                owed.held = true;
                untold.push(owed.clone());
            }
            for owed in untold {
                self.ack(path, &owed, state);
            }
        } else if let Some(owed) = self.owed.remove(path) {
            for owed in owed {
                self.ack(path, &owed, state);
            }
        }
    }

    /// Tells who waits that the record is merged and no more will come of it here.
    fn settle_ignored(&mut self, path: &SharePath) {
        for owed in self.owed.remove(path).unwrap_or_default() {
            if !owed.held {
                self.ack(path, &owed, AckState::Held);
            }
        }
    }

    pub(super) fn forget_owed(&mut self, peer: &NodeName) {
        self.owed.retain(|_, owed| {
            owed.retain(|owed| owed.peer != *peer);
            !owed.is_empty()
        });
    }

    /// Tries again what failed and has waited.
    pub(super) fn retry_due(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        while let Some(path) = self.retries.take_due(cx.now.mono) {
            self.reconsider(cx, &path)?;
        }
        while let Some(path) = self.unreadable.take_due(cx.now.mono) {
            self.scan(cx, path);
        }
        Ok(())
    }

    /// Has the pumps to come walk through all pending paths, newest first: after the walk that is
    /// under way, if one is.
    pub(super) fn start_sweep(&mut self) {
        self.sweep_again = true;
    }

    /// True if pending paths wait to be visited by the next pump.
    pub fn wants_pump(&self) -> bool {
        (self.sweep.is_some() || self.sweep_again || self.replan.is_some()) && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.ops.len() < OPS_MAX / 2
            && self.fetching.len() < FETCHES_MAX
            && self.twins.len() < TWINS_MAX
    }

    pub(super) fn sweep(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        if self.sweep.is_none() && !self.sweep_again || !self.has_room() {
            return Ok(());
        }
        let below = match self.sweep {
            Some(below) => below,
            None => {
                self.sweep_again = false;
                Seq(u64::MAX >> 2)
            }
        };
        let chunk = cx.index.pending(below, SWEEP_CHUNK)?;
        self.sweep = chunk.last().map(|last| last.entry.seq);
        for logged in chunk {
            self.reconsider(cx, &logged.path)?;
        }
        if self.sweep.is_none() && !self.sweep_again {
            self.remote_guard.watch_again_after_decision();
        }
        Ok(())
    }
}

impl Engine {
    /// Returns what the path is to hold here.
    fn winner(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        record: &Record,
    ) -> Result<Option<Winner>, IndexError> {
        let winner = version::winner(record, cx.index.has_live_below(path)?);
        Ok(winner.map(|winner| match self.settings.owner {
            OwnerPolicy::Name => winner,
            OwnerPolicy::Ignore => Winner { owner: None, ..winner },
        }))
    }

    /// True if the path is to hold a file with these bytes.
    pub(super) fn wants(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        hash: Hash,
    ) -> Result<bool, IndexError> {
        let winner = self.winner(cx, path, &cx.entry(path)?.record)?;
        let is_it = |content| matches!(content, Content::File { hash: it, .. } if it == hash);
        Ok(winner.is_some_and(|winner| is_it(winner.content)))
    }

    /// True if a rule has the path left alone here, whatever the cluster knows of it.
    fn is_ignored(&self, winner: Option<&Winner>, path: &SharePath, entry: &Entry) -> bool {
        let wanted = winner.map(|winner| &winner.content);
        let content = wanted.or(entry.installed.as_ref().map(|installed| &installed.content));
        self.settings.ignore.rule(path, content.is_some_and(Content::is_dir)).is_some()
    }

    /// Goes on planning everything anew after a change of the rules.
    pub(super) fn carry_on_replanning(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        let Some(from) = self.replan.filter(|_| self.has_room()) else { return Ok(()) };
        let chunk = cx.index.log(from, self.head, SWEEP_CHUNK)?;
        self.replan = chunk.last().map(|last| last.entry.seq.next());
        for logged in chunk {
            self.reconsider(cx, &logged.path)?;
        }
        Ok(())
    }

    /// Returns what the path is to hold, and the next step towards it.
    fn next_step(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        entry: &Entry,
    ) -> Result<(Option<Winner>, Step), IndexError> {
        let winner = self.winner(cx, path, &entry.record)?;
        let installed = entry.installed.as_ref();
        let is_let_go = entry.let_go && installed.is_none();
        if is_let_go || self.is_ignored(winner.as_ref(), path, entry) {
            return Ok((winner, Step::Nothing));
        }
        let is_dir = installed.is_some_and(|installed| installed.content.is_dir());
        let stays = winner.as_ref().is_some_and(|winner| winner.content.is_dir());
        let circumstances = Circumstances {
            installed_is_version: installed
                .is_some_and(|installed| version::holds(&entry.record, &installed.content)),
            installed_below: is_dir && !stays && cx.index.has_installed_below(path)?,
        };
        let step = plan(winner.as_ref(), installed, circumstances);
        #[cfg(feature = "mutants")]
        let step = crate::mutants::wrongly_planned(step, entry);
        Ok((winner, step))
    }
}

fn day(cx: &Cx<'_>) -> String {
    conflict::utc_day(cx.now.wall_ns)
}
