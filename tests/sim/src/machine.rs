//! One machine: its clock, its users, its disk's faults, and the hand that stops it.
//! **Invariant:** time on a machine never runs backwards; its wall clock may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use recsync::engine::Now;
use recsync::tree::{Fingerprint, Place, TreeError};

use crate::disk::{Call, CallKind, Meanwhile, Verdict, lock};
use crate::fs::{Fs, Id, ROOT};
use crate::oracle::{
    Digest, Oracle, Picture, SeenBody, hidden, hidden_of_users, is_conflict_copy, original,
    picture, walk,
};
use crate::rng::Rng;
use crate::story::Story;
use crate::user::{Scene, Users};

/// The wall clock at the beginning of every history: 2026-11-23, 10 h UTC.
const EPOCH_NS: i64 = 1_795_428_000_000_000_000;

/// A typical time for which a process is stopped.
const PAUSE_NS: u64 = 500_000_000;

/// What is told and known of a history, shared by its machines.
#[derive(Debug, Default)]
pub struct Chronicle {
    /// What happened.
    pub story: Story,
    /// What the users did.
    pub oracle: Oracle,
}

/// A chronicle with many writers.
pub type SharedChronicle = Arc<Mutex<Chronicle>>;

/// How often what goes wrong, per million calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// A user acts ahead of time, just before a call of recsync's.
    pub race: u64,
    /// The process is stopped for a while, as by SIGSTOP or a disk that hangs.
    pub pause: u64,
    /// The process dies.
    pub kill: u64,
    /// The machine loses power.
    pub power: u64,
    /// A call fails with EIO.
    pub io: u64,
    /// A call fails with EACCES.
    pub denied: u64,
    /// A call that needs room fails with ENOSPC.
    pub no_space: u64,
}

impl Faults {
    /// The kinds, by name.
    pub const NAMES: [&str; 7] = ["race", "pause", "kill", "power", "io", "denied", "space"];

    /// Returns the rates, in the order of the names.
    pub fn rates(&mut self) -> [&mut u64; 7] {
        let Faults { race, pause, kill, power, io, denied, no_space } = self;
        [race, pause, kill, power, io, denied, no_space]
    }
}

/// What a power cut did to a tree.
#[derive(Debug)]
pub struct Cut {
    /// What recsync had put there and nobody had written to since, by path.
    pub placed: BTreeMap<Vec<u8>, (SeenBody, Fingerprint)>,
    /// The tree before.
    pub before: Picture,
    /// The tree after.
    pub after: Picture,
    /// What recsync had out of the share.
    out: BTreeSet<Digest>,
    /// Files of which the kernel had dropped pages and told nobody since, by path.
    poisoned: BTreeMap<Vec<u8>, Fingerprint>,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Simulated nanoseconds since the history began; the world moves it on.
    pub now_ns: u64,
    /// Wall clock less simulated time.
    pub skew_ns: i64,
    /// When the running process started.
    pub booted_ns: u64,
    /// Whoever uses it.
    pub users: Users,
    /// What goes wrong now.
    pub faults: Faults,
    /// What the last power cut did.
    pub cut: Option<Cut>,
    /// How often recsync put something into the share.
    pub placed: u64,
    /// It kept something beside its name that it could neither look at nor put back: calls failed.
    pub kept_unseen: bool,
    /// The number of the call that failed last.
    failed: Option<u64>,
    /// A call of recsync is about to be made.
    is_between: bool,
    /// System calls of recsync.
    pub calls: u64,
    rng: Rng,
    chronicle: SharedChronicle,
}

impl Machine {
    /// Returns a machine.
    pub fn new(name: String, users: Users, rng: Rng, chronicle: SharedChronicle) -> Self {
        Machine {
            name,
            now_ns: 0,
            skew_ns: 0,
            booted_ns: 0,
            users,
            faults: Faults::default(),
            cut: None,
            placed: 0,
            kept_unseen: false,
            failed: None,
            is_between: false,
            calls: 0,
            rng,
            chronicle,
        }
    }

    /// Returns the time as the process sees it.
    pub fn now(&self) -> Now {
        let mono = std::time::Duration::from_nanos(self.now_ns - self.booted_ns);
        Now { wall_ns: self.wall_ns(), mono }
    }

    /// Returns the wall clock in nanoseconds since 1970.
    pub fn wall_ns(&self) -> i64 {
        EPOCH_NS + self.now_ns as i64 + self.skew_ns
    }

    /// Lets the users do what is due.
    pub fn run_users(&mut self, fs: &mut Fs) {
        while self.users.next_at().is_some_and(|at| at <= self.now_ns) {
            self.one_call(fs);
        }
    }

    /// Lets a user do the next call, due or not.
    fn one_call(&mut self, fs: &mut Fs) {
        let chronicle = Arc::clone(&self.chronicle);
        let Chronicle { story, oracle } = &mut *lock(&chronicle);
        fs.wall_ns = self.wall_ns();
        fs.user_acts = true;
        let (node, now_ns, is_between) = (&*self.name, self.now_ns, self.is_between);
        let mut scene = Scene { fs: &mut *fs, oracle, story, node, now_ns, is_between };
        self.users.act(&mut scene);
        fs.user_acts = false;
    }

    /// True so many times in a million; a fault that is left out moves no other.
    fn happens(&mut self, per_million: u64) -> bool {
        self.rng.below(1_000_000) < per_million
    }

