//! What a compiler does not hold: headers of modules, commands and names in the docs, keys of the
//! example config, the number of dependencies.
#![expect(clippy::disallowed_methods, reason = "reads the repository")]
#![expect(clippy::unwrap_used, reason = "clippy.toml frees test functions only")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use recsync::telemetry::{Format, Metrics};
use recsync_proto::{NodeName, ShareName};

/// Packages in `Cargo.lock`, ours and those of other systems included. To be raised with a reason
/// in the commit message: what the new one replaces, and who maintains it.
const PACKAGES_MAX: usize = 228;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|why| panic!("{file}: {why}"))
}

/// Everything that is, or would be, committed: what git does not ignore.
fn files() -> Vec<String> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let files = match Command::new("git").args(args).current_dir(root()).output() {
        Ok(listed) if listed.status.success() => {
            String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
        }
        // A source archive: all that is there.
        _ => below(root()),
    };
    files.into_iter().filter(|file: &String| root().join(file).is_file()).collect()
}

fn below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = vec![dir.into()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            match path.is_dir() {
                true if file == "target" || file == ".git" => {}
                true => pending.push(path),
                false => found.push(file),
            }
        }
    }
    found
}

fn ending<'a>(files: &'a [String], end: &str) -> Vec<&'a str> {
    files.iter().map(String::as_str).filter(|file| file.ends_with(end)).collect()
}

/// What stands in backticks, outside of fenced blocks.
fn in_backticks(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            words.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    words
}

/// The commands of a document: the lines of its `sh` blocks, without comments.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut shell = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) => shell = language == "sh",
            None if shell => {
                let command = line.split(" # ").next().unwrap_or(line).trim();
                commands.push(command.to_owned());
            }
            None => {}
        }
    }
    commands
}

