//! Names that cannot be wrong: paths within a share, and the names of nodes and shares.
//!
//! **Invariant:** a [`SharePath`] is relative and normal, has no component that a kernel would
//! refuse or interpret, and never lies in the reserved `.recsync` directory.

use std::borrow::Borrow;
use std::fmt;

use bincode::{Decode, Encode};
use thiserror::Error;

/// The directory at a share's root that belongs to recsync and is never synced.
pub const RESERVED: &[u8] = b".recsync";
/// Longest component in bytes (`NAME_MAX`, limits.h).
pub const COMPONENT_LEN_MAX: usize = 255;
/// Longest path in bytes: `PATH_MAX` less room for the trash directory's prefix.
pub const PATH_LEN_MAX: usize = 4096 - 96;

/// Why bytes are not a path of a share.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// No bytes at all: the share's root has no path of its own on the wire.
    #[error("the path is empty")]
    Empty,
    /// The whole path is too long.
    #[error("the path is {0} bytes long, at most {PATH_LEN_MAX} can be synced")]
    TooLong(usize),
    /// One component is too long.
    #[error("a name in the path is {0} bytes long, at most {COMPONENT_LEN_MAX} can be synced")]
    ComponentTooLong(usize),
    /// An empty component (`//`, a leading or a trailing slash), `.` or `..`.
    #[error("the path is not relative and normal")]
    NotNormal,
    /// A NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
    /// Within `.recsync`.
    #[error("the path lies in the reserved directory .recsync")]
    Reserved,
}

/// A path below a share's root: bytes, relative, normal, never within `.recsync`.
///
/// Ordered so that a directory comes before what it holds and a subtree is contiguous: `/`
/// sorts below every other byte.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SharePath(Vec<u8>);

impl SharePath {
    /// Returns the root of a share: the one path without bytes. It has no record and is never sent.
    pub fn root() -> Self {
        SharePath(Vec::new())
    }

    /// Checks and takes the bytes of a path.
    ///
    /// # Errors
    /// Names the rule that the bytes break.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        check_path(&bytes)?;
        Ok(SharePath(bytes))
    }

    /// Returns the path of `name` in the directory `self`.
    ///
    /// # Errors
    /// As [`SharePath::new`].
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        check_component(name)?;
        if self.is_root() {
            return SharePath::new(name);
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        if bytes.len() > PATH_LEN_MAX {
            return Err(PathError::TooLong(bytes.len()));
        }
        Ok(SharePath(bytes))
    }

    /// True for the share's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes as the kernel takes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the last component; the root has none and returns no bytes.
    pub fn name(&self) -> &[u8] {
        self.split().1
    }

    /// Returns the directory that holds this path; the root is its own parent.
    pub fn parent(&self) -> SharePath {
        SharePath(self.split().0.to_vec())
    }

    /// Returns the directory's bytes and the last component.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        }
    }

    /// Returns every directory above this path, the nearest first, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = SharePath> + use<> {
        std::iter::successors(Some(self.parent()), |path| Some(path.parent()))
            .take_while(|path| !path.is_root())
    }

    /// True if this path lies below `dir` (and is not `dir` itself).
    pub fn is_below(&self, dir: &SharePath) -> bool {
        dir.is_root() && !self.is_root()
            || self.0.len() > dir.0.len()
                && self.0.starts_with(&dir.0)
                && self.0[dir.0.len()] == b'/'
    }

    /// True if this path is `dir` or lies below it.
    pub fn is_at_or_below(&self, dir: &SharePath) -> bool {
        self == dir || self.is_below(dir)
    }
}

/// Checks the bytes of a path: see [`SharePath::new`].
pub(crate) fn check_path(bytes: &[u8]) -> Result<(), PathError> {
    if bytes.is_empty() {
        return Err(PathError::Empty);
    }
    if bytes.len() > PATH_LEN_MAX {
        return Err(PathError::TooLong(bytes.len()));
    }
    for (depth, name) in bytes.split(|&byte| byte == b'/').enumerate() {
        check_component(name)?;
        if depth == 0 && name == RESERVED {
            return Err(PathError::Reserved);
        }
    }
    Ok(())
}

/// Checks the bytes of one name.
pub(crate) fn check_component(name: &[u8]) -> Result<(), PathError> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(PathError::NotNormal);
    }
    if name.len() > COMPONENT_LEN_MAX {
        return Err(PathError::ComponentTooLong(name.len()));
    }
    if name.contains(&0) {
        return Err(PathError::Nul);
    }
    Ok(())
}

impl Ord for SharePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // `/` as the least byte keeps a subtree together: a, a/x, a.b.
        let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        let (mut one, mut other) = (&*self.0, &*other.0);
        // Most begin alike: what is the same is skipped, and the first difference found, eight bytes at a time.
        while let (Some((a, one_rest)), Some((b, other_rest))) =
            (one.split_first_chunk::<8>(), other.split_first_chunk::<8>())
        {
            let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
            if differing != 0 {
                let at = differing.trailing_zeros() as usize / 8;
                return key(&a[at]).cmp(&key(&b[at]));
            }
            (one, other) = (one_rest, other_rest);
        }
        one.iter().map(key).cmp(other.iter().map(key))
    }
}

impl PartialOrd for SharePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Shows a path to a person: UTF-8 as it is, other bytes and control characters as `\xNN`.
impl fmt::Display for SharePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        fmt::Display::fmt(&Escaped(&self.0), f)
    }
}

impl fmt::Debug for SharePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes of a name, shown to a person: what is no printable UTF-8 appears as `\xNN`.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    let mut buffer = [0; 4];
                    for byte in character.encode_utf8(&mut buffer).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Encode for SharePath {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0.encode(encoder)
    }
}

impl<C> Decode<C> for SharePath {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        SharePath::new(bytes)
            .map_err(|error| bincode::error::DecodeError::OtherString(error.to_string()))
    }
}

bincode::impl_borrow_decode!(SharePath);

/// Why text is not the name of a node or a share.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a name: 1 to 32 of the characters a-z, A-Z, 0-9, `_`, `-` and `.`, not beginning with `.` or `-`"
)]
pub struct NameError(pub String);

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// If it is empty, over 32 bytes, or holds a character outside `[A-Za-z0-9_.-]`.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
                let starts_well = !name.starts_with(['.', '-']);
                if (1..=32).contains(&name.len()) && name.bytes().all(legal) && starts_well {
                    Ok($name(name))
                } else {
                    Err(NameError(name))
                }
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Encode for $name {
            fn encode<E: bincode::enc::Encoder>(
                &self,
                encoder: &mut E,
            ) -> Result<(), bincode::error::EncodeError> {
                self.0.encode(encoder)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let name = String::decode(decoder)?;
                $name::new(name)
                    .map_err(|error| bincode::error::DecodeError::OtherString(error.to_string()))
            }
        }

        bincode::impl_borrow_decode!($name);
    };
}

name_type! {
    /// A node's name as its own config gives it; it appears in the names of conflict copies.
    NodeName
}
name_type! {
    /// A share's name; shares of different nodes pair by it.
    ShareName
}

#[cfg(test)]
mod tests;
