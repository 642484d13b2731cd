//! The file in `.recsync/tmp` into which a transfer writes: takes what is on this disk already,
//! and knows what is still missing.
//!
//! **Invariant:** a block counts as had only after its bytes were verified against the outline
//! and lie in the file.
//! **May not:** know of peers.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;

use recsync_proto::message::{BLOCKS_MAX, FileRef, block_size};
use recsync_proto::{Hash, Seq, SharePath};

use super::{transfer_name, whole_name};
use crate::observe::blocks::{block_hash, block_range};
use crate::observe::read_full;
use crate::sys::Failpoint;
use crate::tree::{Kind, Place, Tree, TreeError};

/// Bytes of a large file that pile up in memory before the disk begins to write them: else its sync
/// in the end would be one long wait, for every recording that comes meanwhile too.
const WRITE_BEHIND: usize = 8 << 20;

/// A file on its way to being whole.
#[derive(Debug)]
pub(super) struct Part<F> {
    size: u64,
    outline: Vec<Hash>,
    file: F,
    /// Bytes that an interrupted transfer left in the file: some may be right.
    left_over: u64,
    /// A file here that may hold some of the blocks at the same offsets, and its size.
    basis: Option<(F, u64)>,
    /// Blocks before this one were looked for on this disk.
    searched: u32,
    /// Blocks to be asked for, ascending.
    missing: VecDeque<Range<u32>>,
    /// Blocks that are not had yet.
    wanting: u32,
    /// Bytes that the basis had.
    reused: u64,
    /// Bytes written since the disk was last told to begin with them.
    unwritten: usize,
}

impl<F: Send> Part<F> {
    /// Opens the file for these bytes, with what an interrupted transfer left in it.
    pub(super) fn open<T: Tree<File = F>>(
        tree: &T,
        size: u64,
        hash: &Hash,
        outline: Vec<Hash>,
        basis: Option<&SharePath>,
    ) -> Result<Self, TreeError> {
        let name = transfer_name(hash);
        let file = match tree.open_temp(&name) {
            Ok(file) => file,
            Err(TreeError::NotFound) => tree.create_temp(&name)?,
            // It was on its way to its final name and has that file's mode: begin anew.
            Err(_) => {
                tree.remove_private(&Place::Temp(name.clone()))?;
                tree.create_temp(&name)?
            }
        };
        let left_over = tree.stat_file(&file)?.size;
        if left_over > size {
            tree.set_len(&file, size)?;
        }
        let basis = basis.and_then(|path| {
            let file = tree.open(&Place::Share(path.clone())).ok()?;
            let stat = tree.stat_file(&file).ok().filter(|stat| stat.kind == Kind::File)?;
            Some((file, stat.size))
        });
        let count = u32::try_from(outline.len()).expect("an outline has at most 2^20 blocks");
        let mut part = Part {
            size,
            outline,
            file,
            left_over: left_over.min(size),
            basis,
            searched: 0,
            missing: VecDeque::new(),
            wanting: count,
            reused: 0,
            unwritten: 0,
        };
        if part.left_over == 0 && part.basis.is_none() {
            part.missing.push_back(0..count);
            part.searched = count;
        }
        Ok(part)
    }

    /// True if blocks remain to be looked for on this disk.
    pub(super) fn is_searching(&self) -> bool {
        (self.searched as usize) < self.outline.len()
    }

    /// True if every block is had.
    pub(super) fn is_whole(&self) -> bool {
        self.wanting == 0
    }

    /// Bytes taken from the basis.
    pub(super) fn reused(&self) -> u64 {
        self.reused
    }

