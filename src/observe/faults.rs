//! A tree that fails, stops, or lets someone act at a chosen call.
#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use recsync_proto::Owner;

use crate::tree::{
    DirEntry, Fingerprint, OwnerLeft, Place, RootError, Space, Tree, TreeError, Writer,
};

/// What happens at the chosen call.
pub(crate) enum Fault<'a> {
    /// It fails, and so many in all; those after them do not.
    Fail(usize),
    /// It fails, and so do all after it: the process ends here.
    Stop,
    /// Someone acts just before it.
    Act(Mutex<Box<dyn FnMut() + Send + 'a>>),
}

/// A tree whose call number `at` (from 0) meets a fault.
pub(crate) struct Faulty<'a, T> {
    tree: &'a T,
    at: usize,
    fault: Fault<'a>,
    calls: AtomicUsize,
    dirs_synced: AtomicUsize,
    /// The answer to every question for writers, instead of the truth.
    writer: Option<Writer>,
}

impl<'a, T: Tree> Faulty<'a, T> {
    pub(crate) fn new(tree: &'a T, at: usize, fault: Fault<'a>) -> Self {
        Faulty {
            tree,
            at,
            fault,
            calls: AtomicUsize::new(0),
            dirs_synced: AtomicUsize::new(0),
            writer: None,
        }
    }

    pub(crate) fn act(tree: &'a T, at: usize, act: impl FnMut() + Send + 'a) -> Self {
        Faulty::new(tree, at, Fault::Act(Mutex::new(Box::new(act))))
    }

    /// Returns a tree without faults whose kernel does not tell of writers.
    pub(crate) fn without_leases(tree: &'a T) -> Self {
        Faulty { writer: Some(Writer::Unknown), ..Faulty::new(tree, usize::MAX, Fault::Stop) }
    }

    /// True if the fault was met.
    pub(crate) fn was_met(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.at
    }

    /// Returns how many directories were synced.
    pub(crate) fn dirs_synced(&self) -> usize {
        self.dirs_synced.load(Ordering::Relaxed)
    }

    fn step(&self) -> Result<&'a T, TreeError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let fails = match &self.fault {
            Fault::Fail(count) => (self.at..self.at + count).contains(&number),
            Fault::Stop => number >= self.at,
            Fault::Act(act) => {
                if number == self.at {
                    act.lock().unwrap()();
                }
                false
            }
        };
        if fails { Err(TreeError::Io("injected".to_owned())) } else { Ok(self.tree) }
    }
}

impl<T: Tree> Tree for Faulty<'_, T> {
    type File = T::File;

    fn check_root(&self) -> Result<(), RootError> {
        let injected =
            |_| RootError::NoRoot { path: "share".to_owned(), why: "injected".to_owned() };
        self.step().map_err(injected)?.check_root()
    }
    fn stat(&self, place: &Place) -> Result<Fingerprint, TreeError> {
        self.step()?.stat(place)
    }
    fn list(&self, dir: &Place) -> Result<Vec<DirEntry>, TreeError> {
        self.step()?.list(dir)
    }
    fn read_link(&self, place: &Place) -> Result<Vec<u8>, TreeError> {
        self.step()?.read_link(place)
    }
    fn open(&self, place: &Place) -> Result<T::File, TreeError> {
        self.step()?.open(place)
    }
    fn stat_file(&self, file: &T::File) -> Result<Fingerprint, TreeError> {
        self.step()?.stat_file(file)
    }
    fn writer(&self, file: &T::File) -> Result<Writer, TreeError> {
        let told = self.step()?.writer(file)?;
        Ok(self.writer.unwrap_or(told))
    }
    fn read_at(&self, file: &T::File, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        self.step()?.read_at(file, offset, buffer)
    }
    fn sync_data(&self, file: &T::File) -> Result<(), TreeError> {
        self.step()?.sync_data(file)
    }
    fn create_temp(&self, name: &str) -> Result<T::File, TreeError> {
        self.step()?.create_temp(name)
    }
    fn open_temp(&self, name: &str) -> Result<T::File, TreeError> {
        self.step()?.open_temp(name)
    }
    fn write_at(&self, file: &T::File, offset: u64, bytes: &[u8]) -> Result<(), TreeError> {
        self.step()?.write_at(file, offset, bytes)
    }
    fn copy_range(
        &self,
        from: &T::File,
        to: &T::File,
        offset: u64,
        len: u64,
    ) -> Result<u64, TreeError> {
        self.step()?.copy_range(from, to, offset, len)
    }
    fn set_len(&self, file: &T::File, len: u64) -> Result<(), TreeError> {
        self.step()?.set_len(file, len)
    }
    fn start_sync(&self, file: &T::File) {
        if let Ok(tree) = self.step() {
            tree.start_sync(file);
        }
    }
    fn sync(&self, file: &T::File) -> Result<(), TreeError> {
        self.step()?.sync(file)
    }
    fn set_mode(&self, file: &T::File, mode: u32) -> Result<(), TreeError> {
        self.step()?.set_mode(file, mode)
    }
    fn owner(&self, stat: &Fingerprint) -> Option<Owner> {
        self.tree.owner(stat)
    }
    fn set_owner(&self, file: &T::File, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError> {
        self.step()?.set_owner(file, owner)
    }
    fn set_owner_of(&self, place: &Place, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError> {
        self.step()?.set_owner_of(place, owner)
    }
    fn set_mtime(&self, file: &T::File, mtime_ns: i64) -> Result<(), TreeError> {
        self.step()?.set_mtime(file, mtime_ns)
    }
    fn open_for_metadata(&self, place: &Place) -> Result<T::File, TreeError> {
        self.step()?.open_for_metadata(place)
    }
    fn set_mtime_of(&self, place: &Place, mtime_ns: i64) -> Result<(), TreeError> {
        self.step()?.set_mtime_of(place, mtime_ns)
    }
    fn make_dir(&self, place: &Place, mode: u32) -> Result<(), TreeError> {
        self.step()?.make_dir(place, mode)
    }
    fn make_link(&self, place: &Place, target: &[u8]) -> Result<(), TreeError> {
        self.step()?.make_link(place, target)
    }
    fn rename(&self, from: &Place, to: &Place) -> Result<(), TreeError> {
        self.step()?.rename(from, to)
    }
    fn exchange(&self, one: &Place, other: &Place) -> Result<(), TreeError> {
        self.step()?.exchange(one, other)
    }
    fn remove_dir(&self, place: &Place) -> Result<(), TreeError> {
        self.step()?.remove_dir(place)
    }
    fn remove_private(&self, place: &Place) -> Result<(), TreeError> {
        self.step()?.remove_private(place)
    }
    fn sync_dir(&self, dir: &Place) -> Result<(), TreeError> {
        self.dirs_synced.fetch_add(1, Ordering::Relaxed);
        self.step()?.sync_dir(dir)
    }
    fn list_temp(&self) -> Result<Vec<String>, TreeError> {
        self.step()?.list_temp()
    }
    fn space(&self) -> Result<Space, TreeError> {
        self.step()?.space()
    }
}
