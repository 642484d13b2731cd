//! Users: programs on a node that write, move and remove recordings, one system call at a time.
//!
//! A *deed* is drawn when its time comes, from its own stream of chance and what is in the tree then;
//! so leaving one out changes the others as little as possible.
//! **Invariant:** the oracle hears of everything that users do, as they do it.

use std::collections::{BTreeMap, VecDeque};

use recsync::tree::TreeError;

use crate::fs::{Fs, Id, ROOT, RenameHow};
use crate::oracle::{Oracle, join, shown, walk};
use crate::rng::Rng;
use crate::story::Story;

const MS: u64 = 1_000_000;

/// What the users of a history are like.
#[derive(Debug, Clone)]
pub struct Style {
    /// The paths that they use.
    pub paths: Vec<Vec<u8>>,
    /// How likely each kind of deed is; see [`KINDS`].
    pub weights: [u64; KINDS],
    /// Bytes of a large recording; 0 if there are none.
    pub large: usize,
}

/// Number of kinds of deeds.
pub const KINDS: usize = 13;
/// The kind that cuts a file by its path.
pub const TRUNCATE: usize = 4;
/// The kind that writes other bytes of the same number and puts the mtime back.
pub const REWRITE: usize = 12;

/// One thing that a user sets out to do.
#[derive(Debug, Clone)]
pub struct Deed {
    /// Its place in the history.
    pub index: usize,
    /// When, in simulated nanoseconds.
    pub at_ns: u64,
    /// Chance of its own.
    pub rng: Rng,
}

/// Where users meet the rest of the world.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The disk.
    pub fs: &'a mut Fs,
    /// The account of what they do.
    pub oracle: &'a mut Oracle,
    /// What they do, told.
    pub story: &'a mut Story,
    /// The node's name.
    pub node: &'a str,
    /// Simulated nanoseconds.
    pub now_ns: u64,
    /// It is between two system calls of one piece of recsync's work.
    pub is_between: bool,
}

impl Scene<'_> {
    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        self.story.tell(self.now_ns, self.node, format_args!("user {what}"));
    }
}

/// The users of one node.
#[derive(Debug)]
pub struct Users {
    style: Style,
    tasks: BTreeMap<(u64, u64), Task>,
    next_task: u64,
}

#[derive(Debug)]
enum Task {
    Begin(Deed),
    Go(Script),
}

/// A program under way.
#[derive(Debug)]
struct Script {
    path: Vec<u8>,
    handle: Option<Id>,
    /// The handle has not written yet.
    fresh: bool,
    steps: VecDeque<(u64, Step)>,
}

/// One system call.
#[derive(Debug, Clone)]
enum Step {
    /// Makes a file or cuts it to nothing, for writing.
    Create,
    /// Opens what is there for writing.
    Open,
    Append(Vec<u8>),
    Patch(u64, Vec<u8>),
    Close,
    Truncate(u64),
    MakeDir(Vec<u8>),
    MakeLink(Vec<u8>),
    Chmod(u32),
    Chown(u32, u32),
    Touch(i64),
    /// Renames what is at the first path over the second.
    Rename(Vec<u8>, Vec<u8>),
    Unlink(Vec<u8>),
    RemoveDir(Vec<u8>),
    /// Removes what is there and all below it, step by step.
    RemoveAll(Vec<u8>),
}

impl Users {
    /// Returns users that will do these deeds.
    pub fn new(style: Style, deeds: Vec<Deed>) -> Self {
        let mut users = Users { style, tasks: BTreeMap::new(), next_task: 0 };
        for deed in deeds {
            users.schedule(deed.at_ns, Task::Begin(deed));
        }
        users
    }

    /// Returns when the next call is due.
    pub fn next_at(&self) -> Option<u64> {
        self.tasks.first_key_value().map(|((at, _), _)| *at)
    }

