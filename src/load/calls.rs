//! Calls as FreeSWITCH 1.10 and 1.11 record them, and what scripts do to the recordings
//! afterwards; times and sizes are scaled down, their order is not.
//!
//! A recording is made, closed empty, opened again with `O_TRUNC`, gets a header that says 0
//! bytes, grows by 64 KiB a write, and has its header patched in place just before the last close.
//! Its dated directory is made when the call begins. Traced on FreeSWITCH 1.11.1.
#![expect(clippy::disallowed_methods, reason = "plays a program that knows nothing of recsync")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::random::Random;
use super::{Ledger, LoadError, NAMES};
use crate::telemetry::Timestamp;

/// What mod_sndfile writes at once: SWITCH_DEFAULT_FILE_BUFFER_LEN.
const WRITE_LEN: u64 = 65_536;
/// A canonical WAV header.
const HEADER_LEN: u64 = 44;
/// The calls of the beginning begin within this time, and those of the end hang up within it.
const SPREAD_MS: u64 = 1_000;
/// A call that nothing ends is as long as this.
const LONG: Duration = Duration::from_secs(3_600);

/// How busy the recorder of each node is.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Calls recorded at any time.
    pub growing: usize,
    /// Recordings finished in a second, on average; with 0 the calls outlast the load.
    pub finished_per_s: u32,
    /// Mean size of a recording; most are smaller, some four times as large.
    pub bytes_mean: u64,
    /// Whether recordings are renamed, converted, deleted and discarded afterwards.
    pub scripts: bool,
    /// The same seed plays the same calls.
    pub seed: u64,
}

/// Recorders at work, one a node; they end when this is dropped.
#[derive(Debug)]
pub struct Load {
    recorders: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    /// Never sends: that it is gone is the word to stop.
    cancel: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<Result<(), LoadError>>>,
}

impl Load {
    /// Starts recording into these roots; new calls begin for `length`, then all hang up, and
    /// what the scripts have still to do is done.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub fn start(
        roots: [PathBuf; 2],
        profile: Profile,
        length: Duration,
        ledger: &Arc<Ledger>,
    ) -> Result<Self, LoadError> {
        let mut load = Load { recorders: Vec::new() };
        for (node, root) in roots.into_iter().enumerate() {
            let (cancel, cancelled) = channel();
            let recorder = Recorder::new(node, root, profile, length, ledger.clone());
            let thread = std::thread::Builder::new()
                .name(format!("calls-{}", NAMES[node]))
                .spawn(move || recorder.run(&cancelled))
                .map_err(LoadError::system("a recorder"))?;
            let (cancel, thread) = (Some(cancel), Some(thread));
            load.recorders.push(Running { name: NAMES[node], cancel, thread });
        }
        Ok(load)
    }

    /// True once all calls have ended and all scripts are done, or failed.
    pub fn is_over(&self) -> bool {
        let over = |one: &Running| one.thread.as_ref().is_none_or(JoinHandle::is_finished);
        self.recorders.iter().all(over)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What a recorder met with.
    pub fn finish(mut self) -> Result<(), LoadError> {
        self.recorders.iter_mut().try_for_each(Running::join)
    }
}

impl Running {
    fn join(&mut self) -> Result<(), LoadError> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(LoadError::Panicked(self.name)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel = None;
        if let Err(error) = self.join() {
            tracing::warn!(%error, "a recorder that was stopped");
        }
    }
}

/// Records a whole file at once, as a call that ends as it begins; `path` is relative to `root`.
///
/// # Errors
/// If the kernel refuses.
pub fn record(
    root: &Path,
    node: usize,
    path: &str,
    bytes: u64,
    ledger: &Ledger,
) -> Result<(), LoadError> {
    let mut call = Call::begin(root, path.to_owned(), bytes)?;
    ledger.begun(node);
    while call.written + WRITE_LEN < call.total {
        call.write(WRITE_LEN)?;
    }
    call.complete()?;
    ledger.closing(node, &call.path, call.written);
    drop(call);
    Ok(())
}

/// What became of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Byte for byte as it was recorded.
    Intact,
    /// Cut short, longer, or with other bytes.
    Damaged,
    /// There is none.
    Missing,
}