    fn fault(&mut self, kind: CallKind) -> Verdict {
        let Faults { kill, power, io, denied, no_space, .. } = self.faults;
        let [kill, power, io] = [kill, power, io].map(|rate| self.happens(rate));
        let [denied, no_space] = [denied, no_space].map(|rate| self.happens(rate));
        let error = match kind {
            _ if kill => return Verdict::Kill,
            _ if power => return Verdict::PowerCut,
            CallKind::Root => None,
            CallKind::Write if no_space => Some(TreeError::NoSpace),
            CallKind::Look | CallKind::Change if denied => Some(TreeError::Denied),
            _ if io => Some(TreeError::Io("Input/output error".into())),
            _ => None,
        };
        error.map_or(Verdict::Go, Verdict::Fail)
    }
}

impl Meanwhile for Machine {
    fn before(&mut self, fs: &mut Fs, call: Call<'_>) -> Verdict {
        self.calls += 1;
        self.now_ns += 500 + self.rng.below(20_000);
        let pause = self.rng.delay(PAUSE_NS);
        if self.happens(self.faults.pause) {
            self.now_ns += pause;
        }
        self.is_between = true;
        self.run_users(fs);
        while self.happens(self.faults.race) && self.users.next_at().is_some() {
            self.one_call(fs);
        }
        self.is_between = false;
        fs.wall_ns = self.wall_ns();
        let verdict = self.fault(call.kind);
        if let Verdict::Fail(_) = verdict {
            self.failed = Some(self.calls);
        }
        let chronicle = Arc::clone(&self.chronicle);
        let story = &mut lock(&chronicle).story;
        if verdict == Verdict::Go {
            story.mix(self.now_ns);
            if story.tells_everything() {
                let place = call.place.map(|place| format!(" {place}")).unwrap_or_default();
                story.aside(self.now_ns, &self.name, format_args!("  {}{place}", call.name));
            }
        } else {
            story.tell(
                self.now_ns,
                &self.name,
                format_args!("  {} {:?}: {verdict:?}", call.name, call.place),
            );
        }
        verdict
    }

    fn placed(&mut self, fs: &Fs, id: Id, from: &Place) {
        self.placed += 1;
        let path = fs.path_of(id);
        // The directory is looked at in between.
        let failed_just_now = self.failed.is_some_and(|failed| failed + 2 >= self.calls);
        self.kept_unseen |= failed_just_now && path.as_deref().is_some_and(is_conflict_copy);
        if let (Ok(bytes), Some(path)) = (fs.bytes(id), path) {
            let oracle = &mut lock(&self.chronicle).oracle;
            if let Some(named) = winner_over(fs, id, &path, from).and_then(|it| fs.bytes(it).ok()) {
                oracle.kept(&self.name, &path, bytes, named);
            }
            if fs.is_users(id) {
                let from = match from {
                    Place::Share(from) => Some(from.as_bytes()),
                    Place::Temp(_) | Place::Trash { .. } => None,
                };
                oracle.moved(&self.name, from, &path, bytes);
            } else {
                oracle.placed(&self.name, &path, bytes);
            }
        }
    }

    fn power(&mut self, fs: &Fs, cut: bool) {
        if cut {
            let before = picture(fs);
            let (mut placed, mut poisoned) = (BTreeMap::new(), BTreeMap::new());
            walk(fs, ROOT, &[], &mut |path, id| {
                if fs.is_poisoned(id) {
                    poisoned.insert(path.to_vec(), fs.stat(id));
                }
                if !fs.is_users(id) && fs.bytes(id).is_ok() {
                    placed.insert(path.to_vec(), (before[path].what.clone(), fs.stat(id)));
                }
            });
            let out = hidden(&self.name, fs).into_keys().collect();
            self.cut = Some(Cut { placed, before, after: Picture::new(), out, poisoned });
            self.users.die();
            return;
        }
        let Some(Cut { before, after, out, poisoned, .. }) = &mut self.cut else { return };
        *after = picture(fs);
        let chronicle = &mut *lock(&self.chronicle);
        let kept = hidden(&self.name, fs);
        out.retain(|digest| !kept.contains_key(digest));
        chronicle.oracle.power_cut(&self.name, before, after, out, hidden_of_users(fs));
        walk(fs, ROOT, &[], &mut |path, id| {
            let is_poisoned =
                poisoned.get(path) == Some(&fs.stat(id)) && before.get(path) != after.get(path);
            if let Ok(bytes) = fs.bytes(id)
                && (is_poisoned || fs.is_rotten(id))
            {
                chronicle.oracle.overlooked(&self.name, path, bytes);
            }
        });
        for (path, seen) in before {
            if after.get(path) != Some(seen) {
                let now = after.get(path).map(|seen| &seen.what);
                chronicle.story.tell(
                    self.now_ns,
                    &self.name,
                    format_args!(
                        "power cut: {} was {:?}, is {now:?}",
                        crate::oracle::shown(path),
                        seen.what
                    ),
                );
            }
        }
    }
}

/// Returns what has the name that an object lost, if it was kept as a conflict copy just now.
fn winner_over(fs: &Fs, loser: Id, copy: &[u8], from: &Place) -> Option<Id> {
    // What an exchange brought out is moved on from a name of its own; what is installed as a copy comes from
    // elsewhere, or by another exchange.
    let Place::Temp(temp) = from else { return None };
    if temp.ends_with(".part") || fs.resolve(&[b".recsync", b"tmp", temp.as_bytes()]).is_ok() {
        return None;
    }
    // A copy of a copy has a name that tells nothing of the copy.
    let names: Vec<_> = copy.split(|byte| *byte == b'/').collect();
    let (name, above) = names.split_last()?;
    let beside = fs.names(fs.resolve(above).ok()?).ok()?;
    if beside.keys().any(|other| other != name && original(other) == original(name)) {
        return None;
    }
    // A user may have given either these bytes in that instant.
    let winner = *beside.get(&original(name)?)?;
    (!fs.is_users(winner) && !fs.is_users(loser)).then_some(winner)
}
