//! Which certificates each host is served with, out of what could be read (rows 13 and 14).
//!
//! Decides by what the shell says of each pair of secrets: a host is served with the pairs its labels name that are
//! right; where none is, with its last good ones; where it never had any, with what is only flawed (expired, made for
//! another name), since a client that is warned can choose. Holds names and dates, never a key. Invariant: a host is
//! served with nothing only if nothing of its own could ever be read.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::route::RuleHost;
use crate::route::spec::CertificateRef;
use crate::secrets::{Finding, SecretProblem};
use crate::time::Duration;

/// Days before the end at which a warning is due, each once.
pub const WARN_DAYS: [u64; 3] = [1, 7, 21];
/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;
/// Hosts that one finding names.
const HOSTS_SHOWN: usize = 3;

/// A certificate with its key, as the shell read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The shell's name for it: another content is another number.
    pub id: u64,
    /// The DNS names that it was made for, in lower case.
    pub names: Vec<String>,
    /// Since 1970: from when it is valid, and until when.
    pub not_before: Duration,
    /// See `not_before`.
    pub not_after: Duration,
}

/// Why a pair of secrets is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Neither the key's secret nor that of the certificate holds a key that can be read.
    NoKey(String),
    /// No certificate in it.
    NotPem(String),
    /// There is no content of the secret of this name.
    Secret(String, SecretProblem),
    /// The TLS library refuses it.
    Unusable(String, String),
    /// The key belongs to another certificate.
    WrongKey(String, String),
}

impl Problem {
    /// What is wrong, and what to do.
    pub fn finding(&self) -> Finding {
        match self {
            Problem::NoKey(name) => Finding::new(
                name,
                format!("the secret {name} holds no private key as PEM without passphrase"),
                "put one in, or name its secret in ssl_key",
            ),
            Problem::NotPem(name) => Finding::new(
                name,
                format!("the secret {name} holds no certificate as PEM"),
                "write the chain with the host's own certificate first",
            ),
            Problem::Secret(name, problem) => problem.finding(name),
            Problem::Unusable(name, why) => Finding::new(
                name,
                format!("the certificate {name} cannot be used: {why}"),
                "make a new secret and name it in the label",
            ),
            Problem::WrongKey(name, key) => Finding::new(
                name,
                format!("the key in {key} does not belong to the certificate in {name}"),
                "name the key that it was made with",
            ),
        }
    }
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The material that each host is served with.
    pub served: BTreeMap<RuleHost, Vec<u64>>,
    /// What is wrong. A finding stays the same as long as its reason does.
    pub findings: BTreeSet<Finding>,
    /// The end of each pair that could be read, since 1970, by the name of the certificate's secret.
    pub ends: BTreeMap<String, Duration>,
}

/// Remembers the last good certificates of each host.
#[derive(Debug, Default)]
pub struct CertificateBook {
    last_good: BTreeMap<RuleHost, Vec<Material>>,
}

/// What could be read of each pair.
pub type Loaded = BTreeMap<CertificateRef, Result<Material, Problem>>;

