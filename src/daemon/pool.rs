//! The worker threads that look at files and change them, shared by all shares of the node: a crew for
//! each lane, so that a new change never waits for the backlog; that one's steps back.
//!
//! **Invariant:** a fixed number of threads; what waits here is bounded by the engines' windows.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::message::Lane;

use crate::sys::{self, Clock};

type Job = Box<dyn FnOnce() + Send>;

/// Threads of a crew for each core, and at least and at most in all. Eight keep two cores busy; what more
/// cores would need was not measured.
const WORKERS_PER_CORE: usize = 4;
const WORKERS_MIN: usize = 8;
const WORKERS_MAX: usize = 32;
/// For so long after the last call others are expected.
const CALLS_COME: Duration = Duration::from_secs(1);

/// A fixed number of threads that take jobs of their lane in their order.
#[derive(Debug)]
pub(super) struct Pool {
    crews: PoolHandle,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Crew {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    stopped: bool,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Crew")
    }
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(clock: Clock) -> std::io::Result<Self> {
        let crews = PoolHandle {
            clock,
            live: Arc::default(),
            bulk: Arc::default(),
            call: Arc::default(),
            jobs: Arc::default(),
        };
        let mut threads = Vec::new();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for number in 0..(cores * WORKERS_PER_CORE).clamp(WORKERS_MIN, WORKERS_MAX) {
            for lane in [Lane::Live, Lane::Bulk] {
                let crew = crews.crew(lane).clone();
                let name = if lane == Lane::Live { "worker" } else { "backlog" };
                let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
                threads.push(thread.spawn(move || {
                    if lane == Lane::Bulk {
                        sys::step_back();
                    }
                    crew.work();
                })?);
            }
        }
        Ok(Pool { crews, threads })
    }

    /// Returns a handle that jobs can be given to.
    pub(super) fn handle(&self) -> PoolHandle {
        self.crews.clone()
    }

    /// Ends the threads once each has finished its job; what waits is dropped.
    pub(super) fn stop(self) {
        for crew in [&self.crews.live, &self.crews.bulk] {
            let mut state = crew.lock();
            state.stopped = true;
            state.jobs.clear();
            drop(state);
            crew.changed.notify_all();
        }
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
    clock: Clock,
    live: Arc<Crew>,
    bulk: Arc<Crew>,
    /// When the last call was worked on.
    call: Arc<Mutex<Option<Duration>>>,
    /// Jobs that were given to it, ever.
    jobs: Arc<AtomicU64>,
}

impl PoolHandle {
    /// Queues a job; dropped if the pool has stopped.
    pub(super) fn run(&self, lane: Lane, job: impl FnOnce() + Send + 'static) {
        let crew = self.crew(lane);
        self.jobs.fetch_add(1, Ordering::Relaxed);
        let mut state = crew.lock();
        if !state.stopped {
            state.jobs.push_back(Box::new(job));
        }
        // Whoever wakes takes the lock at once.
        drop(state);
        crew.changed.notify_one();
    }

    /// Returns how many jobs there were.
    pub(super) fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Notes that a new change is worked on, that is no echo of one of recsync's own.
    pub(super) fn call_came(&self) {
        *self.last_call() = Some(self.clock.now().mono);
    }

    /// True if others are to be expected: the backlog gives them room then.
    pub(super) fn calls_come(&self) -> bool {
        self.last_call().is_some_and(|last| self.clock.now().mono < last + CALLS_COME)
    }

    fn last_call(&self) -> std::sync::MutexGuard<'_, Option<Duration>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crew(&self, lane: Lane) -> &Arc<Crew> {
        match lane {
            Lane::Live => &self.live,
            Lane::Bulk => &self.bulk,
        }
    }
}

impl Crew {
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
