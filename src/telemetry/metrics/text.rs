//! Metrics as text, in either of the two formats that a scraper may ask for.

use std::fmt::Write;

use prometheus_client::registry::Registry;

/// A text format for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4, what every tool reads.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format that an `Accept` header prefers: OpenMetrics only where it is named,
    /// and not with less weight than plain text.
    pub fn accepted(accept: &str) -> Self {
        let weight = |wanted: &str| {
            accept
                .split(',')
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    if !parts.next()?.eq_ignore_ascii_case(wanted) {
                        return None;
                    }
                    let q = parts.find_map(|parameter| parameter.strip_prefix("q="));
                    Some(q.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
                })
                .fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// Returns the value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Returns all metrics of the registry as text.
pub(super) fn encode(registry: &Registry, format: Format) -> String {
    let mut open = String::new();
    prometheus_client::encoding::text::encode(&mut open, registry)
        .expect("writing to a string cannot fail, and there are no native histograms");
    match format {
        Format::OpenMetrics => open,
        Format::Prometheus => prometheus(&open),
    }
}

/// Turns OpenMetrics text as prometheus-client writes it, without exemplars and units, into
/// Prometheus text 0.0.4. Samples are the same in both; a counter's family has another name.
fn prometheus(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        // HELP comes first, but what the family is called depends on TYPE.
        if let Some(of) = comment.strip_prefix("HELP ") {
            help = of.split_once(' ');
        } else if let Some((family, kind)) =
            comment.strip_prefix("TYPE ").and_then(|of| of.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                writeln!(text, "# HELP {family}{suffix} {help}").expect("a string takes all");
            }
            writeln!(text, "# TYPE {family}{suffix} {kind}").expect("a string takes all");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_only_for_who_prefers_it() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html, text/plain", Format::Prometheus),
            (prometheus_2, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; version=1.0.0", Format::OpenMetrics),
            ("application/openmetrics-text; q=0.2, text/plain; q=0.8", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn renames_counters_and_drops_what_0_0_4_does_not_know() {
        let open = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
            a_bytes_total{p=\"x # y\"} 1\n# HELP b B.\n# TYPE b gauge\nb 2.5\n# EOF\n";
        assert_eq!(
            prometheus(open),
            "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total{p=\"x # y\"} 1\n\
             # HELP b B.\n# TYPE b gauge\nb 2.5\n"
        );
    }
}
