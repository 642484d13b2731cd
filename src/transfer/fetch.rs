//! Fetches the bytes of files from peers: the receiver's half of a transfer, as a step machine.
//!
//! Files of at most [`INLINE_LEN_MAX`] bytes take one question and stay in memory. For larger ones
//! the outline is asked for first; then blocks that are on this disk already are taken from there
//! ([`Fetcher::work`], a block at a time), and only the others are asked for.
//!
//! The newest waiting file starts first; every fourth start takes the oldest, so that a backlog
//! always ends. The files under way take turns.
//!
//! **Invariant:** no unverified byte is handed on; questions, files and bytes under way are bounded;
//! each want is answered exactly once, unless it is cancelled.
//! **May not:** wait, or decide whom to ask.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use recsync_proto::message::{
    Bytes, FILE_SIZE_MAX, FileRef, INLINE_LEN_MAX, OUTLINE_PAGE_MAX, ShareMessage, block_count,
};
use recsync_proto::{Hash, NodeName, Seq, SharePath};

use super::local::{Part, copy, hand_over};
use super::transfer_name;
use super::want::{FetchError, FetchOutput, Waiting, Want};
use crate::engine::Source;
use crate::observe::blocks::{block_hash, block_range, outline_root};
use crate::tree::{Place, Tree};

/// Large files under way at once.
const LARGE_MAX: usize = 8;
/// Small files under way at once.
const SMALL_MAX: usize = 64;
/// Bytes asked for and not yet here, of one peer.
const IN_FLIGHT_MAX: u64 = 16 << 20;
/// The part of them that large files may take: a small one never waits for a large one's blocks.
const LARGE_IN_FLIGHT_MAX: u64 = 12 << 20;
/// Questions for blocks of one file that are open at once: one is answered while the next travels.
const QUESTIONS_MAX: usize = 2;

/// Fetches files of one share.
#[derive(Debug)]
pub struct Fetcher<T: Tree> {
    small: Waiting,
    large: Waiting,
    active: BTreeMap<u64, Download<T::File>>,
    by_path: BTreeMap<SharePath, Where>,
    questions: BTreeMap<(NodeName, u32), Question>,
    in_flight: BTreeMap<NodeName, u64>,
    next_download: u64,
    next_question: u32,
    /// Counts turns: who waited longest is next.
    turn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Waiting(Seq),
    Active(u64),
}

#[derive(Debug)]
struct Download<F> {
    want: Want,
    /// Others that wait for the same bytes.
    also: Vec<Want>,
    stage: Stage<F>,
    /// Open questions.
    asked: usize,
    /// When it asked last.
    turn: u64,
}

#[derive(Debug)]
enum Stage<F> {
    Small,
    Outline(Vec<Hash>),
    Blocks(Part<F>),
}

/// A question that is not fully answered.
#[derive(Debug)]
struct Question {
    download: u64,
    /// The file's size: tells how long a block is, after the download was cancelled too.
    size: u64,
    asks: Asks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asks {
    Outline(u32),
    /// The blocks still to come.
    Blocks(Range<u32>),
}

impl<F: Send> Download<F> {
    /// Closes and removes the unfinished file.
    fn drop_part<T: Tree<File = F>>(mut self, tree: &T) -> Self {
        let stage = std::mem::replace(&mut self.stage, Stage::Small);
        if matches!(stage, Stage::Blocks(_)) {
            drop(stage);
            let _swept_later =
                tree.remove_private(&Place::Temp(transfer_name(&self.want.file.hash)));
        }
        self
    }
}

impl Question {
    /// Bytes still to come.
    fn bytes(&self) -> u64 {
        match &self.asks {
            Asks::Outline(count) => u64::from(*count) * size_of::<Hash>() as u64,
            Asks::Blocks(left) => {
                left.clone().map(|index| block_range(index, self.size).1 as u64).sum()
            }
        }
    }
}

impl<T: Tree> Default for Fetcher<T> {
    fn default() -> Self {
        Fetcher {
            small: Waiting::default(),
            large: Waiting::default(),
            active: BTreeMap::new(),
            by_path: BTreeMap::new(),
            questions: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_download: 0,
            next_question: 0,
            turn: 0,
        }
    }
}

impl<T: Tree> Fetcher<T> {
    /// Returns a fetcher with nothing to do.
    pub fn new() -> Self {
        Fetcher::default()
    }

