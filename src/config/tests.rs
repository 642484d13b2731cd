//! Configs right and wrong: what is read, what is reported, what an edit leaves alone.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use insta::assert_snapshot;
use recsync_proto::{NodeName, ShareName};

use super::edit::{add_peer, add_share, remove_peer};
use super::{
    Config, ConfigError, Fingerprint, HostPort, MaxDelete, MinFree, Source, Template, create, edit,
    load,
};

const FILE: &str = "/etc/recsync/recsync.toml";
const EXAMPLE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/recsync.example.toml"));
const PRINT: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What is reported of a text, one mistake a line, without the file's name.
fn mistakes(text: &str) -> String {
    match Source::new(Path::new(FILE), text).check() {
        Ok(_) => "no mistakes".to_owned(),
        Err(mistakes) => {
            let lines: Vec<_> = mistakes.list.iter().map(ToString::to_string).collect();
            lines.join("\n")
        }
    }
}

fn valid(text: &str) -> Config {
    match Source::new(Path::new(FILE), text).check() {
        Ok(config) => config,
        Err(mistakes) => panic!("{mistakes}\nin\n{text}"),
    }
}

/// A node section, a peer and a share, to which a test adds one line.
fn with_peer(line: &str) -> String {
    format!("[node]\nname = \"fs1\"\n[[peer]]\nname = \"fs2\"\n{line}\n")
}

fn with_share(line: &str) -> String {
    format!("[node]\nname = \"fs1\"\n[[share]]\nname = \"r\"\npath = \"/r\"\n{line}\n")
}

/// Takes the comment sign from every commented key and section.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        line.starts_with('[')
            || line.split_once(" = ").is_some_and(|(key, _)| {
                key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            })
    };
    text.lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn a_name_is_enough_for_a_node() {
    let config = valid("[node]\nname = \"fs1\"\n");
    assert_eq!(config.file, Path::new(FILE));
    assert_eq!(config.node.listen.as_str(), "0.0.0.0:8730");
    assert_eq!(config.node.state_dir, Path::new("/var/lib/recsync"));
    assert_eq!(config.node.control, Path::new("/run/recsync/control.sock"));
    assert_eq!((config.http, config.peers.len(), config.shares.len()), (None, 0, 0));
}

