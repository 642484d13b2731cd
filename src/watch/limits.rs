//! The kernel's limits for inotify, and what a person does about them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::tree::RootError;

/// Why directories are not watched. The share is kept the same all the same, by scanning.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WatchError {
    /// The user's inotify watches are used up.
    #[error(
        "{unwatched} of {} directories below {} are not watched, but scanned every minute: \
         all inotify watches are in use ({setting}); raise the limit with \
         `sysctl -w {}={suggested}` and keep it with a line in /etc/sysctl.d/",
        watched + unwatched, root.display(), setting.name
    )]
    WatchesUsedUp {
        /// The share's root.
        root: PathBuf,
        /// The limit that was met.
        setting: Setting,
        /// Directories of the share that are watched.
        watched: usize,
        /// Directories of the share that are not.
        unwatched: usize,
        /// A limit with room for them and to grow.
        suggested: u64,
    },
    /// The user's inotify instances, or the process's open files, are used up.
    #[error(
        "nothing below {} is watched, but scanned every minute: no inotify instance is to be had \
         ({setting}): {why}; raise the limit with `sysctl -w {}={suggested}` and keep it with a \
         line in /etc/sysctl.d/, or let the service open more files (LimitNOFILE=)",
        root.display(), setting.name
    )]
    InstancesUsedUp {
        /// The share's root.
        root: PathBuf,
        /// The limit that was met, unless it is that of open files.
        setting: Setting,
        /// A limit with room to grow.
        suggested: u64,
        /// The kernel's words.
        why: String,
    },
    /// The share's root is not there, or another.
    #[error("nothing is watched: {0}")]
    Root(RootError),
    /// Anything else.
    #[error(
        "{} cannot be watched, but is scanned every minute: {why}; it is tried again then",
        dir.display()
    )]
    Other {
        /// The first directory in question, absolute.
        dir: PathBuf,
        /// The kernel's words.
        why: String,
    },
}

impl WatchError {
    pub(super) fn watches_used_up(root: &Path) -> Self {
        let setting = Setting::read("max_user_watches", "max_inotify_watches");
        Self::WatchesUsedUp { root: root.into(), setting, watched: 0, unwatched: 0, suggested: 0 }
    }

    pub(super) fn no_instance(root: &Path, error: &notify::Error) -> Self {
        let why = error.to_string();
        let used_up = match &error.kind {
            notify::ErrorKind::Io(error) => error.raw_os_error() == Some(libc::EMFILE),
            _ => false,
        };
        if !used_up {
            return Self::Other { dir: root.into(), why };
        }
        let setting = Setting::read("max_user_instances", "max_inotify_instances");
        let suggested = (2 * setting.value.unwrap_or_default()).max(1_024);
        Self::InstancesUsedUp { root: root.into(), setting, suggested, why }
    }

    /// Fills in how many directories are watched and how many are not.
    pub(super) fn counted(mut self, now_watched: usize, now_unwatched: usize) -> Self {
        if let Self::WatchesUsedUp { setting, watched, unwatched, suggested, .. } = &mut self {
            (*watched, *unwatched) = (now_watched, now_unwatched);
            // Others of the same user have watches too: double what is known to be needed.
            let needed = setting.value.unwrap_or_default() + now_unwatched as u64;
            *suggested = needed.saturating_mul(2).next_power_of_two().max(524_288);
        }
        self
    }
}

/// A limit of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As sysctl(8) names it.
    pub name: String,
    /// Its value, if it can be read.
    pub value: Option<u64>,
}

impl Setting {
    /// Returns the limit that binds here: in a container, its user namespace may have a lower one.
    fn read(of_user: &str, of_namespace: &str) -> Self {
        let user = Setting::of(format!("fs.inotify.{of_user}"));
        let namespace = Setting::of(format!("user.{of_namespace}"));
        match (user.value, namespace.value) {
            (Some(value), Some(lower)) if lower < value => namespace,
            (None, Some(_)) => namespace,
            _ => user,
        }
    }

    fn of(name: String) -> Self {
        let file = Path::new("/proc/sys").join(name.replace('.', "/"));
        #[expect(clippy::disallowed_methods, reason = "a setting of the kernel, no share's file")]
        let text: io::Result<String> = std::fs::read_to_string(file);
        let value = text.ok().and_then(|text| text.trim().parse().ok());
        Setting { name, value }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(f, "{} = {value}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// Returns how many inotify watches this user may have in all programs together, if it can be
/// read.
pub fn watch_limit() -> Option<u64> {
    Setting::read("max_user_watches", "max_inotify_watches").value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_limit_and_the_command() {
        let setting = Setting { name: "fs.inotify.max_user_watches".into(), value: Some(192_536) };
        let root = PathBuf::from("/storage/recordings");
        let error = WatchError::WatchesUsedUp {
            root: root.clone(),
            setting,
            watched: 0,
            unwatched: 0,
            suggested: 0,
        };
        insta::assert_snapshot!(error.counted(190_000, 110_000), @"110000 of 300000 directories below /storage/recordings are not watched, but scanned every minute: all inotify watches are in use (fs.inotify.max_user_watches = 192536); raise the limit with `sysctl -w fs.inotify.max_user_watches=1048576` and keep it with a line in /etc/sysctl.d/");
        let why = notify::Error::io(io::Error::from_raw_os_error(libc::EMFILE));
        let error = match WatchError::no_instance(&root, &why) {
            WatchError::InstancesUsedUp { root, suggested: _, why, .. } => {
                let name = "fs.inotify.max_user_instances".into();
                let setting = Setting { name, value: Some(128) };
                WatchError::InstancesUsedUp { root, setting, suggested: 1_024, why }
            }
            other => other,
        };
        insta::assert_snapshot!(error, @"nothing below /storage/recordings is watched, but scanned every minute: no inotify instance is to be had (fs.inotify.max_user_instances = 128): Too many open files (os error 24); raise the limit with `sysctl -w fs.inotify.max_user_instances=1024` and keep it with a line in /etc/sysctl.d/, or let the service open more files (LimitNOFILE=)");
        let gone = RootError::NoMarker { path: root.display().to_string() };
        insta::assert_snapshot!(WatchError::Root(gone), @"nothing is watched: /storage/recordings has no marker .recsync/share.toml: is the disk mounted?");
        insta::assert_snapshot!(WatchError::Other { dir: root, why: "I/O error".into() }, @"/storage/recordings cannot be watched, but is scanned every minute: I/O error; it is tried again then");
    }

    #[test]
    fn the_kernel_tells_its_limit() {
        assert!(watch_limit().unwrap() > 0);
        assert_eq!(Setting::of("fs.inotify.no_such_setting".into()).value, None);
    }
}
