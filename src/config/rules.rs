//! From the config as written to the checked one: what each value means, and what they mean
//! together.
//!
//! **Invariant:** gives a config only if nothing was found.
//! **May not:** look at the disk: paths are compared by their names.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use recsync_proto::{NodeName, ShareName};
use toml::Spanned;

use super::checked::{
    Config, DeletePolicy, HostPort, Http, IgnoreRules, Limits, MaxDelete, Node, OwnerPolicy, Peer,
    Share,
};
use super::raw::{self, Limit, Raw, Text};
use super::{Findings, template};

/// None is for those whose recorder closes a file once; what makes one wait for hours is a slip.
const SETTLE: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3600));
/// "0s" is none; a century is for ever.
const TRASH: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(100 * 31_557_600));
/// A frame of a quarter MiB takes no longer than the silence after which a link counts as dead.
const BANDWIDTH_MIN: u64 = 100_000;
/// A scan reads every directory: less than a second apart they would never end.
const SCAN_INTERVAL: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(31_557_600));

/// Checks what was read. Returns nothing if something is missing or has no meaning.
pub(super) fn check(file: &Path, raw: Raw, findings: &mut Findings) -> Option<Config> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let mut check = Check { dir, findings };
    check.unique("peer.name", raw.peers.iter().flat_map(|peer| &peer.name));
    check.unique("peer.fingerprint", raw.peers.iter().flat_map(|peer| &peer.fingerprints));
    check.unique("share.name", raw.shares.iter().flat_map(|share| &share.name));
    check.not_its_own_peer(&raw);
    check.listeners_apart(&raw);
    check.shares_apart(file, &raw);

    let node = check.node(file, raw.node);
    let http = raw.http.map(|http| check.http(http));
    let limits = raw.limits.map(|limits| check.limits(limits));
    let peers: Vec<_> = raw.peers.into_iter().map(|peer| check.peer(peer)).collect();
    let shares: Vec<_> = raw.shares.into_iter().map(|share| check.share(share)).collect();
    Some(Config {
        file: file.to_owned(),
        node: node?,
        http: http.map_or(Some(None), |http| http.map(Some))?,
        limits: limits.unwrap_or(Some(Limits::default()))?,
        peers: peers.into_iter().collect::<Option<_>>()?,
        shares: shares.into_iter().collect::<Option<_>>()?,
    })
}

struct Check<'c> {
    /// What relative paths are relative to.
    dir: &'c Path,
    findings: &'c mut Findings,
}

/// The sections, one function each.
impl Check<'_> {
    fn node(&mut self, file: &Path, node: raw::Node) -> Option<Node> {
        let name = self.named("node.name", node.name, NodeName::new);
        let listen = self.parsed("node.listen", node.listen.as_ref(), template::NODE_LISTEN);
        let defaults = template::Places::of(file);
        Some(Node {
            name: name?,
            listen: listen?,
            state_dir: self.path("node.state_dir", node.state_dir, Some(defaults.state_dir))?,
            control: self.path("node.control", node.control, Some(defaults.control))?,
        })
    }

    fn http(&mut self, http: raw::Http) -> Option<Http> {
        let listen = self.parsed("http.listen", http.listen.as_ref(), template::HTTP_LISTEN)?;
        Some(Http { listen, api: http.api.unwrap_or(false) })
    }

    fn limits(&mut self, limits: raw::Limits) -> Option<Limits> {
        let bandwidth = limits.bandwidth.map(|text| self.rate("limits.bandwidth", &text));
        Some(Limits { bandwidth: bandwidth.map_or(Some(None), |rate| rate.map(Some))? })
    }

    fn peer(&mut self, peer: raw::Peer) -> Option<Peer> {
        let name = self.named("peer.name", peer.name, NodeName::new);
        let address = peer.address.and_then(|text| self.address(&text));
        let fingerprints = self.all("peer.fingerprint", &peer.fingerprints);
        let allow_from = self.all("peer.allow_from", &peer.allow_from);
        Some(Peer {
            name: name?,
            address: address?,
            fingerprints: fingerprints?,
            allow_from: allow_from?,
        })
    }

    fn share(&mut self, share: raw::Share) -> Option<Share> {
        let name = self.named("share.name", share.name, ShareName::new);
        let path = self.path("share.path", share.path, None);
        let settle = self.duration("share.settle", share.settle.as_ref(), template::SETTLE, SETTLE);
        let ignore = self.ignore(&share.ignore);
        let deletes = self.word(
            "share.deletes",
            share.deletes.as_ref(),
            &[("propagate", DeletePolicy::Propagate), ("keep", DeletePolicy::Keep)],
        );
        let owner = self.word(
            "share.owner",
            share.owner.as_ref(),
            &[("name", OwnerPolicy::Name), ("ignore", OwnerPolicy::Ignore)],
        );
        let min_free = self.parsed("share.min_free", share.min_free.as_ref(), template::MIN_FREE);
        let trash = self.duration("share.trash", share.trash.as_ref(), template::TRASH, TRASH);
        let max_delete = self.max_delete(share.max_delete.as_ref());
        let scan_interval = self.duration(
            "share.scan_interval",
            share.scan_interval.as_ref(),
            template::SCAN_INTERVAL,
            SCAN_INTERVAL,
        );
        Some(Share {
            name: name?,
            path: path?,
            settle: settle?,
            ignore: Arc::new(ignore?),
            deletes: deletes?,
            owner: owner?,
            trash: trash?,
            max_delete: max_delete?,
            min_free: min_free?,
            scan_interval: scan_interval?,
        })
    }
}

