//! What happens when the kernel refuses watches, instances and directories.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::stub::Stub;
use super::*;
use crate::tree::TreeError;
use crate::watch::queue::Feed;
use crate::watch::raw::{Raw, What};
use crate::watch::source::{Refusal, Refused};

/// What the stand-in for the kernel holds, and how much of it is to be had.
#[derive(Default)]
struct Kernel {
    watches: BTreeSet<SharePath>,
    watches_max: usize,
    instances_max: usize,
    denied: BTreeSet<SharePath>,
    feed: Option<Feed>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Kernel>>);

impl Source for Fake {
    fn watch(&mut self, dirs: &[SharePath]) -> Result<(), Refused> {
        let mut kernel = self.0.lock().unwrap();
        for (index, dir) in dirs.iter().enumerate() {
            if kernel.denied.contains(dir) {
                return Err(Refused { index, why: Refusal::Denied });
            }
            if kernel.watches.len() >= kernel.watches_max {
                return Err(Refused { index, why: Refusal::Full });
            }
            kernel.watches.insert(dir.clone());
        }
        Ok(())
    }

    fn unwatch(&mut self, dirs: &[SharePath]) {
        let mut kernel = self.0.lock().unwrap();
        kernel.watches.retain(|dir| !dirs.contains(dir));
    }

    fn close(self: Box<Self>) {
        let mut kernel = self.0.lock().unwrap();
        kernel.watches.clear();
        kernel.feed = None;
    }
}

impl Fake {
    fn change(&self, change: impl FnOnce(&mut Kernel)) {
        change(&mut self.0.lock().unwrap());
    }

    fn say(&self, what: What, path: &str) {
        let kernel = self.0.lock().unwrap();
        let path = path.as_bytes().into();
        kernel.feed.as_ref().unwrap().push(Raw { what, path, at: Duration::ZERO });
    }

    fn watches(&self) -> Vec<String> {
        self.0.lock().unwrap().watches.iter().map(ToString::to_string).collect()
    }

    fn run(&self, tree: &Arc<Stub>, retry: Duration) -> Running {
        let fake = self.clone();
        let open: Open = Box::new(move |feed| {
            let mut kernel = fake.0.lock().unwrap();
            if kernel.instances_max == 0 {
                let why = notify::Error::io(std::io::Error::from_raw_os_error(libc::EMFILE));
                return Err(WatchError::no_instance("/rec".as_ref(), &why));
            }
            kernel.feed = Some(feed);
            Ok(Box::new(fake.clone()))
        });
        let (tree, root) = (tree.clone(), PathBuf::from("/rec"));
        let bounds = Bounds { retry, ..BOUNDS };
        Running::start(move |sink| {
            Watcher::with_source(root, tree, Clock::start(), sink, bounds, open)
        })
    }
}

fn kernel(watches_max: usize) -> Fake {
    let kernel = Kernel { watches_max, instances_max: 1, ..Kernel::default() };
    Fake(Arc::new(Mutex::new(kernel)))
}

fn tree() -> Arc<Stub> {
    let tree = Stub::default();
    tree.set("", Ok(&["a/", "b/"]));
    tree.set("a", Ok(&["1.wav", "c/"]));
    tree.set("a/c", Ok(&["2.wav"]));
    tree.set("b", Ok(&[]));
    Arc::new(tree)
}

const NEVER: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_millis(1);

#[test]
fn at_the_watch_limit_it_says_so_once_and_scans_until_there_is_room() {
    let kernel = kernel(2);
    let running = kernel.run(&tree(), SOON);
    let events = running.until_scan(Why::Start);
    assert_eq!(told(&events), ["2 unwatched", ". scan Start"]);
    let Event::Coverage { why: Some(why), .. } = &events[0] else { panic!("{events:?}") };
    assert!(matches!(why, WatchError::WatchesUsedUp { watched: 2, unwatched: 2, .. }), "{why:?}");
    assert_eq!(kernel.watches(), [".", "a"]);
    assert_eq!((running.handle.watched(), running.handle.unwatched()), (2, 2));

    assert_eq!(told(&running.until_scan(Why::Unwatched)), [". scan Unwatched"]);
    kernel.change(|kernel| kernel.watches_max = 100);
    let events = told(&running.until(|event| matches!(event, Event::Coverage { .. })));
    assert_eq!(events.last().unwrap(), "0 unwatched");
    assert!(events[..events.len() - 1].iter().all(|event| event == ". scan Unwatched"));
    assert_eq!(told(&running.until_scan(Why::Unwatched)), [". scan Unwatched"]);
    assert_eq!(kernel.watches(), [".", "a", "a/c", "b"]);
    assert_eq!((running.handle.watched(), running.handle.unwatched()), (4, 0));
}