    /// Begins to fetch. Another want for the same path is replaced, and not answered any more.
    pub fn start(&mut self, tree: &T, want: Want, out: &mut Vec<FetchOutput>) {
        self.remove(tree, &want.path);
        self.enqueue(want);
        self.go_on(out);
    }

    /// Gives up on a path: its want is not answered.
    pub fn cancel(&mut self, tree: &T, path: &SharePath, out: &mut Vec<FetchOutput>) {
        self.remove(tree, path);
        self.go_on(out);
    }

    /// Takes a peer's answer: `Outline`, `Block` or `Gone`. Others, and answers to what was not
    /// asked, are left aside.
    pub fn message(
        &mut self,
        tree: &T,
        peer: &NodeName,
        message: ShareMessage,
        out: &mut Vec<FetchOutput>,
    ) {
        match message {
            ShareMessage::Outline { id, blocks } => self.outline(tree, peer, id, blocks, out),
            ShareMessage::Block { id, index, bytes: Bytes(bytes) } => {
                self.block(tree, peer, id, index, bytes, out);
            }
            ShareMessage::Gone { id } => {
                if let Some(question) = self.take_question(peer, id) {
                    self.fail(tree, question.download, FetchError::Gone, out);
                }
            }
            _ => return,
        }
        self.go_on(out);
    }

    /// Takes notice that the link to a peer is down: what it was asked for is not coming.
    pub fn peer_down(&mut self, tree: &T, peer: &NodeName, out: &mut Vec<FetchOutput>) {
        self.questions.retain(|(asked, _), _| asked != peer);
        self.in_flight.remove(peer);
        let theirs = |want: &Want| want.peer == *peer;
        let downloads: Vec<u64> = (self.active.iter())
            .filter(|(_, download)| theirs(&download.want))
            .map(|(&number, _)| number)
            .collect();
        for number in downloads {
            self.fail(tree, number, FetchError::PeerDown, out);
        }
        // Those that only waited along, and those that had not started.
        let mut lost = Vec::new();
        for download in self.active.values_mut() {
            lost.extend(download.also.extract_if(.., |want| theirs(want)));
        }
        for waiting in [&mut self.small, &mut self.large] {
            lost.extend(waiting.wants.extract_if(.., |_, want| theirs(want)).map(|(_, want)| want));
        }
        for want in lost {
            self.answer(want, Err(FetchError::PeerDown), 0, out);
        }
        self.go_on(out);
    }

    /// Does a bounded piece of work on this disk (one block is looked for). True if there is more:
    /// the caller calls again, between other inputs.
    pub fn work(&mut self, tree: &T, out: &mut Vec<FetchOutput>) -> bool {
        let newest = (self.active.iter_mut())
            .filter_map(|(&number, download)| match &mut download.stage {
                Stage::Blocks(part) if part.is_searching() => {
                    Some((download.want.seq, number, part))
                }
                _ => None,
            })
            .max_by_key(|(seq, number, _)| (*seq, *number));
        let Some((_, number, part)) = newest else { return false };
        if let Err(error) = part.search(tree) {
            self.fail(tree, number, FetchError::Disk(error), out);
        } else if part.is_whole() {
            self.complete_large(tree, number, out);
        }
        self.go_on(out);
        self.has_work()
    }

    /// True if [`Fetcher::work`] has something to do.
    pub fn has_work(&self) -> bool {
        self.active.values().any(|download| match &download.stage {
            Stage::Blocks(part) => part.is_searching(),
            Stage::Small | Stage::Outline(_) => false,
        })
    }

    /// True if nothing is wanted.
    pub fn is_idle(&self) -> bool {
        self.by_path.is_empty()
    }