/// The values.
impl Check<'_> {
    fn named<N>(
        &mut self,
        key: &str,
        text: Option<Text>,
        new: fn(String) -> Result<N, recsync_proto::path::NameError>,
    ) -> Option<N> {
        let text = text?;
        let span = text.span();
        new(text.into_inner())
            .map_err(|error| self.findings.add(&span, key, error.to_string()))
            .ok()
    }

    fn parse<T: FromStr<Err: ToString>>(&mut self, key: &str, text: &Text) -> Option<T> {
        let parsed = text.get_ref().parse();
        parsed.map_err(|e: T::Err| self.findings.add(&text.span(), key, e.to_string())).ok()
    }

    fn parsed<T: FromStr<Err: ToString>>(
        &mut self,
        key: &str,
        text: Option<&Text>,
        default: &str,
    ) -> Option<T> {
        match text {
            Some(text) => self.parse(key, text),
            None => default.parse().ok(),
        }
    }

    fn all<T: FromStr<Err: ToString>>(&mut self, key: &str, texts: &[Text]) -> Option<Vec<T>> {
        let parsed: Vec<_> = texts.iter().map(|text| self.parse(key, text)).collect();
        parsed.into_iter().collect()
    }

    fn address(&mut self, text: &Text) -> Option<HostPort> {
        let address: HostPort = self.parse("peer.address", text)?;
        if address.is_unspecified() {
            let why = format!("`{address}` means this node; write the address of the peer");
            self.findings.add(&text.span(), "peer.address", why);
            return None;
        }
        Some(address)
    }

    fn path(&mut self, key: &str, text: Option<Text>, default: Option<PathBuf>) -> Option<PathBuf> {
        let Some(text) = text else { return default };
        if text.get_ref().is_empty() || text.get_ref().contains('\0') {
            let why = "this is no path; write an absolute one, or one relative to this file";
            self.findings.add(&text.span(), key, why.to_owned());
            return None;
        }
        Some(self.dir.join(text.get_ref()).components().collect())
    }

    fn ignore(&mut self, patterns: &[Text]) -> Option<IgnoreRules> {
        // One by one first, so that every bad one is found.
        let mut fine = true;
        for text in patterns {
            if let Err((_, why)) = IgnoreRules::new(vec![text.get_ref().clone()]) {
                self.findings.add(&text.span(), "share.ignore", why);
                fine = false;
            }
        }
        let all = patterns.iter().map(|text| text.get_ref().clone()).collect();
        IgnoreRules::new(all).ok().filter(|_| fine)
    }

    /// Takes one of a few words; the first is the default.
    fn word<T: Copy>(&mut self, key: &str, text: Option<&Text>, words: &[(&str, T)]) -> Option<T> {
        let Some(text) = text else { return words.first().map(|(_, value)| *value) };
        let known = words.iter().find(|(word, _)| word == text.get_ref());
        if known.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let why =
                format!("`{}` means nothing here; write {}", text.get_ref(), words.join(" or "));
            self.findings.add(&text.span(), key, why);
        }
        known.map(|(_, value)| *value)
    }

    fn rate(&mut self, key: &str, text: &Text) -> Option<NonZeroU64> {
        let written = text.get_ref();
        let size = written.strip_suffix("/s").and_then(|size| size.parse::<ByteSize>().ok());
        let why = match size.map(|size| NonZeroU64::new(size.as_u64())) {
            Some(Some(rate)) if rate.get() >= BANDWIDTH_MIN => return Some(rate),
            Some(_) => format!(
                "`{written}` is too little: keep-alives would come too late; give at least {}/s, or leave \
                 the key out for no limit",
                ByteSize::b(BANDWIDTH_MIN).display().si()
            ),
            None => format!(
                "`{written}` is no rate; write a size and `/s`, for example \"50MB/s\" or \"2MiB/s\""
            ),
        };
        self.findings.add(&text.span(), key, why);
        None
    }

    fn duration(
        &mut self,
        key: &str,
        text: Option<&Text>,
        default: &str,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let written = text.map_or(default, |text| text.get_ref());
        let show = humantime::format_duration;
        let why = match humantime::parse_duration(written) {
            Ok(duration) if (least..=most).contains(&duration) => return Some(duration),
            Ok(_) => format!(
                "`{written}` is out of range; choose from {} to {}",
                show(least),
                show(most)
            ),
            Err(_) => format!(
                "`{written}` is no duration; write a number and a unit, for example \"200ms\", \
                 \"10s\" or \"1d\""
            ),
        };
        self.findings.add(&text.map(Spanned::span).unwrap_or_default(), key, why);
        None
    }

    fn max_delete(&mut self, limits: Option<&Spanned<Vec<Spanned<Limit>>>>) -> Option<MaxDelete> {
        const KEY: &str = "share.max_delete";
        const FORMS: &str = "write \"50%\", a count of files, or both as [\"50%\", 100000]";
        let Some(limits) = limits else { return Some(MaxDelete::default()) };
        let mut max = MaxDelete { percent: None, count: None };
        let mut fine = true;
        for limit in limits.get_ref() {
            let twice = match limit.get_ref() {
                Limit::Count(count) => max.count.replace(*count).is_some(),
                Limit::Text(text) => match percent(text) {
                    Some(percent) => max.percent.replace(percent).is_some(),
                    None => {
                        let why = format!("`{text}` is no percentage from 0% to 100%; {FORMS}");
                        self.findings.add(&limit.span(), KEY, why);
                        fine = false;
                        continue;
                    }
                },
            };
            if twice {
                let why = format!("two bounds of one kind; {FORMS}");
                self.findings.add(&limit.span(), KEY, why);
                fine = false;
            }
        }
        if max.percent.is_none() && max.count.is_none() && fine {
            self.findings.add(&limits.span(), KEY, format!("no bound is given; {FORMS}"));
            fine = false;
        }
        fine.then_some(max)
    }
}

