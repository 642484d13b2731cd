//! The watcher on real directories, and on a source and a tree that refuse.
#![expect(clippy::disallowed_methods, reason = "tests do to a share what its users do")]

mod disk;
mod refused;
mod stub;

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::SharePath;

use super::*;
use crate::engine::Hint;

/// Longer than anything takes on a loaded machine; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(60);

fn share_path(text: impl Into<Vec<u8>>) -> SharePath {
    let bytes = text.into();
    if bytes.is_empty() { SharePath::root() } else { SharePath::new(bytes).unwrap() }
}

/// A watcher that runs.
struct Running {
    handle: Handle,
    events: Receiver<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start<T: Tree + 'static, S: FnMut(Event) + Send + 'static>(
        make: impl FnOnce(Box<dyn FnMut(Event) + Send>) -> (Watcher<T, S>, Handle),
    ) -> Self {
        let (sender, events) = channel();
        // A test that is over takes no more events.
        let (watcher, handle) = make(Box::new(move |event| sender.send(event).unwrap_or(())));
        let thread = Some(std::thread::spawn(move || watcher.run()));
        Running { handle, events, thread }
    }

    /// Returns the events up to the first that is wanted, and that one.
    fn until(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        loop {
            match self.events.recv_timeout(DEADLINE) {
                Ok(event) => seen.push(event),
                Err(RecvTimeoutError::Timeout) => panic!("no such event among {seen:#?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the watcher ended: {seen:#?}"),
            }
            if seen.last().is_some_and(&wanted) {
                return seen;
            }
        }
    }

    fn until_scan(&self, why: Why) -> Vec<Event> {
        self.until(|event| *event == Event::Scan { dir: SharePath::root(), why })
    }
}

impl Running {
    /// Stops the watcher and waits for its end.
    fn stop(&mut self) {
        self.handle.stop();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes events in a few words, times left out.
fn told(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Dirty { path, hint, .. } => format!("{path} {hint:?}"),
        Event::Scan { dir, why } => format!("{dir} scan {why:?}"),
        Event::Watched { dir } => format!("{dir} watched"),
        Event::Coverage { unwatched, .. } => format!("{unwatched} unwatched"),
        Event::Unreadable { dir } => format!("{dir} unreadable"),
        Event::Unsyncable { dir, name, .. } => format!("{dir} unsyncable {}", name.len()),
        Event::Root => "root".to_owned(),
    };
    events.iter().map(line).collect()
}