#[test]
fn a_share_has_the_defaults_of_the_contract() {
    let config = valid(&with_share(""));
    let share = &config.shares[0];
    assert_eq!(share.settle, Duration::from_millis(20));
    assert_eq!(share.max_delete, MaxDelete { percent: Some(50), count: None });
    assert_eq!(share.scan_interval, Duration::from_secs(86400));
    assert_eq!(share.trash, Duration::from_secs(7 * 86400));
    assert_eq!(share.min_free, MinFree::Percent(2));
    assert_eq!((share.min_free.floor(1_000), share.min_free.enough(1_000)), (20, 25));
    let size = valid(&with_share("min_free = \"50GB\"")).shares[0].min_free;
    assert_eq!((size, size.to_string()), (MinFree::Bytes(50_000_000_000), "50.0 GB".to_owned()));
    assert_eq!(valid(&with_share("trash = \"0s\"")).shares[0].trash, Duration::ZERO);
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let text =
        "[node]\nname = \"fs1\"\nstate_dir = \"./s\"\n[[share]]\nname = \"r\"\npath = \"../r\"";
    let config = Source::new(Path::new("/srv/a/recsync.toml"), text).check().unwrap();
    assert_eq!(config.node.state_dir, Path::new("/srv/a/s"));
    assert_eq!(config.node.control, Path::new("/srv/a/control.sock"));
    assert_eq!(config.shares[0].path, Path::new("/srv/a/../r"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test writes a file for itself")]
fn the_control_socket_is_found_in_spite_of_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recsync.toml");
    let check = |text: &str, expected: &str| {
        std::fs::write(&file, text).unwrap();
        assert_eq!(super::control(&file).unwrap(), dir.path().join(expected), "{text}");
    };
    check("[node]\nname = \"fs1\"", "control.sock");
    check("[node]\ncontrol = \"run/c\"", "run/c");
    check("[node]\ncontrol = \"./c\"\nlisten = 7\nnonsense = true", "c");
    check("[node]\ncontrol = \"\"", "control.sock");
    check("[node", "control.sock");
    assert!(matches!(super::control(&dir.path().join("none")), Err(ConfigError::Missing { .. })));
}

#[test]
fn a_fingerprint_may_be_a_list() {
    let other = PRINT.replace('f', "e");
    let address = "address = \"h:1\"\nallow_from = [\"10.0.0.0/8\", \"::1\"]\n";
    let one = valid(&with_peer(&format!("{address}fingerprint = \"{PRINT}\"")));
    let two = valid(&with_peer(&format!("{address}fingerprint = [\"{PRINT}\", \"{other}\"]")));
    assert_eq!(one.peers[0].fingerprints, [PRINT.parse().unwrap()]);
    assert_eq!(two.peers[0].fingerprints, [PRINT.parse().unwrap(), other.parse().unwrap()]);
    assert_eq!(two.peers[0].allow_from.len(), 2);
}

#[test]
fn max_delete_takes_the_smaller_bound() {
    let parsed =
        |value: &str| valid(&with_share(&format!("max_delete = {value}"))).shares[0].max_delete;
    for value in ["\"50%\"", "100000", "[\"5%\", 100]"] {
        assert_eq!(parsed(value).to_string(), value);
    }
    assert_eq!(parsed("[\"5%\", 100]").limit(1000), 50);
    assert_eq!(parsed("[\"5%\", 100]").limit(10_000), 100);
    assert_eq!(parsed("0x10").limit(u64::MAX), 16);
    assert_eq!(parsed("\"100%\"").limit(u64::MAX), u64::MAX);
    assert_eq!(parsed("\"0%\"").limit(7), 0);
}

#[test]
fn every_mistake_is_reported_in_one_go() {
    assert_snapshot!(mistakes(
        "\
[node]
name = \"fs 1\"
lisen = \"0.0.0.0:8730\"

[[peer]]
name = \"fs2\"
address = \"192.168.1.109\"
fingerprint = \"md5:00\"

[[share]]
name = \"recordings\"
path = \"/storage/recordings\"
settle = \"fast\"
owner = \"uid\"
deletes = \"never\"
ignore = [\"*.tmp\", \"{a\", \"# x\"]
colour = \"red\"
"
    ), @r#"
    2:8: node.name: `fs 1` is not a name: 1 to 32 of the characters a-z, A-Z, 0-9, `_`, `-` and `.`, not beginning with `.` or `-`
    3:1: node.lisen: not known to this version; did you mean `listen`?
    7:11: peer.address: `192.168.1.109` has no port; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    8:15: peer.fingerprint: a fingerprint is `sha256:` and 64 lower-case hex digits, as `recsync identity` prints it on that node
    13:10: share.settle: `fast` is no duration; write a number and a unit, for example "200ms", "10s" or "1d"
    14:9: share.owner: `uid` means nothing here; write "name" or "ignore"
    15:11: share.deletes: `never` means nothing here; write "propagate" or "keep"
    16:20: share.ignore: `{a` is no pattern: error parsing glob '{a': unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
    16:26: share.ignore: `# x` is a comment and matches nothing; write `\\#` for a name that begins so
    17:1: share.colour: not known to this version; remove it
    "#);
}

#[test]
fn text_that_is_no_toml() {
    assert_snapshot!(mistakes("[node]\nname = fs1\n[node]\nlisten = \"a\n"), @r#"
    2:8: this is no TOML: invalid boolean, expected `false`; quote a text
    3:2: this is no TOML: duplicate key
    4:12: this is no TOML: invalid basic string, expected `"`
    "#);
}

#[test]
fn unknown_keys_name_the_nearest_or_their_place() {
    assert_snapshot!(mistakes(
        "\
settle = \"1s\"
[nodes]
[node]
name = \"fs1\"
state-dir = \"/s\"
path = \"/p\"
api = true
zebra = 1
[tls]
ca = \"x\"
[limits]
bandwidth = \"50MB/s\"
[[hook]]
[[share]]
name = \"r\"
path = \"/r\"
ignore = []
deletes = \"keep\"
owner = \"name\"
min_free = \"2%\"
scan_intervall = \"1d\"
"
    ), @"
    1:1: settle: no key of the top of the file; it belongs in [[share]]
    2:2: nodes: not known to this version; did you mean [node]?
    5:1: node.state-dir: not known to this version; did you mean `state_dir`?
    6:1: node.path: no key of [node]; it belongs in [[share]]
    7:1: node.api: no key of [node]; it belongs in [http]
    8:1: node.zebra: not known to this version; remove it
    9:2: tls: not known to this version; remove it
    13:3: hook: not known to this version; remove it
    21:1: share.scan_intervall: not known to this version; did you mean `scan_interval`?
    ");
}

#[test]
fn what_is_missing() {
    assert_snapshot!(mistakes(""), @"1:1: node: there is no [node] section; write one with at least `name`");
    assert_snapshot!(mistakes("[node]\n[[peer]]\n[[share]]\n"), @"
    1:1: node.name: `name` is missing; it has no default
    2:1: peer.address: `address` is missing; it has no default
    2:1: peer.fingerprint: `fingerprint` is missing; it has no default
    2:1: peer.name: `name` is missing; it has no default
    3:1: share.name: `name` is missing; it has no default
    3:1: share.path: `path` is missing; it has no default
    ");
}

#[test]
fn values_of_another_type() {
    assert_snapshot!(mistakes(
        "\
[node]
name = 1
[http]
api = \"yes\"
[[peer]]
name = true
address = [\"a:1\"]
fingerprint = [1]
allow_from = 1.5
[[share]]
name = \"r\"
path = 2026-11-22
settle = 20
max_delete = [0.5, -1, []]
"
    ), @r#"
    2:8: node.name: this is an integer; write a text in quotes
    4:7: http.api: this is a string; write true or false, without quotes
    6:8: peer.name: this is a boolean; write a text in quotes
    7:11: peer.address: this is an array; write a text in quotes
    8:16: peer.fingerprint: this is an integer; write a text in quotes, or a list of them
    9:14: peer.allow_from: this is a float; write a text in quotes, or a list of them
    12:8: share.path: this is a datetime; write a text in quotes
    13:10: share.settle: this is an integer; write a text in quotes
    14:15: share.max_delete: this is a float; write "50%", a count of files, or both as ["50%", 100000]
    14:20: share.max_delete: this is an integer; write "50%", a count of files, or both as ["50%", 100000]
    14:24: share.max_delete: this is an array; write "50%", a count of files, or both as ["50%", 100000]
    "#);
}

#[test]
fn sections_with_the_wrong_brackets() {
    assert_snapshot!(mistakes("[[node]]\nname = \"fs1\"\n"), @"1:1: node: there is one such section; write it once, as [node]");
    assert_snapshot!(mistakes("[node]\nname = \"fs1\"\n[peer]\n[share]\n[[http]]\n"), @"
    3:1: peer: there may be many of these; write each as [[peer]], in two brackets
    4:1: share: there may be many of these; write each as [[share]], in two brackets
    5:1: http: there is one such section; write it once, as [http]
    ");
}

#[test]
fn addresses() {
    let listen = |value: &str| mistakes(&format!("[node]\nname = \"fs1\"\nlisten = \"{value}\"\n"));
    for good in ["h:1", "fs-2.example.org:8730", "10.0.0.1:65535", "[::]:8730", "my_host:1"] {
        assert_eq!(listen(good), "no mistakes", "{good}");
    }
    let bad = [
        "8730",
        ":8730",
        "h:",
        "h:0",
        "h:65536",
        "h:+1",
        "::1:80",
        "[::1:80",
        "192.168.1.300:80",
        "a b:1",
        "-a:1",
        "[h]:1",
        "tcp://h:1",
    ];
    assert_snapshot!(bad.map(listen).join("\n"), @r#"
    3:10: node.listen: `8730` has no port; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    3:10: node.listen: `` is neither a name nor an address; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    3:10: node.listen: `` is no port; choose one from 1 to 65535
    3:10: node.listen: `0` is no port; choose one from 1 to 65535
    3:10: node.listen: `65536` is no port; choose one from 1 to 65535
    3:10: node.listen: `+1` is no port; choose one from 1 to 65535
    3:10: node.listen: `::1:80` is ambiguous; put an IPv6 address in brackets, for example "[fd00::8]:8730"
    3:10: node.listen: `[::1` is neither a name nor an address; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    3:10: node.listen: `192.168.1.300` is neither a name nor an address; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    3:10: node.listen: `a b` is neither a name nor an address; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    3:10: node.listen: `-a` is neither a name nor an address; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    3:10: node.listen: `[h]` is neither a name nor an address; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    3:10: node.listen: `tcp://h` is neither a name nor an address; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    "#);
    assert_snapshot!(
        mistakes(&with_peer(&format!("address = \"0.0.0.0:1\"\nfingerprint = \"{PRINT}\""))),
        @"5:11: peer.address: `0.0.0.0:1` means this node; write the address of the peer"
    );
}

#[test]
fn the_parts_of_an_address() {
    let parts = |text: &str| {
        let parsed: HostPort = text.parse().unwrap();
        let host = parsed.host().to_owned();
        (host, parsed.port(), parsed.is_loopback(), parsed.is_unspecified())
    };
    assert_eq!(parts("fs2:8730"), ("fs2".to_owned(), 8730, false, false));
    assert_eq!(parts("localhost:1"), ("localhost".to_owned(), 1, true, false));
    assert_eq!(parts("[::ffff:127.0.0.1]:1"), ("::ffff:127.0.0.1".to_owned(), 1, true, false));
    assert_eq!(parts("[::]:9"), ("::".to_owned(), 9, false, true));
}

#[test]
fn fingerprints() {
    let print: Fingerprint = PRINT.parse().unwrap();
    assert_eq!(print.0[..3], [0x00, 0x11, 0x22]);
    assert_eq!(print.to_string(), PRINT);
    let line =
        |value: &str| mistakes(&with_peer(&format!("address = \"h:1\"\nfingerprint = {value}")));
    let bad = [
        "\"0011\"".to_owned(),
        "\"sha256:0011\"".to_owned(),
        format!("\"{}\"", PRINT.replace("ff", "FF")),
        format!("\"{}\"", PRINT.replace("ff", "é")),
        "[]".to_owned(),
        format!("[\"{PRINT}\", \"{PRINT}\"]"),
    ];
    assert_snapshot!(bad.map(|value| line(&value)).join("\n"), @"
    6:15: peer.fingerprint: a fingerprint is `sha256:` and 64 lower-case hex digits, as `recsync identity` prints it on that node
    6:15: peer.fingerprint: a fingerprint is `sha256:` and 64 lower-case hex digits, as `recsync identity` prints it on that node
    6:15: peer.fingerprint: a fingerprint is `sha256:` and 64 lower-case hex digits, as `recsync identity` prints it on that node
    6:15: peer.fingerprint: a fingerprint is `sha256:` and 64 lower-case hex digits, as `recsync identity` prints it on that node
    6:15: peer.fingerprint: the list is empty, so the peer could never connect; give one at least
    6:91: peer.fingerprint: this key is given twice; every node has its own, take it from `recsync identity` there
    ");
}

#[test]
fn networks() {
    let line = |value: &str| {
        let rest =
            format!("address = \"h:1\"\nfingerprint = \"{PRINT}\"\nallow_from = \"{value}\"");
        mistakes(&with_peer(&rest))
    };
    let bad = ["fs2", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/x"];
    assert_snapshot!(bad.map(line).join("\n"), @r#"
    7:14: peer.allow_from: `fs2` is no network: write it as "192.168.1.0/24", or one address
    7:14: peer.allow_from: `10.0.0.1/8` is an address in a network: write 10.0.0.0/8
    7:14: peer.allow_from: `10.0.0.0/33` is no network: write it as "192.168.1.0/24", or one address
    7:14: peer.allow_from: `10.0.0.0/x` is no network: write it as "192.168.1.0/24", or one address
    "#);
}

#[test]
fn a_bandwidth_is_a_size_a_second() {
    let of = |rate: &str| format!("[limits]\nbandwidth = \"{rate}\"\n{}", with_share(""));
    for (rate, bytes) in [("50MB/s", 50_000_000), ("2MiB/s", 2 << 20), ("100000B/s", 100_000)] {
        let limit = valid(&of(rate)).limits.bandwidth;
        assert_eq!(limit.map(std::num::NonZeroU64::get), Some(bytes), "{rate}");
    }
    assert_eq!(valid(&with_share("")).limits.bandwidth, None);
    let bad = ["50MB", "50/s", "fast", "0B/s", "10kB/s"];
    assert_snapshot!(bad.map(|rate| mistakes(&of(rate))).join("\n"), @r#"
    2:13: limits.bandwidth: `50MB` is no rate; write a size and `/s`, for example "50MB/s" or "2MiB/s"
    2:13: limits.bandwidth: `50/s` is too little: keep-alives would come too late; give at least 100.0 kB/s, or leave the key out for no limit
    2:13: limits.bandwidth: `fast` is no rate; write a size and `/s`, for example "50MB/s" or "2MiB/s"
    2:13: limits.bandwidth: `0B/s` is too little: keep-alives would come too late; give at least 100.0 kB/s, or leave the key out for no limit
    2:13: limits.bandwidth: `10kB/s` is too little: keep-alives would come too late; give at least 100.0 kB/s, or leave the key out for no limit
    "#);
}

#[test]
fn durations_and_bounds() {
    let bad = [
        "settle = \"2h\"",
        "settle = \"20\"",
        "trash = \"101years\"",
        "min_free = \"101%\"",
        "min_free = \"much\"",
        "scan_interval = \"0s\"",
        "scan_interval = \"-1d\"",
        "max_delete = \"101%\"",
        "max_delete = \"half\"",
        "max_delete = \"+5%\"",
        "max_delete = [\"5%\", \"6%\"]",
        "max_delete = [1, 2]",
        "max_delete = []",
    ];
    assert_snapshot!(bad.map(|line| mistakes(&with_share(line))).join("\n"), @r#"
    6:10: share.settle: `2h` is out of range; choose from 0s to 1h
    6:10: share.settle: `20` is no duration; write a number and a unit, for example "200ms", "10s" or "1d"
    6:9: share.trash: `101years` is out of range; choose from 0s to 100years
    6:12: share.min_free: `101%` is no percentage from 0% to 100%; write "2%" of the disk, or a size such as "50GB"; "0%" for none
    6:12: share.min_free: `much` is no size; write "2%" of the disk, or a size such as "50GB"; "0%" for none
    6:17: share.scan_interval: `0s` is out of range; choose from 1s to 1year
    6:17: share.scan_interval: `-1d` is no duration; write a number and a unit, for example "200ms", "10s" or "1d"
    6:14: share.max_delete: `101%` is no percentage from 0% to 100%; write "50%", a count of files, or both as ["50%", 100000]
    6:14: share.max_delete: `half` is no percentage from 0% to 100%; write "50%", a count of files, or both as ["50%", 100000]
    6:14: share.max_delete: `+5%` is no percentage from 0% to 100%; write "50%", a count of files, or both as ["50%", 100000]
    6:21: share.max_delete: two bounds of one kind; write "50%", a count of files, or both as ["50%", 100000]
    6:18: share.max_delete: two bounds of one kind; write "50%", a count of files, or both as ["50%", 100000]
    6:14: share.max_delete: no bound is given; write "50%", a count of files, or both as ["50%", 100000]
    "#);
}

#[test]
fn names_are_unique_and_no_node_is_its_own_peer() {
    assert_snapshot!(mistakes(&format!(
        "\
[node]
name = \"fs1\"
[[peer]]
name = \"fs1\"
address = \"a:1\"
fingerprint = \"{PRINT}\"
[[peer]]
name = \"fs2\"
address = \"b:1\"
fingerprint = \"{PRINT}\"
[[peer]]
name = \"fs2\"
address = \"c:1\"
fingerprint = \"{}\"
[[share]]
name = \"r\"
path = \"/a\"
[[share]]
name = \"r\"
path = \"/b\"
",
        PRINT.replace("00", "01")
    )), @"
    4:8: peer.name: `fs1` is this node; a node is not its own peer
    10:15: peer.fingerprint: this key is given twice; every node has its own, take it from `recsync identity` there
    12:8: peer.name: `fs2` is there already; names are unique
    19:8: share.name: `r` is there already; names are unique
    ");
}

#[test]
fn shares_hold_neither_each_other_nor_what_recsync_writes() {
    assert_snapshot!(mistakes(
        "\
[node]
name = \"fs1\"
state_dir = \"/storage/state\"
[[share]]
name = \"a\"
path = \"/storage\"
[[share]]
name = \"b\"
path = \"/storage/x/../b/\"
[[share]]
name = \"c\"
path = \"/storage-not-the-same\"
[[share]]
name = \"d\"
path = \".\"
[[share]]
name = \"e\"
path = \"\"
"
    ), @"
    6:8: share.path: the state directory, /storage/state, lies in this share and would go to the peers; move one of them
    9:8: share.path: /storage/b and the share at /storage overlap; give each file to one share
    15:8: share.path: this config file, /etc/recsync/recsync.toml, lies in this share and would go to the peers; move one of them
    18:8: share.path: this is no path; write an absolute one, or one relative to this file
    ");
}

#[test]
fn http_and_peers_need_different_ports() {
    let text = "[node]\nname = \"fs1\"\n[http]\nlisten = \"127.0.0.1:8730\"\n";
    assert_snapshot!(mistakes(text), @"4:10: http.listen: peers connect to 0.0.0.0:8730; choose another port for HTTP");
    assert_eq!(mistakes(&text.replace("8730", "8731")), "no mistakes");
}

#[test]
fn columns_count_characters() {
    let text = "[node]\nname = \"fs1\"\n\"é\" = 1\n[http] # ä\nlisten = \"é\"";
    assert_snapshot!(mistakes(text), @r#"
    3:1: node.é: not known to this version; remove it
    5:10: http.listen: `é` has no port; write HOST:PORT, for example "192.168.1.108:8730" or "[fd00::8]:8730"
    "#);
}

#[test]
fn the_example_is_valid_with_and_without_its_comments() {
    let (as_is, all) = (valid(EXAMPLE), valid(&uncommented(EXAMPLE)));
    assert_eq!(as_is.shares, all.shares, "what is commented out is the default");
    for (section, keys) in super::raw::SECTIONS {
        for key in keys {
            assert!(
                super::raw::span_of(&uncommented(EXAMPLE), section, 0, key).is_some(),
                "{section}.{key} is not in the example"
            );
        }
    }
}

fn template() -> Template {
    Template {
        name: NodeName::new("fs1").unwrap(),
        listen: None,
        state_dir: None,
        control: None,
        http: None,
        shares: vec![(ShareName::new("recordings").unwrap(), "/storage/rec \"1\"".into())],
    }
}

#[test]
fn a_new_file_explains_every_key() {
    assert_snapshot!(template().text(Path::new(FILE)), @r#"
    # recsync on fs1. What is commented out is the default. `recsync check` finds every mistake here;
    # a running daemon takes changes up on SIGHUP (`systemctl reload recsync`).

    [node]
    # What this node is called; it appears in the names of conflict copies.
    name = "fs1"
    # Where peers connect (TLS 1.3 only).
    # listen = "0.0.0.0:8730"
    # Key, certificate and index.
    # state_dir = "/var/lib/recsync"
    # The socket that `recsync status` and the other commands talk to.
    # control = "/run/recsync/control.sock"

    # Metrics, health and a status page; without this section there is no HTTP.
    # [http]
    # listen = "127.0.0.1:9873"
    # Serve the page and the API beyond loopback too: they show paths, and names hold telephone numbers.
    # api = false

    # [limits]
    # What is sent to each peer, and what is received from it, at most. New calls go before the backlog.
    # bandwidth = "50MB/s"

    # One such block for each other node; `recsync peer add` writes it.
    # [[peer]]
    # name = "NAME"
    # address = "HOST:PORT"
    # Networks it may connect from; empty for any.
    # allow_from = []
    # What `recsync identity` prints there. A list while it changes its key.
    # fingerprint = "sha256:..."

    [[share]]
    # Shares of different nodes pair by their names.
    name = "recordings"
    path = '/storage/rec "1"'
    # How long a path must be quiet before it is shipped.
    # settle = "20ms"
    # What is left alone here, in gitignore syntax, for example ["/scratch/**", "*.tmp"]; set it alike on all nodes.
    # ignore = []
    # What a delete here means on the peers: "propagate", or "keep": nothing.
    # deletes = "propagate"
    # Owner and group, by name: "name" where this process may set them, "ignore" to leave them alone.
    # owner = "name"
    # How long what peers delete and replace here is kept in .recsync/trash; "0s" for not at all.
    # trash = "7d"
    # More than this vanishing within 10 minutes waits for `recsync confirm`: a part, a count of files,
    # or both as ["50%", 100000] for whichever is smaller.
    # max_delete = "50%"
    # A full scan, beside the watcher.
    # scan_interval = "1d"
    # With less of the disk free than this nothing new is received, once the trash is empty: a part or a
    # size such as "50GB".
    # min_free = "2%"
    "#);
}

#[test]
fn what_a_new_file_comments_out_is_the_default() {
    let text = template().text(Path::new(FILE));
    let all = uncommented(&text)
        .replace("\"NAME\"", "\"fs2\"")
        .replace("HOST:PORT", "h:1")
        .replace("sha256:...", PRINT);
    let (as_is, all) = (valid(&text), valid(&all));
    assert_eq!(as_is.node, all.node);
    assert_eq!(as_is.shares, all.shares);
    assert_eq!(as_is.shares[0].path, Path::new("/storage/rec \"1\""));
    assert_eq!(all.http.unwrap().listen.as_str(), "127.0.0.1:9873");
    assert_eq!(all.peers[0].allow_from, []);
}

#[test]
fn a_new_file_says_what_it_was_told() {
    let told = Template {
        listen: Some("10.0.0.1:1".parse().unwrap()),
        state_dir: Some("/s".into()),
        control: Some("/c".into()),
        http: Some("[::1]:2".parse().unwrap()),
        ..template()
    };
    let config = valid(&told.text(Path::new(FILE)));
    assert_eq!(config.node.listen.as_str(), "10.0.0.1:1");
    assert_eq!(config.node.state_dir, Path::new("/s"));
    assert_eq!(config.node.control, Path::new("/c"));
    assert_eq!(config.http.unwrap().listen.as_str(), "[::1]:2");
}

fn peer(text: &str, name: &str) -> String {
    let (name, address) = (NodeName::new(name).unwrap(), "h:1".parse().unwrap());
    let print = Fingerprint([name.as_str().len() as u8; 32]);
    add_peer(text, &valid(text), &name, &address, &[print]).unwrap()
}

fn without(text: &str, name: &str) -> String {
    remove_peer(text, &valid(text), &NodeName::new(name).unwrap()).unwrap()
}

#[test]
fn adding_and_removing_a_peer_leaves_no_trace() {
    let text = template().text(Path::new(FILE));
    let one = peer(&text, "b");
    let two = peer(&one, "cc");
    assert_eq!(valid(&two).peers.len(), 2);
    assert!(two.starts_with(&text));
    assert_eq!(without(&two, "cc"), one);
    assert_eq!(without(&two, "b"), peer(&text, "cc"));
    assert_eq!(without(&one, "b"), text);
}

#[test]
fn removing_a_peer_keeps_the_comments_around_it() {
    let text = format!(
        "\
[node]
name = \"fs1\"

# Racks 1 to 3.
[[peer]] # old
name = \"fs2\"
# gone with it
fingerprint = [
  \"{PRINT}\", # its key
]
address = \"h:1\" # its place
# settle = \"1s\"

# Ours.
[[share]]
name = \"r\"
path = \"/r\"
# settle = \"2s\""
    );
    assert_snapshot!(without(&text, "fs2"), @r#"
    [node]
    name = "fs1"

    # Racks 1 to 3.
    # settle = "1s"

    # Ours.
    [[share]]
    name = "r"
    path = "/r"
    # settle = "2s"
    "#);
}

#[test]
fn an_added_share_comes_after_what_is_commented_out() {
    let text = template().text(Path::new(FILE));
    let text = text.trim_end().replace('\n', "\r\n");
    let name = ShareName::new("faxes").unwrap();
    let added = add_share(&text, &valid(&text), &name, Path::new("/fax")).unwrap();
    assert_eq!(valid(&added).shares[1].path, Path::new("/fax"));
    assert!(added.starts_with(&format!("{text}\r\n\r\n[[share]]\r\n")));
    assert!(!added.replace("\r\n", "").contains('\n'));
}

#[test]
fn edits_that_cannot_be() {
    let inline = format!(
        "peer = [{{ name = \"fs2\", address = \"h:1\", fingerprint = \"{PRINT}\" }}]\n[node]\nname = \"fs1\"\n"
    );
    let config = valid(&inline);
    let name = |name: &str| NodeName::new(name).unwrap();
    let address = "h:1".parse().unwrap();
    let share = with_share("");
    let errors = [
        remove_peer(&inline, &config, &name("fs2")).unwrap_err(),
        remove_peer(&inline, &config, &name("fs3")).unwrap_err(),
        add_peer(&inline, &config, &name("fs2"), &address, &[]).unwrap_err(),
        add_share(&share, &valid(&share), &ShareName::new("r").unwrap(), Path::new("/x"))
            .unwrap_err(),
    ];
    assert_snapshot!(errors.map(|error| error.to_string()).join("\n"), @"
    `fs2` is not written as a [[peer]] block; change it by hand
    there is no peer `fs3` in it; there is fs2
    there is a peer `fs2` in it already; remove or edit that one
    there is a share `r` in it already; remove or edit that one
    ");
}

/// A config file in a directory of its own.
fn on_disk() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("etc/recsync.toml");
    create(&file, "[node]\nname = \"fs1\"\n").unwrap();
    (dir, file)
}

fn add_fs2(file: &Path) -> Result<Config, ConfigError> {
    edit(file, |text, config| {
        let print = PRINT.parse().unwrap();
        let name = NodeName::new("fs2").unwrap();
        add_peer(text, config, &name, &"h:1".parse().unwrap(), &[print])
    })
}

#[test]
fn an_edit_keeps_mode_and_link_and_leaves_nothing_beside() {
    let (dir, file) = on_disk();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let link = dir.path().join("link.toml");
    symlink(&file, &link).unwrap();
    // Left by an edit that was killed.
    std::os::unix::fs::symlink("/nowhere", file.with_file_name("recsync.toml.new")).unwrap();
    add_fs2(&link).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(load(&file).unwrap().peers.len(), 1);
    assert!(file.with_file_name("recsync.toml.new").symlink_metadata().is_err());
}

#[test]
fn a_refused_edit_changes_nothing() {
    let (_dir, file) = on_disk();
    add_fs2(&file).unwrap();
    let before = Source::read(&file).unwrap();
    let error = add_fs2(&file).unwrap_err();
    assert!(matches!(error, ConfigError::Edit { .. }), "{error}");
    let error = edit(&file, |text, _| Ok(format!("{text}zebra = 1\n"))).unwrap_err().to_string();
    assert!(error.contains("the change would make it invalid"), "{error}");
    assert!(error.contains("peer.zebra: not known to this version"), "{error}");
    assert_eq!(Source::read(&file).unwrap().text(), before.text());
}

#[test]
fn what_is_there_is_not_made_again() {
    let (_dir, file) = on_disk();
    assert!(matches!(create(&file, "x"), Err(ConfigError::Exists { .. })));
    assert_eq!(load(&file).unwrap().node.name.as_str(), "fs1");
}

#[test]
fn what_is_not_there_is_said_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recsync.toml");
    assert!(matches!(load(&file), Err(ConfigError::Missing { .. })));
    assert!(matches!(add_fs2(&file), Err(ConfigError::Missing { .. })));
    assert!(matches!(load(dir.path()), Err(ConfigError::Read { .. })));
}