    /// The file.
    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// Looks for one more block on this disk.
    pub(super) fn search<T: Tree<File = F>>(&mut self, tree: &T) -> Result<(), TreeError> {
        let index = self.searched;
        self.searched += 1;
        let (offset, len) = block_range(index, self.size);
        let end = offset + len as u64;
        let expected = self.outline[index as usize];
        let mut bytes = vec![0; len];
        let mut holds = |file: &F| {
            // What cannot be read here is asked for.
            read_full(tree, file, offset, &mut bytes) == Ok(len)
                && block_hash(index, self.size, &bytes) == expected
        };
        if end <= self.left_over && holds(&self.file) {
            self.wanting -= 1;
        } else if let Some((basis, size)) = &self.basis
            && end <= *size
            && holds(basis)
        {
            self.write(tree, offset, &bytes)?;
            self.wanting -= 1;
            self.reused += len as u64;
        } else {
            match self.missing.back_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => self.missing.push_back(index..index + 1),
            }
        }
        if !self.is_searching() {
            self.basis = None;
        }
        Ok(())
    }

    /// Takes the next run of missing blocks of at most `bytes_max` bytes; none if there is none,
    /// or if it may yet grow to a full question.
    pub(super) fn take_missing(&mut self, bytes_max: u64) -> Option<Range<u32>> {
        let is_searching = self.is_searching();
        let run = self.missing.front_mut()?;
        let len = run.end - run.start;
        if is_searching && run.end == self.searched && len < BLOCKS_MAX {
            return None;
        }
        let fit = u32::try_from(bytes_max / block_size(self.size)).unwrap_or(u32::MAX);
        let count = len.min(BLOCKS_MAX).min(fit);
        if count == 0 {
            return None;
        }
        let taken = run.start..run.start + count;
        run.start = taken.end;
        if run.start == run.end {
            self.missing.pop_front();
        }
        Some(taken)
    }

    /// Takes a block that a peer sent. False if it is not what the outline says.
    pub(super) fn put<T: Tree<File = F>>(
        &mut self,
        tree: &T,
        index: u32,
        bytes: &[u8],
    ) -> Result<bool, TreeError> {
        let (offset, len) = block_range(index, self.size);
        let expected = self.outline.get(index as usize);
        if bytes.len() != len || expected != Some(&block_hash(index, self.size, bytes)) {
            return Ok(false);
        }
        self.write(tree, offset, bytes)?;
        self.wanting -= 1;
        Ok(true)
    }

    fn write<T: Tree<File = F>>(
        &mut self,
        tree: &T,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), TreeError> {
        write_block(tree, &self.file, offset, bytes)?;
        self.unwritten += bytes.len();
        if self.unwritten >= WRITE_BEHIND {
            self.unwritten = 0;
            tree.start_sync(&self.file);
        }
        Ok(())
    }
}

/// Writes a block, but leaves a hole where it holds nothing but zeros and nothing was there.
fn write_block<T: Tree>(
    tree: &T,
    file: &T::File,
    offset: u64,
    bytes: &[u8],
) -> Result<(), TreeError> {
    if bytes.iter().any(|&byte| byte != 0) {
        return tree.write_at(file, offset, bytes);
    }
    if offset >= tree.stat_file(file)?.size {
        return tree.set_len(file, offset + bytes.len() as u64);
    }
    let mut there = vec![0; bytes.len()];
    let is_hole = read_full(tree, file, offset, &mut there)? == bytes.len()
        && there.iter().all(|&byte| byte == 0);
    if is_hole { Ok(()) } else { tree.write_at(file, offset, bytes) }
}

/// Gives a complete file the name under which it is handed on, which it returns: a later fetch of
/// the same bytes must not open, and go on writing, a file that may be in its final place by then.
pub(super) fn hand_over<T: Tree>(tree: &T, file: &FileRef, seq: Seq) -> Result<String, TreeError> {
    let name = whole_name(&file.hash, seq);
    let (from, to) = (Place::Temp(transfer_name(&file.hash)), Place::Temp(name.clone()));
    match tree.rename(&from, &to) {
        Err(TreeError::Exists) => {
            tree.remove_private(&to)?;
            tree.rename(&from, &to)?;
        }
        renamed => renamed?,
    }
    Failpoint::TransferWhole.hit();
    Ok(name)
}

/// Copies a complete file under the name under which it is handed on, which it returns.
pub(super) fn copy<T: Tree>(
    tree: &T,
    from: &T::File,
    file: &FileRef,
    seq: Seq,
) -> Result<String, TreeError> {
    let name = whole_name(&file.hash, seq);
    let place = Place::Temp(name.clone());
    let to = match tree.create_temp(&name) {
        Err(TreeError::Exists) => {
            tree.remove_private(&place)?;
            tree.create_temp(&name)?
        }
        created => created?,
    };
    let why = match tree.copy_range(from, &to, 0, file.size) {
        Ok(copied) if copied == file.size => return Ok(name),
        Ok(_) => TreeError::Io("the copy came out short".to_owned()),
        Err(error) => error,
    };
    let _swept_later = tree.remove_private(&place);
    Err(why)
}
