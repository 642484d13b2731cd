//! The TOML file that tells a node what it is: as written (`raw`) → valid by type (`checked`).
//!
//! [`Source`] is a file's text with its name; [`Source::check`] finds every mistake in it, not only
//! the first. Nothing here looks at the disk but for the file itself: whether a share's directory
//! is there is for those to say who open it.
//!
//! **Invariant:** a [`Config`] needs no further checks; an edited file still checks, keeps every
//! comment, and is either the old one or the new one whatever happens.
//! **May not:** resolve names, open shares, know the command line.
#![forbid(unsafe_code)]

pub mod checked;
pub mod edit;
mod file;
mod raw;
mod rules;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use checked::{
    Cidr, Config, Fingerprint, HostPort, Http, MaxDelete, MinFree, Node, Peer, Share, ValueError,
};
pub use file::{create, edit};
pub use template::Template;

/// Why there is no valid config.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error(
        "there is no config file {}; make one with `recsync init`, or name another with --config",
        file.display()
    )]
    Missing {
        /// As it was named.
        file: PathBuf,
    },
    /// The file could not be read.
    #[error("cannot read the config file {}: {why}", file.display())]
    Read {
        /// As it was named.
        file: PathBuf,
        /// The kernel's words.
        why: std::io::Error,
    },
    /// The file holds mistakes.
    #[error("the config is not valid:\n{0}")]
    Invalid(Mistakes),
    /// The file is there and may not be overwritten.
    #[error(
        "{} is there already and is never overwritten; edit it, or move it away first",
        file.display()
    )]
    Exists {
        /// As it was named.
        file: PathBuf,
    },
    /// The file could not be written; the old one stays.
    #[error("cannot write the config file {}: {why}; it is as it was", file.display())]
    Write {
        /// As it was named.
        file: PathBuf,
        /// The kernel's words.
        why: std::io::Error,
    },
    /// The edit is not possible, or its result would not check; the file is as it was.
    #[error("{} is as it was: {why}", file.display())]
    Edit {
        /// As it was named.
        file: PathBuf,
        /// What stands against it.
        why: edit::EditError,
    },
}

/// Reads and checks a config file.
///
/// # Errors
/// If it cannot be read, or holds mistakes: all of them.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    Source::read(file)?.check().map_err(ConfigError::Invalid)
}

/// Returns where the daemon of a config listens for commands, as far as the text tells in spite of
/// mistakes: a slip while editing it must not hide a daemon that runs well.
///
/// # Errors
/// If the file cannot be read.
pub fn control(file: &Path) -> Result<PathBuf, ConfigError> {
    let Source { file, text } = Source::read(file)?;
    let raw = raw::read(&text, &mut Findings::default());
    let written = raw.and_then(|raw| raw.node.control).map(|control| control.into_inner());
    Ok(match (file.parent(), written) {
        (Some(dir), Some(path)) if !path.is_empty() => dir.join(path).components().collect(),
        _ => template::Places::of(&file).control,
    })
}

/// A config file's name and text.
#[derive(Debug, Clone)]
pub struct Source {
    file: PathBuf,
    text: String,
}

impl Source {
    /// Takes a text as the content of a file, which need not be there. Relative paths in it are
    /// relative to the file, which is made absolute by the working directory.
    pub fn new(file: &Path, text: impl Into<String>) -> Self {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        Source { file, text: text.into() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it is missing or cannot be read as UTF-8.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        Ok(Source::new(file, file::read(file)?))
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Checks the whole text.
    ///
    /// # Errors
    /// Every mistake in it, in the order of the file.
    pub fn check(&self) -> Result<Config, Mistakes> {
        let mut findings = Findings::default();
        let config = raw::read(&self.text, &mut findings)
            .and_then(|raw| rules::check(&self.file, raw, &mut findings));
        match config {
            Some(config) if findings.0.is_empty() => Ok(config),
            _ => Err(findings.into_mistakes(self)),
        }
    }

    /// Returns a finding about a key of a valid text, as `("share.path", 1)`, at the place of its
    /// value: what only a look at the machine can tell. `index` counts the blocks of one name from
    /// 0. What is not written is found at the block, or at the top of the file.
    pub fn finding(&self, key: &str, index: usize, why: String) -> Mistake {
        let (section, name) = key.split_once('.').unwrap_or((key, ""));
        let (line, column) = raw::span_of(&self.text, section, index, name)
            .map_or((1, 1), |span| line_and_column(&self.text, span.start));
        Mistake { line, column, key: key.to_owned(), why }
    }
}

/// One mistake in a config file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, as `share.settle`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong, and the way out.
    pub why: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.why)
    }
}

/// All mistakes of one file, at least one; shown one a line, as `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file, absolute.
    pub file: PathBuf,
    /// In the order of the file.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{mistake}", self.file.display())?;
        }
        Ok(())
    }
}

/// What the checks find on their way: where in the text, at which key, what.
#[derive(Debug, Default)]
struct Findings(Vec<(std::ops::Range<usize>, String, String)>);

impl Findings {
    fn add(&mut self, span: &std::ops::Range<usize>, key: impl Into<String>, why: String) {
        self.0.push((span.clone(), key.into(), why));
    }

    fn into_mistakes(self, source: &Source) -> Mistakes {
        let mut list: Vec<_> = self
            .0
            .into_iter()
            .map(|(span, key, why)| {
                let (line, column) = line_and_column(&source.text, span.start);
                Mistake { line, column, key, why }
            })
            .collect();
        list.sort();
        Mistakes { file: source.file.clone(), list }
    }
}

/// Returns where a byte of a text is, both from 1, the column in characters.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
