//! Which names of a share are left alone: gitignore patterns, and other tools' temporary names.
//!
//! **Invariant:** what lies below an ignored directory is ignored, as git has it.
//! **May not:** look at the disk.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ::ignore::gitignore::{Gitignore, GitignoreBuilder};
use recsync_proto::SharePath;

/// A share's ignore rules: lines of a `.gitignore` at its root.
#[derive(Debug, Clone)]
pub struct IgnoreRules {
    patterns: Vec<String>,
    matcher: Gitignore,
}

impl Default for IgnoreRules {
    fn default() -> Self {
        IgnoreRules { patterns: Vec::new(), matcher: Gitignore::empty() }
    }
}

impl PartialEq for IgnoreRules {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for IgnoreRules {}

impl IgnoreRules {
    /// Takes patterns in their order: of those that match a name the last one counts.
    ///
    /// # Errors
    /// With the number of the first pattern that is none, and why, for a person.
    pub fn new(patterns: Vec<String>) -> Result<Self, (usize, String)> {
        let mut builder = GitignoreBuilder::new("");
        for (number, pattern) in patterns.iter().enumerate() {
            check(pattern).map_err(|why| (number, why))?;
            if let Err(error) = builder.add_line(None, pattern) {
                return Err((number, format!("`{pattern}` is no pattern: {error}")));
            }
        }
        let last = patterns.len().saturating_sub(1);
        let matcher = builder.build().map_err(|error| (last, error.to_string()))?;
        Ok(IgnoreRules { patterns, matcher })
    }

    /// True if nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns the patterns as written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Returns the pattern that has a path left alone, if one does.
    pub fn rule(&self, path: &SharePath, is_dir: bool) -> Option<&str> {
        if self.is_empty() || path.is_root() {
            return None;
        }
        let mut above: Vec<SharePath> = path.ancestors().collect();
        above.reverse();
        let above = above.iter().filter(|dir| !dir.is_root()).map(|dir| (dir, true));
        above.chain([(path, is_dir)]).find_map(|(path, is_dir)| {
            let matched = self.matcher.matched(os_path(path), is_dir);
            matched.is_ignore().then(|| matched.inner().map_or("", |glob| glob.original()))
        })
    }
}

/// What a `.gitignore` takes and this does not: lines that match nothing are slips here.
fn check(pattern: &str) -> Result<(), String> {
    if pattern.trim().is_empty() {
        return Err("an empty pattern matches nothing; remove it".to_owned());
    }
    if pattern.contains('\n') {
        return Err("a pattern is one line; write a list of patterns".to_owned());
    }
    if pattern.starts_with('#') {
        return Err(format!(
            "`{pattern}` is a comment and matches nothing; write `\\\\#` for a name that begins so"
        ));
    }
    Ok(())
}

fn os_path(path: &SharePath) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

/// Returns the tool whose temporary file has such a name: rsync's `.NAME.XXXXXX`, Syncthing's,
/// Unison's. The name alone is no proof, so such a file is left alone only while it is young.
pub fn temporary_of(name: &[u8]) -> Option<&'static str> {
    let between = |start: &[u8], end: &[u8]| name.starts_with(start) && name.ends_with(end);
    if between(b".syncthing.", b".tmp") || between(b"~syncthing~", b".tmp") {
        return Some("a temporary file of Syncthing");
    }
    if between(b".unison.", b".unison.tmp") {
        return Some("a temporary file of Unison");
    }
    let (stem, suffix) = name.split_at_checked(name.len().checked_sub(7)?)?;
    let is_random = suffix[0] == b'.' && suffix[1..].iter().all(u8::is_ascii_alphanumeric);
    (stem.len() > 1 && stem[0] == b'.' && is_random).then_some("a temporary file of rsync")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> IgnoreRules {
        IgnoreRules::new(patterns.iter().map(|&pattern| pattern.to_owned()).collect()).unwrap()
    }

    #[test]
    fn patterns_match_as_in_a_gitignore() {
        let rules = rules(&["*.tmp", "/scratch/**", "cache/", "*.log", "!keep.log", "/a/b"]);
        let cases = [
            ("x.tmp", false, Some("*.tmp")),
            ("d/x.tmp", false, Some("*.tmp")),
            ("d/x.tmp/inside", false, Some("*.tmp")),
            ("x.tmp.wav", false, None),
            ("scratch", true, None),
            ("scratch/x", false, Some("/scratch/**")),
            ("d/scratch/x", false, None),
            ("cache", true, Some("cache/")),
            ("cache", false, None),
            ("d/cache/x", false, Some("cache/")),
            ("x.log", false, Some("*.log")),
            ("keep.log", false, None),
            // A directory that is ignored is not entered: nothing in it can be taken back.
            ("cache/keep.log", false, Some("cache/")),
            ("a/b", false, Some("/a/b")),
            ("d/a/b", false, None),
            ("", true, None),
        ];
        for (path, is_dir, rule) in cases {
            let path = SharePath::new(path).unwrap_or_else(|_| SharePath::root());
            assert_eq!(rules.rule(&path, is_dir), rule, "{path}");
        }
        assert_eq!(IgnoreRules::default().rule(&SharePath::new("x.tmp").unwrap(), false), None);
    }

    #[test]
    fn patterns_that_are_none() {
        for (pattern, why) in [
            ("[z-a]", "is no pattern"),
            ("{a", "is no pattern"),
            ("", "matches nothing"),
            ("# scratch", "is a comment"),
            ("a\nb", "is one line"),
        ] {
            let (number, said) =
                IgnoreRules::new(vec!["*.tmp".to_owned(), pattern.to_owned()]).unwrap_err();
            assert!(number == 1 && said.contains(why), "{pattern:?}: {said}");
        }
    }

    #[test]
    fn temporary_names_of_other_tools() {
        for (name, tool) in [
            (&b".call.wav.Xy12Zz"[..], Some("rsync")),
            (b".syncthing.call.wav.tmp", Some("Syncthing")),
            (b"~syncthing~call.wav.tmp", Some("Syncthing")),
            (b".unison.call.wav.5f1c.unison.tmp", Some("Unison")),
            (b"call.wav.Xy12Zz", None),
            (b".Xy12Zz", None),
            (b".call.wav", None),
            (b".call.Xy12-z", None),
            (b"a", None),
            (b"", None),
        ] {
            let found = temporary_of(name);
            let fits = found.is_some() == tool.is_some()
                && found.is_none_or(|f| f.ends_with(tool.unwrap()));
            assert!(fits, "{name:?}: {found:?}");
        }
    }
}
