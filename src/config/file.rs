//! The config file on the disk: read, made, replaced as a whole.
//!
//! **Invariant:** a reader, and a power cut, find the old text or the new one.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::checked::Config;
use super::edit::EditError;
use super::{ConfigError, Source};

/// A config of a thousand peers is smaller: what is longer is another file.
const LEN_MAX: u64 = 1 << 20;

/// Returns the text of a file.
pub(super) fn read(file: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let outcome = open(file).and_then(|open| open.take(LEN_MAX + 1).read_to_string(&mut text));
    match outcome {
        Ok(len) if len as u64 > LEN_MAX => {
            let why = io::Error::other("it is over 1 MiB long, so it is something else");
            Err(ConfigError::Read { file: file.to_owned(), why })
        }
        Ok(_) => Ok(text),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            Err(ConfigError::Missing { file: file.to_owned() })
        }
        Err(why) => Err(ConfigError::Read { file: file.to_owned(), why }),
    }
}

/// Makes a config file, and its directory if need be, and makes both durable.
///
/// # Errors
/// If there is a file already, or it cannot be written.
pub fn create(file: &Path, text: &str) -> Result<(), ConfigError> {
    let write = || {
        let dir = directory(file);
        make_directories(&dir)?;
        let mut new = OpenOptions::new().write(true).create_new(true).open(file)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        open(&dir)?.sync_all()
    };
    write().map_err(|why| match why.kind() {
        io::ErrorKind::AlreadyExists => ConfigError::Exists { file: file.to_owned() },
        _ => ConfigError::Write { file: file.to_owned(), why },
    })
}

/// Changes a config file: `change` gets its text and what that means, and returns the new text.
/// The file keeps its mode and owner; a symbolic link to it stays one. Two such changes at once
/// wait for each other.
///
/// # Errors
/// If the file is not valid now, `change` refuses, or what comes out would not check; then, and if
/// it cannot be written, the file is as it was.
pub fn edit(
    file: &Path,
    change: impl FnOnce(&str, &Config) -> Result<String, EditError>,
) -> Result<Config, ConfigError> {
    let cannot_write = |why| ConfigError::Write { file: file.to_owned(), why };
    let target = match file.canonicalize() {
        Ok(target) => target,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return Err(ConfigError::Missing { file: file.to_owned() });
        }
        Err(why) => return Err(ConfigError::Read { file: file.to_owned(), why }),
    };
    // The directory is locked, not the file: that is about to be replaced.
    let dir = open(&directory(&target)).map_err(cannot_write)?;
    rustix::fs::flock(&dir, FlockOperation::LockExclusive)
        .map_err(|error| cannot_write(error.into()))?;

    let old = Source::read(file)?;
    let config = old.check().map_err(ConfigError::Invalid)?;
    let refuse = |why| ConfigError::Edit { file: file.to_owned(), why };
    let text = change(old.text(), &config).map_err(refuse)?;
    let new = Source::new(file, text);
    let config = new.check().map_err(|mistakes| refuse(EditError::WouldNotCheck(mistakes)))?;
    replace(&target, new.text(), &dir).map_err(cannot_write)?;
    Ok(config)
}

/// Puts a new text in a file's place, through a file beside it.
#[expect(clippy::disallowed_methods, reason = "the config file is no share's")]
fn replace(file: &Path, text: &str, dir: &File) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = file.with_file_name(name);
    match std::fs::remove_file(&beside) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        // None was left there, or one of an edit that was interrupted: we hold the lock.
        _ => {}
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let write = |new: &mut File| {
        new.write_all(text.as_bytes())?;
        let old = open(file)?.metadata()?;
        let made = new.metadata()?;
        if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
            fchown(&*new, Some(old.uid()), Some(old.gid()))?;
        }
        new.set_permissions(old.permissions())?;
        new.sync_all()?;
        std::fs::rename(&beside, file)
    };
    if let Err(why) = write(&mut new) {
        // The first error is the one to tell; what is left is removed by the next edit.
        let _best_effort = std::fs::remove_file(&beside);
        return Err(why);
    }
    dir.sync_all()
}

#[expect(clippy::disallowed_methods, reason = "the config file and its directory are no share's")]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[expect(clippy::disallowed_methods, reason = "the config file's directory is no share's")]
fn make_directories(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}
