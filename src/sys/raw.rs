//! The system calls that no crate offers safely, each behind a safe function.
//!
//! **Invariant:** a file descriptor that goes in here is borrowed, so it is open for the length of
//! the call; no pointer is passed to the kernel at all, and to the C library only ones to memory that
//! outlives the call.
//! **May not:** be used but through `sys`.
#![expect(unsafe_code, reason = "the one place for calls that rustix lacks")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
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

/// Gives the calling thread the last place among those that want the disk (ioprio_set(2), best effort).
pub(super) fn lower_io_priority() -> Result<(), Errno> {
    /// `IOPRIO_WHO_PROCESS`, which names a thread; 0 is the calling one.
    const THREAD: c_int = 1;
    /// `IOPRIO_CLASS_BE`, and the last of its eight levels.
    const LAST: c_int = 2 << 13 | 7;
    // SAFETY: the arguments are numbers.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, THREAD, 0, LAST) };
    check(c_int::try_from(done).unwrap_or(-1))
}

/// Starts writing all dirty pages of a file, without waiting for them (sync_file_range(2)).
pub(super) fn start_writeback(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the descriptor is open while it is borrowed; the other arguments are numbers
    // (length 0: to the end).
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) })
}

/// Has the C library give freed memory back to the kernel only above `kept` bytes at the end of a heap, have
/// `arenas` heaps at most, and take what is up to `heap_max` bytes long from them (mallopt(3)). False if it takes
/// no such advice.
#[cfg(target_env = "gnu")]
pub(super) fn keep_freed_memory(kept: c_int, arenas: c_int, heap_max: c_int) -> bool {
    let set = [
        (libc::M_TRIM_THRESHOLD, kept),
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, heap_max),
    ];
    // SAFETY: the arguments are numbers.
    set.into_iter().all(|(what, value)| unsafe { libc::mallopt(what, value) } == 1)
}

/// Has the C library give all freed memory back to the kernel (malloc_trim(3)).
#[cfg(target_env = "gnu")]
pub(super) fn return_freed_memory() {
    // SAFETY: the argument is a number.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_freed_memory(_kept: c_int, _arenas: c_int, _heap_max: c_int) -> bool {
    false
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn return_freed_memory() {}

/// Longest answer of the C library on one account, in bytes: a group comes with all its members.
const ACCOUNT_ANSWER_MAX: usize = 1 << 20;

/// Returns the name of a user (getpwuid_r(3)); none if there is none, or it is no UTF-8.
pub(super) fn user_name(uid: u32) -> Result<Option<String>, Errno> {
    let found = ask(
        // SAFETY: `ask` gives pointers that are valid for the call, and the buffer's length.
        |entry, buffer, len, found| unsafe { libc::getpwuid_r(uid, entry, buffer, len, found) },
        // SAFETY: an entry that was found has its name as a C string in the buffer.
        |entry: &libc::passwd| text(unsafe { CStr::from_ptr(entry.pw_name) }),
    );
    found.map(Option::flatten)
}

/// Returns the name of a group (getgrgid_r(3)); none if there is none, or it is no UTF-8.
pub(super) fn group_name(gid: u32) -> Result<Option<String>, Errno> {
    let found = ask(
        // SAFETY: as in `user_name`.
        |entry, buffer, len, found| unsafe { libc::getgrgid_r(gid, entry, buffer, len, found) },
        // SAFETY: as in `user_name`.
        |entry: &libc::group| text(unsafe { CStr::from_ptr(entry.gr_name) }),
    );
    found.map(Option::flatten)
}

/// Returns a user's number (getpwnam_r(3)), if there is such a user.
pub(super) fn user_id(name: &str) -> Result<Option<u32>, Errno> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let name = name.as_ptr();
    ask(
        // SAFETY: as in `user_name`; the name is a C string that outlives the call.
        |entry, buffer, len, found| unsafe { libc::getpwnam_r(name, entry, buffer, len, found) },
        |entry: &libc::passwd| entry.pw_uid,
    )
}

/// Returns a group's number (getgrnam_r(3)), if there is such a group.
pub(super) fn group_id(name: &str) -> Result<Option<u32>, Errno> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let name = name.as_ptr();
    ask(
        // SAFETY: as in `user_id`.
        |entry, buffer, len, found| unsafe { libc::getgrnam_r(name, entry, buffer, len, found) },
        |entry: &libc::group| entry.gr_gid,
    )
}

fn text(name: &CStr) -> Option<String> {
    name.to_str().ok().map(str::to_owned)
}

/// Asks the C library for an account with a buffer that grows until the answer fits, and reads
/// the entry while the buffer is there.
fn ask<E, R>(
    call: impl Fn(*mut E, *mut c_char, usize, *mut *mut E) -> c_int,
    read: impl FnOnce(&E) -> R,
) -> Result<Option<R>, Errno> {
    let mut buffer: Vec<c_char> = vec![0; 1 << 10];
    loop {
        let mut entry = MaybeUninit::<E>::uninit();
        let mut found = std::ptr::null_mut();
        match call(entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) {
            0 if found.is_null() => return Ok(None),
            // SAFETY: the library filled the entry in and says so by pointing to it.
            0 => return Ok(Some(read(unsafe { entry.assume_init_ref() }))),
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < ACCOUNT_ANSWER_MAX => {
                buffer.resize(buffer.len() * 4, 0);
            }
            // What getpwnam_r(3) lists as answers for an account that is not there.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            number => return Err(Errno::from_raw_os_error(number)),
        }
    }
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
    fn accounts_are_found_both_ways() {
        assert_eq!(user_name(0), Ok(Some("root".to_owned())));
        assert_eq!(group_name(0), Ok(Some("root".to_owned())));
        assert_eq!((user_id("root"), group_id("root")), (Ok(Some(0)), Ok(Some(0))));
        let nobody = "no such account \u{1F40C}";
        assert_eq!((user_id(nobody), group_id(nobody)), (Ok(None), Ok(None)));
        assert_eq!((user_id("a\0b"), group_id("a\0b")), (Ok(None), Ok(None)));
        // 2^32 - 2, the number of nobody in some places; one below is nobody's.
        let unused = u32::MAX - 2;
        assert_eq!((user_name(unused), group_name(unused)), (Ok(None), Ok(None)));
    }

    #[test]
    fn a_thread_may_always_step_back() {
        let thread = std::thread::Builder::new().spawn(lower_io_priority).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(()));
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
