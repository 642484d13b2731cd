//! Transfers between two shares on a real disk, with a link of messages in between.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use proptest::prelude::*;
use recsync_proto::message::{Bytes, FileRef, INLINE_LEN_MAX, Lane, ShareMessage};
use recsync_proto::{Content, Epoch, Hash, NodeName, Seq, SharePath};

use super::{FetchError, FetchOutput, Fetcher, Outlines, Want, read_inline, serve, transfer_name};
use crate::apply::run;
use crate::engine::{Action, Op, Outcome, Source};
use crate::index::{Entry, Index as _, Installed, Memory, Write};
use crate::observe::faults::{Fault, Faulty};
use crate::observe::fixture::{Share, hash_of, noise, share_path};
use crate::tree::{Place, Tree};

const BLOCK: usize = 256 << 10;

fn peer(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// A node that has files.
struct Sender {
    share: Share,
    index: Memory,
    outlines: Outlines,
}

impl Sender {
    fn new() -> Self {
        let (share, index) = (Share::new(), Memory::new(Epoch(1)));
        Sender { share, index, outlines: Outlines::default() }
    }

    fn put(&mut self, path: &str, bytes: &[u8]) {
        self.share.put(path, bytes);
        let entry = Entry { installed: Some(self.share.installed(path)), ..Entry::default() };
        self.index.write(&Write::Entry(share_path(path), entry)).unwrap();
    }

    fn want(&self, path: &str, seq: u64) -> Want {
        let Content::File { size, hash } = self.share.installed(path).content else { panic!() };
        let (path, peer) = (share_path(path), peer("fs1"));
        let file = FileRef { path: path.clone(), size, hash };
        Want { path, file, peer, lane: Lane::Live, seq: Seq(seq), basis: None }
    }

    fn answer(&self, question: &ShareMessage) -> Vec<ShareMessage> {
        let mut answers = Vec::new();
        serve(&self.share.tree, &self.index, &self.outlines, question, &mut |message| {
            answers.push(message);
            ControlFlow::Continue(())
        });
        answers
    }
}

type Fetched = (SharePath, Result<Source, FetchError>, u64);

/// A node that wants files, and what travels between the two.
struct Link<'a, T: Tree> {
    sender: &'a Sender,
    tree: &'a T,
    fetcher: Fetcher<T>,
    /// Questions that the sender has not seen yet.
    asked: VecDeque<(NodeName, ShareMessage)>,
    /// Answers that the receiver has not seen yet.
    answers: VecDeque<(NodeName, ShareMessage)>,
    fetched: Vec<Fetched>,
    /// All blocks ever asked for.
    blocks: Vec<(SharePath, std::ops::Range<u32>)>,
    /// Bytes asked for and not yet seen, and the most that there ever were.
    in_flight: u64,
    in_flight_most: u64,
}

impl<'a, T: Tree> Link<'a, T> {
    fn new(sender: &'a Sender, tree: &'a T) -> Self {
        Link {
            sender,
            tree,
            fetcher: Fetcher::new(),
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            fetched: Vec::new(),
            blocks: Vec::new(),
            in_flight: 0,
            in_flight_most: 0,
        }
    }

    fn with(&mut self, act: impl FnOnce(&mut Fetcher<T>, &T, &mut Vec<FetchOutput>)) {
        let mut out = Vec::new();
        act(&mut self.fetcher, self.tree, &mut out);
        for output in out {
            match output {
                FetchOutput::Fetched { path, source, reused, .. } => {
                    self.fetched.push((path, source, reused));
                }
                FetchOutput::Send { peer, message, .. } => {
                    if let ShareMessage::GetBlocks { file, first, count, .. } = &message {
                        let run = *first..first + count;
                        for index in run.clone() {
                            let (_, len) = crate::observe::blocks::block_range(index, file.size);
                            self.in_flight += len as u64;
                        }
                        self.blocks.push((file.path.clone(), run));
                    }
                    self.asked.push_back((peer, message));
                }
            }
        }
        self.in_flight_most = self.in_flight_most.max(self.in_flight);
    }