/// Judges a recording that was made by [`Load`] or [`record`] under this path with these bytes; `root` may
/// be that of any node.
///
/// # Errors
/// If it cannot be read, for another reason than that it is not there.
pub fn judge(root: &Path, path: &str, bytes: u64) -> Result<Found, LoadError> {
    let full = root.join(path);
    let file = match fs::read(&full) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(LoadError::file("read", &full)(error)),
    };
    let data_len = bytes.saturating_sub(HEADER_LEN);
    let mut noise = Noise::of(path);
    let said = |(index, piece): (u64, &[u8])| {
        let left = data_len - index * WRITE_LEN;
        noise.fresh(left) == piece
    };
    let is_intact = file.len() as u64 == bytes
        && file.starts_with(&header(data_len))
        && (0..).zip(file[HEADER_LEN as usize..].chunks(WRITE_LEN as usize)).all(said);
    Ok(if is_intact { Found::Intact } else { Found::Damaged })
}

/// One node's calls and scripts: an agenda of what is due when, worked off by one thread.
struct Recorder {
    node: usize,
    root: PathBuf,
    profile: Profile,
    ledger: Arc<Ledger>,
    random: Random,
    noise: Noise,
    /// By the ledger's clock, and a number for what is due at the same time.
    agenda: BTreeMap<(Duration, u64), Step>,
    steps: u64,
    calls: u64,
    /// When no new call begins any more.
    over: Duration,
}

/// What is due.
enum Step {
    /// A call begins; with a part of its length if it is one of those that are under way when the
    /// load begins.
    Begin { under_way: bool },
    /// The recorder's buffer is full.
    Write(Growing),
    /// The call is over.
    HangUp(Growing),
    /// A converter ran over the recording.
    Convert { path: String, bytes: u64 },
    /// The recording is archived.
    Archive { path: String },
    /// Retention.
    Delete { path: String },
}

/// A call that is being recorded.
struct Growing {
    call: Call,
    /// Time between two writes.
    every: Duration,
    ends: Duration,
}

impl Recorder {
    fn new(
        node: usize,
        root: PathBuf,
        profile: Profile,
        length: Duration,
        ledger: Arc<Ledger>,
    ) -> Self {
        let seed = profile.seed ^ (node as u64) << 32;
        Recorder {
            node,
            root,
            profile,
            over: ledger.now() + length,
            ledger,
            random: Random::new(seed),
            noise: Noise::new(!seed),
            agenda: BTreeMap::new(),
            steps: 0,
            calls: 0,
        }
    }

