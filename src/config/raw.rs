//! The config as written: which keys there are, where, and of which TOML type.
//!
//! Read from toml's spanned tree and not through serde's derive, because that ends at the first
//! mistake and here all of them are wanted.
//!
//! **Invariant:** every key of the text is either taken into [`Raw`] or reported.
//! **May not:** judge what a value means.
#![forbid(unsafe_code)]

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Findings;

/// Each section with its keys, required ones first. A key that is not here is a mistake.
pub(super) const SECTIONS: [(&str, &[&str]); 5] = [
    ("node", &["name", "listen", "state_dir", "control"]),
    ("http", &["listen", "api"]),
    ("limits", &["bandwidth"]),
    ("peer", &["name", "address", "fingerprint", "allow_from"]),
    (
        "share",
        &[
            "name",
            "path",
            "settle",
            "ignore",
            "deletes",
            "owner",
            "trash",
            "max_delete",
            "scan_interval",
            "min_free",
        ],
    ),
];

/// A text and where it stands.
pub(super) type Text = Spanned<String>;

/// The whole file.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) node: Node,
    pub(super) http: Option<Http>,
    pub(super) limits: Option<Limits>,
    pub(super) peers: Vec<Peer>,
    pub(super) shares: Vec<Share>,
}

/// `[node]`
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Option<Text>,
    pub(super) listen: Option<Text>,
    pub(super) state_dir: Option<Text>,
    pub(super) control: Option<Text>,
}

/// `[http]`
#[derive(Debug)]
pub(super) struct Http {
    pub(super) listen: Option<Text>,
    pub(super) api: Option<bool>,
}

/// `[limits]`
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) bandwidth: Option<Text>,
}

/// `[[peer]]`
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: Option<Text>,
    pub(super) address: Option<Text>,
    pub(super) fingerprints: Vec<Text>,
    pub(super) allow_from: Vec<Text>,
}

/// `[[share]]`
#[derive(Debug)]
pub(super) struct Share {
    pub(super) name: Option<Text>,
    pub(super) path: Option<Text>,
    pub(super) settle: Option<Text>,
    pub(super) ignore: Vec<Text>,
    pub(super) deletes: Option<Text>,
    pub(super) owner: Option<Text>,
    pub(super) trash: Option<Text>,
    pub(super) max_delete: Option<Spanned<Vec<Spanned<Limit>>>>,
    pub(super) min_free: Option<Text>,
    pub(super) scan_interval: Option<Text>,
}

/// One bound of `max_delete`.
#[derive(Debug)]
pub(super) enum Limit {
    Text(String),
    Count(u64),
}

/// Reads a text. Returns nothing if it is no TOML, or if there is nothing to look at further.
pub(super) fn read(text: &str, findings: &mut Findings) -> Option<Raw> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let span = error.span().unwrap_or_default();
            // What toml says of a word without quotes that begins with `t` or `f`.
            let hint = if error.message().contains("boolean") { "; quote a text" } else { "" };
            findings.add(&span, "", format!("this is no TOML: {}{hint}", error.message()));
        }
        return None;
    }
    let root = root.into_inner();
    for (key, _) in root.iter() {
        if !SECTIONS.iter().any(|(section, _)| section == key.get_ref()) {
            findings.add(&key.span(), key.get_ref().as_ref(), unknown(None, key.get_ref()));
        }
    }
    let node = single(&root, "node", findings);
    if node.is_none() && !root.contains_key("node") {
        let why = "there is no [node] section; write one with at least `name`".to_owned();
        findings.add(&(0..0), "node", why);
    }
    let http = single(&root, "http", findings);
    let limits = single(&root, "limits", findings);
    let peers = blocks(&root, "peer", findings);
    let shares = blocks(&root, "share", findings);
    Some(Raw {
        node: read_node(&node?, findings),
        http: http.map(|section| read_http(&section, findings)),
        limits: limits.map(|section| Limits { bandwidth: section.text("bandwidth", findings) }),
        peers: peers.iter().map(|section| read_peer(section, findings)).collect(),
        shares: shares.iter().map(|section| read_share(section, findings)).collect(),
    })
}

fn read_node(section: &Section<'_>, findings: &mut Findings) -> Node {
    Node {
        name: section.required("name", findings),
        listen: section.text("listen", findings),
        state_dir: section.text("state_dir", findings),
        control: section.text("control", findings),
    }
}

