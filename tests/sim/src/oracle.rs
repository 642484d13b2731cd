//! An independent account of what the users did, and what must follow from it.
//!
//! It knows files by their bytes, which no two writes share. An *instance* is a content that users
//! put at a path: it must live on somewhere, unless a user who saw it at that path overwrote,
//! renamed or deleted it there, or a power cut took it before anyone else had it.
//!
//! **Invariant:** knows nothing of records, versions or the index.

use std::collections::{BTreeMap, BTreeSet};

use recsync_proto::Hash;
use recsync_proto::record::hash_of;

use crate::fs::{Body, Fs, Id, ROOT};

/// Stands for a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(u64);

/// Returns the digest of bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    let mut hash = bytes.len() as u64 ^ 0x51_7c_c1_b7_27_22_0a_95;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        hash ^= hash >> 29;
    }
    Digest(hash)
}

/// What is known of one content at one path.
#[derive(Debug, Clone, Default)]
struct Instance {
    /// How many bytes it has.
    len: usize,
    /// How often users put it there.
    puts: u32,
    /// Nodes whose users saw it there and took it away since it was put there last.
    destroyed_at: BTreeSet<String>,
    /// A user put it there again without knowing that another one had taken it away: equal bytes
    /// are one content, so either may be the last word.
    contested: bool,
    /// A power cut took it.
    cut: bool,
    /// A power cut, or an operation that was undone, may have taken back what took it away.
    revived: bool,
}

/// One object of a tree, as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it holds.
    pub what: SeenBody,
    /// Permission bits; 0 for a symbolic link.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time of a file, 0 for all else.
    pub mtime_ns: i64,
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenBody {
    /// A file with these bytes.
    File(Digest, usize),
    /// A directory.
    Dir,
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
}

/// A share's tree by path.
pub type Picture = BTreeMap<Vec<u8>, Seen>;

/// The account.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Every content that a file held when its last writer closed it.
    closed: BTreeSet<Digest>,
    instances: BTreeMap<(Vec<u8>, Digest), Instance>,
    /// What recsync has put at which path.
    shipped: BTreeSet<(Vec<u8>, Digest)>,
    /// What recsync has put there and not yet noted as installed, by node and path: an operation
    /// under way may still be undone, so a user's deed on it is no evidence.
    unsettled: BTreeMap<(String, Vec<u8>), (Digest, Hash)>,
    /// Where recsync has put what a user had put elsewhere: back under an old name, or beside.
    moved: BTreeSet<(Vec<u8>, Digest)>,
    /// From which names of the share, where users have not put it again since: there it may be what a user
    /// has put before too.
    moved_from: BTreeMap<(Vec<u8>, Digest), BTreeSet<Vec<u8>>>,
    /// Nodes that lost power and have not looked at all files since: what a user makes shorter there may be
    /// taken for what the cut left, and the version before comes back.
    doubtful: BTreeSet<String>,
    /// What a power cut left under a name, by node, and what had been there: who takes away the one has taken
    /// away the other.
    left: BTreeMap<(String, Vec<u8>, Digest), Digest>,
    /// What a node takes for what it knows, by its stat: bytes changed to as many others under the old
    /// mtime while nobody heard of it, in a file whose mode or owner was set too, for neither a scan nor the
    /// look that this brings reads what `chown -R` touched; and what a power cut left under the very stat that was, be it a part of what
    /// the kernel had said is on the disk, or what a user had just written. Only who reads all files could
    /// tell: the next version puts it in the trash.
    overlooked: BTreeSet<(String, Vec<u8>, Digest)>,
    /// What was once whole under a name, by node: who takes away a beginning of his own with the same bytes has not seen
    /// what others put there.
    whole: BTreeSet<(String, Vec<u8>, Digest)>,
    /// What was found wrong, in words.
    wrongs: Vec<String>,
}

impl Oracle {
    /// A user's last handle on a file was closed, or a user renamed a closed file here.
    pub fn put(&mut self, node: &str, path: &[u8], bytes: &[u8]) {
        let digest = digest(bytes);
        self.closed.insert(digest);
        self.whole.insert((node.to_owned(), path.to_vec(), digest));
        if self.doubtful.contains(node) {
            self.revive(path);
        }
        for ((_, moved), from) in &mut self.moved_from {
            if *moved == digest {
                from.remove(path);
            }
        }
        if !bytes.is_empty() {
            let instance = self.instances.entry((path.to_vec(), digest)).or_default();
            if !instance.destroyed_at.is_empty() {
                // What became of it before is no evidence that anyone has it now.
                self.shipped.retain(|(of, it)| *it != digest || !stands_for(of, path));
            }
            instance.len = bytes.len();
            instance.puts += 1;
            instance.contested |= instance.destroyed_at.iter().any(|other| other != node);
            instance.destroyed_at.clear();
            instance.cut = false;
        }
    }