    fn run(mut self, cancelled: &Receiver<Infallible>) -> Result<(), LoadError> {
        let now = self.ledger.now();
        for _ in 0..self.profile.growing {
            let at = now + self.random.millis(0..SPREAD_MS);
            self.due(at, Step::Begin { under_way: true });
        }
        while let Some(((at, _), step)) = self.agenda.pop_first() {
            let wait = at.saturating_sub(self.ledger.now());
            match cancelled.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => self.step(step)?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn due(&mut self, at: Duration, step: Step) {
        self.steps += 1;
        self.agenda.insert((at, self.steps), step);
    }

    fn due_in(&mut self, ms: std::ops::Range<u64>, step: Step) {
        let at = self.ledger.now() + self.random.millis(ms);
        self.due(at, step);
    }

    fn step(&mut self, step: Step) -> Result<(), LoadError> {
        match step {
            Step::Begin { under_way } => self.begin(under_way),
            Step::Write(mut growing) => {
                growing.call.write(WRITE_LEN)?;
                self.go_on(growing);
                Ok(())
            }
            Step::HangUp(growing) => self.hang_up(growing.call),
            Step::Convert { path, bytes } => self.convert(&path, bytes),
            Step::Archive { path } => self.archive(&path),
            Step::Delete { path } => self.delete(&path, true),
        }
    }

    fn begin(&mut self, under_way: bool) -> Result<(), LoadError> {
        let now = self.ledger.now();
        if now >= self.over {
            return Ok(());
        }
        let (mut length, mut bytes) = (self.length(), self.bytes());
        if under_way {
            let (part, of) = (self.random.within(1..1_000), 1_000);
            length = length * u32::try_from(part).unwrap_or(of) / of;
            bytes = bytes * part / u64::from(of);
        }
        let last = self.over + self.random.millis(0..SPREAD_MS);
        if now + length > last {
            let left = last - now;
            bytes = scaled(bytes, left, length);
            length = left;
        }
        self.calls += 1;
        let name = self.name();
        let call = Call::begin(&self.root, name, bytes.max(HEADER_LEN))?;
        self.ledger.begun(self.node);
        let writes = u32::try_from(bytes / WRITE_LEN).unwrap_or(u32::MAX - 1);
        self.go_on(Growing { call, every: length / (writes + 1), ends: now + length });
        Ok(())
    }

    fn go_on(&mut self, growing: Growing) {
        let next = self.ledger.now() + growing.every;
        if growing.call.written + WRITE_LEN < growing.call.total && next < growing.ends {
            self.due(next, Step::Write(growing));
        } else {
            self.due(growing.ends, Step::HangUp(growing));
        }
    }

    fn hang_up(&mut self, mut call: Call) -> Result<(), LoadError> {
        call.complete()?;
        let fate = if self.profile.scripts { self.random.within(0..100) } else { 100 };
        let (node, bytes) = (self.node, call.written);
        if fate < 8 {
            // RECORD_MIN_SEC: too short to be kept.
            let Call { path, file, .. } = call;
            drop(file);
            self.remove(&path)?;
            self.ledger.discarded(node);
        } else {
            self.ledger.closing(node, &call.path, bytes);
            let Call { path, file, .. } = call;
            drop(file);
            match fate {
                8..20 => self.due_in(20..200, Step::Convert { path, bytes: bytes / 8 }),
                20..32 => self.due_in(50..1_000, Step::Archive { path }),
                32..44 => self.due_in(100..1_500, Step::Delete { path }),
                _ => {}
            }
        }
        self.begin(false)
    }

    /// lame beside the recording, then `rm`.
    fn convert(&mut self, path: &str, bytes: u64) -> Result<(), LoadError> {
        let stem = path.strip_suffix(".wav").unwrap_or(path);
        let (temp, done) = (format!("{stem}.mp3.tmp"), format!("{stem}.mp3"));
        let full = self.root.join(&temp);
        let write = |noise: &mut Noise| {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&full)?;
            let mut left = bytes;
            while left > 0 {
                let piece = left.min(4_096);
                file.write_all(noise.fresh(piece))?;
                left -= piece;
            }
            Ok(())
        };
        write(&mut self.noise).map_err(LoadError::file("write", &full))?;
        self.ledger.converting(self.node, &done, bytes);
        self.rename(&temp, &done)?;
        self.delete(path, false)
    }

    fn archive(&mut self, path: &str) -> Result<(), LoadError> {
        let to = format!("archive/{path}");
        make_parent(&self.root, &to)?;
        self.ledger.renaming(self.node, path, &to);
        self.rename(path, &to)
    }

    fn delete(&mut self, path: &str, by_retention: bool) -> Result<(), LoadError> {
        self.ledger.deleting(self.node, path, by_retention);
        self.remove(path)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), LoadError> {
        let (from, to) = (self.root.join(from), self.root.join(to));
        fs::rename(&from, to).map_err(LoadError::file("rename", &from))
    }

    fn remove(&self, path: &str) -> Result<(), LoadError> {
        let full = self.root.join(path);
        fs::remove_file(&full).map_err(LoadError::file("delete", &full))
    }

    /// As long as makes `growing` calls end `finished_per_s` times a second, give or take a half.
    fn length(&mut self) -> Duration {
        let growing = u32::try_from(self.profile.growing).unwrap_or(u32::MAX);
        let mean = (Duration::from_secs(1) * growing).checked_div(self.profile.finished_per_s);
        mean.map_or(LONG, |mean| {
            mean * u32::try_from(self.random.within(50..151)).unwrap_or(100) / 100
        })
    }

    /// Seven of ten calls are shorter than the mean: as inline as a quarter MiB travels. Three are longer.
    fn bytes(&mut self) -> u64 {
        let mean = self.profile.bytes_mean;
        let percent = if self.random.within(0..10) < 7 {
            self.random.within(10..66)
        } else {
            self.random.within(65..426)
        };
        mean * percent / 100
    }

    /// Dated directories, a new one every ten seconds.
    fn name(&mut self) -> String {
        let time = Timestamp::from_ns(self.ledger.clock().now().wall_ns).to_string();
        let digits: String = time.chars().filter(char::is_ascii_digit).take(13).collect();
        let [year, month, day, tens] = [&digits[..4], &digits[4..6], &digits[6..8], &digits[8..13]];
        let (node, number, id) = (NAMES[self.node], self.calls, self.random.next() >> 32);
        format!("{year}/{month}/{day}/{tens}0/{node}-{number:05}-{id:08x}.wav")
    }
}

fn scaled(bytes: u64, part: Duration, of: Duration) -> u64 {
    let of = of.as_micros().max(1);
    u64::try_from(u128::from(bytes) * part.as_micros() / of).unwrap_or(bytes)
}

/// A recording that is open.
struct Call {
    path: String,
    file: File,
    /// Bytes that it will have.
    total: u64,
    /// Bytes that it has.
    written: u64,
    noise: Noise,
}

impl Call {
    /// Opens it as mod_sndfile does.
    fn begin(root: &Path, path: String, total: u64) -> Result<Self, LoadError> {
        make_parent(root, &path)?;
        let full = root.join(&path);
        let begin = || {
            let open = |truncate| {
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(truncate)
                    .mode(0o660)
                    .open(&full)
            };
            drop(open(false)?);
            let file = open(true)?;
            file.write_all_at(&header(0), 0)?;
            file.set_len(HEADER_LEN)?;
            Ok(file)
        };
        let file = begin().map_err(LoadError::file("record", &full))?;
        let noise = Noise::of(&path);
        Ok(Call { path, file, total, written: HEADER_LEN, noise })
    }