    /// Does the next call, due or not.
    pub fn act(&mut self, scene: &mut Scene<'_>) {
        let Some((_, task)) = self.tasks.pop_first() else { return };
        let script = match task {
            Task::Begin(deed) => self.begin(deed, scene),
            Task::Go(mut script) => {
                if let Some((_, step)) = script.steps.pop_front()
                    && let Err(error) = run(&mut script, step, scene)
                {
                    scene.tell(format_args!("cannot: {error}"));
                    script.steps.clear();
                }
                script
            }
        };
        match script.steps.front() {
            Some(&(gap, _)) => self.schedule(scene.now_ns + gap, Task::Go(script)),
            None => end(script, scene),
        }
    }

    /// The machine lost power: no program goes on.
    pub fn die(&mut self) {
        self.tasks.retain(|_, task| matches!(task, Task::Begin(_)));
    }

    fn schedule(&mut self, at_ns: u64, task: Task) {
        self.tasks.insert((at_ns, self.next_task), task);
        self.next_task += 1;
    }

    fn begin(&self, deed: Deed, scene: &mut Scene<'_>) -> Script {
        let Deed { index, mut rng, .. } = deed;
        let kind = rng.weighted(&self.style.weights);
        let path = self.some_path(&mut rng, scene.fs);
        let mut plan = Plan { path, rng, index, piece: 0, steps: VecDeque::new() };
        let other = self.some_path(&mut plan.rng, scene.fs);
        match kind {
            0 => plan.record(self.style.large),
            1 => plan.recorder(),
            2 => plan.append(),
            3 => plan.replace(),
            4 => plan.add(0, Step::Truncate(plan_len(&mut plan.rng.clone()))),
            5 => plan.rename(other),
            6 => plan.add(0, Step::Unlink(plan.path.clone())),
            7 => plan.add(0, Step::RemoveAll(plan.path.clone())),
            8 => {
                plan.parents();
                plan.add(0, Step::MakeDir(plan.path.clone()));
            }
            9 => {
                plan.parents();
                let target = plan.rng.pick(&[&b"a"[..], b"../x", b"/etc/passwd"]).to_vec();
                plan.add(0, Step::MakeLink(target));
            }
            10 => {
                if plan.rng.chance(400_000) {
                    let mut account = || *plan.rng.pick(&[33, 999, 1000]);
                    let (uid, gid) = (account(), account());
                    plan.add(0, Step::Chown(uid, gid));
                }
                let mode = *plan.rng.pick(&[0o600, 0o640, 0o644, 0o700, 0o755]);
                plan.add(0, Step::Chmod(mode));
            }
            11 => {
                let seconds = plan.rng.between(0, 2_000_000_000) as i64;
                plan.add(0, Step::Touch(seconds * 1_000_000_000 + 123_456_789));
            }
            _ => plan.rewrite(scene.fs, scene.is_between),
        }
        Script { path: plan.path, handle: None, fresh: true, steps: plan.steps }
    }

    /// Returns one of the history's paths, now and then another one that is there.
    fn some_path(&self, rng: &mut Rng, fs: &Fs) -> Vec<u8> {
        if rng.chance(150_000) {
            let mut there = Vec::new();
            walk(fs, ROOT, &[], &mut |path, _| there.push(path.to_vec()));
            if !there.is_empty() {
                return there.swap_remove(rng.index(there.len()));
            }
        }
        rng.pick(&self.style.paths).clone()
    }
}

fn plan_len(rng: &mut Rng) -> u64 {
    rng.below(12)
}

/// The steps of a deed while they are put together.
struct Plan {
    path: Vec<u8>,
    rng: Rng,
    index: usize,
    piece: usize,
    steps: VecDeque<(u64, Step)>,
}

impl Plan {
    fn add(&mut self, gap: u64, step: Step) {
        self.steps.push_back((gap, step));
    }

    fn gap(&mut self) -> u64 {
        // From within one tick of the clock to far beyond settle.
        let scale = *self.rng.pick(&[MS / 100, MS, 10 * MS, 100 * MS, 1_000 * MS]);
        self.rng.below(scale)
    }