    /// A user overwrites, renames or deletes what is to be seen at a path.
    pub fn destroy(&mut self, node: &str, path: &[u8], bytes: &[u8]) {
        let digest = digest(bytes);
        let in_doubt =
            self.unsettled.iter().any(|((at, _), (content, _))| at == node && *content == digest);
        let is_moved = self.moved.contains(&(path.to_vec(), digest));
        // Under this very name too, though no user has put it there: one may, who does not know.
        let itself = self.instances.entry((path.to_vec(), digest)).or_default();
        // If users put it there: whoever takes it away here need not have seen it elsewhere.
        let is_itself = itself.puts > 0;
        // If users gave several names these bytes, the copy is of one of them.
        let is_name = |(of, it): &(&[u8], &mut Instance)| *of != path && it.puts > 0;
        let names = self.standing_for(path, digest).filter(is_name).count();
        let is_of_any = is_itself || names > 1;
        let is_whole = self.whole.contains(&(node.to_owned(), path.to_vec(), digest));
        for (of, instance) in self.standing_for(path, digest) {
            instance.destroyed_at.insert(node.to_owned());
            let is_own = of == path && !is_whole;
            instance.revived |= is_moved || in_doubt || is_own || is_of_any && of != path;
        }
        if let Some(was) = self.left.get(&(node.to_owned(), path.to_vec(), digest)).copied() {
            for of in std::iter::once(path.to_vec()).chain(original(path)) {
                if let Some(instance) = self.instances.get_mut(&(of, was)) {
                    instance.destroyed_at.insert(node.to_owned());
                    instance.revived = true;
                }
            }
        }
        if self.overlooked.contains(&(node.to_owned(), path.to_vec(), digest)) {
            // The node takes them for bytes that it knows: those are what was taken away.
            self.at_path(path).for_each(|instance| {
                instance.destroyed_at.insert(node.to_owned());
            });
            self.revive(path);
        }
        if self.doubtful.contains(node) {
            self.revive(path);
        }
    }

    /// A user touched a file. One that recsync has put there in that instant is known by its bytes and its mtime: with
    /// another one it is a version of the user's, who did not know of its end.
    pub fn touched(&mut self, node: &str, path: &[u8]) {
        if self.unsettled.contains_key(&(node.to_owned(), path.to_vec())) {
            self.revive(path);
        }
    }

    fn at_path(&mut self, path: &[u8]) -> impl Iterator<Item = &mut Instance> {
        let there = (path.to_vec(), Digest(0))..=(path.to_vec(), Digest(u64::MAX));
        self.instances.range_mut(there).map(|(_, instance)| instance)
    }

    /// What was taken away at a path may come back.
    fn revive(&mut self, path: &[u8]) {
        self.at_path(path).for_each(|instance| instance.revived = true);
    }

    /// All nodes have said that nobody has the bytes of a version of a path: the one before it may take the
    /// name again (`docs/semantics.md`, "Bytes that no node has").
    pub fn given_up(&mut self, path: &[u8]) {
        self.revive(path);
    }

    /// A node takes these bytes at a path for those that it knows.
    pub fn overlooked(&mut self, node: &str, path: &[u8], bytes: &[u8]) {
        self.overlooked.insert((node.to_owned(), path.to_vec(), digest(bytes)));
    }

    /// A node has looked at all its files since it lost power.
    pub fn trust(&mut self, node: &str) {
        self.doubtful.remove(node);
    }

    /// Returns the instances for which a content at a path stands: under the name of a conflict copy those
    /// whose names it may have been made from, and where recsync moved it any.
    fn standing_for(
        &mut self,
        path: &[u8],
        digest: Digest,
    ) -> impl Iterator<Item = (&[u8], &mut Instance)> {
        let is_moved = self.moved.contains(&(path.to_vec(), digest));
        let from = self.moved_from.get(&(path.to_vec(), digest)).cloned().unwrap_or_default();
        let path = path.to_vec();
        let stands = move |of: &[u8]| stands_for(&path, of) || from.contains(of);
        let of_it = self
            .instances
            .iter_mut()
            .filter(move |((of, content), _)| *content == digest && (is_moved || stands(of)));
        of_it.map(|((of, _), instance)| (of.as_slice(), instance))
    }

