//! The system calls that no crate offers safely, each behind a safe function.
//!
//! **Invariant:** a file descriptor that goes in here is borrowed, so it is open for the length of
//! the call; no pointer is passed to the kernel at all.
//! **May not:** be used but through `sys`.
#![expect(unsafe_code, reason = "the one place for calls that rustix lacks")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Takes a read lease on an open file (`F_SETLEASE`, fcntl(2)).
pub(super) fn take_read_lease(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the descriptor is open while it is borrowed; F_SETLEASE takes an int and touches no
    // memory of ours.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK as c_int) })
}

/// Gives a lease back (`F_SETLEASE`, fcntl(2)).
pub(super) fn drop_lease(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: as in `take_read_lease`.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK as c_int) })
}

/// Has the kernel throw SIGIO away, for the whole process (signal(2)).
pub(super) fn ignore_sigio() {
    // SAFETY: SIG_IGN is no code of ours that could run at a bad moment, and SIGIO is a signal
    // that may be ignored: the call cannot fail.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
}

/// Starts writing all dirty pages of a file, without waiting for them (sync_file_range(2)).
pub(super) fn start_writeback(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the descriptor is open while it is borrowed; the other arguments are numbers
    // (length 0: to the end).
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) })
}

fn check(result: c_int) -> Result<(), Errno> {
    if result == -1 {
        // The C library always leaves a number; EIO stands for the impossible.
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    fn file_in(dir: &tempfile::TempDir) -> std::path::PathBuf {
        let path = dir.path().join("file");
        std::fs::File::options().create_new(true).write(true).open(&path).unwrap();
        path
    }

    fn open(path: &std::path::Path, flags: OFlags) -> rustix::fd::OwnedFd {
        openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn a_read_lease_is_given_and_given_back() {
        ignore_sigio();
        let dir = tempfile::tempdir().unwrap();
        let path = file_in(&dir);
        let file = open(&path, OFlags::RDONLY);
        assert_eq!(take_read_lease(file.as_fd()), Ok(()));
        let barred = openat(CWD, &path, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
        assert_eq!(barred.err(), Some(Errno::WOULDBLOCK), "the lease is held");
        assert_eq!(drop_lease(file.as_fd()), Ok(()));
        open(&path, OFlags::WRONLY | OFlags::NONBLOCK);
    }

    #[test]
    fn a_read_lease_is_refused_while_someone_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_in(&dir);
        let _writer = open(&path, OFlags::WRONLY);
        let file = open(&path, OFlags::RDONLY);
        assert_eq!(take_read_lease(file.as_fd()), Err(Errno::AGAIN));
    }

    #[test]
    fn sigio_does_not_end_the_process() {
        ignore_sigio();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::IO)
            .unwrap();
    }

    #[test]
    fn writeback_starts_on_files_and_is_refused_on_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = file_in(&dir);
        let mut file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all(b"bytes").unwrap();
        assert_eq!(start_writeback(file.as_fd()), Ok(()));
        let (pipe, _other_end) = std::io::pipe().unwrap();
        assert_eq!(start_writeback(pipe.as_fd()), Err(Errno::SPIPE));
    }
}