fn read_http(section: &Section<'_>, findings: &mut Findings) -> Http {
    Http { listen: section.text("listen", findings), api: section.flag("api", findings) }
}

fn read_peer(section: &Section<'_>, findings: &mut Findings) -> Peer {
    section.require("fingerprint", findings);
    Peer {
        name: section.required("name", findings),
        address: section.required("address", findings),
        fingerprints: section.texts("fingerprint", findings),
        allow_from: section.texts("allow_from", findings),
    }
}

fn read_share(section: &Section<'_>, findings: &mut Findings) -> Share {
    Share {
        name: section.required("name", findings),
        path: section.required("path", findings),
        settle: section.text("settle", findings),
        ignore: section.texts("ignore", findings),
        deletes: section.text("deletes", findings),
        owner: section.text("owner", findings),
        trash: section.text("trash", findings),
        max_delete: section.limits("max_delete", findings),
        min_free: section.text("min_free", findings),
        scan_interval: section.text("scan_interval", findings),
    }
}

/// One table of the file.
struct Section<'t> {
    name: &'static str,
    span: Range<usize>,
    table: &'t DeTable<'t>,
}

/// Returns the section of a name that may stand once.
fn single<'t>(
    root: &'t DeTable<'t>,
    name: &'static str,
    findings: &mut Findings,
) -> Option<Section<'t>> {
    let value = root.get(name)?;
    match value.get_ref() {
        DeValue::Table(table) => Some(Section::open(name, value.span(), table, findings)),
        _ => {
            let why = format!("there is one such section; write it once, as [{name}]");
            findings.add(&value.span(), name, why);
            None
        }
    }
}

/// Returns the sections of a name that may stand any number of times.
fn blocks<'t>(
    root: &'t DeTable<'t>,
    name: &'static str,
    findings: &mut Findings,
) -> Vec<Section<'t>> {
    let Some(value) = root.get(name) else { return Vec::new() };
    let mut sections = Vec::new();
    let wrong = |span: Range<usize>, findings: &mut Findings| {
        let why = format!("there may be many of these; write each as [[{name}]], in two brackets");
        findings.add(&span, name, why);
    };
    let DeValue::Array(list) = value.get_ref() else {
        wrong(value.span(), findings);
        return sections;
    };
    for item in list.iter() {
        match item.get_ref() {
            DeValue::Table(table) => {
                sections.push(Section::open(name, item.span(), table, findings));
            }
            _ => wrong(item.span(), findings),
        }
    }
    sections
}

impl<'t> Section<'t> {
    /// Takes a table and reports the keys that it should not have.
    fn open(
        name: &'static str,
        span: Range<usize>,
        table: &'t DeTable<'t>,
        findings: &mut Findings,
    ) -> Self {
        let section = Section { name, span, table };
        for (key, _) in table.iter() {
            if !keys_of(name).contains(&key.get_ref().as_ref()) {
                let why = unknown(Some(name), key.get_ref());
                findings.add(&key.span(), section.path(key.get_ref()), why);
            }
        }
        section
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, want: &str, f: &mut Findings) {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        f.add(&value.span(), self.path(key), format!("this is {article} {found}; write {want}"));
    }

    /// Reports a key that is missing.
    fn require(&self, key: &str, findings: &mut Findings) {
        if !self.table.contains_key(key) {
            let why = format!("`{key}` is missing; it has no default");
            findings.add(&self.span, self.path(key), why);
        }
    }

    fn required(&self, key: &str, findings: &mut Findings) -> Option<Text> {
        self.require(key, findings);
        self.text(key, findings)
    }