    /// Forgets the doubt about what a node has noted as installed.
    pub fn settle(&mut self, node: &str, is_installed: impl Fn(&[u8], &Hash) -> bool) {
        self.unsettled.retain(|(at, path), (_, hash)| at != node || !is_installed(path, hash));
    }

    /// A user renamed an object, a directory with all below it.
    pub fn rename(&mut self, node: &str, fs: &Fs, moved: Id, from: &[u8], to: &[u8]) {
        for (below, id) in files_below(fs, moved) {
            let bytes = fs.bytes(id).expect("a file").clone();
            if self.closed.contains(&digest(&bytes)) {
                self.destroy(node, &join(from, &below), &bytes);
                if fs.writers(id) == 0 {
                    self.put(node, &join(to, &below), &bytes);
                }
            }
        }
    }

    /// recsync put a file of a user's under another name of the share; `from` is the one it had, if it had
    /// one there.
    pub fn moved(&mut self, node: &str, from: Option<&[u8]>, path: &[u8], bytes: &[u8]) {
        let digest = digest(bytes);
        self.whole.insert((node.to_owned(), path.to_vec(), digest));
        self.unsettled.insert((node.to_owned(), path.to_vec()), (digest, hash_of(bytes)));
        let known = self.instances.get(&(path.to_vec(), digest));
        // A recorder's first bytes are those of many files: what users had put there may be gone since.
        let is_theirs = |known: &Instance| known.puts > 0 && known.destroyed_at.is_empty();
        if !bytes.is_empty() && !known.is_some_and(is_theirs) {
            self.moved.insert((path.to_vec(), digest));
        }
        if let Some(from) = from {
            if self.overlooked.contains(&(node.to_owned(), from.to_vec(), digest)) {
                self.overlooked.insert((node.to_owned(), path.to_vec(), digest));
            }
            let names = self.moved_from.entry((path.to_vec(), digest)).or_default();
            names.insert(from.to_vec());
        }
    }

    /// recsync keeps something as a conflict copy, and `named` are the bytes of what has the name that it lost.
    pub fn kept(&mut self, node: &str, copy: &[u8], bytes: &[u8], named: &[u8]) {
        if bytes == named {
            let copy = shown(copy);
            self.wrong(format!("needless: {node} keeps {copy}, which has the bytes of the winner"));
        }
    }

    /// recsync put a file of its own making under a name of the share.
    pub fn placed(&mut self, node: &str, path: &[u8], bytes: &[u8]) {
        let digest = digest(bytes);
        if self.closed.contains(&digest) {
            self.shipped.insert((path.to_vec(), digest));
            self.whole.insert((node.to_owned(), path.to_vec(), digest));
            self.unsettled.insert((node.to_owned(), path.to_vec()), (digest, hash_of(bytes)));
        } else {
            let shown = shown(path);
            self.wrong(format!(
                "torn: {node} shows {} bytes at {shown} that no user ever closed: {:?}",
                bytes.len(),
                String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
            ));
        }
    }

    /// Compares a node's tree before and after a power cut; `out` is gone of what recsync had out of it,
    /// `kept` is left of what users were writing to there.
    pub fn power_cut(
        &mut self,
        node: &str,
        before: &Picture,
        after: &Picture,
        out: &BTreeSet<Digest>,
        kept: BTreeSet<Digest>,
    ) {
        self.doubtful.insert(node.to_owned());
        self.closed.extend(kept);
        let file = |seen: &Seen| match seen.what {
            SeenBody::File(digest, _) => Some(digest),
            _ => None,
        };
        for (path, seen) in before {
            let Some(digest) = file(seen) else { continue };
            let left = after.get(path).and_then(file);
            if left != Some(digest) {
                self.standing_for(path, digest).for_each(|(_, instance)| instance.cut = true);
            }
            if let Some(left) = left.filter(|left| *left != digest) {
                self.left.insert((node.to_owned(), path.clone(), left), digest);
            }
        }
        let back: BTreeSet<Digest> = after.values().filter_map(file).collect();
        for ((_, digest), instance) in &mut self.instances {
            instance.cut |= out.contains(digest) && !back.contains(digest);
        }
        for (path, seen) in after {
            let Some(digest) = file(seen) else { continue };
            // A file that is shorter than its index says is taken for what the cut left: the version
            // before may come back.
            self.revive(path);
            // Whatever is left is what its users have to live with.
            self.closed.insert(digest);
            let was_whole = self.whole.contains(&(node.to_owned(), path.clone(), digest));
            if !was_whole || before.get(path).and_then(file) != Some(digest) {
                // Nobody here closed it so: that it stays is no matter of what became of the same bytes elsewhere,
                // before or after.
                self.instances.entry((path.clone(), digest)).or_default().revived = true;
            }
        }
    }

