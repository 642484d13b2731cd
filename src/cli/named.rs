//! Arguments of more than one command.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use recsync_proto::path::Escaped;
use recsync_proto::{NodeName, ShareName};

use crate::serve::Named;

/// Parses the name of a node.
pub(super) fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|error| error.to_string())
}

/// `NAME=PATH`: a share and the directory that it is here.
#[derive(Debug, Clone)]
pub(super) struct NamedPath {
    /// The share's name.
    pub(super) name: ShareName,
    /// Its directory, absolute.
    pub(super) path: PathBuf,
}

impl std::str::FromStr for NamedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, path)) = text.split_once('=') else {
            return Err("write NAME=PATH, for example recordings=/storage/recordings".to_owned());
        };
        Ok(NamedPath {
            name: ShareName::new(name).map_err(|error| error.to_string())?,
            path: absolute(path)?,
        })
    }
}

impl NamedPath {
    /// Makes sure that the share's directory is there: recsync never makes one, for an empty one in
    /// the place of a disk that is not mounted would be the beginning of a disaster.
    pub(super) fn require_directory(&self) -> anyhow::Result<()> {
        let (name, path) = (&self.name, self.path.display());
        let kind = self.path.metadata().with_context(|| {
            format!("share {name}: cannot look at {path}; make the directory or mount the disk, and try again")
        })?;
        if !kind.is_dir() {
            bail!(
                "share {name}: {path} is no directory; give the directory that is to be kept in step"
            );
        }
        Ok(())
    }
}

/// Parses a path in a share, for the daemon: with where the person is, and bytes that are no UTF-8
/// as they are shown.
pub(super) fn in_share(path: &OsStr) -> Named {
    let shown = |path: &OsStr| Escaped(path.as_bytes()).to_string();
    let from = std::env::current_dir().ok();
    Named { path: shown(path), from: from.map(|dir| shown(dir.as_os_str())) }
}

/// Parses a path; a relative one is relative to the working directory. TOML is UTF-8, and so are
/// the paths in it: clap has refused others before this.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(Path::new(text)).map_err(|error| error.to_string())
}