    fn start(&mut self, want: Want) {
        self.with(|fetcher, tree, out| fetcher.start(tree, want, out));
    }

    /// The sender answers one question.
    fn serve_one(&mut self) -> bool {
        let Some((peer, question)) = self.asked.pop_front() else { return false };
        let answers = self.sender.answer(&question);
        self.answers.extend(answers.into_iter().map(|answer| (peer.clone(), answer)));
        true
    }

    fn deliver_one(&mut self) -> bool {
        let Some((peer, answer)) = self.answers.pop_front() else { return false };
        self.deliver(&peer, answer);
        true
    }

    fn deliver(&mut self, peer: &NodeName, answer: ShareMessage) {
        if let ShareMessage::Block { bytes: Bytes(bytes), .. } = &answer {
            self.in_flight = self.in_flight.saturating_sub(bytes.len() as u64);
        }
        self.with(|fetcher, tree, out| fetcher.message(tree, peer, answer, out));
    }

    fn work(&mut self) -> bool {
        let before = self.fetcher.has_work();
        self.with(|fetcher, tree, out| {
            fetcher.work(tree, out);
        });
        before
    }

    fn run(&mut self) {
        while self.work() || self.deliver_one() || self.serve_one() {}
        assert!(self.fetcher.is_idle());
    }

    fn only(self) -> Fetched {
        let [fetched] = <[Fetched; 1]>::try_from(self.fetched).unwrap();
        fetched
    }

    fn blocks_asked(&self) -> Vec<u32> {
        self.blocks.iter().flat_map(|(_, run)| run.clone()).collect()
    }
}

