//! Lays what a directory lists beside what the index holds installed there.
//!
//! Both come in pages: a call of the kernel and a question to the index for each name by itself would
//! cost more than all that is done with the answers.
//!
//! **Invariant:** each name comes once, in byte order; memory holds one page of either side.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::slice::Chunks;

use recsync_proto::SharePath;

use crate::index::{IndexError, IndexRead, Installed};
use crate::tree::{Fingerprint, Place, Tree, TreeError};

/// Names that are looked at, and asked of the index, at once.
const PAGE_LEN: usize = 256;

/// Returns a directory's names in their order.
///
/// # Errors
/// If it cannot be listed.
pub fn list<T: Tree>(tree: &T, dir: &SharePath) -> Result<Vec<Vec<u8>>, TreeError> {
    let entries = tree.list(&Place::Share(dir.clone()))?;
    let mut names: Vec<Vec<u8>> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    Ok(names)
}

/// A name of a directory.
#[derive(Debug)]
pub struct Named {
    /// Its path.
    pub path: SharePath,
    /// How a stat shows what it names; none if it was not listed.
    pub found: Option<Result<Fingerprint, TreeError>>,
    /// What is installed there.
    pub installed: Option<Installed>,
}

/// The names of a directory, listed or installed.
#[derive(Debug)]
pub struct Names<'a, T, I> {
    tree: &'a T,
    index: &'a I,
    dir: &'a SharePath,
    listed: Chunks<'a, Vec<u8>>,
    found: VecDeque<(SharePath, Result<Fingerprint, TreeError>)>,
    installed: VecDeque<(Vec<u8>, Installed)>,
    /// The last name that the index was asked for.
    after: Vec<u8>,
    /// True if nothing is installed after it.
    last: bool,
    unsyncable: u64,
}

impl<'a, T: Tree, I: IndexRead> Names<'a, T, I> {
    /// Begins with `listed`, which [`list`] returned, and with what is installed, both after the name
    /// `after` (empty: from the first one on).
    pub fn new(
        tree: &'a T,
        index: &'a I,
        dir: &'a SharePath,
        listed: &'a [Vec<u8>],
        after: &[u8],
    ) -> Self {
        let passed = listed.partition_point(|name| name.as_slice() <= after);
        Names {
            tree,
            index,
            dir,
            listed: listed[passed..].chunks(PAGE_LEN),
            found: VecDeque::new(),
            installed: VecDeque::new(),
            after: after.to_vec(),
            last: false,
            unsyncable: 0,
        }
    }

    /// Returns how many listed names were passed over, as no path can hold them (too long).
    pub fn unsyncable(&self) -> u64 {
        self.unsyncable
    }

    /// Takes what is next on either side, of both if it is the same name.
    fn take(&mut self) -> Result<Option<Named>, IndexError> {
        self.look();
        self.ask()?;
        let listed = self.found.front().map(|(path, _)| path.name());
        let known = self.installed.front().map(|(name, _)| name.as_slice());
        let order = match (listed, known) {
            (Some(listed), Some(known)) => listed.cmp(known),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let found = if order.is_le() { self.found.pop_front() } else { None };
        let known = if order.is_ge() { self.installed.pop_front() } else { None };
        Ok(match (found, known) {
            (Some((path, found)), known) => {
                let installed = known.map(|(_, installed)| installed);
                Some(Named { path, found: Some(found), installed })
            }
            (None, Some((name, installed))) => {
                Some(Named { path: self.path(&name)?, found: None, installed: Some(installed) })
            }
            (None, None) => None,
        })
    }

    fn path(&self, installed: &[u8]) -> Result<SharePath, IndexError> {
        self.dir.join(installed).map_err(|error| IndexError::Damaged {
            path: self.dir.to_string(),
            why: format!("a name that is installed there: {error}"),
        })
    }

    /// Looks at the next page of what is listed, if that is due.
    fn look(&mut self) {
        while self.found.is_empty()
            && let Some(names) = self.listed.next()
        {
            let paths: Vec<SharePath> =
                names.iter().filter_map(|name| self.dir.join(name).ok()).collect();
            self.unsyncable += (names.len() - paths.len()) as u64;
            let found = self.tree.stat_all(&paths);
            self.found = paths.into_iter().zip(found).collect();
        }
    }

    /// Asks the index for the next page of what is installed, if that is due.
    fn ask(&mut self) -> Result<(), IndexError> {
        if self.installed.is_empty() && !self.last {
            let page = self.index.installed_in(self.dir, &self.after, PAGE_LEN)?;
            self.last = page.len() < PAGE_LEN;
            if let Some((name, _)) = page.last() {
                self.after.clone_from(name);
            }
            self.installed = page.into();
        }
        Ok(())
    }
}

impl<T: Tree, I: IndexRead> Iterator for Names<'_, T, I> {
    type Item = Result<Named, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take().transpose()
    }
}
