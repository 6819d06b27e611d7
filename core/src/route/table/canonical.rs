//! The table as text.

use alloc::string::String;
use core::fmt::Write as _;

use super::RouteTable;
use crate::settings::proxy::ProxySettings;

impl RouteTable {
    /// The table as text, for people, snapshots and comparisons: same specs and settings, same bytes.
    pub fn canonical_text(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out).expect("writing to a String cannot fail");
        out
    }

    fn write_canonical(&self, out: &mut String) -> core::fmt::Result {
        let defaults = serde_json::to_value(ProxySettings::default()).unwrap_or_default();
        let settings = serde_json::to_value(&self.settings).unwrap_or_default();
        if let (Some(settings), Some(defaults)) = (settings.as_object(), defaults.as_object()) {
            for (name, value) in settings
                .iter()
                .filter(|(name, value)| defaults.get(*name) != Some(value))
            {
                writeln!(out, "set {name} = {value}")?;
            }
        }
        for rule in self.rules() {
            write!(out, "rule {rule} -> {}", rule.pool)?;
            if rule.strip_path {
                out.push_str(" strip");
            }
            if rule.tls_only {
                out.push_str(" https-only");
            }
            out.push('\n');
        }
        for redirect in self.redirects() {
            writeln!(out, "redirect {redirect}")?;
        }
        self.write_tls(out)?;
        for pool in self.pools.values() {
            write!(
                out,
                "pool {} = {} {:?} {:?}",
                pool.key,
                pool.name(),
                pool.balance,
                pool.protocol
            )?;
            if let Some(ms) = pool.limits.park_ms {
                write!(out, " park={ms}ms")?;
            }
            out.push('\n');
            for line in pool.settings_text() {
                writeln!(out, "  {line}")?;
            }
            for endpoint in &pool.endpoints {
                let spec = &endpoint.spec;
                write!(out, "  {} {} of {}", spec.id, spec.addr, endpoint.service.name)?;
                if let Some(node) = &spec.node {
                    write!(out, " on {node}")?;
                }
                if let Some(leaving) = spec.leaving {
                    write!(out, " leaving, last resort {} ms", leaving.last_resort_ms)?;
                }
                out.push('\n');
            }
        }
        Ok(())
    }

    fn write_tls(&self, out: &mut String) -> core::fmt::Result {
        for rules in self.hosts() {
            if let Some(passthrough) = &rules.passthrough {
                let only = if passthrough.rule.tls_only { " https-only" } else { "" };
                let rule = &passthrough.rule;
                writeln!(out, "tls {} passthrough -> {}{only}", rule.host, rule.pool)?;
            }
            if let Some(certificates) = &rules.certificates {
                for pair in certificates.pairs.iter() {
                    writeln!(out, "tls {} certificate {pair}", certificates.host)?;
                }
            }
        }
        Ok(())
    }
}