fn staged(receiver: &Share, source: &Result<Source, FetchError>) -> Vec<u8> {
    match source {
        Ok(Source::Inline(bytes)) => bytes.to_vec(),
        Ok(Source::Staged(name)) => receiver.read(&format!(".recsync/tmp/{name}")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_every_size_arrive_whole() {
    let max = INLINE_LEN_MAX as usize;
    for size in [0, 1, max, max + 1, 2 * BLOCK, 5 * BLOCK + 17, 40 * BLOCK] {
        let (mut sender, receiver) = (Sender::new(), Share::new());
        let bytes = noise(size, 1);
        sender.put("a", &bytes);
        let mut link = Link::new(&sender, &receiver.tree);
        link.start(sender.want("a", 1));
        link.run();
        let (path, source, reused) = link.only();
        assert_eq!((path, reused), (share_path("a"), 0));
        assert!(staged(&receiver, &source) == bytes, "{size}");
        assert_eq!(matches!(source, Ok(Source::Inline(_))), size <= max, "{size}");
    }
}

#[test]
fn what_was_fetched_can_be_applied_and_has_no_writer() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    let bytes = noise(3 * BLOCK, 1);
    sender.put("a", &bytes);
    let mut link = Link::new(&sender, &receiver.tree);
    let want = sender.want("a", 1);
    link.start(want.clone());
    link.run();
    let fetched = link.fetched.remove(0);
    let FileRef { size, hash, .. } = want.file;
    let source = fetched.1.unwrap();
    let action = Action::File { size, hash, mtime_ns: 1, mode: 0o640, owner: None, source };
    let (path, beside) = (share_path("a"), share_path("beside"));
    let op = Op { id: 1, path, expect: None, action, displaced: None, beside };
    let outcomes = run(&receiver.tree, vec![op]);
    assert!(matches!(&outcomes[..], [(1, Outcome::Done(_))]), "{outcomes:?}");
    // The fetcher is still there, and holds nothing open.
    let file = receiver.tree.open(&Place::Share(share_path("a"))).unwrap();
    assert_eq!(receiver.tree.writer(&file), Ok(crate::tree::Writer::None));
    assert!(receiver.read("a") == bytes);
}

#[test]
fn blocks_of_the_older_version_are_not_asked_for() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    let old = noise(10 * BLOCK + 5, 1);
    let mut new = [&old[..], &noise(BLOCK, 2)].concat();
    new[3 * BLOCK + 7] ^= 1;
    sender.put("a", &new);
    receiver.put("a", &old);
    let mut link = Link::new(&sender, &receiver.tree);
    link.start(Want { basis: Some(share_path("a")), ..sender.want("a", 1) });
    link.run();
    assert_eq!(link.blocks_asked(), [3, 10, 11]);
    let (_, source, reused) = link.only();
    assert!(staged(&receiver, &source) == new);
    assert_eq!(reused, 9 * BLOCK as u64);
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_stopped() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    let bytes = noise(40 * BLOCK, 1);
    sender.put("a", &bytes);
    let mut link = Link::new(&sender, &receiver.tree);
    link.start(sender.want("a", 1));
    assert!(link.serve_one() && link.deliver_one() && link.serve_one());
    for _ in 0..10 {
        assert!(link.deliver_one());
    }
    link.with(|fetcher, tree, out| fetcher.peer_down(tree, &peer("fs1"), out));
    assert_eq!(link.only().1, Err(FetchError::PeerDown));
    let mut link = Link::new(&sender, &receiver.tree);
    link.start(sender.want("a", 1));
    link.run();
    // In full questions, though block by block was found to be missing.
    let runs: Vec<_> = link.blocks.iter().map(|(_, run)| run.clone()).collect();
    assert_eq!(runs, [10..26, 26..40]);
    let (_, source, reused) = link.only();
    assert_eq!(reused, 0);
    assert!(staged(&receiver, &source) == bytes);
}

#[test]
fn a_lying_peer_is_not_believed() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    sender.put("a", &noise(3 * BLOCK, 1));
    sender.put("small", &noise(3, 1));
    let block = |id, index, len| ShareMessage::Block { id, index, bytes: Bytes(vec![7; len]) };
    let outline = |id, count| ShareMessage::Outline { id, blocks: vec![Hash([7; 32]); count] };
    let gone = |id| ShareMessage::Gone { id };
    // (the file, honest answers before the lie, the lie, what is made of it)
    let lies = [
        ("a", 0, outline(0, 3), FetchError::BadOutline),
        ("a", 0, outline(0, 2), FetchError::BadOutline),
        ("a", 0, outline(0, 4), FetchError::BadOutline),
        ("a", 0, block(0, 0, BLOCK), FetchError::BadBlock),
        ("a", 1, outline(1, 3), FetchError::BadOutline),
        ("a", 1, block(1, 0, BLOCK), FetchError::BadBlock),
        ("a", 1, block(1, 1, BLOCK), FetchError::BadBlock),
        ("a", 2, block(1, 1, BLOCK - 1), FetchError::BadBlock),
        ("a", 2, gone(1), FetchError::Gone),
        ("small", 0, block(0, 0, 3), FetchError::BadBlock),
        ("small", 0, block(0, 0, 0), FetchError::BadBlock),
        ("small", 0, outline(0, 1), FetchError::BadOutline),
        ("small", 0, gone(0), FetchError::Gone),
    ];
    for (path, honest, lie, expected) in lies {
        let mut link = Link::new(&sender, &receiver.tree);
        link.start(sender.want(path, 1));
        for _ in 0..honest {
            assert!(link.deliver_one() || link.serve_one() && link.deliver_one());
        }
        let name = format!("{path}, {honest} answers, {lie:?}");
        link.deliver(&peer("fs1"), lie);
        assert_eq!(link.fetched.len(), 1, "{name}");
        // What else comes for it is left aside.
        link.run();
        assert_eq!(link.only().1, Err(expected), "{name}");
        assert_eq!(receiver.tree.list_temp().unwrap(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn answers_that_were_not_asked_for_are_left_aside() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    let bytes = noise(3 * BLOCK, 1);
    sender.put("a", &bytes);
    let mut link = Link::new(&sender, &receiver.tree);
    link.start(sender.want("a", 1));
    let stray = [
        (peer("fs1"), ShareMessage::Gone { id: 7 }),
        (peer("fs1"), ShareMessage::Block { id: 7, index: 0, bytes: Bytes(vec![]) }),
        (peer("fs3"), ShareMessage::Gone { id: 0 }),
        (peer("fs3"), ShareMessage::Outline { id: 0, blocks: vec![] }),
        (peer("fs1"), ShareMessage::CaughtUp { through: Seq(1) }),
    ];
    for (from, message) in stray {
        link.deliver(&from, message);
    }
    link.run();
    assert!(staged(&receiver, &link.only().1) == bytes);
}

#[test]
fn the_newest_is_first_and_the_oldest_every_fourth_time() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    sender.put("big", &noise(2 * BLOCK, 0));
    let mut link = Link::new(&sender, &receiver.tree);
    for seq in 0..100 {
        let mut want = sender.want("big", seq);
        want.path = share_path(&format!("{seq:02}"));
        want.file.hash.0[0] = seq as u8;
        link.start(want);
    }
    // The first eight began as they came; each that fails makes room for another.
    for _ in 0..8 {
        let (peer, question) = link.asked.pop_front().unwrap();
        let ShareMessage::GetOutline { id, .. } = question else { panic!() };
        link.deliver(&peer, ShareMessage::Gone { id });
    }
    let begun: Vec<u8> = (link.asked.iter())
        .map(|(_, question)| match question {
            ShareMessage::GetOutline { file, .. } => file.hash.0[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(begun, [99, 98, 97, 8, 96, 95, 94, 9]);
}

#[test]
fn two_paths_with_the_same_bytes_share_one_transfer() {
    for size in [10, 3 * BLOCK] {
        let (mut sender, receiver) = (Sender::new(), Share::new());
        let bytes = noise(size, 1);
        sender.put("a", &bytes);
        let mut link = Link::new(&sender, &receiver.tree);
        link.start(sender.want("a", 1));
        link.start(Want { path: share_path("b"), ..sender.want("a", 2) });
        link.start(Want { path: share_path("c"), ..sender.want("a", 3) });
        // One is not wanted any more, though it was the first.
        link.with(|fetcher, tree, out| fetcher.cancel(tree, &share_path("a"), out));
        link.run();
        assert_eq!(link.blocks_asked().len(), size.div_ceil(BLOCK));
        let mut sources: Vec<_> =
            link.fetched.iter().map(|(path, source, _)| (path, source)).collect();
        sources.sort_by_key(|(path, _)| (*path).clone());
        let paths: Vec<_> = sources.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["b", "c"]);
        // Each has its own: what becomes of one is nothing to the other.
        assert!(size == 10 || sources[0].1 != sources[1].1);
        assert!(sources.iter().all(|(_, source)| staged(&receiver, source) == bytes));
    }
}

#[test]
fn a_want_that_is_replaced_is_not_answered() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    let bytes = noise(3 * BLOCK, 1);
    sender.put("a", &bytes);
    let first = sender.want("a", 1);
    let newer = noise(4 * BLOCK, 2);
    sender.put("a", &newer);
    let mut link = Link::new(&sender, &receiver.tree);
    link.start(first);
    link.start(sender.want("a", 2));
    link.run();
    assert!(staged(&receiver, &link.only().1) == newer);
}

#[test]
fn a_cancelled_transfer_leaves_nothing() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    sender.put("a", &noise(30 * BLOCK, 1));
    let mut link = Link::new(&sender, &receiver.tree);
    link.start(sender.want("a", 1));
    assert!(link.serve_one() && link.deliver_one() && link.serve_one() && link.deliver_one());
    assert_eq!(receiver.tree.list_temp().unwrap().len(), 1);
    link.with(|fetcher, tree, out| fetcher.cancel(tree, &share_path("a"), out));
    link.run();
    assert_eq!(link.fetched, []);
    assert_eq!(receiver.tree.list_temp().unwrap(), Vec::<String>::new());
}

#[test]
fn a_failure_of_the_disk_at_any_step_is_told_and_overcome() {
    let (mut sender, old) = (Sender::new(), noise(4 * BLOCK, 1));
    let new = [&old[..BLOCK], &noise(2 * BLOCK, 2), &old[3 * BLOCK..]].concat();
    sender.put("a", &new);
    for step in 0.. {
        let receiver = Share::new();
        receiver.put("a", &old);
        let left = receiver.tree.create_temp(&transfer_name(&hash_of(&new))).unwrap();
        receiver.tree.write_at(&left, 0, &noise(5 * BLOCK, 3)).unwrap();
        receiver.tree.write_at(&left, BLOCK as u64, &new[BLOCK..2 * BLOCK]).unwrap();
        drop(left);
        let faulty = Faulty::new(&receiver.tree, step, Fault::Fail(1));
        let mut link = Link::new(&sender, &faulty);
        let want = Want { basis: Some(share_path("a")), ..sender.want("a", 1) };
        link.start(want.clone());
        link.run();
        match link.only().1 {
            Err(FetchError::Disk(_)) => {
                let mut again = Link::new(&sender, &receiver.tree);
                again.start(want);
                again.run();
                assert!(staged(&receiver, &again.only().1) == new, "step {step}");
            }
            source => assert!(staged(&receiver, &source) == new, "step {step}"),
        }
        if !faulty.was_met() {
            break;
        }
    }
}

#[test]
fn only_what_the_index_says_is_served() {
    let mut sender = Sender::new();
    let bytes = noise(2 * BLOCK, 1);
    sender.put("a", &bytes);
    let Want { file, .. } = sender.want("a", 1);
    let outline = |file: &FileRef, first, count| ShareMessage::GetOutline {
        id: 4,
        file: file.clone(),
        first,
        count,
    };
    let blocks = |file: &FileRef, first, count| ShareMessage::GetBlocks {
        id: 4,
        file: file.clone(),
        first,
        count,
    };
    let is_gone = |sender: &Sender, question: &ShareMessage| {
        matches!(sender.answer(question)[..], [ShareMessage::Gone { id: 4 }])
    };
    assert_eq!(sender.answer(&blocks(&file, 0, 2)).len(), 2);
    let other = FileRef { hash: hash_of(b""), ..file.clone() };
    let longer = FileRef { size: file.size + 1, ..file.clone() };
    let nowhere = FileRef { path: share_path("nowhere"), hash: hash_of(b""), ..file.clone() };
    for question in [outline(&other, 0, 2), blocks(&other, 0, 1), blocks(&longer, 0, 1)] {
        assert!(is_gone(&sender, &question), "{question:?}");
    }
    assert!(is_gone(&sender, &blocks(&nowhere, 0, 1)));
    assert!(is_gone(&sender, &outline(&file, 1, 2)));
    assert!(is_gone(&sender, &blocks(&file, 2, 1)));
    // Another file with the same bytes will do.
    sender.put("b", &bytes);
    sender.share.remove("a");
    assert_eq!(sender.answer(&blocks(&file, 0, 2)).len(), 2);
    // One that was changed will not; block hashes once known stay true.
    sender.share.put("b", &noise(2 * BLOCK, 2));
    assert!(is_gone(&sender, &blocks(&file, 0, 2)));
    assert!(!is_gone(&sender, &outline(&file, 0, 2)));
}

#[test]
fn a_file_that_changes_while_it_is_served_is_gone() {
    let mut sender = Sender::new();
    sender.put("a", &noise(4 * BLOCK, 1));
    let Want { file, .. } = sender.want("a", 1);
    let question = ShareMessage::GetBlocks { id: 4, file, first: 0, count: 4 };
    let mut answers = Vec::new();
    serve(&sender.share.tree, &sender.index, &sender.outlines, &question, &mut |message| {
        if answers.len() == 1 {
            sender.share.put("a", b"changed");
        }
        answers.push(message);
        ControlFlow::Continue(())
    });
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[2], ShareMessage::Gone { id: 4 });
}

/// Somebody wrote as many bytes and put the mtime back, in the instant before recsync's own rename moved
/// the ctime: a `Gone` has the file looked at, other bytes would be asked for again and again.
#[test]
fn a_small_file_with_other_bytes_than_the_index_says_is_gone() {
    let mut sender = Sender::new();
    sender.put("a", b"bytes");
    let Want { file, .. } = sender.want("a", 1);
    sender.share.put("a", b"other");
    let known = Content::File { size: file.size, hash: file.hash };
    let installed = Installed { content: known, ..sender.share.installed("a") };
    let entry = Entry { installed: Some(installed), ..Entry::default() };
    sender.index.write(&Write::Entry(share_path("a"), entry)).unwrap();
    let question = ShareMessage::GetBlocks { id: 4, file, first: 0, count: 1 };
    assert_eq!(sender.answer(&question), [ShareMessage::Gone { id: 4 }]);
}

#[test]
fn a_file_is_hashed_once_for_all_pages_of_its_outline() {
    let mut sender = Sender::new();
    sender.put("a", &noise(4 * BLOCK, 1));
    let Want { file, .. } = sender.want("a", 1);
    let page = |first| ShareMessage::GetOutline { id: 4, file: file.clone(), first, count: 2 };
    assert!(matches!(sender.answer(&page(0))[..], [ShareMessage::Outline { .. }]));
    let dead = Faulty::new(&sender.share.tree, 0, Fault::Stop);
    let mut answers = Vec::new();
    serve(&dead, &sender.index, &sender.outlines, &page(2), &mut |message| {
        answers.push(message);
        ControlFlow::Continue(())
    });
    assert!(matches!(answers[..], [ShareMessage::Outline { .. }]), "{answers:?}");
}

#[test]
fn small_files_are_read_only_if_they_are_as_installed() {
    let share = Share::new();
    share.put("a", b"bytes");
    let installed = share.installed("a");
    let read = |installed| read_inline(&share.tree, &share_path("a"), installed);
    assert_eq!(read(&installed), Some(b"bytes".to_vec()));
    let mut wrong = installed.clone();
    wrong.fingerprint.ctime_ns -= 1;
    assert_eq!(read(&wrong), None);
    for step in 0..6 {
        let faulty = Faulty::act(&share.tree, step, || share.put("a", b"other"));
        let bytes = read_inline(&faulty, &share_path("a"), &installed);
        assert!(bytes.is_none_or(|bytes| bytes == b"bytes"), "step {step}");
        if faulty.was_met() {
            break;
        }
    }
}

/// What may happen next on a link.
#[derive(Debug, Clone)]
enum Next {
    Start { file: usize, path: usize, seq: u64 },
    Cancel { path: usize },
    Serve,
    Deliver,
    Work,
    Change { file: usize },
    Down { peer: usize },
}

fn next() -> impl Strategy<Value = Next> {
    prop_oneof![
        4 => (0..6_usize, 0..6_usize, 0..50_u64)
            .prop_map(|(file, path, seq)| Next::Start { file, path, seq }),
        1 => (0..6_usize).prop_map(|path| Next::Cancel { path }),
        6 => Just(Next::Serve),
        12 => Just(Next::Deliver),
        4 => Just(Next::Work),
        1 => (0..6_usize).prop_map(|file| Next::Change { file }),
        1 => (0..2_usize).prop_map(|peer| Next::Down { peer }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, each want that is not given up is answered once, and with its bytes.
    #[test]
    fn each_want_is_answered_once(steps in proptest::collection::vec(next(), 1..120)) {
        let (mut sender, receiver) = (Sender::new(), Share::new());
        let sizes = [0, 5, 2 * BLOCK, 2 * BLOCK, 5 * BLOCK + 1, 33 * BLOCK];
        let files: Vec<_> = sizes.iter().zip(1..).map(|(&size, seed)| noise(size, seed)).collect();
        for (number, bytes) in files.iter().enumerate() {
            sender.put(&format!("f{number}"), bytes);
        }
        let wants: Vec<_> = (0..files.len()).map(|n| sender.want(&format!("f{n}"), 0)).collect();
        let peers = [peer("fs1"), peer("fs3")];
        let mut link = Link::new(&sender, &receiver.tree);
        // By path: the bytes that are waited for.
        let mut open = BTreeMap::<SharePath, usize>::new();
        let mut answered = 0;
        let mut check = |link: &Link<'_, _>, open: &mut BTreeMap<SharePath, usize>| {
            for (path, source, _) in &link.fetched[answered..] {
                let file = open.remove(path).expect("it was wanted, and not answered yet");
                if let Ok(Source::Inline(bytes)) = source {
                    assert!(bytes[..] == files[file]);
                }
                if let Ok(Source::Staged(name)) = source {
                    assert!(receiver.read(&format!(".recsync/tmp/{name}")) == files[file]);
                    receiver.remove(&format!(".recsync/tmp/{name}"));
                }
            }
            answered = link.fetched.len();
        };
        for step in steps {
            match step {
                Next::Start { file, path, seq } => {
                    let path = share_path(&format!("p{path}"));
                    // As the engine does: a position of the log is one path's.
                    let seq = Seq(seq * 10 + path.as_bytes()[1] as u64);
                    let peer = peers[usize::try_from(seq.0).unwrap() % 2].clone();
                    let basis = Some(path.clone());
                    open.insert(path.clone(), file);
                    link.start(Want { path, seq, peer, basis, ..wants[file].clone() });
                }
                Next::Cancel { path } => {
                    let path = share_path(&format!("p{path}"));
                    open.remove(&path);
                    link.with(|fetcher, tree, out| fetcher.cancel(tree, &path, out));
                }
                Next::Serve => drop(link.serve_one()),
                Next::Deliver => drop(link.deliver_one()),
                Next::Work => drop(link.work()),
                Next::Change { file } => {
                    // A basis with some of the blocks.
                    let mut bytes = files[file].clone();
                    if let Some(byte) = bytes.first_mut() {
                        *byte ^= 1;
                    }
                    receiver.put(&format!("p{file}"), &bytes);
                }
                Next::Down { peer } => {
                    let peer = &peers[peer];
                    link.asked.retain(|(asked, _)| asked != peer);
                    link.answers.retain(|(from, _)| from != peer);
                    link.with(|fetcher, tree, out| fetcher.peer_down(tree, peer, out));
                }
            }
            check(&link, &mut open);
        }
        link.run();
        check(&link, &mut open);
        prop_assert!(open.is_empty(), "never answered: {open:?}");
    }
}

#[test]
fn bytes_in_flight_are_bounded() {
    let (mut sender, receiver) = (Sender::new(), Share::new());
    for number in 0..6 {
        sender.put(&format!("large{number}"), &noise(40 * BLOCK, number));
    }
    for number in 0..80 {
        sender.put(&format!("small{number}"), &noise(BLOCK, 100 + number));
    }
    let mut link = Link::new(&sender, &receiver.tree);
    for number in 0..6 {
        link.start(sender.want(&format!("large{number}"), number));
    }
    while link.in_flight < 12 << 20 {
        assert!(link.serve_one() && link.deliver_one());
    }
    for number in 0..80 {
        link.start(sender.want(&format!("small{number}"), 100 + number));
    }
    link.run();
    assert_eq!(link.in_flight_most, 16 << 20);
    assert_eq!(link.fetched.len(), 86);
    assert!(link.fetched.iter().all(|(_, source, _)| source.is_ok()));
}