    /// Returns bytes that nobody else ever writes.
    fn bytes(&mut self) -> Vec<u8> {
        self.piece += 1;
        let pad = self.rng.index(20);
        format!("{}.{}{}|", self.index, self.piece, "-".repeat(pad)).into_bytes()
    }

    fn parents(&mut self) {
        let slashes = self.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends: Vec<usize> = slashes.map(|(at, _)| at).collect();
        for end in ends {
            self.add(0, Step::MakeDir(self.path[..end].to_vec()));
        }
    }

    /// A file written in pieces.
    fn record(&mut self, large: usize) {
        self.parents();
        self.add(0, Step::Create);
        for _ in 0..self.rng.below(4) {
            let (gap, bytes) = (self.gap(), self.bytes());
            self.add(gap, Step::Append(bytes));
        }
        if large > 0 && self.rng.chance(300_000) {
            let mut bytes = self.bytes();
            let filler = (self.index % 251) as u8;
            bytes.resize(large + self.rng.index(large), filler);
            let gap = self.gap();
            self.add(gap, Step::Append(bytes));
        }
        let gap = self.gap();
        self.add(gap, Step::Close);
    }

    /// As FreeSWITCH does: the file is made and closed, opened again, grows, and its header is
    /// patched just before the last close.
    fn recorder(&mut self) {
        self.parents();
        self.add(0, Step::Create);
        self.add(0, Step::Append(b"RIFF----".to_vec()));
        self.add(MS / 10, Step::Close);
        self.add(2 * MS, Step::Open);
        for _ in 0..self.rng.between(1, 4) {
            let (gap, bytes) = (self.gap(), self.bytes());
            self.add(gap, Step::Append(bytes));
        }
        self.add(MS / 10, Step::Patch(4, b"size".to_vec()));
        self.add(0, Step::Close);
    }

    fn append(&mut self) {
        self.add(0, Step::Open);
        let (gap, bytes) = (self.gap(), self.bytes());
        self.add(gap, Step::Append(bytes));
        let gap = self.gap();
        self.add(gap, Step::Close);
    }

    /// Writes another name and renames it over the file.
    fn replace(&mut self) {
        self.parents();
        let target = self.path.clone();
        self.path.extend_from_slice(b".new");
        self.add(0, Step::Create);
        let (gap, bytes) = (self.gap(), self.bytes());
        self.add(gap, Step::Append(bytes));
        self.add(0, Step::Close);
        let gap = self.gap();
        self.add(gap, Step::Rename(self.path.clone(), target));
    }

    fn rename(&mut self, to: Vec<u8>) {
        let path = std::mem::replace(&mut self.path, to.clone());
        self.parents();
        self.path = path.clone();
        self.add(0, Step::Rename(path, to));
    }

    /// Other bytes of the same number in place, and the old modification time put back: but not between the last look at a
    /// file and its removal, which moves the ctime too, so that no stat tells of it.
    fn rewrite(&mut self, fs: &Fs, is_between: bool) {
        self.add(0, Step::Open);
        let bytes = self.bytes();
        let found = find(fs, &self.path).ok();
        let (len, mtime_ns) = found.map_or((0, 0), |id| {
            let stat = fs.stat(id);
            (stat.size as usize, stat.mtime_ns)
        });
        self.add(0, Step::Patch(0, bytes[..bytes.len().min(len)].to_vec()));
        self.add(0, Step::Close);
        if !is_between {
            self.add(0, Step::Touch(mtime_ns));
        }
    }
}

fn find(fs: &Fs, path: &[u8]) -> Result<Id, TreeError> {
    fs.resolve(&path.split(|&byte| byte == b'/').collect::<Vec<_>>())
}

fn find_parent<'a>(fs: &Fs, path: &'a [u8]) -> Result<(Id, &'a [u8]), TreeError> {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => Ok((find(fs, &path[..slash])?, &path[slash + 1..])),
        None => Ok((ROOT, path)),
    }
}

