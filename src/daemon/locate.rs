//! From a path as a person gives it to a command, to a share and a path in it.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use recsync_proto::{ShareName, SharePath};

use super::host::Host;
use super::{Node, lock};
use crate::serve::{CommandError, Named};

impl Node {
    /// Returns the share that a path lies in, and the path below its root.
    ///
    /// Absolute paths are looked up in all shares. A relative one is relative to where the person
    /// is, if it lies in a share so, else to the share: the one that was named, or the only one.
    pub(super) fn locate(
        &self,
        share: Option<&ShareName>,
        named: &Named,
    ) -> Result<(Arc<Host>, SharePath), CommandError> {
        let roots: Vec<(ShareName, PathBuf)> = {
            let config = lock(&self.config);
            config.shares.iter().map(|known| (known.name.clone(), known.path.clone())).collect()
        };
        let (name, below) = find(&roots, share, named).map_err(CommandError::Invalid)?;
        let path = match below.as_slice() {
            [] => SharePath::root(),
            bytes => SharePath::new(bytes)
                .map_err(|error| CommandError::Invalid(format!("{}: {error}", named.path)))?,
        };
        Ok((self.host(&name)?, path))
    }
}

/// Returns the share and the bytes of the path below its root.
fn find(
    roots: &[(ShareName, PathBuf)],
    share: Option<&ShareName>,
    named: &Named,
) -> Result<(ShareName, Vec<u8>), String> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(&named.path)));
    let within = |path: &Path| {
        let path = plain(path);
        roots.iter().find_map(|(name, root)| {
            let real = root.canonicalize().ok();
            let roots = std::iter::once(plain(root)).chain(real);
            let below =
                roots.filter_map(|root| Some(path.strip_prefix(root).ok()?.to_owned())).next()?;
            (share.is_none_or(|share| share == name))
                .then(|| (name.clone(), below.as_os_str().as_bytes().to_vec()))
        })
    };
    if path.is_absolute() {
        return within(&path).ok_or_else(|| match share {
            Some(share) => format!("{} does not lie in share {share}", named.path),
            None => format!("{} lies in no share; `recsync share list` shows them", named.path),
        });
    }
    if let Some(found) = named.from.as_ref().and_then(|from| {
        within(&Path::new(&std::ffi::OsString::from_vec(unescape(from))).join(&path))
    }) {
        return Ok(found);
    }
    let name = match (share, roots) {
        (Some(share), _) => share.clone(),
        (None, [(only, _)]) => only.clone(),
        (None, _) => {
            return Err(format!(
                "{}: there are several shares; give --share, or the whole path from /",
                named.path
            ));
        }
    };
    Ok((name, plain(&path).as_os_str().as_bytes().to_vec()))
}

/// Returns a path without `.` and `..`, by name alone.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

/// Takes back what [`recsync_proto::path::Escaped`] does: `\xNN` for bytes that are no UTF-8 and for
/// control characters. What it never makes, such as `\x41`, stays as it is.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes[at..].strip_prefix(b"\\x").and_then(|rest| rest.get(..2));
        let byte = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        match byte.filter(|byte| *byte >= 0x7f || *byte < 0x20) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(share: Option<&str>, path: &str, from: Option<&str>) -> String {
        let name = |name: &str| ShareName::new(name).unwrap();
        let roots =
            [(name("recordings"), "/storage/rec".into()), (name("faxes"), "/storage/fax".into())];
        let share = share.map(name);
        let named = Named { path: path.into(), from: from.map(str::to_owned) };
        match find(&roots, share.as_ref(), &named) {
            Ok((share, below)) => format!("{share}:{}", String::from_utf8_lossy(&below)),
            Err(why) => why,
        }
    }

    #[test]
    fn a_path_is_found_as_a_person_means_it() {
        for (share, path, from, expected) in [
            (None, "/storage/rec/2026/a.wav", None, "recordings:2026/a.wav"),
            (None, "/storage/rec", None, "recordings:"),
            (None, "/storage/./fax/x/../a", Some("/storage/rec"), "faxes:a"),
            (None, "a.wav", Some("/storage/rec/2026"), "recordings:2026/a.wav"),
            (None, "../b.wav", Some("/storage/rec/2026"), "recordings:b.wav"),
            (None, "rec/2026/a.wav", Some("/storage"), "recordings:2026/a.wav"),
            (Some("faxes"), "2026/a", Some("/storage/rec"), "faxes:2026/a"),
            (Some("faxes"), "2026/a", Some("/root"), "faxes:2026/a"),
            (
                None,
                "a",
                Some("/root"),
                "a: there are several shares; give --share, or the whole path from /",
            ),
            (
                None,
                "/etc/passwd",
                None,
                "/etc/passwd lies in no share; `recsync share list` shows them",
            ),
            (Some("faxes"), "/storage/rec/a", None, "/storage/rec/a does not lie in share faxes"),
        ] {
            assert_eq!(found(share, path, from), expected, "{path} from {from:?}");
        }
    }

    #[test]
    fn names_come_back_as_they_are_shown() {
        for name in [&b"a\xff\x01b"[..], b"plain", "gr\u{fc}n".as_bytes(), b"\\x41", b"\\x", b"\\"]
        {
            assert_eq!(unescape(&recsync_proto::path::Escaped(name).to_string()), name);
        }
    }
}