#[test]
fn every_source_file_opens_with_what_it_is() {
    let files = files();
    let mut wrong = Vec::new();
    for file in ending(&files, ".rs") {
        let text = read(file);
        let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        // `//! .` is what an empty file begins with.
        if header.len() < 12 {
            wrong.push(format!("{file} has no `//!` header"));
        }
        let is_module = file.starts_with("src/") && file.ends_with("/mod.rs");
        let is_module = is_module && !file.contains("/tests/");
        if is_module && !header.contains("**Invariant:**") {
            wrong.push(format!("{file} states no **Invariant:**"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_is_in_the_code_map() {
    let map = read("ARCHITECTURE.md");
    let files = files();
    let modules = files.iter().filter_map(|file| {
        let module = file.strip_prefix("src/")?.strip_suffix("/mod.rs")?;
        (!module.contains('/')).then_some(module)
    });
    for module in modules {
        assert!(map.contains(&format!("\n| `{module}/` |")), "`{module}/` is not in the code map");
    }
}

#[test]
fn every_dependency_has_its_line() {
    let architecture = read("ARCHITECTURE.md");
    for manifest in ["Cargo.toml", "proto/Cargo.toml", "tests/sim/Cargo.toml"] {
        let manifest: toml::Table = read(manifest).parse().unwrap();
        for section in ["dependencies", "dev-dependencies"] {
            let Some(toml::Value::Table(section)) = manifest.get(section) else { continue };
            for name in section.keys().filter(|name| !name.starts_with("recsync")) {
                let mentioned = architecture.lines().any(|line| {
                    line.starts_with('|')
                        && line.split('|').nth(1).unwrap().contains(&format!("`{name}`"))
                });
                assert!(mentioned, "ARCHITECTURE.md has no line for the dependency `{name}`");
            }
        }
    }
}

#[test]
fn no_test_is_ignored() {
    let files = files();
    // Put together, so that this line is not found.
    let mark = ["#[", "ignore"].concat();
    for file in ending(&files, ".rs") {
        assert!(!read(file).contains(&mark), "{file} ignores a test; say SKIPPED and why instead");
    }
}

#[test]
fn dependencies_stay_few() {
    let packages = read("Cargo.lock").matches("[[package]]").count();
    assert!(packages <= PACKAGES_MAX, "{packages} packages in Cargo.lock, at most {PACKAGES_MAX}");
}

#[test]
fn the_readme_s_commands_are_those_of_the_ci() {
    let readme = commands(&read("README.md"));
    let ci = read(".ci/run");
    for command in ["cargo test --workspace", "cargo run --release -- demo"] {
        assert!(readme.iter().any(|line| line == command), "README.md does not say `{command}`");
        let in_ci = ci.lines().any(|line| {
            line.strip_prefix("stage ")
                .and_then(|line| line.split_once(' '))
                .is_some_and(|(_, run)| run == command || run.starts_with(&format!("{command} --")))
        });
        assert!(in_ci, ".ci/run does not run `{command}`");
    }
}

#[test]
fn the_readme_s_figures_are_lines_of_the_comparison() {
    let peak = |file| {
        let text = read(file);
        let (_, rest) = text.split_once("<!-- peak: begin -->").expect("a table of the peak");
        rest.split_once("<!-- peak: end -->").expect("its end").0.to_owned()
    };
    let (claims, table) = (peak("README.md"), peak("docs/performance.md"));
    let claims: Vec<_> = claims.lines().filter(|line| !line.is_empty()).collect();
    assert!(claims.iter().any(|line| line.starts_with("| recsync |")), "recsync is in it");
    for line in claims {
        assert!(table.lines().any(|known| known == line), "{line}");
    }
}

#[test]
fn the_docs_use_commands_and_flags_that_exist() {
    let help = |command: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_recsync")).args([command, "--help"]).output();
        let ran = ran.unwrap();
        ran.status.success().then(|| String::from_utf8(ran.stdout).unwrap())
    };
    let files = files();
    for file in ending(&files, ".md").into_iter().filter(|file| !file.starts_with("tests/")) {
        let text = read(file);
        for line in commands(&text).into_iter().chain(in_backticks(&text)) {
            let mut words = line.split_whitespace();
            if words.next() != Some("recsync") {
                continue;
            }
            let mut words = words.skip_while(|word| word.starts_with("--") || word.contains('/'));
            let Some(command) = words.next().filter(|word| word.chars().all(char::is_alphabetic))
            else {
                continue;
            };
            let help = help(command)
                .unwrap_or_else(|| panic!("{file}: `{line}`: there is no `recsync {command}`"));
            // Those of sub-commands are in their own help.
            let flags = words.filter(|word| word.starts_with("--"));
            if help.contains("Commands:") {
                continue;
            }
            for flag in flags {
                assert!(help.contains(flag), "{file}: `{line}`: there is no `{flag}`");
            }
        }
    }
}

#[test]
fn every_metric_is_explained_and_none_is_made_up() {
    let (share, peer) = (ShareName::new("s").unwrap(), NodeName::new("p").unwrap());
    let exported: BTreeSet<String> = Metrics::new(&[share], &[peer])
        .text(Format::Prometheus)
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .collect();
    assert!(exported.len() > 20, "{exported:?}");
    let operations = read("docs/operations.md");
    let rows = operations.lines().filter(|line| line.starts_with("| `recsync_"));
    let explained: BTreeSet<String> = rows
        .flat_map(|row| in_backticks(row.split('|').nth(1).unwrap()))
        .map(|name| name.split('{').next().unwrap().to_owned())
        .collect();
    assert_eq!(explained, exported, "docs/operations.md, \"Metrics\"");
    for file in ["README.md", "docs/operations.md", "config/prometheus.yml"] {
        let text = read(file);
        let words = text.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        for word in words.filter(|word| word.starts_with("recsync_")) {
            let known = exported.iter().any(|name| name.starts_with(word));
            assert!(known, "{file} speaks of {word}, which is not exported");
        }
    }
}

#[test]
fn the_example_config_has_every_key() {
    let scratch = tempfile::tempdir().unwrap();
    let (share, config) = (scratch.path().join("share"), scratch.path().join("recsync.toml"));
    fs::create_dir(&share).unwrap();
    let init = Command::new(env!("CARGO_BIN_EXE_recsync"))
        .args(["init", "--name", "fs1", "--config"])
        .arg(&config)
        .arg("--share")
        .arg(format!("recordings={}", share.display()))
        .output()
        .unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let keys = |text: &str| -> BTreeSet<String> {
        let mut section = String::new();
        let mut keys = BTreeSet::new();
        for line in text.lines() {
            let line = line.trim_start_matches(['#', ' ']);
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
            } else if let Some((key, _)) = line.split_once(" = ")
                && key.chars().all(|c| c == '_' || c.is_ascii_lowercase())
            {
                keys.insert(format!("{section}.{key}"));
            }
        }
        keys
    };
    let made = fs::read_to_string(&config).unwrap();
    assert_eq!(keys(&read("config/recsync.example.toml")), keys(&made));
}

/// Documents name a test as `tests/FILE.rs::NAME` or `src/MODULE/FILE.rs::NAME`, and a file as its
/// path from the root of the repository; NAME stands for any name.
#[test]
fn the_tests_and_files_that_the_docs_name_exist() {
    let files = files();
    for document in ending(&files, ".md") {
        let text = read(document);
        for word in in_backticks(&text) {
            let (file, test) = match word.split_once("::") {
                Some((file, test)) if file.ends_with(".rs") => (file, Some(test)),
                _ => (word.as_str(), None),
            };
            let tops = ["src/", "tests/", "proto/", "docs/", "config/", "benches/", ".ci/"];
            if !tops.iter().any(|top| file.starts_with(top))
                || file.contains(['*', ' '])
                || file.contains("NAME")
            {
                continue;
            }
            assert!(root().join(file).exists(), "{document}: there is no {file}");
            if let Some(test) = test {
                let name = test.rsplit("::").next().unwrap();
                assert!(has_test(&read(file), name), "{document}: no test {name} in {file}");
            }
        }
    }
}

/// True if a source has a test of this name, itself or in a macro that makes one of it.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let made = |line: &&str| {
        let word = line.trim_end_matches([',', ';']);
        word == name && source.contains("macro_rules!")
    };
    lines.iter().any(made)
        || lines.windows(4).any(|lines| {
            // Other attributes may stand between.
            lines[..3].contains(&"#[test]")
                && lines[1..].iter().any(|line| line.starts_with(&format!("fn {name}(")))
        })
}

/// Each failure of another tool is named with its report and with the test that shows it absent.
#[test]
fn what_other_tools_got_wrong_is_shown_to_be_absent_here() {
    let text = read("docs/semantics.md");
    let (_, list) = text.split_once("## What other tools got wrong").unwrap();
    let rows: Vec<&str> = list.lines().filter(|line| line.starts_with("| [")).collect();
    assert!(rows.len() >= 25, "{} failures", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [report, what, test] = cells[..] else { panic!("three cells: {row}") };
        assert!(report.contains("](https://github.com/") && !what.is_empty(), "{row}");
        // That the test exists is checked with all others that the docs name.
        assert!(test.starts_with('`') && test.contains(".rs::"), "names a test: {row}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let files = files();
    for document in ending(&files, ".md") {
        let dir = Path::new(document).parent().unwrap();
        let text = read(document);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.contains(' ')) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(document),
                file => root().join(dir).join(file),
            };
            assert!(target.exists(), "{document}: the link {link} leads nowhere");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let found = text.lines().any(|line| anchor_of(line).as_deref() == Some(anchor));
                assert!(found, "{document}: there is no heading for {link}");
            }
        }
    }
}

/// As GitHub makes the anchor of a heading.
fn anchor_of(line: &str) -> Option<String> {
    let heading = line.trim_start_matches('#');
    let heading = (heading.len() < line.len()).then(|| heading.trim().to_lowercase())?;
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}

#[test]
fn nothing_names_the_machine_it_was_made_on() {
    // Put together, so that this file does not name them.
    let places = ["/wo rk/", "/ro ot/.", "/ho me/", "/Us ers/"].map(|place| place.replace(' ', ""));
    for file in files() {
        let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for place in &places {
                assert!(!line.contains(place), "{file}:{}: a path of one machine", number + 1);
            }
        }
    }
}