    fn text(&self, key: &str, findings: &mut Findings) -> Option<Text> {
        let value = self.table.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned::new(value.span(), text.clone().into_owned())),
            _ => {
                self.wrong_type(key, value, "a text in quotes", findings);
                None
            }
        }
    }

    /// Takes one text or a list of them.
    fn texts(&self, key: &str, findings: &mut Findings) -> Vec<Text> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let mut texts = Vec::new();
        for item in one_or_many(value) {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(Spanned::new(item.span(), text.clone().into_owned()));
                }
                _ => self.wrong_type(key, item, "a text in quotes, or a list of them", findings),
            }
        }
        if key == "fingerprint" && value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
            let why = "the list is empty, so the peer could never connect; give one at least";
            findings.add(&value.span(), self.path(key), why.to_owned());
        }
        texts
    }

    fn flag(&self, key: &str, findings: &mut Findings) -> Option<bool> {
        let value = self.table.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false, without quotes", findings);
        }
        flag
    }

    fn limits(&self, key: &str, findings: &mut Findings) -> Option<Spanned<Vec<Spanned<Limit>>>> {
        let value = self.table.get(key)?;
        let mut limits = Vec::new();
        for item in one_or_many(value) {
            let limit = match item.get_ref() {
                DeValue::String(text) => Some(Limit::Text(text.clone().into_owned())),
                DeValue::Integer(number) => {
                    u64::from_str_radix(number.as_str(), number.radix()).ok().map(Limit::Count)
                }
                _ => None,
            };
            match limit {
                Some(limit) => limits.push(Spanned::new(item.span(), limit)),
                None => {
                    let want = "\"50%\", a count of files, or both as [\"50%\", 100000]";
                    self.wrong_type(key, item, want, findings);
                }
            }
        }
        // Nothing is left of a list that was not empty: its items have been reported.
        let reported = limits.is_empty() && !one_or_many(value).is_empty();
        (!reported).then(|| Spanned::new(value.span(), limits))
    }
}

/// Returns the items of a list, or the value itself.
fn one_or_many<'v, 't>(value: &'v Spanned<DeValue<'t>>) -> Vec<&'v Spanned<DeValue<'t>>> {
    match value.get_ref() {
        DeValue::Array(list) => list.iter().collect(),
        _ => vec![value],
    }
}

fn keys_of(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

/// Returns what to say of a key that is not known in a section (`None`: outside all of them).
fn unknown(section: Option<&str>, key: &str) -> String {
    let near = |candidates: &[&'static str]| {
        let near = candidates.iter().map(|known| (distance(key, known), *known));
        near.filter(|(distance, known)| distance * 3 <= known.len().max(3)).min()
    };
    let here = match section {
        Some(name) => near(keys_of(name)),
        None => near(&SECTIONS.map(|(name, _)| name)),
    };
    let elsewhere = SECTIONS
        .iter()
        .filter_map(|(name, keys)| near(keys).map(|(distance, known)| (distance, known, *name)))
        .min();
    let place = section.map_or_else(|| "the top of the file".to_owned(), header);
    let new = "not known to this version";
    match (here, elsewhere) {
        // An exact name from another section says more than a similar one from this.
        (_, Some((0, _, name))) => format!("no key of {place}; it belongs in {}", header(name)),
        (Some((_, known)), _) => match section {
            Some(_) => format!("{new}; did you mean `{known}`?"),
            None => format!("{new}; did you mean {}?", header(known)),
        },
        (None, Some((_, known, name))) => {
            format!("{new}; did you mean `{known}` in {}?", header(name))
        }
        (None, None) => format!("{new}; remove it"),
    }
}

/// Returns a section's name as it is written.
fn header(section: &str) -> String {
    match section {
        "node" | "http" => format!("[{section}]"),
        _ => format!("[[{section}]]"),
    }
}

/// Returns the Levenshtein distance of two words.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

/// Returns where a value stands in a valid text; `index` counts the blocks of one name from 0.
pub(super) fn span_of(text: &str, section: &str, index: usize, key: &str) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?.into_inner();
    let value = root.get(section)?;
    let block = match value.get_ref() {
        DeValue::Array(list) => list.get(index)?,
        _ => value,
    };
    Some(block.get_ref().as_table()?.get(key).map_or_else(|| block.span(), Spanned::span))
}

/// Returns where the `index`th block of a name stands, from its header to the end of its last
/// value; nothing if it is not written as a `[[section]]` block.
pub(super) fn block_span(text: &str, section: &str, index: usize) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?.into_inner();
    let block = root.get(section)?.get_ref().as_array()?.get(index)?;
    let header = block.span();
    if !text[header.clone()].starts_with("[[") {
        return None;
    }
    let values = block.get_ref().as_table()?.iter().map(|(_, value)| value.span().end);
    Some(header.start..values.max().unwrap_or(header.end).max(header.end))
}