    fn write(&mut self, bytes: u64) -> Result<(), LoadError> {
        let mut write = || {
            self.file.write_all_at(self.noise.fresh(bytes), self.written)?;
            if self.written == HEADER_LEN {
                // Still says 0 bytes.
                self.file.write_all_at(&header(0), 0)?;
            }
            Ok(())
        };
        write().map_err(LoadError::file("record", Path::new(&self.path)))?;
        self.written += bytes;
        Ok(())
    }

    /// Writes what is left and the final header; the file is to be dropped next.
    fn complete(&mut self) -> Result<(), LoadError> {
        let left = self.total.saturating_sub(self.written).min(WRITE_LEN);
        self.write(left)?;
        self.file
            .write_all_at(&header(self.written - HEADER_LEN), 0)
            .map_err(LoadError::file("record", Path::new(&self.path)))
    }
}

fn make_parent(root: &Path, path: &str) -> Result<(), LoadError> {
    let full = root.join(path);
    let dir = full.parent().unwrap_or(root);
    if dir.is_dir() {
        return Ok(());
    }
    let make = DirBuilder::new().recursive(true).mode(0o750).create(dir);
    make.map_err(LoadError::file("make the directory", dir))
}

/// Returns the header of 8 kHz 16-bit mono PCM.
fn header(data_len: u64) -> [u8; HEADER_LEN as usize] {
    let data_len = u32::try_from(data_len).unwrap_or(u32::MAX - 36);
    // FreeSWITCH's unfinished headers say 8.
    let riff_len = if data_len == 0 { 8 } else { data_len + 36 };
    let mut header = [0; HEADER_LEN as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"RIFF");
    put(4, &riff_len.to_le_bytes());
    put(8, b"WAVEfmt ");
    put(16, &16_u32.to_le_bytes());
    put(20, &1_u16.to_le_bytes());
    put(22, &1_u16.to_le_bytes());
    put(24, &8_000_u32.to_le_bytes());
    put(28, &16_000_u32.to_le_bytes());
    put(32, &2_u16.to_le_bytes());
    put(34, &16_u16.to_le_bytes());
    put(36, b"data");
    put(40, &data_len.to_le_bytes());
    header
}

/// What is said in the calls.
struct Noise {
    random: Random,
    buffer: Vec<u8>,
}

impl Noise {
    fn new(seed: u64) -> Self {
        Noise { random: Random::new(seed), buffer: Vec::new() }
    }

    /// What is said in this recording: the same path, the same bytes, so that it can be judged later.
    fn of(path: &str) -> Self {
        // FNV-1a.
        let hash = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Noise::new(hash)
    }

