//! A directory of our own that goes when we do.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::LoadError;
use crate::sys;

/// A new directory with a random name, removed with all that is in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// Makes one in a directory.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(inside: &Path) -> Result<Self, LoadError> {
        let file = |path: &Path| LoadError::file("make the scratch directory", path);
        let inside = std::path::absolute(inside).map_err(file(inside))?;
        let path = inside.join(format!("recsync-demo-{:016x}", sys::random_u64()));
        // Fails if it is there: what is removed in the end is ours for certain.
        DirBuilder::new().mode(0o700).create(&path).map_err(file(&path))?;
        Ok(Scratch { path, kept: false })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory where it is, for a look at what went wrong.
    pub fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Scratch {
    #[expect(clippy::disallowed_methods, reason = "made by `new`, under a random name, for this")]
    fn drop(&mut self) {
        if !self.kept
            && let Err(why) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %why, "left behind: remove it by hand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test makes its own files")]
    fn goes_with_its_owner_unless_kept() {
        let dir = tempfile::tempdir().unwrap();
        let fill = |scratch: &Scratch| {
            std::fs::create_dir_all(scratch.path().join("a/b")).unwrap();
            std::fs::write(scratch.path().join("a/b/c"), b"bytes").unwrap();
        };
        let scratch = Scratch::new(dir.path()).unwrap();
        fill(&scratch);
        drop(scratch);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let scratch = Scratch::new(dir.path()).unwrap();
        fill(&scratch);
        assert!(scratch.keep().join("a/b/c").is_file());
    }

    #[test]
    fn says_where_it_cannot_be() {
        let error = Scratch::new(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot make the scratch directory /nowhere/at/all/recsync"),
            "{error}"
        );
    }
}
