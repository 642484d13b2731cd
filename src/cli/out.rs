//! What the commands show: the only place that writes to stdout.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};

/// Writes text to stdout, with a newline after it.
///
/// # Errors
/// If stdout is closed or full; [`super::main`] knows the former.
pub(super) fn text(text: impl AsRef<str>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref().trim_end_matches('\n'))?;
    Ok(out.flush()?)
}

/// Writes one JSON document to stdout.
///
/// # Errors
/// As [`text`].
pub(super) fn json(document: &serde_json::Value) -> anyhow::Result<()> {
    text(format!("{document:#}"))
}

/// Returns rows under a header, in columns two spaces apart.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in std::iter::once(&header.map(str::to_owned)).chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        out.push_str(cells.collect::<String>().trim_end());
        out.push('\n');
    }
    out
}

/// Returns a text as a POSIX shell takes it for one word.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["fs2".to_owned(), "h:1".to_owned()], ["a-node".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "ADDRESS"], &rows), "NAME    ADDRESS\nfs2     h:1\na-node\n");
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(shell_word("/etc/recsync.toml"), "/etc/recsync.toml");
        assert_eq!(shell_word("it's here"), r"'it'\''s here'");
        assert_eq!(shell_word(""), "''");
    }
}