    fn enqueue(&mut self, want: Want) {
        let same = (self.active.iter_mut())
            .find(|(_, download)| is_same_file(&download.want.file, &want.file));
        if let Some((&number, download)) = same {
            self.by_path.insert(want.path.clone(), Where::Active(number));
            download.also.push(want);
        } else {
            self.by_path.insert(want.path.clone(), Where::Waiting(want.seq));
            let small = want.file.size <= INLINE_LEN_MAX;
            (if small { &mut self.small } else { &mut self.large }).insert(want);
        }
    }

    fn remove(&mut self, tree: &T, path: &SharePath) {
        match self.by_path.remove(path) {
            None => {}
            Some(Where::Waiting(seq)) => {
                let key = (seq, path.clone());
                let waited = self.small.wants.remove(&key).or(self.large.wants.remove(&key));
                debug_assert!(waited.is_some(), "who waits is in one of the queues");
            }
            Some(Where::Active(number)) => {
                let download = self.active.get_mut(&number).expect("by_path names what is active");
                if download.want.path != *path {
                    download.also.retain(|want| want.path != *path);
                } else if let Some(heir) = download.also.pop() {
                    // The bytes are wanted under another name too: the questions go on as they are.
                    download.want.path = heir.path;
                    download.want.seq = heir.seq;
                } else if let Some(download) = self.active.remove(&number) {
                    // A version that nobody wants any more is not taken up again.
                    download.drop_part(tree);
                }
            }
        }
    }

    /// Starts what may start and asks what may be asked.
    fn go_on(&mut self, out: &mut Vec<FetchOutput>) {
        self.start_waiting(out);
        self.ask_for_blocks(out);
    }

    fn start_waiting(&mut self, out: &mut Vec<FetchOutput>) {
        let is_small = |download: &&Download<_>| matches!(download.stage, Stage::Small);
        let mut small = self.active.values().filter(is_small).count();
        let mut large = self.active.len() - small;
        while small < SMALL_MAX
            && let Some(next) = self.small.next()
            && self.in_flight_of(&next.peer) + next.file.size <= IN_FLIGHT_MAX
        {
            let want = self.small.take_next().expect("it was just there");
            small += usize::from(self.begin(want, out));
        }
        while large < LARGE_MAX
            && let Some(want) = self.large.take_next()
        {
            large += usize::from(self.begin(want, out));
        }
    }

    /// Makes a want active. False if it only joins another that fetches the same bytes, or is
    /// refused.
    fn begin(&mut self, want: Want, out: &mut Vec<FetchOutput>) -> bool {
        if want.file.size > FILE_SIZE_MAX {
            self.answer(want, Err(FetchError::BadOutline), 0, out);
            return false;
        }
        if self.active.values().any(|download| is_same_file(&download.want.file, &want.file)) {
            self.enqueue(want);
            return false;
        }
        let number = self.next_download;
        self.next_download += 1;
        self.by_path.insert(want.path.clone(), Where::Active(number));
        let small = want.file.size <= INLINE_LEN_MAX;
        let stage = if small { Stage::Small } else { Stage::Outline(Vec::new()) };
        let turn = self.turn;
        self.active.insert(number, Download { want, also: Vec::new(), stage, asked: 0, turn });
        if small {
            self.ask(number, Asks::Blocks(0..1), out);
        } else {
            self.ask_for_outline(number, 0, out);
        }
        true
    }

    fn ask_for_outline(&mut self, number: u64, had: u64, out: &mut Vec<FetchOutput>) {
        let Some(download) = self.active.get(&number) else { return };
        let left = block_count(download.want.file.size) - had;
        let count = u32::try_from(left).unwrap_or(u32::MAX).min(OUTLINE_PAGE_MAX);
        self.ask(number, Asks::Outline(count), out);
    }

