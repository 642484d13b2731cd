//! Answers a peer's questions for the bytes of a file. Stateless: each question opens the file
//! again and checks, before and after, that it still is what the index says.
//!
//! **Invariant:** what is sent was read from a file whose stat is the one that was hashed, and
//! a small one is hashed again; anything else is answered with `Gone`, and every question is answered.
//! **May not:** change anything.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use recsync_proto::message::{Bytes, FileRef, ShareMessage, block_count};
use recsync_proto::{Content, Hash, SharePath};

use crate::index::{IndexRead, Installed};
use crate::observe::blocks::{block_range, outline};
use crate::observe::{is_hash_of, read_full};
use crate::tree::{Fingerprint, Place, Tree};

/// Other paths with the same bytes that are tried if the one asked for does not hold them now.
const OTHERS_MAX: usize = 8;
/// Bytes of block hashes kept, so that a file is hashed once for all pages of its outline; the
/// latest outline is kept whatever its size (32 MiB for the largest file).
const OUTLINES_LEN_MAX: usize = 4 << 20;

/// Answers a `GetOutline` or a `GetBlocks`; other messages are not answered. `send` may stop it:
/// the link is gone. Returns the path that was asked for if its bytes are not to be had: it is to be
/// looked at again, and if the file is another one now, that will tell the peer.
///
/// Blocking; may read the whole file (for the first page of its outline).
pub fn serve<T: Tree, I: IndexRead>(
    tree: &T,
    index: &I,
    outlines: &Outlines,
    question: &ShareMessage,
    send: &mut dyn FnMut(ShareMessage) -> ControlFlow<()>,
) -> Option<SharePath> {
    let (id, file, answered) = match question {
        ShareMessage::GetOutline { id, file, first, count } => {
            let page = outline_page(tree, index, outlines, file, *first, *count);
            (*id, file, page.map(|blocks| send(ShareMessage::Outline { id: *id, blocks })))
        }
        ShareMessage::GetBlocks { id, file, first, count } => {
            let indices = *first..first.saturating_add(*count);
            (*id, file, serve_blocks(tree, index, *id, file, indices, send))
        }
        _ => return None,
    };
    if answered.is_some() {
        return None;
    }
    // If the link is gone there is nobody to be told.
    let _told = send(ShareMessage::Gone { id });
    Some(file.path.clone())
}

fn outline_page<T: Tree, I: IndexRead>(
    tree: &T,
    index: &I,
    outlines: &Outlines,
    wanted: &FileRef,
    first: u32,
    count: u32,
) -> Option<Vec<Hash>> {
    let blocks = match outlines.get(wanted) {
        Some(blocks) => blocks,
        None => {
            let open = find(tree, index, wanted)?;
            let (hash, blocks) = outline(tree, &open.file, wanted.size).ok()?;
            if hash != wanted.hash || !open.is_unchanged(tree) {
                return None;
            }
            outlines.put(wanted, blocks)
        }
    };
    let first = usize::try_from(first).ok()?;
    let end = first.checked_add(usize::try_from(count).ok()?)?;
    blocks.get(first..end).map(<[Hash]>::to_vec)
}

fn serve_blocks<T: Tree, I: IndexRead>(
    tree: &T,
    index: &I,
    id: u32,
    wanted: &FileRef,
    indices: std::ops::Range<u32>,
    send: &mut dyn FnMut(ShareMessage) -> ControlFlow<()>,
) -> Option<ControlFlow<()>> {
    let open = find(tree, index, wanted)?;
    if u64::from(indices.end) > block_count(wanted.size) {
        return None;
    }
    for index in indices {
        let (offset, len) = block_range(index, wanted.size);
        let mut bytes = vec![0; len];
        let read = read_full(tree, &open.file, offset, &mut bytes);
        // A file of one block has no outline to be compared with what the index says.
        let is_whole = len as u64 == wanted.size;
        let is_other = is_whole && !is_hash_of(wanted.hash, &bytes);
        if read != Ok(len) || is_other || !open.is_unchanged(tree) {
            return None;
        }
        let sent = send(ShareMessage::Block { id, index, bytes: Bytes(bytes) });
        if sent.is_break() {
            return Some(sent);
        }
    }
    Some(ControlFlow::Continue(()))
}

/// Returns the bytes of an installed file, to travel inside its announcement; none if it has
/// changed. Its stat tells that; the receiver hashes what it gets.
pub fn read_inline<T: Tree>(tree: &T, path: &SharePath, installed: &Installed) -> Option<Vec<u8>> {
    let Content::File { size, .. } = &installed.content else { return None };
    let open = open_installed(tree, path, installed)?;
    let mut bytes = vec![0; usize::try_from(*size).ok()?];
    let read = read_full(tree, &open.file, 0, &mut bytes).ok()?;
    (read == bytes.len() && open.is_unchanged(tree)).then_some(bytes)
}

/// An open file that was as the index says.
struct OpenFile<F> {
    file: F,
    fingerprint: Fingerprint,
}

impl<F: Send> OpenFile<F> {
    fn is_unchanged<T: Tree<File = F>>(&self, tree: &T) -> bool {
        tree.stat_file(&self.file) == Ok(self.fingerprint)
    }
}

/// Opens a file with the bytes wanted: the one asked for, or another with the same.
fn find<T: Tree, I: IndexRead>(tree: &T, index: &I, wanted: &FileRef) -> Option<OpenFile<T::File>> {
    let open = |path: &SharePath| {
        let installed = index.entry(path).ok()??.installed?;
        let content = Content::File { size: wanted.size, hash: wanted.hash };
        if installed.content == content { open_installed(tree, path, &installed) } else { None }
    };
    open(&wanted.path).or_else(|| {
        let others = index.installed_with(&wanted.hash, OTHERS_MAX).ok()?;
        others.iter().filter(|path| **path != wanted.path).find_map(open)
    })
}

fn open_installed<T: Tree>(
    tree: &T,
    path: &SharePath,
    installed: &Installed,
) -> Option<OpenFile<T::File>> {
    let file = tree.open(&Place::Share(path.clone())).ok()?;
    let open = OpenFile { file, fingerprint: installed.fingerprint };
    open.is_unchanged(tree).then_some(open)
}

/// Block hashes of the files that were asked for last.
#[derive(Debug, Default)]
pub struct Outlines(Mutex<VecDeque<Cached>>);

#[derive(Debug)]
struct Cached {
    hash: Hash,
    size: u64,
    blocks: Arc<[Hash]>,
}

impl Outlines {
    fn get(&self, file: &FileRef) -> Option<Arc<[Hash]>> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cached.iter().position(|one| (one.hash, one.size) == (file.hash, file.size))?;
        let found = cached.remove(at)?;
        let blocks = found.blocks.clone();
        cached.push_front(found);
        Some(blocks)
    }

    fn put(&self, file: &FileRef, blocks: Vec<Hash>) -> Arc<[Hash]> {
        let blocks: Arc<[Hash]> = blocks.into();
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|one| one.hash != file.hash);
        cached.push_front(Cached { hash: file.hash, size: file.size, blocks: blocks.clone() });
        let mut len = 0;
        let kept = cached.iter().take_while(|one| {
            len += size_of_val(&*one.blocks);
            len <= OUTLINES_LEN_MAX
        });
        let kept = kept.count().max(1);
        cached.truncate(kept);
        blocks
    }
}