    /// Judges the trees when everything has come to rest.
    ///
    /// `hidden` holds what lies in recsync's own directories; `forgets` tells that an index was lost:
    /// what was deleted meanwhile comes back then.
    pub fn judge(
        &mut self,
        nodes: &[(String, Picture)],
        hidden: &BTreeMap<Digest, String>,
        forgets: bool,
    ) {
        self.compare(nodes);
        let Some((_, tree)) = nodes.first() else { return };
        let mut kept = BTreeSet::new();
        for (path, seen) in nodes.iter().flat_map(|(_, tree)| tree) {
            if let SeenBody::File(digest, len) = seen.what {
                kept.insert(digest);
                if !self.closed.contains(&digest) {
                    self.wrong(format!(
                        "torn: {} holds {len} bytes that no user ever closed",
                        shown(path)
                    ));
                }
            }
        }
        let mut wrongs = Vec::new();
        for ((path, digest), instance) in &self.instances {
            let here = matches!(tree.get(path), Some(Seen { what: SeenBody::File(found, _), .. }) if found == digest);
            if instance.contested || instance.puts == 0 {
                continue;
            }
            if !instance.destroyed_at.is_empty() {
                if here && instance.puts == 1 && !instance.revived && !forgets {
                    wrongs.push(format!(
                        "resurrected: {} {digest:?} was removed by a user who saw it",
                        shown(path)
                    ));
                }
            } else if !kept.contains(digest) && (!instance.cut || self.is_shipped(path, *digest)) {
                let is_hidden = hidden.contains_key(digest);
                if is_hidden && self.is_overlooked(path, *digest) {
                    continue;
                }
                let (path, len) = (shown(path), instance.len);
                wrongs.push(match hidden.get(digest) {
                    // Nobody knows any more which name it had.
                    Some(at) if forgets && at.contains("/lost~") => continue,
                    Some(at) => {
                        format!("lost: hidden: {len} bytes written at {path} are only at {at}")
                    }
                    None => format!("lost: nowhere: {len} bytes written at {path}"),
                });
            }
        }
        self.wrongs.extend(wrongs);
    }

    fn is_overlooked(&self, path: &[u8], digest: Digest) -> bool {
        self.overlooked.iter().any(|(_, of, bytes)| of == path && *bytes == digest)
    }

    /// True if recsync has put a content there, or beside as a conflict copy.
    fn is_shipped(&self, path: &[u8], digest: Digest) -> bool {
        self.shipped.iter().any(|(of, shipped)| *shipped == digest && stands_for(of, path))
    }

    fn compare(&mut self, nodes: &[(String, Picture)]) {
        let Some(((first, tree), others)) = nodes.split_first() else { return };
        for (other, theirs) in others {
            let paths: BTreeSet<&Vec<u8>> = tree.keys().chain(theirs.keys()).collect();
            for path in paths {
                let (here, there) = (tree.get(path), theirs.get(path));
                let is_unseen = |node: &String, seen: Option<&Seen>| {
                    matches!(seen, Some(Seen { what: SeenBody::File(digest, _), .. })
                        if self.overlooked.contains(&(node.clone(), path.clone(), *digest)))
                };
                if here != there && !is_unseen(first, here) && !is_unseen(other, there) {
                    self.wrong(format!(
                        "different: {} is {here:?} on {first}, {there:?} on {other}",
                        shown(path)
                    ));
                }
            }
        }
    }

    /// Notes that an invariant does not hold.
    pub fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }

    /// Returns what was found wrong so far.
    pub fn wrongs(&self) -> &[String] {
        &self.wrongs
    }

    /// True if these bytes were the whole of a file that nobody had open for writing.
    pub fn is_closed(&self, bytes: &[u8]) -> bool {
        self.closed.contains(&digest(bytes))
    }
}