    /// Lets the files under way ask for blocks, in turn: who asked longest ago goes first.
    fn ask_for_blocks(&mut self, out: &mut Vec<FetchOutput>) {
        loop {
            let mut by_turn: Vec<_> = (self.active.iter_mut())
                .filter_map(|(&number, download)| match &mut download.stage {
                    Stage::Blocks(part) if download.asked < QUESTIONS_MAX => {
                        Some((download.turn, number, &download.want.peer, part))
                    }
                    _ => None,
                })
                .collect();
            by_turn.sort_unstable_by_key(|(turn, number, _, _)| (*turn, *number));
            let mut runs = by_turn.into_iter().filter_map(|(_, number, peer, part)| {
                let in_flight = self.in_flight.get(peer).copied().unwrap_or(0);
                let room = LARGE_IN_FLIGHT_MAX.saturating_sub(in_flight);
                Some((number, part.take_missing(room)?))
            });
            let Some((number, run)) = runs.next() else { return };
            drop(runs);
            self.ask(number, Asks::Blocks(run), out);
        }
    }

    fn ask(&mut self, number: u64, asks: Asks, out: &mut Vec<FetchOutput>) {
        let Some(download) = self.active.get_mut(&number) else { return };
        self.turn += 1;
        download.turn = self.turn;
        download.asked += 1;
        let id = self.next_question;
        self.next_question = id.wrapping_add(1);
        let Want { file, peer, lane, .. } = &download.want;
        let message = match &asks {
            Asks::Outline(count) => {
                let first = match &download.stage {
                    Stage::Outline(had) => u32::try_from(had.len()).unwrap_or(u32::MAX),
                    Stage::Small | Stage::Blocks(_) => 0,
                };
                ShareMessage::GetOutline { id, file: file.clone(), first, count: *count }
            }
            Asks::Blocks(run) => ShareMessage::GetBlocks {
                id,
                file: file.clone(),
                first: run.start,
                count: run.end - run.start,
            },
        };
        let question = Question { download: number, size: file.size, asks };
        *self.in_flight.entry(peer.clone()).or_default() += question.bytes();
        self.questions.insert((peer.clone(), id), question);
        out.push(FetchOutput::Send { peer: peer.clone(), lane: *lane, message });
    }

    fn in_flight_of(&self, peer: &NodeName) -> u64 {
        self.in_flight.get(peer).copied().unwrap_or(0)
    }

    fn came_in(&mut self, peer: &NodeName, bytes: u64) {
        if let Some(in_flight) = self.in_flight.get_mut(peer) {
            *in_flight = in_flight.saturating_sub(bytes);
        }
    }

    /// Closes a question.
    fn take_question(&mut self, peer: &NodeName, id: u32) -> Option<Question> {
        let question = self.questions.remove(&(peer.clone(), id))?;
        self.came_in(peer, question.bytes());
        if let Some(download) = self.active.get_mut(&question.download) {
            download.asked = download.asked.saturating_sub(1);
        }
        Some(question)
    }

    fn outline(
        &mut self,
        tree: &T,
        peer: &NodeName,
        id: u32,
        page: Vec<Hash>,
        out: &mut Vec<FetchOutput>,
    ) {
        let Some(question) = self.take_question(peer, id) else { return };
        let number = question.download;
        let Some(download) = self.active.get_mut(&number) else { return };
        let asked = matches!(question.asks, Asks::Outline(count) if count as usize == page.len());
        let Stage::Outline(blocks) = &mut download.stage else {
            return self.fail(tree, number, FetchError::BadOutline, out);
        };
        if !asked {
            return self.fail(tree, number, FetchError::BadOutline, out);
        }
        blocks.extend(page);
        let FileRef { size, hash, .. } = &download.want.file;
        let had = blocks.len() as u64;
        if had < block_count(*size) {
            return self.ask_for_outline(number, had, out);
        }
        if outline_root(*size, blocks) != Some(*hash) {
            return self.fail(tree, number, FetchError::BadOutline, out);
        }
        let blocks = std::mem::take(blocks);
        match Part::open(tree, *size, hash, blocks, download.want.basis.as_ref()) {
            Ok(part) => download.stage = Stage::Blocks(part),
            Err(error) => self.fail(tree, number, FetchError::Disk(error), out),
        }
    }

