//! Ctrl-C, and the other ways of being told to end.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// Someone wants this to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Hears SIGINT, SIGTERM and SIGHUP, from the moment it is made until the process ends.
#[derive(Debug)]
pub(super) struct Signals {
    /// Closed by the first signal.
    heard: Receiver<Infallible>,
}

impl Signals {
    /// # Errors
    /// If the kernel refuses a thread or a handler.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let inside = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(inside);
        let (quiet, heard) = channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
            });
            drop(quiet);
        })?;
        Ok(Signals { heard })
    }

    /// Waits for a while.
    ///
    /// # Errors
    /// As soon as there is a signal, and ever after.
    pub(super) fn rest(&self, time: Duration) -> Result<(), Interrupted> {
        match self.heard.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Interrupted),
        }
    }
}
