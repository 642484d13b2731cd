//! Block hashes of a file: the chaining values of its blocks as subtrees of BLAKE3's tree.
//!
//! A block is [`block_size`] bytes, a power of two and a multiple of BLAKE3's chunk, so each block
//! but the last is a complete subtree, and the values combine to the hash of the whole file: who
//! knows that hash can check a list of block hashes, and with the list each block by itself. A
//! file of a single block has no subtree; its one block hash is the file's hash.
//!
//! Source: the BLAKE3 paper, section 2.1; `blake3::hazmat`.
//!
//! **Invariant:** the values of `outline` combine to what `blake3::hash` gives.
#![forbid(unsafe_code)]

use blake3::hazmat::{
    HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use recsync_proto::Hash;
use recsync_proto::message::{FILE_SIZE_MAX, block_count, block_size};

use super::read::{ReadError, read_exact};
use crate::tree::Tree;

/// Returns the offset and the length in bytes of a block of a file of `size` bytes.
pub fn block_range(index: u32, size: u64) -> (u64, usize) {
    let offset = u64::from(index) * block_size(size);
    let len = size.saturating_sub(offset).min(block_size(size));
    (offset, usize::try_from(len).expect("a block is at most 1 MiB"))
}

/// Returns the hash of one block's bytes in a file of `size` bytes.
///
/// # Panics
/// If there are more bytes than a block holds.
pub fn block_hash(index: u32, size: u64, bytes: &[u8]) -> Hash {
    assert!(bytes.len() as u64 <= block_size(size), "more bytes than a block holds");
    let mut hasher = blake3::Hasher::new();
    if block_count(size) == 1 {
        return Hash(*hasher.update(bytes).finalize().as_bytes());
    }
    // The offset gives each chunk its number: equal bytes at other places have other hashes.
    hasher.set_input_offset(u64::from(index) * block_size(size));
    Hash(hasher.update(bytes).finalize_non_root())
}

/// Reads a file of `size` bytes and returns its hash and its block hashes.
///
/// # Errors
/// What the tree says, or [`ReadError::Short`] if the file is shorter.
///
/// # Panics
/// If `size` is over [`FILE_SIZE_MAX`].
pub fn outline<T: Tree>(
    tree: &T,
    file: &T::File,
    size: u64,
) -> Result<(Hash, Vec<Hash>), ReadError> {
    assert!(size <= FILE_SIZE_MAX, "no file of that size has an outline");
    let count = u32::try_from(block_count(size)).expect("at most 2^20 blocks");
    let mut blocks = Vec::with_capacity(count as usize);
    let mut buffer = Vec::new();
    for index in 0..count {
        let (offset, len) = block_range(index, size);
        read_exact(tree, file, offset, len, &mut buffer)?;
        blocks.push(block_hash(index, size, &buffer));
    }
    let root = outline_root(size, &blocks).expect("one hash for each block");
    Ok((root, blocks))
}

/// Returns the hash of the file of `size` bytes that has these block hashes; none if there are
/// too few or too many.
pub fn outline_root(size: u64, blocks: &[Hash]) -> Option<Hash> {
    if blocks.len() as u64 != block_count(size) {
        return None;
    }
    if let [only] = blocks {
        return Some(*only);
    }
    let (left, right) = halves(size, block_size(size), blocks);
    Some(Hash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
}

/// Returns the chaining values of the two halves of a subtree of at least two blocks.
fn halves(len: u64, block: u64, blocks: &[Hash]) -> ([u8; 32], [u8; 32]) {
    // The largest power of two below `len`, so a multiple of the block.
    let left_len = left_subtree_len(len);
    let (left, right) =
        blocks.split_at(usize::try_from(left_len / block).expect("fewer than the blocks given"));
    (chaining_value(left_len, block, left), chaining_value(len - left_len, block, right))
}

fn chaining_value(len: u64, block: u64, blocks: &[Hash]) -> [u8; 32] {
    if let [only] = blocks {
        return only.0;
    }
    let (left, right) = halves(len, block, blocks);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = 256 << 10;

    fn bytes_of(size: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn outline_of(bytes: &[u8]) -> Vec<Hash> {
        let size = bytes.len() as u64;
        (0..block_count(size) as u32)
            .map(|index| {
                let (offset, len) = block_range(index, size);
                block_hash(index, size, &bytes[offset as usize..][..len])
            })
            .collect()
    }

    fn check(bytes: &[u8]) {
        let root = outline_root(bytes.len() as u64, &outline_of(bytes));
        assert_eq!(root, Some(Hash(*blake3::hash(bytes).as_bytes())), "{} bytes", bytes.len());
    }

    #[test]
    fn outlines_combine_to_the_hash_at_every_edge() {
        for size in [0, 1, 1_023, 1_024, 1_025, BLOCK - 1, BLOCK, BLOCK + 1] {
            check(&bytes_of(size, 1));
        }
        for blocks in 2..=9 {
            for delta in [-1_isize, 0, 1, 1_024, 1_025] {
                check(&bytes_of((blocks * BLOCK).strict_add_signed(delta), 2));
            }
        }
    }

    #[test]
    fn a_list_of_the_wrong_length_has_no_root() {
        let bytes = bytes_of(3 * BLOCK, 3);
        let blocks = outline_of(&bytes);
        assert_eq!(outline_root(bytes.len() as u64, &blocks[..2]), None);
        assert_eq!(outline_root(bytes.len() as u64, &[]), None);
        assert_eq!(outline_root(0, &[]), None);
        assert_eq!(outline_root(1, &blocks), None);
    }

    #[test]
    fn equal_blocks_at_other_places_differ() {
        let bytes = vec![0; 3 * BLOCK];
        let blocks = outline_of(&bytes);
        assert_ne!(blocks[0], blocks[1]);
        assert_ne!(blocks[1], blocks[2]);
    }

    #[test]
    fn the_largest_file_has_a_million_blocks_and_a_root() {
        let blocks = vec![Hash([7; 32]); 1 << 20];
        assert!(outline_root(FILE_SIZE_MAX, &blocks).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn outlines_combine_to_the_hash(size in 0..6 * BLOCK, seed: u64) {
            check(&bytes_of(size, seed));
        }

        #[test]
        fn a_changed_block_changes_its_hash_and_the_root(
            size in BLOCK + 1..4 * BLOCK, at: prop::sample::Index, seed: u64,
        ) {
            let before = bytes_of(size, seed);
            let mut after = before.clone();
            after[at.index(size)] ^= 1;
            let (old, new) = (outline_of(&before), outline_of(&after));
            let changed: Vec<_> = (0..old.len()).filter(|&i| old[i] != new[i]).collect();
            prop_assert_eq!(changed, vec![at.index(size) / BLOCK]);
            prop_assert_ne!(outline_root(size as u64, &old), outline_root(size as u64, &new));
        }
    }
}
