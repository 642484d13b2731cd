//! What the benches that fill docs/performance.md share: how times read, on what they were measured, and
//! where the tables go.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns a time as people read it.
pub(crate) fn seconds(time: f64) -> String {
    match time {
        // Duration::MAX: never.
        time if time > 1e9 => "never".to_owned(),
        time if time < 1e-6 => format!("{:.0} ns", time * 1e9),
        time if time < 1e-3 => format!("{:.2} µs", time * 1e6),
        time if time < 0.01 => format!("{:.2} ms", time * 1e3),
        time if time < 1.0 => format!("{:.1} ms", time * 1e3),
        time => format!("{time:.2} s"),
    }
}

/// Says on what it is measured.
pub(crate) fn machine(dir: &Path) -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mount = std::process::Command::new("df").arg("--output=fstype").arg(dir).output();
    let mount = mount.map(|out| String::from_utf8_lossy(&out.stdout).trim().replace("Type\n", ""));
    format!(
        "{cpus} CPUs ({}), {:.0} GB of memory, {}, Linux {}. Load before the run: {}.",
        model.map_or("unknown", |(_, model)| model),
        memory_kib("MemTotal:").unwrap_or(0) as f64 / 1e6,
        mount.unwrap_or_default(),
        kernel.trim(),
        load.split_whitespace().next().unwrap_or("unknown"),
    )
}

/// Returns what the kernel says of the machine's memory under a name, in KiB.
pub(crate) fn memory_kib(name: &str) -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    info.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Where the tables are.
pub(crate) const TABLES: &str = "docs/performance.md";

/// Returns where a document is, by its name in the project.
pub(crate) fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Puts a text between the two markers of that name in a document.
pub(crate) fn write(name: &str, marker: &str, text: &str) -> std::io::Result<()> {
    let file = document(name);
    let Some(text) = put_between(&fs::read_to_string(&file)?, marker, text) else {
        println!("SKIPPED writing: {name} has no markers `{marker}`");
        return Ok(());
    };
    fs::write(file, text)
}

/// Returns a document with the text between the two markers of that name replaced.
fn put_between(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let (head, rest) = document.split_once(&begin)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{begin}\n{text}\n{end}{tail}"))
}
