//! The control socket: who may connect, and whose file it is.
//!
//! **Invariant:** the socket has its final name only with its final mode; a living daemon's socket
//! is never taken away, a dead one's is.
#![expect(
    clippy::disallowed_methods,
    reason = "the socket's file is no share's file; this module is its only owner"
)]

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use super::listen::{self, Limits, Listen};

/// Owner and group may read and write, which for a socket means to connect.
const MODE: u32 = 0o660;

/// No limit to an exchange: a verify takes as long as it takes. The connections are the
/// operators' own.
const LIMITS: Limits =
    Limits { connections_max: 64, header: Duration::from_secs(5), exchange: None };

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum ControlError {
    /// A daemon answers there.
    #[error(
        "another recsync daemon answers at {}: stop it first, or give this one its own [node] control",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{} is there and is no socket: move it away, or set [node] control to another path", .0.display())]
    NoSocket(PathBuf),
    /// The kernel refused.
    #[error("cannot {what} {}: {why}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's words.
        why: io::Error,
    },
}

/// A bound control socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl ControlSocket {
    /// Binds the socket, mode 0660; makes its directory if only that is missing. Call it within a
    /// tokio runtime.
    ///
    /// # Errors
    /// If a daemon answers at the path, something else is there, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |why| ControlError::Io { what, path, why }
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            match fs::DirBuilder::new().mode(0o755).create(dir) {
                Err(why) if why.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("make the directory", dir)(why));
                }
                _ => {}
            }
        }
        refuse_living(path)?;

        // Bound under another name: with `rename` the socket appears with its mode set, in place
        // of what a dead daemon left.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        drop(fs::remove_file(&fresh));
        let listener = UnixListener::bind(&fresh).map_err(failed("bind", &fresh))?;
        let named = fs::set_permissions(&fresh, fs::Permissions::from_mode(MODE))
            .and_then(|()| fs::symlink_metadata(&fresh))
            .and_then(|meta| fs::rename(&fresh, path).map(|()| meta));
        match named {
            Ok(meta) => {
                let id = (meta.dev(), meta.ino());
                Ok(ControlSocket { listener, file: SocketFile { path: path.to_owned(), id } })
            }
            Err(why) => {
                drop(fs::remove_file(&fresh));
                Err(failed("bind", path)(why))
            }
        }
    }

    /// Serves a router until `stop` resolves, then removes the socket's file.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()> + Send) {
        listen::serve(self, router, LIMITS, stop).await;
    }
}

impl Listen for ControlSocket {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let caller = stream.peer_cred()?;
        if self.file.admits(caller.uid(), caller.gid()) {
            return Ok(Some(stream));
        }
        warn!(
            "refused user {} (group {}) on the control socket: neither root, nor the daemon's user, \
             nor of the socket's group",
            caller.uid(),
            caller.gid()
        );
        Ok(None)
    }
}

/// The socket's name in the filesystem.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: someone else may have put another socket there since.
    id: (u64, u64),
}

impl SocketFile {
    /// True for root, the daemon's own user and members of the socket's group. The kernel has
    /// checked the mode when the caller connected, supplementary groups included, which it does not tell
    /// us: so as long as the mode lets no others in, who came in by it is a member.
    fn admits(&self, uid: u32, gid: u32) -> bool {
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return true;
        }
        let closed_to_others =
            |meta: &fs::Metadata| (meta.dev(), meta.ino()) == self.id && meta.mode() & 0o007 == 0;
        fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| closed_to_others(&meta) || meta.gid() == gid)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id);
        if ours && let Err(why) = fs::remove_file(&self.path) {
            warn!("cannot remove {}: {why}", self.path.display());
        }
    }
}

/// Fails if the name is taken by anything but the socket of a dead daemon.
fn refuse_living(path: &Path) -> Result<(), ControlError> {
    let io = |why| ControlError::Io { what: "look at", path: path.to_owned(), why };
    match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(io(why)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ControlError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // Without blocking: a living daemon may have its queue full, which is life too.
    match connect_now(path) {
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(()),
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Err(ControlError::InUse(path.to_owned())),
        Err(why) => Err(io(why.into())),
    }
}

fn connect_now(path: &Path) -> rustix::io::Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_root_itself_and_who_the_mode_lets_in() {
        const STRANGER: u32 = 54_321;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let meta = fs::symlink_metadata(&path).unwrap();
        let file = SocketFile { path: path.clone(), id: (meta.dev(), meta.ino()) };
        let set_mode = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };

        set_mode(0o660);
        assert!(file.admits(STRANGER, STRANGER), "of the group, or connect() would have failed");
        set_mode(0o666);
        assert!(!file.admits(STRANGER, STRANGER), "the mode no longer tells");
        assert!(file.admits(STRANGER, meta.gid()));
        assert!(file.admits(0, STRANGER));
        assert!(file.admits(rustix::process::geteuid().as_raw(), STRANGER));

        let replaced = SocketFile { id: (0, 0), path: path.clone() };
        set_mode(0o660);
        assert!(!replaced.admits(STRANGER, STRANGER), "another socket's mode says nothing");
    }
}
