//! Two trees side by side, byte for byte: a second opinion that knows nothing of recsync.
#![expect(clippy::disallowed_methods, reason = "looks at the trees as a user's script would")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::LoadError;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Regular files that are the same on both sides.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What differs, a line each.
    pub differences: Vec<String>,
}

/// Compares two directories by path, kind, size, mtime, mode and every byte; `.recsync` in the
/// root is left out. Directories' mtimes are no part of "consistent".
///
/// # Errors
/// If something cannot be read.
pub fn compare(one: &Path, other: &Path) -> Result<Compared, LoadError> {
    let (here, there) = (walk(one)?, walk(other)?);
    let mut compared = Compared::default();
    let mut differs = |path: &Path, what: &str| {
        compared.differences.push(format!("{}: {what}", path.display()));
    };
    for path in there.keys().filter(|path| !here.contains_key(*path)) {
        differs(path, "missing in the first");
    }
    for (path, near) in &here {
        let Some(far) = there.get(path) else {
            differs(path, "missing in the second");
            continue;
        };
        if near != far {
            differs(path, &format!("{near:?}, {far:?}"));
        } else if near.is_file {
            if same_bytes(&one.join(path), &other.join(path))? {
                compared.files += 1;
                compared.bytes += near.size;
            } else {
                differs(path, "other bytes");
            }
        }
    }
    Ok(compared)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    is_file: bool,
    mode: u32,
    size: u64,
    mtime: (i64, i64),
}

fn walk(root: &Path) -> Result<BTreeMap<PathBuf, Stat>, LoadError> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let full = root.join(&dir);
        for entry in fs::read_dir(&full).map_err(LoadError::file("list", &full))? {
            let entry = entry.map_err(LoadError::file("list", &full))?;
            let path = dir.join(entry.file_name());
            if path == Path::new(".recsync") {
                continue;
            }
            let stat = entry.metadata().map_err(LoadError::file("look at", &entry.path()))?;
            let is_file = stat.is_file();
            let (size, mtime) =
                if is_file { (stat.len(), (stat.mtime(), stat.mtime_nsec())) } else { (0, (0, 0)) };
            if stat.is_dir() {
                dirs.push(path.clone());
            }
            found.insert(path, Stat { is_file, mode: stat.mode(), size, mtime });
        }
    }
    Ok(found)
}

fn same_bytes(one: &Path, other: &Path) -> Result<bool, LoadError> {
    let open = |path: &Path| File::open(path).map_err(LoadError::file("open", path));
    let (mut near, mut far) = (open(one)?, open(other)?);
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let here = fill(&mut near, &mut left).map_err(LoadError::file("read", one))?;
        let there = fill(&mut far, &mut right).map_err(LoadError::file("read", other))?;
        if left[..here] != right[..there] {
            return Ok(false);
        }
        if here < left.len() {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn finds_every_kind_of_difference() {
        let scratch = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| scratch.path().join(name));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let put = |root: &Path, name: &str, bytes: &[u8]| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        for root in [&one, &other] {
            put(root, "2026/same.wav", b"same");
            put(root, ".recsync/share.toml", root.to_string_lossy().as_bytes());
        }
        let expected = Compared { files: 1, bytes: 4, differences: vec![] };
        assert_eq!(compare(&one, &other).unwrap(), expected);

        put(&one, "bytes.wav", b"left");
        put(&other, "bytes.wav", b"righ");
        put(&one, "size.wav", b"1");
        put(&other, "size.wav", b"12");
        put(&one, "here.wav", b"1");
        put(&other, "there/there.wav", b"1");
        put(&one, "kind", b"");
        fs::create_dir_all(other.join("kind")).unwrap();
        let found = compare(&one, &other).unwrap();
        assert_eq!((found.files, found.bytes), (1, 4));
        let mut paths: Vec<_> =
            found.differences.iter().map(|line| line.split(':').next().unwrap()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            ["bytes.wav", "here.wav", "kind", "size.wav", "there", "there/there.wav"]
        );
    }
}