fn percent(text: &str) -> Option<u8> {
    let digits = text.strip_suffix('%')?;
    let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|percent| whole && *percent <= 100)
}

/// What the values mean together.
impl Check<'_> {
    fn unique<'t>(&mut self, key: &str, texts: impl Iterator<Item = &'t Text>) {
        let mut seen = BTreeSet::new();
        for text in texts {
            if !seen.insert(text.get_ref()) {
                let why = match key {
                    "peer.fingerprint" => {
                        "this key is given twice; every node has its own, take it from \
                         `recsync identity` there"
                            .to_owned()
                    }
                    _ => format!("`{}` is there already; names are unique", text.get_ref()),
                };
                self.findings.add(&text.span(), key, why);
            }
        }
    }

    fn not_its_own_peer(&mut self, raw: &Raw) {
        let Some(own) = &raw.node.name else { return };
        for name in raw.peers.iter().flat_map(|peer| &peer.name) {
            if name.get_ref() == own.get_ref() {
                let why = format!("`{}` is this node; a node is not its own peer", own.get_ref());
                self.findings.add(&name.span(), "peer.name", why);
            }
        }
    }

    fn listeners_apart(&mut self, raw: &Raw) {
        let Some(http) = &raw.http else { return };
        let parse = |text: Option<&Text>, default: &str| {
            text.map_or(default, |text| text.get_ref()).parse::<HostPort>().ok()
        };
        let node = parse(raw.node.listen.as_ref(), template::NODE_LISTEN);
        let Some((peers, http_listen)) =
            node.zip(parse(http.listen.as_ref(), template::HTTP_LISTEN))
        else {
            return;
        };
        let overlap = peers.host() == http_listen.host()
            || peers.is_unspecified()
            || http_listen.is_unspecified();
        if overlap && peers.port() == http_listen.port() {
            // One of the two is written, for the defaults differ.
            let written = http.listen.as_ref().or(raw.node.listen.as_ref());
            let why = format!("peers connect to {peers}; choose another port for HTTP");
            self.findings.add(&written.map(Spanned::span).unwrap_or_default(), "http.listen", why);
        }
    }

    /// A share must not hold another, nor what recsync itself writes: that would be synced.
    fn shares_apart(&mut self, file: &Path, raw: &Raw) {
        let resolve = |text: &Text| normal(&self.dir.join(text.get_ref()));
        let defaults = template::Places::of(file);
        let or =
            |text: Option<&Text>, default: &Path| text.map_or_else(|| normal(default), resolve);
        let own = [
            ("the state directory", or(raw.node.state_dir.as_ref(), &defaults.state_dir)),
            ("the control socket", or(raw.node.control.as_ref(), &defaults.control)),
            ("this config file", normal(file)),
        ];
        let shares: Vec<(PathBuf, &Text)> = raw
            .shares
            .iter()
            .flat_map(|share| &share.path)
            .filter(|text| !text.get_ref().is_empty())
            .map(|text| (resolve(text), text))
            .collect();
        for (n, (path, text)) in shares.iter().enumerate() {
            for (earlier, _) in &shares[..n] {
                if path.starts_with(earlier) || earlier.starts_with(path) {
                    let why = format!(
                        "{} and the share at {} overlap; give each file to one share",
                        path.display(),
                        earlier.display()
                    );
                    self.findings.add(&text.span(), "share.path", why);
                }
            }
            for (what, place) in own.iter().filter(|(_, place)| place.starts_with(path)) {
                let why = format!(
                    "{what}, {}, lies in this share and would go to the peers; move one of them",
                    place.display()
                );
                self.findings.add(&text.span(), "share.path", why);
            }
        }
    }
}

/// Returns a path without `.` and `..`, by name alone, for comparing.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(out.pop()),
            _ => out.push(component),
        }
    }
    out
}
