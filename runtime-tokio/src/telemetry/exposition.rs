//! The Prometheus exposition format (text, version 0.0.4), written.

use std::fmt::Write as _;

/// Grows family by family.
#[derive(Debug, Default)]
pub(crate) struct Text(pub(crate) String);

impl Text {
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}"); // a String takes everything
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }
    /// `buckets` are not cumulated; the last one is beyond all bounds.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, bounds_ms: &[u64], buckets: &[u64], micros: u64) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut cumulated = 0;
        for (at, count) in buckets.iter().enumerate() {
            cumulated += count;
            let bound = bounds_ms
                .get(at)
                .map_or("+Inf".to_owned(), |ms| (*ms as f64 / 1000.0).to_string());
            self.sample(&bucket, &[("le", &bound)], cumulated);
        }
        self.sample(&format!("{name}_sum"), &[], micros as f64 / 1e6);
        self.sample(&format!("{name}_count"), &[], cumulated);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    /// Families that the section of docs/metrics.md below this heading has in its table.
    pub(in crate::telemetry) fn documented(heading: &str) -> BTreeSet<String> {
        let docs = include_str!("../../../docs/metrics.md");
        let section = docs.lines().skip_while(|line| *line != heading).skip(1);
        let names = section
            .take_while(|line| !line.starts_with('#'))
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        names.map(String::from).collect()
    }

    /// Families of a text.
    pub(in crate::telemetry) fn families(text: &str) -> BTreeSet<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types
            .filter_map(|line| line.split(' ').next())
            .map(String::from)
            .collect()
    }
}
