//! The worker threads that look at files and change them, shared by all shares of the node.
//!
//! **Invariant:** a fixed number of threads; what waits here is bounded by the engines' windows.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads that take jobs in their order.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    stopped: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads)
            .map(|number| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || shared.work())
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Pool { shared, threads })
    }

    /// Returns a handle that jobs can be given to.
    pub(super) fn handle(&self) -> PoolHandle {
        PoolHandle { shared: self.shared.clone() }
    }

    /// Ends the threads once each has finished its job; what waits is dropped.
    pub(super) fn stop(self) {
        {
            let mut state = self.shared.lock();
            state.stopped = true;
            state.jobs.clear();
        }
        self.shared.changed.notify_all();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// Gives jobs to a [`Pool`].
#[derive(Debug, Clone)]
pub(super) struct PoolHandle {
    shared: Arc<Shared>,
}

impl PoolHandle {
    /// Queues a job; dropped if the pool has stopped.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        if !state.stopped {
            state.jobs.push_back(Box::new(job));
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            while state.jobs.is_empty() && !state.stopped {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(job) = state.jobs.pop_front() else { return };
            drop(state);
            job();
        }
    }
}