    /// Returns bytes that no other recording has; at most [`WRITE_LEN`].
    fn fresh(&mut self, len: u64) -> &[u8] {
        self.buffer.resize(usize::try_from(len.min(WRITE_LEN)).unwrap_or(0), 0);
        self.random.fill(&mut self.buffer);
        &self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Recording;
    use crate::sys::Clock;

    fn play(profile: Profile, length: Duration) -> (tempfile::TempDir, Arc<Ledger>) {
        let scratch = tempfile::tempdir().unwrap();
        let roots = NAMES.map(|name| scratch.path().join(name));
        let ledger = Arc::new(Ledger::new(Clock::start()));
        let load = Load::start(roots, profile, length, &ledger).unwrap();
        load.finish().unwrap();
        (scratch, ledger)
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { found.push(path) }
            }
        }
        found
    }

    #[test]
    fn leaves_finished_recordings_and_counts_what_it_did() {
        let profile = Profile {
            growing: 20,
            finished_per_s: 100,
            bytes_mean: 60_000,
            scripts: true,
            seed: 7,
        };
        let (scratch, ledger) = play(profile, Duration::from_secs(1));
        for (node, name) in NAMES.into_iter().enumerate() {
            let tally = ledger.tallies()[node];
            let found = files(&scratch.path().join(name));
            assert_eq!(tally.growing, 0, "all hung up");
            assert!(tally.recorded > 20, "{tally:?}");
            let acts = [tally.discarded, tally.renamed, tally.converted, tally.deleted];
            assert!(acts.iter().all(|count| *count > 0), "{tally:?}");
            assert_eq!(found.len() as u64, tally.recorded - tally.deleted);
            let ending = |end: &str| {
                found.iter().filter(|path| path.to_string_lossy().ends_with(end)).count() as u64
            };
            assert_eq!((ending(".mp3"), ending(".tmp")), (tally.converted, 0));
            for wav in found.iter().filter(|path| path.extension().unwrap() == "wav") {
                let bytes = fs::read(wav).unwrap();
                let riff = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
                assert_eq!(riff as usize + 8, bytes.len(), "a whole WAV file: {}", wav.display());
            }
        }
    }

    #[test]
    fn a_load_that_is_dropped_stops_at_once() {
        let scratch = tempfile::tempdir().unwrap();
        let roots = NAMES.map(|name| scratch.path().join(name));
        let ledger = Arc::new(Ledger::new(Clock::start()));
        let profile =
            Profile { growing: 5, finished_per_s: 0, bytes_mean: 1 << 20, scripts: false, seed: 1 };
        let load = Load::start(roots, profile, LONG, &ledger).unwrap();
        assert!(!load.is_over());
        // Would wait for an hour.
        drop(load);
    }

    #[test]
    fn a_recording_is_judged_by_every_byte() {
        let scratch = tempfile::tempdir().unwrap();
        let profile =
            Profile { growing: 2, finished_per_s: 20, bytes_mean: 90_000, scripts: false, seed: 3 };
        let roots = NAMES.map(|name| scratch.path().join(name));
        let ledger = Arc::new(Ledger::new(Clock::start()));
        Load::start(roots.clone(), profile, Duration::from_millis(500), &ledger)
            .unwrap()
            .finish()
            .unwrap();
        let recordings = ledger.recordings();
        assert!(recordings.len() > 4, "{recordings:?}");
        for Recording { node, path, bytes } in &recordings {
            assert_eq!(judge(&roots[*node], path, *bytes).unwrap(), Found::Intact);
        }
        let Recording { node, path, bytes } = &recordings[0];
        let (root, full) = (&roots[*node], roots[*node].join(path));
        let good = fs::read(&full).unwrap();
        for at in [4, 43, 44, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&full, bad).unwrap();
            assert_eq!(judge(root, path, *bytes).unwrap(), Found::Damaged, "byte {at}");
        }
        fs::write(&full, &good[..good.len() - 1]).unwrap();
        assert_eq!(judge(root, path, *bytes).unwrap(), Found::Damaged, "cut short");
        fs::remove_file(&full).unwrap();
        assert_eq!(judge(root, path, *bytes).unwrap(), Found::Missing);
    }

    #[test]
    fn one_recording_at_once_is_as_long_as_asked() {
        let scratch = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Clock::start());
        record(scratch.path(), 0, "2026/a.wav", 200_000, &ledger).unwrap();
        let bytes = fs::read(scratch.path().join("2026/a.wav")).unwrap();
        assert_eq!((bytes.len(), &bytes[..44]), (200_000, &header(199_956)[..]));
        assert_eq!(ledger.outstanding(), 1);
    }
}