/// True if what recsync puts at `of` is, or may be, the copy of what users had put at a path.
fn stands_for(of: &[u8], path: &[u8]) -> bool {
    of == path || is_conflict_copy(of) && family(of) == family(path)
}

/// Returns the share's tree as users see it.
pub fn picture(fs: &Fs) -> Picture {
    let mut picture = Picture::new();
    walk(fs, ROOT, &[], &mut |path, id| {
        let stat = fs.stat(id);
        let (what, mode, mtime_ns) = match fs.body(id) {
            Body::File(bytes) => {
                (SeenBody::File(digest(bytes), bytes.len()), stat.mode, stat.mtime_ns)
            }
            Body::Dir(_) => (SeenBody::Dir, stat.mode, 0),
            Body::Symlink(target) => (SeenBody::Symlink(target.clone()), 0, 0),
        };
        let owner = (stat.uid, stat.gid);
        picture.insert(path.to_vec(), Seen { what, mode, owner, mtime_ns });
    });
    picture
}

/// Returns what files in recsync's own directory hold, and where.
pub fn hidden(node: &str, fs: &Fs) -> BTreeMap<Digest, String> {
    let mut hidden = BTreeMap::new();
    walk_hidden(fs, |path, bytes, _| {
        hidden.insert(digest(bytes), format!("{node}:{}", shown(path)));
    });
    hidden
}

/// Returns the contents in recsync's own directories that users have written to since they were put there.
pub fn hidden_of_users(fs: &Fs) -> BTreeSet<Digest> {
    let mut hidden = BTreeSet::new();
    walk_hidden(fs, |_, bytes, id| {
        if fs.is_users(id) {
            hidden.insert(digest(bytes));
        }
    });
    hidden
}

fn walk_hidden(fs: &Fs, mut visit: impl FnMut(&[u8], &[u8], Id)) {
    let Ok(own) = fs.resolve(&[b".recsync"]) else { return };
    walk(fs, own, b".recsync", &mut |path, id| {
        if let Ok(bytes) = fs.bytes(id) {
            visit(path, bytes, id);
        }
    });
}

/// Visits everything below a directory but recsync's own.
pub fn walk(fs: &Fs, dir: Id, path: &[u8], visit: &mut impl FnMut(&[u8], Id)) {
    let Ok(names) = fs.names(dir) else { return };
    for (name, &id) in names {
        if path.is_empty() && name == b".recsync" {
            continue;
        }
        let path = join(path, name);
        visit(&path, id);
        walk(fs, id, &path, visit);
    }
}

/// Returns the files at or below an object, by path relative to it.
fn files_below(fs: &Fs, id: Id) -> Vec<(Vec<u8>, Id)> {
    let mut files = Vec::new();
    if fs.bytes(id).is_ok() {
        files.push((Vec::new(), id));
    }
    // A prefix keeps `.recsync` from being anything special below the root.
    walk(fs, id, b"x", &mut |path, id| {
        if fs.bytes(id).is_ok() {
            files.push((path[2..].to_vec(), id));
        }
    });
    files
}

/// Returns the path of `name` in `dir`.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir, name) {
        (b"", name) => name.to_vec(),
        (dir, b"") => dir.to_vec(),
        (dir, name) => [dir, b"/", name].concat(),
    }
}

/// Returns a path as text.
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Returns what the names of a file and of its conflict copies have in common.
fn family(path: &[u8]) -> &[u8] {
    let mark = path.windows(MARK.len()).position(|window| window == MARK);
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let dot = path[name..].iter().rposition(|byte| *byte == b'.').map(|dot| name + dot);
    &path[..mark.or(dot.filter(|dot| *dot > name)).unwrap_or(path.len())]
}

/// Returns the name that a conflict copy lost; none if the name is no conflict copy's. No node of the
/// simulator has a dot in its name.
pub fn original(copy: &[u8]) -> Option<Vec<u8>> {
    let mark = copy.windows(MARK.len()).position(|window| window == MARK)?;
    let rest = &copy[mark + MARK.len()..];
    let extension = rest.iter().position(|byte| *byte == b'.').unwrap_or(rest.len());
    Some([&copy[..mark], &rest[extension..]].concat())
}

const MARK: &[u8] = b".conflict-";

/// True for the name of a conflict copy.
pub fn is_conflict_copy(path: &[u8]) -> bool {
    path.windows(MARK.len()).any(|window| window == MARK)
}
