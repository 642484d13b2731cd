//! Numbers and tables for people: how the commands that ask the daemon show what it says.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use bytesize::ByteSize;

/// How a text is to look; only on a terminal, and where nobody asked for none (no-color.org).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Bold,
    Good,
    Doubtful,
    Bad,
}

/// Whether to paint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) colours: bool,
}

impl Style {
    /// Returns what stdout and the environment ask for.
    pub(super) fn of_stdout() -> Self {
        let unset = |name| std::env::var_os(name).is_none_or(|set| set.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style { colours: io::stdout().is_terminal() && unset("NO_COLOR") && !dumb }
    }

    /// Returns a text as it is to look.
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Bold => "1",
            Paint::Good => "32",
            Paint::Doubtful => "33",
            Paint::Bad => "31",
            Paint::Plain => return text.to_owned(),
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Returns rows under a header, in columns two spaces apart.
    pub(super) fn table<const N: usize>(self, header: [&str; N], rows: &[[Cell; N]]) -> String {
        let width = |text: &str| text.chars().count();
        let mut widths = header.map(width);
        for row in rows {
            for (widest, (_, text)) in widths.iter_mut().zip(row) {
                *widest = width(text).max(*widest);
            }
        }
        let header = header.map(|name| (Paint::Bold, name.to_owned()));
        let mut table = String::new();
        for row in std::iter::once(&header).chain(rows) {
            let filled = row.iter().rposition(|(_, text)| !text.is_empty()).map_or(0, |at| at + 1);
            for (column, (paint, text)) in row[..filled].iter().enumerate() {
                table.push_str(&self.paint(*paint, text));
                if column + 1 < filled {
                    let gap = widths[column] - width(text) + 2;
                    table.extend(std::iter::repeat_n(' ', gap));
                }
            }
            table.push('\n');
        }
        table
    }
}

/// A text in a table.
pub(super) type Cell = (Paint, String);

/// Returns a plain cell.
pub(super) fn plain(text: impl ToString) -> Cell {
    (Paint::Plain, text.to_string())
}

/// Returns a number of things, which is worth a look unless it is 0.
pub(super) fn doubtful(number: u64) -> Cell {
    (if number == 0 { Paint::Plain } else { Paint::Doubtful }, count(number))
}

/// Returns a time span in its two greatest units: `120 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn seconds(seconds: f64) -> String {
    let span = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let whole = span.as_secs();
    match whole {
        0 if span.is_zero() => "0 s".to_owned(),
        // What would round to 1000 ms is 1.0 s.
        0 if span.as_micros() < 999_500 => format!("{:.0} ms", (seconds * 1e3).max(1.0)),
        0..60 if seconds < 59.95 => format!("{seconds:.1} s"),
        0..3600 => format!("{} min {} s", whole.max(60) / 60, whole.max(60) % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Returns a size in powers of 1000, as disks and the config have them.
pub(super) fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

/// Returns a number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of things with their name: `1 file`, `2 files`.
pub(super) fn things(number: u64, name: &str) -> String {
    format!("{} {name}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Returns what `recsync NAME --help` prints, but for the options that all commands have.
#[cfg(test)]
pub(super) fn help<A: clap::Args>(name: &'static str) -> String {
    let mut command = A::augment_args(clap::Command::new(name)).term_width(100);
    let help = command.render_long_help().to_string();
    help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (span, text) in [
            (0.0, "0 s"),
            (-1.0, "0 s"),
            (f64::NAN, "0 s"),
            (0.000_1, "1 ms"),
            (0.12, "120 ms"),
            (0.999_4, "999 ms"),
            (0.999_6, "1.0 s"),
            (4.23, "4.2 s"),
            (59.94, "59.9 s"),
            (59.96, "1 min 0 s"),
            (200.0, "3 min 20 s"),
            (3_599.9, "59 min 59 s"),
            (7_500.0, "2 h 5 min"),
            (273_000.0, "3 d 3 h"),
        ] {
            assert_eq!(seconds(span), text, "{span}");
        }
    }

    #[test]
    fn counts_and_sizes() {
        assert_eq!([0, 999, 1000, 1_203_451].map(count), ["0", "999", "1,000", "1,203,451"]);
        assert_eq!([things(1, "file"), things(2000, "file")], ["1 file", "2,000 files"]);
        assert_eq!([0, 1_400_000, 918_273_645_500].map(bytes), ["0 B", "1.4 MB", "918.3 GB"]);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let rows = [[(Paint::Bad, "down".to_owned()), plain("x")], [plain("up"), plain("")]];
        let table = |colours| Style { colours }.table(["LINK", "SHARE"], &rows);
        assert_eq!(table(false), "LINK  SHARE\ndown  x\nup\n");
        assert_eq!(
            table(true),
            "\x1b[1mLINK\x1b[0m  \x1b[1mSHARE\x1b[0m\n\x1b[31mdown\x1b[0m  x\nup\n"
        );
    }
}
