//! A tree that can be made to refuse, which the real one does not where the tests run as root.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::tree::{
    DirEntry, Fingerprint, Kind, OwnerLeft, Place, RootError, Space, Tree, TreeError, Writer,
};
use recsync_proto::{Owner, SharePath};

/// Directories and files in memory; only what the watcher asks for.
#[derive(Default)]
pub(super) struct Stub {
    pub(super) dirs: Mutex<BTreeMap<SharePath, Result<Vec<DirEntry>, TreeError>>>,
}

impl Stub {
    /// Sets what a directory's listing answers: names, with a slash at the end for a directory.
    pub(super) fn set(&self, dir: &str, answer: Result<&[&str], TreeError>) {
        let entry = |name: &&str| {
            let kind = if name.ends_with('/') { Kind::Dir } else { Kind::File };
            DirEntry { name: name.trim_end_matches('/').into(), kind: Some(kind) }
        };
        let answer = answer.map(|names| names.iter().map(entry).collect());
        self.dirs.lock().unwrap().insert(super::share_path(dir), answer);
    }
}

macro_rules! refuse {
    ($($name:ident($($argument:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $(_: $argument),*) -> Result<$answer, TreeError> {
            Err(TreeError::Io("the watcher does not do this".into()))
        })*
    };
}

impl Tree for Stub {
    type File = PathBuf;

    fn check_root(&self) -> Result<(), RootError> {
        Ok(())
    }

    fn list(&self, dir: &Place) -> Result<Vec<DirEntry>, TreeError> {
        let Place::Share(dir) = dir else { return Err(TreeError::Denied) };
        self.dirs.lock().unwrap().get(dir).cloned().unwrap_or(Err(TreeError::NotFound))
    }

    fn stat(&self, place: &Place) -> Result<Fingerprint, TreeError> {
        let Place::Share(path) = place else { return Err(TreeError::Denied) };
        if !self.dirs.lock().unwrap().contains_key(path) {
            return Err(TreeError::NotFound);
        }
        Ok(Fingerprint {
            kind: Kind::Dir,
            fs: 0,
            ino: 0,
            size: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 0,
        })
    }

    fn start_sync(&self, _: &PathBuf) {}

    fn owner(&self, _: &Fingerprint) -> Option<Owner> {
        None
    }

    refuse! {
        read_link(&Place) -> Vec<u8>;
        open(&Place) -> PathBuf;
        stat_file(&PathBuf) -> Fingerprint;
        writer(&PathBuf) -> Writer;
        read_at(&PathBuf, u64, &mut [u8]) -> usize;
        sync_data(&PathBuf) -> ();
        create_temp(&str) -> PathBuf;
        open_temp(&str) -> PathBuf;
        write_at(&PathBuf, u64, &[u8]) -> ();
        copy_range(&PathBuf, &PathBuf, u64, u64) -> u64;
        set_len(&PathBuf, u64) -> ();
        sync(&PathBuf) -> ();
        set_mode(&PathBuf, u32) -> ();
        set_owner(&PathBuf, &Owner) -> Option<OwnerLeft>;
        set_owner_of(&Place, &Owner) -> Option<OwnerLeft>;
        set_mtime(&PathBuf, i64) -> ();
        open_for_metadata(&Place) -> PathBuf;
        set_mtime_of(&Place, i64) -> ();
        make_dir(&Place, u32) -> ();
        make_link(&Place, &[u8]) -> ();
        rename(&Place, &Place) -> ();
        exchange(&Place, &Place) -> ();
        remove_dir(&Place) -> ();
        remove_private(&Place) -> ();
        sync_dir(&Place) -> ();
        list_temp() -> Vec<String>;
        space() -> Space;
    }
}
