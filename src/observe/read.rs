//! Reads and hashes open files, a buffer at a time.
//!
//! **May not:** trust a size: a file that ends early is an error, never a shorter result.
#![forbid(unsafe_code)]

use recsync_proto::Hash;
use thiserror::Error;

use crate::tree::{Tree, TreeError};

/// Bytes per read: large enough for the kernel's readahead and BLAKE3's widest SIMD, small enough
/// to stay in the second-level cache.
const BUFFER_LEN: u64 = 256 << 10;

/// Why a file's bytes were not had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The file ends before the size that its stat told: it was cut meanwhile.
    #[error("the file was cut short while it was read")]
    Short,
}

/// Fills `buffer` from `offset`, or up to the end of the file. Returns the number of bytes read.
///
/// # Errors
/// What the tree says.
pub fn read_full<T: Tree>(
    tree: &T,
    file: &T::File,
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize, TreeError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match tree.read_at(file, offset + filled as u64, &mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Reads exactly `len` bytes from `offset` into the front of `buffer`, which is made to fit.
///
/// # Errors
/// [`ReadError::Short`] if the file ends before.
pub(crate) fn read_exact<T: Tree>(
    tree: &T,
    file: &T::File,
    offset: u64,
    len: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), ReadError> {
    buffer.resize(len, 0);
    if read_full(tree, file, offset, buffer)? == len { Ok(()) } else { Err(ReadError::Short) }
}

/// Returns BLAKE3 over the first `size` bytes of a file, in one pass.
///
/// # Errors
/// [`ReadError::Short`] if there are fewer.
pub fn hash<T: Tree>(tree: &T, file: &T::File, size: u64) -> Result<Hash, ReadError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < size {
        let len = BUFFER_LEN.min(size - offset);
        read_exact(tree, file, offset, len as usize, &mut buffer)?;
        hasher.update(&buffer);
        offset += len;
    }
    Ok(Hash(*hasher.finalize().as_bytes()))
}

/// True if these are the bytes that a hash is of.
pub fn is_hash_of(hash: Hash, bytes: &[u8]) -> bool {
    *blake3::hash(bytes).as_bytes() == hash.0
}
