//! What the machine can do: the same bytes over TLS 1.3 on loopback into fsynced files, and `cp` with fsync.
//! Nothing is watched, decided, hashed or remembered.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::Result;

/// As many as recsync has: their work is waiting for the disk.
const WRITERS: usize = 8;
/// What is read and sent at once.
const PIECE: usize = 256 << 10;

/// A stream that files are sent through, and the writers at its end.
pub(crate) struct Tls {
    stream: StreamOwned<ClientConnection, TcpStream>,
    durable: Receiver<PathBuf>,
    reader: JoinHandle<()>,
}

/// A file that has come in.
struct Job {
    path: PathBuf,
    what: What,
}

enum What {
    Whole(Vec<u8>),
    /// Written already; to be synced.
    Written(File),
}

impl Tls {
    /// Opens it towards a root.
    pub(crate) fn open(root: &Path) -> Result<Tls> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rcgen::generate_simple_self_signed(["floor".to_owned()])?;
        let private = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(key.cert.der().clone())?;
        let versions = [&rustls::version::TLS13];
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();

        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (done, durable) = channel();
        let root = root.to_owned();
        let reader = std::thread::spawn(move || {
            if let Err(error) = receive(&listener, server, &root, &done) {
                eprintln!("the floor's receiver: {error}");
            }
        });
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let connection = ClientConnection::new(Arc::new(client), ServerName::try_from("floor")?)?;
        Ok(Tls { stream: StreamOwned::new(connection, socket), durable, reader })
    }

    /// Sends a file under a name.
    pub(crate) fn send(&mut self, root: &Path, path: &str) -> Result<()> {
        let mut file = File::open(root.join(path))?;
        let len = file.metadata()?.len();
        self.stream.write_all(&u32::try_from(path.len())?.to_le_bytes())?;
        self.stream.write_all(&len.to_le_bytes())?;
        self.stream.write_all(path.as_bytes())?;
        let mut buffer = vec![0; PIECE];
        let mut left = len;
        while left > 0 {
            let want = PIECE.min(usize::try_from(left)?);
            file.read_exact(&mut buffer[..want])?;
            self.stream.write_all(&buffer[..want])?;
            left -= want as u64;
        }
        Ok(self.stream.flush()?)
    }

    /// Waits until one more file is durable under its name; its directory is synced with it.
    pub(crate) fn wait_for_one(&self) -> Result<()> {
        let path = self.durable.recv_timeout(Duration::from_secs(60))?;
        sync_dir(&path)
    }

    /// Ends the stream and waits until all is durable; directories are synced once each.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.flush()?;
        self.stream.sock.shutdown(std::net::Shutdown::Write)?;
        self.reader.join().map_err(|_| "the floor's receiver panicked")?;
        let mut dirs = BTreeSet::new();
        for path in self.durable.try_iter() {
            dirs.extend(path.parent().map(Path::to_owned));
        }
        dirs.iter().try_for_each(|dir| Ok(File::open(dir)?.sync_all()?))
    }
}

fn sync_dir(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    Ok(File::open(dir)?.sync_all()?)
}

fn receive(
    listener: &TcpListener,
    config: ServerConfig,
    root: &Path,
    done: &Sender<PathBuf>,
) -> Result<()> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config))?, socket);
    let (jobs, writers) = start_writers(done);
    let mut head = [0; 12];
    while stream.read_exact(&mut head).is_ok() {
        let name_len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let mut left = u64::from_le_bytes(head[4..].try_into()?);
        let mut name = vec![0; name_len as usize];
        stream.read_exact(&mut name)?;
        let path = root.join(String::from_utf8(name)?);
        let what = if left <= 4 * PIECE as u64 {
            let mut bytes = vec![0; usize::try_from(left)?];
            stream.read_exact(&mut bytes)?;
            What::Whole(bytes)
        } else {
            let mut file = create(&path)?;
            let mut buffer = vec![0; PIECE];
            while left > 0 {
                let want = PIECE.min(usize::try_from(left)?);
                stream.read_exact(&mut buffer[..want])?;
                file.write_all(&buffer[..want])?;
                left -= want as u64;
            }
            What::Written(file)
        };
        jobs.send(Job { path, what }).map_err(|_| "the floor's writers have ended")?;
    }
    drop(jobs);
    writers
        .into_iter()
        .try_for_each(|writer| writer.join().map_err(|_| "a writer of the floor panicked".into()))
}

fn start_writers(done: &Sender<PathBuf>) -> (SyncSender<Job>, Vec<JoinHandle<()>>) {
    let (jobs, waiting) = sync_channel::<Job>(2 * WRITERS);
    let waiting = Arc::new(Mutex::new(waiting));
    let writer = |_| {
        let (waiting, done) = (waiting.clone(), done.clone());
        std::thread::spawn(move || {
            loop {
                let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(Job { path, what }) = job else { return };
                match write(&path, what) {
                    Ok(()) => drop(done.send(path)),
                    Err(error) => eprintln!("the floor cannot write {}: {error}", path.display()),
                }
            }
        })
    };
    (jobs, (0..WRITERS).map(writer).collect())
}

fn temp(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn create(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    Ok(File::create(temp(path))?)
}

fn write(path: &Path, what: What) -> Result<()> {
    let file = match what {
        What::Written(file) => file,
        What::Whole(bytes) => {
            let mut file = create(path)?;
            file.write_all(&bytes)?;
            file
        }
    };
    file.sync_data()?;
    Ok(fs::rename(temp(path), path)?)
}

/// Copies files as `cp` does and syncs each, as many at once as recsync has workers.
pub(crate) fn copy(from: &Path, to: &Path, paths: &[String]) -> Result<Duration> {
    let begun = Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(path) = paths.get(index) else { return };
                    if let Err(error) = copy_one(&from.join(path), &to.join(path)) {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some(format!("cannot copy {path}: {error}"));
                        return;
                    }
                }
            });
        }
    });
    if let Some(why) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(why.into());
    }
    let dirs: BTreeSet<_> =
        paths.iter().filter_map(|path| Some(to.join(path).parent()?.to_owned())).collect();
    for dir in dirs {
        File::open(dir)?.sync_all()?;
    }
    Ok(begun.elapsed())
}

fn copy_one(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(from, to)?;
    Ok(File::open(to)?.sync_data()?)
}