    fn block(
        &mut self,
        tree: &T,
        peer: &NodeName,
        id: u32,
        index: u32,
        bytes: Vec<u8>,
        out: &mut Vec<FetchOutput>,
    ) {
        let Some(question) = self.questions.get_mut(&(peer.clone(), id)) else { return };
        let (number, size) = (question.download, question.size);
        let in_order = match &mut question.asks {
            Asks::Blocks(left) if left.start == index => {
                left.start += 1;
                Some(left.start == left.end)
            }
            _ => None,
        };
        match in_order {
            Some(last) => {
                self.came_in(peer, block_range(index, size).1 as u64);
                if last {
                    self.take_question(peer, id);
                }
            }
            None => {
                self.take_question(peer, id);
                return self.fail(tree, number, FetchError::BadBlock, out);
            }
        }
        let Some(download) = self.active.get_mut(&number) else { return };
        match &mut download.stage {
            Stage::Small => {
                let file = &download.want.file;
                let right = bytes.len() as u64 == file.size
                    && block_hash(0, file.size, &bytes) == file.hash;
                if right {
                    self.complete_small(number, bytes, out);
                } else {
                    self.fail(tree, number, FetchError::BadBlock, out);
                }
            }
            Stage::Blocks(part) => match part.put(tree, index, &bytes) {
                Ok(true) if part.is_whole() => self.complete_large(tree, number, out),
                Ok(true) => {}
                Ok(false) => self.fail(tree, number, FetchError::BadBlock, out),
                Err(error) => self.fail(tree, number, FetchError::Disk(error), out),
            },
            Stage::Outline(_) => self.fail(tree, number, FetchError::BadBlock, out),
        }
    }

    fn complete_small(&mut self, number: u64, bytes: Vec<u8>, out: &mut Vec<FetchOutput>) {
        let Some(download) = self.active.remove(&number) else { return };
        let bytes = std::sync::Arc::new(bytes);
        for want in std::iter::once(download.want).chain(download.also) {
            self.answer(want, Ok(Source::Inline(bytes.clone())), 0, out);
        }
    }

    fn complete_large(&mut self, tree: &T, number: u64, out: &mut Vec<FetchOutput>) {
        let Some(download) = self.active.remove(&number) else { return };
        let Stage::Blocks(part) = download.stage else { return };
        let file = &download.want.file;
        // It is synced before it gets its name; the disk may begin now.
        tree.start_sync(part.file());
        // Whoever else waits for these bytes gets a copy of their own (a reflink where the
        // filesystem can): each is renamed away by the operation that it is for.
        for want in download.also {
            let copied = copy(tree, part.file(), file, want.seq);
            self.answer(want, copied.map(Source::Staged).map_err(FetchError::Disk), 0, out);
        }
        let reused = part.reused();
        // Closed before it is handed on: the probe for writers would find us.
        drop(part);
        let whole = hand_over(tree, file, download.want.seq);
        let source = whole.map(Source::Staged).map_err(FetchError::Disk);
        self.answer(download.want, source, reused, out);
    }

    fn fail(&mut self, tree: &T, number: u64, why: FetchError, out: &mut Vec<FetchOutput>) {
        let Some(download) = self.active.remove(&number) else { return };
        // What was had so far helps if the same bytes are asked for again.
        let keeps_part = matches!(why, FetchError::PeerDown | FetchError::Disk(_));
        let Download { want, also, .. } =
            if keeps_part { download } else { download.drop_part(tree) };
        let peer = want.peer.clone();
        self.answer(want, Err(why.clone()), 0, out);
        for want in also {
            if want.peer == peer {
                self.answer(want, Err(why.clone()), 0, out);
            } else {
                self.enqueue(want);
            }
        }
    }

    fn answer(
        &mut self,
        want: Want,
        source: Result<Source, FetchError>,
        reused: u64,
        out: &mut Vec<FetchOutput>,
    ) {
        self.by_path.remove(&want.path);
        out.push(FetchOutput::Fetched { path: want.path, hash: want.file.hash, source, reused });
    }
}

fn is_same_file(one: &FileRef, other: &FileRef) -> bool {
    (one.hash, one.size) == (other.hash, other.size)
}