fn run(script: &mut Script, step: Step, scene: &mut Scene<'_>) -> Result<(), TreeError> {
    let path = script.path.clone();
    match step {
        Step::Create => {
            let id = match find(scene.fs, &path) {
                Ok(id) => {
                    let old = scene.fs.bytes(id)?.clone();
                    scene.oracle.destroy(scene.node, &path, &old);
                    scene.fs.open(id, true);
                    scene.fs.set_len(id, 0)?;
                    id
                }
                Err(TreeError::NotFound) => {
                    let (dir, name) = find_parent(scene.fs, &path)?;
                    let id = scene.fs.create(dir, name, 0o644)?;
                    scene.fs.open(id, true);
                    id
                }
                Err(error) => return Err(error),
            };
            script.handle = Some(id);
            script.fresh = false;
            scene.tell(format_args!("creates {}", shown(&path)));
        }
        Step::Open => {
            let id = find(scene.fs, &path)?;
            scene.fs.bytes(id)?;
            scene.fs.open(id, true);
            script.handle = Some(id);
            script.fresh = true;
            scene.tell(format_args!("opens {} for writing", shown(&path)));
        }
        Step::Append(bytes) => {
            let id = written(script, scene)?;
            let end = scene.fs.stat(id).size;
            scene.fs.write_at(id, end, &bytes)?;
            scene.tell(format_args!("appends {} B to {}", bytes.len(), shown(&path)));
        }
        Step::Patch(offset, bytes) => {
            let id = written(script, scene)?;
            scene.fs.write_at(id, offset, &bytes)?;
            scene.tell(format_args!("patches {} at {offset}", shown(&path)));
        }
        Step::Close => close(script, scene),
        Step::Truncate(len) => {
            let id = find(scene.fs, &path)?;
            let old = scene.fs.bytes(id)?.clone();
            let idle = scene.fs.writers(id) == 0;
            // Cut to the length that it has, it holds what it held.
            let is_new = old.len() as u64 != len;
            if is_new {
                scene.oracle.destroy(scene.node, &path, &old);
            }
            scene.fs.set_len(id, len)?;
            if idle && is_new {
                scene.oracle.put(scene.node, &path, &scene.fs.bytes(id)?.clone());
            }
            scene.tell(format_args!("truncates {} to {len}", shown(&path)));
        }
        Step::MakeDir(path) => {
            let (dir, name) = find_parent(scene.fs, &path)?;
            match scene.fs.make_dir(dir, name, 0o755) {
                Ok(_) => scene.tell(format_args!("makes directory {}", shown(&path))),
                Err(TreeError::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        Step::MakeLink(target) => {
            let (dir, name) = find_parent(scene.fs, &path)?;
            scene.fs.make_link(dir, name, &target)?;
            scene.tell(format_args!("links {} to {}", shown(&path), shown(&target)));
        }
        Step::Chmod(mode) => {
            let id = find(scene.fs, &path)?;
            if matches!(scene.fs.body(id), crate::fs::Body::Symlink(_)) {
                return Err(TreeError::WrongKind);
            }
            let mode = if scene.fs.is_dir(id) { mode | 0o700 } else { mode };
            scene.fs.set_mode(id, mode);
            scene.tell(format_args!("sets the mode of {} to {mode:o}", shown(&path)));
        }
        Step::Chown(uid, gid) => {
            let id = find(scene.fs, &path)?;
            scene.fs.set_owner(id, uid, gid);
            scene.tell(format_args!("gives {} to {uid}:{gid}", shown(&path)));
        }
        Step::Touch(mtime_ns) => {
            let id = find(scene.fs, &path)?;
            scene.fs.set_mtime(id, mtime_ns);
            scene.oracle.touched(scene.node, &path);
            scene.tell(format_args!("sets the mtime of {} to {mtime_ns}", shown(&path)));
        }
        Step::Rename(from, to) => rename(&from, &to, scene)?,
        Step::Unlink(path) => unlink(&path, scene)?,
        Step::RemoveDir(path) => {
            let (dir, name) = find_parent(scene.fs, &path)?;
            scene.fs.remove_dir(dir, name)?;
            scene.tell(format_args!("removes directory {}", shown(&path)));
        }
        Step::RemoveAll(path) => {
            let id = find(scene.fs, &path)?;
            if !scene.fs.is_dir(id) {
                return unlink(&path, scene);
            }
            let names: Vec<Vec<u8>> = scene.fs.names(id)?.keys().cloned().collect();
            script.steps.push_front((MS / 10, Step::RemoveDir(path.clone())));
            for name in names {
                script.steps.push_front((MS / 10, Step::RemoveAll(join(&path, &name))));
            }
        }
    }
    Ok(())
}

/// Returns the object that the script is about to write to; what it held is destroyed.
fn written(script: &mut Script, scene: &mut Scene<'_>) -> Result<Id, TreeError> {
    let id = script.handle.ok_or(TreeError::NotFound)?;
    if std::mem::take(&mut script.fresh) {
        // While recsync has it out of the share, it is still what the user opened there.
        let named = scene.fs.path_of(id).filter(|path| !is_private(path));
        let path = named.unwrap_or_else(|| script.path.clone());
        let old = scene.fs.bytes(id)?.clone();
        scene.oracle.destroy(scene.node, &path, &old);
    }
    Ok(id)
}

/// True for what lies in recsync's own directory.
fn is_private(path: &[u8]) -> bool {
    path.starts_with(b".recsync/")
}

fn close(script: &mut Script, scene: &mut Scene<'_>) {
    let Some(id) = script.handle.take() else { return };
    let bytes = scene.fs.bytes(id).expect("only files are opened for writing").clone();
    let named = scene.fs.path_of(id);
    let last = scene.fs.writers(id) == 1;
    scene.fs.close(id, true);
    // A user's own unlink or replacement took the name: the bytes go with the handle. recsync
    // never unlinks, so what it displaced still has a name in its own directory.
    if let Some(path) = named {
        if last && is_private(&path) {
            scene.oracle.put(scene.node, &script.path, &bytes);
        } else if last {
            scene.oracle.put(scene.node, &path, &bytes);
        }
        scene.tell(format_args!("closes {} ({} B)", shown(&path), bytes.len()));
    }
}

fn rename(from: &[u8], to: &[u8], scene: &mut Scene<'_>) -> Result<(), TreeError> {
    let moved = find(scene.fs, from)?;
    let (from_dir, from_name) = find_parent(scene.fs, from)?;
    let (to_dir, to_name) = find_parent(scene.fs, to)?;
    let target = scene.fs.lookup(to_dir, to_name).ok();
    let replaced = target.and_then(|target| scene.fs.bytes(target).ok().cloned());
    scene.fs.rename((from_dir, from_name), (to_dir, to_name), RenameHow::Replace)?;
    if target != Some(moved) {
        if let Some(bytes) = replaced {
            scene.oracle.destroy(scene.node, to, &bytes);
        }
        scene.oracle.rename(scene.node, scene.fs, moved, from, to);
    }
    scene.tell(format_args!("renames {} to {}", shown(from), shown(to)));
    Ok(())
}

fn unlink(path: &[u8], scene: &mut Scene<'_>) -> Result<(), TreeError> {
    let id = find(scene.fs, path)?;
    let (dir, name) = find_parent(scene.fs, path)?;
    let bytes = scene.fs.bytes(id).ok().cloned();
    scene.fs.unlink(dir, name)?;
    if let Some(bytes) = bytes {
        scene.oracle.destroy(scene.node, path, &bytes);
    }
    scene.tell(format_args!("deletes {}", shown(path)));
    Ok(())
}

/// The program ends, its handle is closed.
fn end(mut script: Script, scene: &mut Scene<'_>) {
    close(&mut script, scene);
}