impl CertificateBook {
    /// Decides anew. `wanted` is what the labels name, `wall` the time since 1970.
    pub fn judge(
        &mut self,
        wanted: &BTreeMap<RuleHost, Arc<[CertificateRef]>>,
        loaded: &Loaded,
        wall: Duration,
    ) -> Judgement {
        let mut judgement = Judgement::default();
        let mut misnamed: BTreeMap<&CertificateRef, Vec<&RuleHost>> = BTreeMap::new();
        self.last_good.retain(|host, _| wanted.contains_key(host));
        for (host, pairs) in wanted {
            let mut good: Vec<Material> = Vec::new();
            let mut flawed: Vec<Material> = Vec::new();
            for pair in pairs.iter() {
                let Some(Ok(material)) = loaded.get(pair) else { continue };
                let is_valid = material.not_before <= wall && wall < material.not_after;
                let is_for_host = covers(&material.names, host);
                if !is_for_host {
                    misnamed.entry(pair).or_default().push(host);
                }
                let list = if is_valid && is_for_host {
                    &mut good
                } else {
                    &mut flawed
                };
                list.push(material.clone());
            }
            let ids = |list: &[Material]| list.iter().map(|material| material.id).collect::<Vec<u64>>();
            let last = self.last_good.get(host).map(Vec::as_slice).unwrap_or_default();
            let last_is_valid = last.iter().any(|material| wall < material.not_after);
            let served = match () {
                () if !good.is_empty() => ids(&good),
                () if last_is_valid || flawed.is_empty() => ids(last),
                () => ids(&flawed),
            };
            if !good.is_empty() {
                self.last_good.insert(host.clone(), good);
            }
            if !served.is_empty() {
                judgement.served.insert(host.clone(), served);
            }
        }
        let used: BTreeSet<&CertificateRef> = wanted.values().flat_map(|pairs| pairs.iter()).collect();
        for pair in used {
            match loaded.get(pair) {
                Some(Ok(material)) => {
                    judgement.ends.insert(pair.certificate.clone(), material.not_after);
                    judgement.findings.extend(of_dates(pair, material, wall));
                }
                Some(Err(problem)) => {
                    judgement.findings.insert(problem.finding());
                }
                None => {
                    let missing = Problem::Secret(pair.certificate.clone(), SecretProblem::Waiting);
                    judgement.findings.insert(missing.finding());
                }
            }
        }
        for (pair, hosts) in misnamed {
            let shown: Vec<String> = hosts.iter().take(HOSTS_SHOWN).map(ToString::to_string).collect();
            let more = match hosts.len().saturating_sub(HOSTS_SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let name = &pair.certificate;
            judgement.findings.insert(Finding::new(
                name,
                format!("the certificate {name} was not made for {}{more}", shown.join(", ")),
                "make one with these names",
            ));
        }
        judgement
    }
}

fn of_dates(pair: &CertificateRef, material: &Material, wall: Duration) -> Option<Finding> {
    const RENEW: &str = "make a new secret and name it in the label";
    let name = &pair.certificate;
    if wall < material.not_before {
        let problem = format!("the certificate {name} is not valid yet");
        return Some(Finding::new(name, problem, "check its dates and the clocks"));
    }
    let left = material.not_after.saturating_sub(wall).as_secs();
    if left == 0 {
        return Some(Finding::new(name, format!("the certificate {name} has expired"), RENEW));
    }
    let days = WARN_DAYS.into_iter().find(|days| left <= days * DAY)?;
    let problem = match days {
        1 => format!("the certificate {name} expires within a day"),
        days => format!("the certificate {name} expires within {days} days"),
    };
    Some(Finding::new(name, problem, RENEW))
}

/// RFC 6125 §6.4: a `*` stands for one whole label at the left. A wildcard host is covered by the same wildcard alone; the
/// default backend by anything, since its clients name nobody.
fn covers(names: &[String], host: &RuleHost) -> bool {
    let RuleHost::Pattern(pattern) = host else { return true };
    let host = pattern.as_str();
    let below = host.split_once('.').map(|(_, rest)| rest);
    names.iter().any(|name| {
        let by_wildcard = || name.strip_prefix("*.").is_some_and(|suffix| below == Some(suffix));
        name == host || by_wildcard()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::spec::HostPattern;

    const NOW: Duration = Duration::from_secs(1_000 * DAY);

    fn pair(name: &str) -> CertificateRef {
        CertificateRef {
            certificate: name.to_string(),
            key: None,
        }
    }

    fn host(name: &str) -> RuleHost {
        RuleHost::Pattern(HostPattern::from_normalised(name.to_string()))
    }

    fn material(id: u64, name: &str, days: u64) -> Result<Material, Problem> {
        Ok(Material {
            id,
            names: alloc::vec![name.to_string()],
            not_before: NOW - Duration::from_secs(DAY),
            not_after: NOW + Duration::from_secs(days * DAY) - Duration::from_secs(1),
        })
    }

    fn wanted(of: &str, pairs: &[&str]) -> BTreeMap<RuleHost, Arc<[CertificateRef]>> {
        BTreeMap::from([(host(of), pairs.iter().map(|name| pair(name)).collect())])
    }

    fn loaded<const N: usize>(pairs: [(&str, Result<Material, Problem>); N]) -> Loaded {
        pairs.into_iter().map(|(name, read)| (pair(name), read)).collect()
    }

    #[test]
    fn row_14_a_host_keeps_its_last_good_certificate_whatever_is_wrong_with_the_new_one() {
        let mut expired = material(2, "a.example", 1).unwrap();
        expired.not_after = NOW;
        let broken = [
            Err(Problem::Secret("new".into(), SecretProblem::Missing)),
            Err(Problem::NotPem("new".into())),
            Err(Problem::NoKey("new".into())),
            Err(Problem::WrongKey("new".into(), "new.key".into())),
            Err(Problem::Secret(
                "new".into(),
                SecretProblem::Unreadable("denied".into()),
            )),
            material(2, "other.example", 90),
            Ok(expired),
        ];
        for problem in broken {
            let mut book = CertificateBook::default();
            let old = wanted("a.example", &["old"]);
            let good = loaded([("old", material(1, "a.example", 90))]);
            assert_eq!(book.judge(&old, &good, NOW).findings, BTreeSet::new());
            // The old secret is not even there any more.
            let judged = book.judge(&wanted("a.example", &["new"]), &loaded([("new", problem.clone())]), NOW);
            assert_eq!(judged.served[&host("a.example")], [1], "{problem:?}");
            assert_eq!(judged.findings.len(), 1, "{judged:?}");
            assert!(judged.findings.first().unwrap().problem.contains("new"), "{judged:?}");
            // Mended.
            let judged = book.judge(
                &wanted("a.example", &["new"]),
                &loaded([("new", material(3, "a.example", 90))]),
                NOW,
            );
            assert_eq!(judged.served[&host("a.example")], [3]);
        }
    }

    #[test]
    fn without_a_last_good_one_a_flawed_certificate_is_better_than_none() {
        let mut book = CertificateBook::default();
        let judged = book.judge(
            &wanted("a.example", &["a"]),
            &loaded([("a", material(1, "b.example", 90))]),
            NOW,
        );
        assert_eq!(judged.served[&host("a.example")], [1]);
        assert_eq!(
            judged.findings.first().unwrap().to_string(),
            "the certificate a was not made for a.example; make one with these names"
        );
        let judged = book.judge(&wanted("a.example", &["b"]), &Loaded::new(), NOW);
        assert_eq!(judged.served, BTreeMap::new());
    }

    #[test]
    fn of_several_certificates_those_that_are_right_are_served() {
        let mut book = CertificateBook::default();
        let read = loaded([
            ("rsa", material(1, "a.example", 90)),
            ("ec", material(2, "a.example", 90)),
            ("bad", Err(Problem::NotPem("bad".into()))),
        ]);
        let judged = book.judge(&wanted("a.example", &["rsa", "bad", "ec"]), &read, NOW);
        assert_eq!(judged.served[&host("a.example")], [1, 2]);
        assert_eq!(judged.findings.len(), 1);
    }

    #[test]
    fn a_wildcard_certificate_covers_one_label() {
        let names = ["*.example.org".to_string(), "shop.example.org".to_string()];
        for (name, is_covered) in [
            ("shop.example.org", true),
            ("a.example.org", true),
            ("*.example.org", true),
            ("a.b.example.org", false),
            ("*.b.example.org", false),
            ("example.org", false),
            ("shop.example.com", false),
        ] {
            assert_eq!(covers(&names, &host(name)), is_covered, "{name}");
        }
        assert!(covers(&[], &RuleHost::Default));
    }

    #[test]
    fn the_end_is_told_21_7_and_1_days_before_in_lines_that_stay_the_same() {
        let said = |days: u64| {
            let mut book = CertificateBook::default();
            let read = loaded([("a", material(1, "a.example", days))]);
            book.judge(&wanted("a.example", &["a"]), &read, NOW).findings
        };
        assert_eq!(said(90), BTreeSet::new());
        assert!(said(20).first().unwrap().problem.contains("within 21 days"));
        assert_eq!(said(20), said(10));
        assert!(said(7).first().unwrap().problem.contains("within 7 days"));
        assert!(said(1).first().unwrap().problem.contains("within a day"));
    }

    #[test]
    fn a_host_that_is_routed_no_more_is_forgotten() {
        let mut book = CertificateBook::default();
        let read = loaded([("a", material(1, "a.example", 90))]);
        book.judge(&wanted("a.example", &["a"]), &read, NOW);
        book.judge(&BTreeMap::new(), &Loaded::new(), NOW);
        assert_eq!(
            book.judge(&wanted("a.example", &["b"]), &Loaded::new(), NOW).served,
            BTreeMap::new()
        );
    }
}