#[test]
fn a_directory_made_in_an_unwatched_one_is_found_when_there_is_room() {
    let (kernel, tree) = (kernel(2), tree());
    let running = kernel.run(&tree, SOON);
    running.until_scan(Why::Start);
    tree.set("a/c/d", Ok(&["3.wav"]));
    tree.set("a/c", Ok(&["2.wav", "d/"]));
    kernel.change(|kernel| kernel.watches_max = 100);
    running.until(|event| matches!(event, Event::Coverage { unwatched: 0, .. }));
    assert_eq!(kernel.watches(), [".", "a", "a/c", "a/c/d", "b"]);
}

#[test]
fn a_new_directory_at_the_limit_is_listed_all_the_same() {
    let (kernel, tree) = (kernel(4), tree());
    let running = kernel.run(&tree, NEVER);
    running.until_scan(Why::Start);
    tree.set("b/n", Ok(&["4.wav"]));
    kernel.say(What::DirCreated, "b/n");
    let events = running.until(|event| matches!(event, Event::Coverage { .. }));
    assert_eq!(told(&events), ["b/n Created", "b/n/4.wav Written", "1 unwatched"]);
}

#[test]
fn without_an_instance_the_share_is_scanned_until_there_is_one() {
    let kernel = kernel(100);
    kernel.change(|kernel| kernel.instances_max = 0);
    let running = kernel.run(&tree(), SOON);
    let events = running.until_scan(Why::Start);
    assert_eq!(told(&events), ["4 unwatched", ". scan Start"]);
    let Event::Coverage { why: Some(why), .. } = &events[0] else { panic!("{events:?}") };
    assert!(matches!(why, WatchError::InstancesUsedUp { .. }), "{why:?}");
    running.until_scan(Why::Unwatched);
    kernel.change(|kernel| kernel.instances_max = 1);
    running.until(|event| matches!(event, Event::Coverage { unwatched: 0, .. }));
    running.until_scan(Why::Unwatched);
    assert_eq!(kernel.watches(), [".", "a", "a/c", "b"]);
}

#[test]
fn an_unreadable_directory_is_no_reason_to_scan_and_is_tried_when_its_mode_changes() {
    let (kernel, tree) = (kernel(100), tree());
    tree.set("a", Err(TreeError::Denied));
    kernel.change(|kernel| kernel.denied.extend([share_path("a")]));
    let running = kernel.run(&tree, SOON);
    assert_eq!(told(&running.until_scan(Why::Start)), ["a unreadable", ". scan Start"]);
    assert_eq!(running.handle.unwatched(), 0);

    kernel.say(What::Attributes, "b");
    tree.set("a", Ok(&["1.wav", "c/"]));
    kernel.change(|kernel| kernel.denied.clear());
    kernel.say(What::Attributes, "a");
    kernel.say(What::Written, "last");
    let last = share_path("last");
    let events = running.until(|event| matches!(event, Event::Dirty { path, .. } if *path == last));
    let expected = [
        "b Attributes",
        "a Attributes",
        "a/1.wav Written",
        "a/c Created",
        "a/c/2.wav Written",
        "a watched",
        "last Written",
    ];
    assert_eq!(told(&events), expected);
    assert_eq!(kernel.watches(), [".", "a", "a/c", "b"]);
}

#[test]
fn a_directory_that_cannot_be_listed_for_the_moment_is_tried_again() {
    let (kernel, tree) = (kernel(100), tree());
    tree.set("a", Err(TreeError::Io("too many open files".into())));
    let running = kernel.run(&tree, SOON);
    let events = running.until_scan(Why::Start);
    assert_eq!(told(&events), ["1 unwatched", ". scan Start"]);
    let Event::Coverage { why: Some(why), .. } = &events[0] else { panic!("{events:?}") };
    insta::assert_snapshot!(why, @"/rec/a cannot be watched, but is scanned every minute: too many open files; it is tried again then");
    tree.set("a", Ok(&["c/"]));
    running.until(|event| matches!(event, Event::Coverage { unwatched: 0, .. }));
    assert_eq!(kernel.watches(), [".", "a", "a/c", "b"]);
}

#[test]
fn what_is_refused_for_the_moment_is_tried_again_sooner_than_what_there_is_no_room_for() {
    let (kernel, tree) = (kernel(100), tree());
    tree.set("a", Err(TreeError::Io("too many open files".into())));
    let running = kernel.run(&tree, NEVER);
    assert_eq!(told(&running.until_scan(Why::Start)), ["1 unwatched", ". scan Start"]);
    tree.set("a", Ok(&["c/"]));
    running.until(|event| matches!(event, Event::Coverage { unwatched: 0, .. }));
    running.until_scan(Why::Unwatched);
}

#[test]
fn the_sudden_end_of_a_source_is_an_overflow() {
    let kernel = kernel(100);
    let running = kernel.run(&tree(), NEVER);
    running.until_scan(Why::Start);
    let feed = kernel.0.lock().unwrap().feed.take();
    drop(feed);
    assert_eq!(told(&running.until_scan(Why::Overflow)), [". scan Overflow"]);
    assert_eq!(kernel.watches(), [".", "a", "a/c", "b"]);
}
