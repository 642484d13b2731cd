//! Small disks of their own: images with a filesystem, mounted through a loop device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{seen, until};

/// What XFS wants at least.
const SIZE: u64 = 320 << 20;

/// A mounted image; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    dir: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// Mounts a new filesystem of a kind at a directory. None, and a line that says so, where that
    /// cannot be had.
    pub(crate) fn new(test: &str, kind: &str, dir: &Path) -> Option<Disk> {
        Disk::with_options(test, kind, &[], dir)
    }

    /// As [`Disk::new`], with options of `mkfs`.
    pub(crate) fn with_options(
        test: &str,
        kind: &str,
        options: &[&str],
        dir: &Path,
    ) -> Option<Disk> {
        let image = dir.with_extension("image");
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        let mut args: Vec<&Path> = ["-q"].iter().chain(options).map(Path::new).collect();
        args.push(&image);
        let made = run(&format!("mkfs.{kind}"), &args);
        let mut disk = Disk { image, dir: dir.to_owned(), is_mounted: false };
        let mounted = made.and_then(|_| disk.try_mount());
        if let Err(why) = mounted {
            eprintln!("SKIPPED {test}: no {kind} in a loop device (root, tests/setup.sh): {why}");
            return None;
        }
        Some(disk)
    }

    /// As [`Disk::new`], at the root of a share that has a marker and nothing else.
    pub(crate) fn below_share(test: &str, kind: &str, root: &Path) -> Option<Disk> {
        Disk::below_share_with_options(test, kind, &[], root)
    }

    /// As [`Disk::below_share`], with options of `mkfs`.
    pub(crate) fn below_share_with_options(
        test: &str,
        kind: &str,
        options: &[&str],
        root: &Path,
    ) -> Option<Disk> {
        let marker = root.join(".recsync/share.toml");
        let text = fs::read(&marker).unwrap();
        // Nothing lies below the mount.
        fs::remove_dir_all(root.join(".recsync")).unwrap();
        let disk = Disk::with_options(test, kind, options, root)?;
        fs::create_dir(root.join(".recsync")).unwrap();
        fs::write(marker, text).unwrap();
        Some(disk)
    }

    fn try_mount(&mut self) -> Result<(), String> {
        run("mount", &[Path::new("-o"), Path::new("loop"), &self.image, &self.dir])?;
        self.is_mounted = true;
        Ok(())
    }

    pub(crate) fn mount(&mut self) {
        self.try_mount().unwrap();
    }

    /// Takes the disk away, although it is in use, and waits until nobody uses it any more.
    pub(crate) fn unmount(&mut self) {
        run("umount", &[Path::new("-l"), &self.dir]).unwrap();
        self.is_mounted = false;
        until("nobody holds the disk", || {
            let used = run("losetup", &[Path::new("-j"), &self.image]).unwrap();
            seen(used.stdout.is_empty())
        });
    }

    pub(crate) fn read_only(&self, yes: bool) {
        let how = if yes { "remount,ro" } else { "remount,rw" };
        run("mount", &[Path::new("-o"), Path::new(how), &self.dir]).unwrap();
    }

    /// Has every access fail from now on, and nothing more reach the image, not even what the
    /// filesystem has in its log in memory: as if the power went. False, and a line that says so,
    /// where the filesystem cannot do that.
    pub(crate) fn shut_down(&self, test: &str) -> bool {
        let done = run(
            "xfs_io",
            &["-x", "-c", "shutdown"]
                .map(Path::new)
                .into_iter()
                .chain([self.dir.as_path()])
                .collect::<Vec<_>>(),
        );
        match done {
            Ok(done) if done.stderr.is_empty() => true,
            other => {
                eprintln!("SKIPPED {test}, the part that needs a shutdown: {other:?}");
                false
            }
        }
    }

    /// Leaves this little room.
    pub(crate) fn fill(&self, left: u64) {
        let room = rustix::fs::statvfs(&self.dir).unwrap();
        let free = room.f_bavail * room.f_frsize;
        let filler = File::create(self.filler()).unwrap();
        let flags = rustix::fs::FallocateFlags::empty();
        // Not all of it can always be had in one piece: half of what is left, again and again.
        let mut at = 0;
        let mut step = free.saturating_sub(left);
        while step > left.min(65_536) {
            match rustix::fs::fallocate(&filler, flags, at, step) {
                Ok(()) => at += step,
                Err(_) => step /= 2,
            }
        }
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// Where no share looks.
    fn filler(&self) -> PathBuf {
        self.dir.join(".recsync/filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily: a daemon may still have it open.
            run("umount", &[Path::new("-l"), &self.dir]).unwrap();
        }
    }
}

fn run(program: &str, args: &[&Path]) -> Result<Output, String> {
    let done = Command::new(program).args(args).stdin(Stdio::null()).output();
    match done {
        Ok(done) if done.status.success() => Ok(done),
        other => Err(format!("{program} {args:?}: {other:?}")),
    }
}
