//! The labels that say how requests are served: redirects, stickiness, health, shares, header edits, limits, and who may
//! come in.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{BackendMode, LabelledRoute, Reader};
use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::labels::keys::{self, Found};
use crate::labels::tls;
use crate::labels::value::{self, Wrong};
use crate::route::allow::{BadRange, IpRange};
use crate::route::edits::{HeaderEdit, HeaderEdits};
use crate::route::redirect::{Redirect, Scheme};
use crate::route::spec::{Affinity, BasicAuth, Coding, HostPattern, RouteLimits};
use crate::swarm::model::Service;

/// Milliseconds that `park_timeout` may be at most: 10 minutes.
pub const PARK_MS_MAX: u32 = 600_000;
/// Milliseconds that `connect_timeout` may be at most: a minute.
pub(super) const CONNECT_MS_MAX: u32 = 60_000;
/// Milliseconds that the other times may be at most: a day.
pub(super) const TIME_MS_MAX: u32 = 86_400_000;
/// Redirects of one label.
const REDIRECTS_MAX: usize = 1_000;
/// Header edits of one label.
const EDITS_MAX: usize = 64;
/// Ranges of `allow_ips`.
const RANGES_MAX: usize = 1_000;
/// Characters of `basic_auth_realm`.
const REALM_MAX: usize = 128;
/// The most that `weight` may be.
const WEIGHT_MAX: u32 = 1_000;
/// The most that `parked_max` may be.
const PARKED_MAX: u32 = 100_000;
/// Wrong items of one label that are reported one by one.
const WRONG_ITEMS_SHOWN: usize = 20;

impl Reader<'_> {
    /// Rows 17, 19 and 20. A wrong pair is left out, the others hold.
    pub(super) fn redirects(&mut self, hosts: &[HostPattern]) -> Vec<Redirect> {
        let Some(found) = self.find("redirects") else {
            return Vec::new();
        };
        let mut wrong_pairs = Vec::new();
        let mut redirects: BTreeMap<(HostPattern, Scheme), Redirect> = BTreeMap::new();
        let mut had_port = false;
        for text in value::redirect::pairs(found.value) {
            match value::redirect::pair(text) {
                Ok(pair) => {
                    had_port |= pair.had_port;
                    let key = (pair.redirect.host.clone(), pair.redirect.scheme);
                    match redirects.get(&key) {
                        Some(first) if *first != pair.redirect => wrong_pairs.push(Wrong {
                            problem: format!("{}://{} is redirected to {} already", key.1, key.0, first.target),
                            remedy: String::from("write each source once"),
                        }),
                        Some(_) => {}
                        None if redirects.len() >= REDIRECTS_MAX => wrong_pairs.push(Wrong {
                            problem: format!("these are more than {REDIRECTS_MAX} redirects, the limit of one service"),
                            remedy: String::from("use wildcards such as http://*.old.example.org, or several services"),
                        }),
                        None => {
                            redirects.insert(key, pair.redirect);
                        }
                    }
                }
                Err(wrong) => wrong_pairs.push(wrong),
            }
        }
        let mut redirects: Vec<Redirect> = redirects.into_values().collect();
        for at in value::redirect::loops(&redirects).into_iter().rev() {
            let redirect = redirects.remove(at);
            wrong_pairs.push(Wrong {
                problem: format!("{redirect} leads back to where it came from"),
                remedy: String::from("write a target that is not redirected again"),
            });
        }
        self.report_items(&found, wrong_pairs, "redirect");
        if had_port {
            self.say(
                &found,
                Severity::Warning,
                "a port behind a source is ignored: hosts are matched by name on every port of the proxies",
                "write the source as scheme and host name alone",
            );
        }
        // Row 17.
        let unlisted: Vec<&str> = redirects
            .iter()
            .map(|redirect| &redirect.host)
            .filter(|host| hosts.binary_search(host).is_err())
            .map(HostPattern::as_str)
            .collect();
        if let Some(first) = unlisted.first() {
            let problem = match unlisted.len() {
                1 => format!("the source {first} is not one of the hosts; it is redirected all the same"),
                more => format!(
                    "{more} sources, {first} the first, are not among the hosts; they are redirected all the same"
                ),
            };
            self.say(
                &found,
                Severity::Warning,
                &problem,
                "add them to hosts, as Interlock wants it",
            );
        }
        redirects
    }

    /// Rows 32 and 35. Of several wishes the most exact one holds.
    pub(super) fn affinity(&mut self, mode: BackendMode) -> Affinity {
        let mut wishes: Vec<(Found<'_>, Affinity)> = Vec::new();
        for name in ["sticky_cookie", "sticky_session_cookie"] {
            let Some(found) = self.find(name) else { continue };
            match value::cookie_name(found.value, name == "sticky_cookie") {
                Ok(cookie) if name == "sticky_cookie" => wishes.push((found, Affinity::OwnCookie(cookie))),
                Ok(cookie) => wishes.push((found, Affinity::AppCookie(cookie))),
                Err(wrong) => self.report_ignored_value(&found, wrong, "clients are not pinned by it"),
            }
        }
        if self.boolean("ip_hash") {
            wishes.push((keys::find_or_absent(self.service, "ip_hash"), Affinity::Address));
        }
        if mode == BackendMode::Vip {
            for (found, _) in &wishes {
                self.say(
                    found,
                    Severity::Warning,
                    "behind a virtual IP Swarm chooses the task, so clients cannot be pinned, and this is ignored",
                    "set backend_mode=task, or take this label away",
                );
            }
            return Affinity::None;
        }
        let mut wishes = wishes.into_iter();
        let Some((held, affinity)) = wishes.next() else {
            return Affinity::None;
        };
        for (found, _) in wishes {
            let problem = format!("{} pins clients too, so this is ignored", held.key);
            self.say(&found, Severity::Warning, &problem, "leave one of the two");
        }
        affinity
    }

    pub(super) fn weight(&mut self) -> Option<u32> {
        self.number("weight", WEIGHT_MAX, "each endpoint counts as one")
    }

    pub(super) fn limits(&mut self) -> RouteLimits {
        RouteLimits {
            park_ms: self.time("park_timeout", 0, PARK_MS_MAX),
            body_bytes_max: self
                .find("body_limit")
                .and_then(|found| match value::size(found.value) {
                    Ok(bytes) => Some(bytes),
                    Err(wrong) => {
                        self.report_ignored_value(&found, wrong, "the cluster's setting holds");
                        None
                    }
                }),
            connect_timeout_ms: self.time("connect_timeout", 1, CONNECT_MS_MAX),
            first_byte_timeout_ms: self.time("first_byte_timeout", 1, TIME_MS_MAX),
            idle_timeout_ms: self.time("idle_timeout", 1, TIME_MS_MAX),
            parked_max: self.number("parked_max", PARKED_MAX, "the cluster's setting holds"),
            eject_max_percent: self.percent("eject_max"),
            panic_threshold_percent: self.percent("panic_threshold"),
            hedge_after_ms: self.time_or("hedge_after", 1, CONNECT_MS_MAX, "requests are sent once"),
        }
    }

    pub(super) fn edits(&mut self) -> HeaderEdits {
        HeaderEdits {
            request: self.edits_of("request_headers"),
            response: self.edits_of("response_headers"),
        }
    }

    fn edits_of(&mut self, name: &str) -> Vec<HeaderEdit> {
        let Some(found) = self.find(name) else {
            return Vec::new();
        };
        let mut edits = Vec::new();
        let mut wrong_edits = Vec::new();
        for edit in value::header::edits(found.value) {
            match edit {
                Ok(_) if edits.len() >= EDITS_MAX => wrong_edits.push(Wrong {
                    problem: format!("these are more than {EDITS_MAX} edits, the limit of one route"),
                    remedy: String::from("let the app set some of them"),
                }),
                Ok(edit) => edits.push(edit),
                Err(wrong) => wrong_edits.push(wrong),
            }
        }
        self.report_items(&found, wrong_edits, "edit");
        edits
    }

    /// Who may come in. What cannot be read refuses the route: to serve everybody is what was not wanted.
    pub(super) fn allow_ips(&mut self) -> Option<Vec<IpRange>> {
        let found = keys::find(self.service, keys::label("allow_ips")?)?;
        let mut ranges = Vec::new();
        for item in value::list(found.value) {
            match item.parse::<IpRange>() {
                Ok(range) => ranges.push(range),
                Err(bad) => {
                    let remedy = match &bad {
                        BadRange::NoAddress | BadRange::NoPrefix => {
                            String::from("write addresses and ranges such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")
                        }
                        BadRange::NotFirst(range) => {
                            format!("write {range}, or {} alone", item.split('/').next().unwrap_or(""))
                        }
                    };
                    let problem = format!("{} is no range of addresses: {bad}", value::quote(item));
                    self.report(&found, Severity::Error, Wrong { problem, remedy });
                }
            }
            if ranges.len() > RANGES_MAX || self.diagnostics.len() > WRONG_ITEMS_SHOWN * 2 {
                self.say(
                    &found,
                    Severity::Error,
                    &format!("these are more than {RANGES_MAX} ranges, or most of them are wrong"),
                    "write larger ranges, or keep the list in a firewall",
                );
                break;
            }
        }
        if value::list(found.value).next().is_none() {
            self.say(
                &found,
                Severity::Error,
                "the list is empty, so it is not known who may come in",
                "write addresses and ranges such as 10.0.0.0/8, or take the label away to serve everybody",
            );
        }
        ranges.sort_unstable();
        ranges.dedup();
        Some(ranges)
    }

    /// How responses may be compressed, in the order of the label.
    pub(super) fn compress(&mut self) -> Vec<Coding> {
        let Some(found) = self.find("compress") else {
            return Vec::new();
        };
        match value::boolean(found.value) {
            Ok(true) => return Coding::ALL.to_vec(),
            Ok(false) => return Vec::new(),
            Err(_) => {}
        }
        let (mut codings, mut wrong) = (Vec::new(), Vec::new());
        for item in value::list(found.value) {
            match Coding::ALL
                .iter()
                .find(|coding| coding.name().eq_ignore_ascii_case(item))
            {
                Some(coding) if !codings.contains(coding) => codings.push(*coding),
                Some(_) => {}
                None => wrong.push(Wrong {
                    problem: format!("{} is no way to compress", value::quote(item)),
                    remedy: String::from("write zstd, br or gzip, or true for all of them"),
                }),
            }
        }
        self.report_items(&found, wrong, "word");
        codings
    }

    /// Who must say who they are. What cannot be read or honoured refuses the route.
    pub(super) fn basic_auth(&mut self, passthrough: bool) -> Option<BasicAuth> {
        let realm = self.find("basic_auth_realm");
        let Some(found) = keys::label("basic_auth").and_then(|label| keys::find(self.service, label)) else {
            for name in ["basic_auth_forward", "basic_auth_realm"] {
                if let Some(found) = self.find(name) {
                    let problem = "there is no basic_auth that this belongs to, so it is ignored";
                    self.say(
                        &found,
                        Severity::Warning,
                        problem,
                        "add basic_auth, or take this label away",
                    );
                }
            }
            return None;
        };
        if passthrough {
            self.say(
                &found,
                Severity::Error,
                "with ssl_passthrough nothing of HTTP can be seen, so nobody could be asked for a password",
                "end TLS here with ssl_cert, or let the app ask and take this label away",
            );
        }
        if !tls::may_be_secret(found.value) {
            let problem = format!("{} is no name of a Docker secret", value::quote(found.value));
            self.say(
                &found,
                Severity::Error,
                &problem,
                "write the name of a secret that holds what htpasswd writes; never users or passwords themselves",
            );
        }
        let realm = realm.and_then(|found| {
            let fits = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
            if found.value.len() <= REALM_MAX && found.value.bytes().all(fits) {
                return Some(String::from(found.value));
            }
            let wrong = Wrong {
                problem: format!("this is longer than {REALM_MAX} characters, or has others than visible ASCII"),
                remedy: String::from("write a few plain words, without quotation marks and backslashes"),
            };
            self.report_ignored_value(&found, wrong, "clients are shown the host");
            None
        });
        Some(BasicAuth {
            secret: String::from(found.value),
            realm,
            forward: self.boolean("basic_auth_forward"),
        })
    }

    pub(super) fn number(&mut self, name: &str, max: u32, otherwise: &str) -> Option<u32> {
        let found = self.find(name)?;
        match found.value.parse::<u32>() {
            Ok(number) if number <= max => Some(number),
            Ok(_) | Err(_) => {
                let wrong = Wrong {
                    problem: format!("this is no whole number from 0 to {max}"),
                    remedy: String::from("write digits alone, e.g. 3"),
                };
                self.report_ignored_value(&found, wrong, otherwise);
                None
            }
        }
    }

    /// A time between `min` and `max` milliseconds.
    pub(super) fn time(&mut self, name: &str, min: u32, max: u32) -> Option<u32> {
        self.time_or(name, min, max, "the cluster's setting holds")
    }

    pub(super) fn time_or(&mut self, name: &str, min: u32, max: u32, otherwise: &str) -> Option<u32> {
        let found = self.find(name)?;
        let wrong = match value::duration_ms(found.value) {
            Ok(ms) if (u64::from(min)..=u64::from(max)).contains(&ms) => return u32::try_from(ms).ok(),
            Ok(0) => Wrong {
                problem: format!("{name} cannot be no time at all"),
                remedy: String::from("write a time such as 500ms or 10s"),
            },
            Ok(_) => {
                let longest = match max {
                    CONNECT_MS_MAX => "1m",
                    PARK_MS_MAX => "10m",
                    _ => "24h",
                };
                Wrong {
                    problem: format!("this is longer than {name} may be ({longest})"),
                    remedy: format!("write at most {longest}"),
                }
            }
            Err(wrong) => wrong,
        };
        self.report_ignored_value(&found, wrong, otherwise);
        None
    }

    pub(super) fn report_ignored_value(&mut self, found: &Found<'_>, wrong: Wrong, otherwise: &str) {
        let problem = format!("{}, so {otherwise}", wrong.problem);
        self.report(found, Severity::Warning, Wrong { problem, ..wrong });
    }

    /// Items of a list that are left out.
    pub(super) fn report_items(&mut self, found: &Found<'_>, items: Vec<Wrong>, what: &str) {
        let hidden = items.len().saturating_sub(WRONG_ITEMS_SHOWN);
        for wrong in items.into_iter().take(WRONG_ITEMS_SHOWN) {
            let problem = format!("{}, so this {what} is left out", wrong.problem);
            self.report(found, Severity::Warning, Wrong { problem, ..wrong });
        }
        if hidden > 0 {
            self.say(
                found,
                Severity::Warning,
                &format!("{hidden} more are wrong and left out"),
                "mend the ones that are reported, then look again",
            );
        }
    }
}

/// Row 49: what to say of a route that goes by client addresses behind proxies that are reached through the routing mesh,
/// which replaces them, and without anybody in front who is trusted to say them. An error refuses the route: everybody would come from an address of the mesh.
pub fn hidden_clients(route: &LabelledRoute, service: &Service) -> Vec<Diagnostic> {
    let say = |label: &str, severity: Severity, problem: &str| {
        let label = keys::find_or_absent(service, label);
        let remedy = "publish the proxies of this service cluster in host mode: publish_mode = \"host\" in its settings; or name the \
             balancers in front that say who the client is: trusted_proxies";
        Diagnostic::new(service, &label.key, label.value, severity, problem, remedy)
    };
    let mut found = Vec::new();
    if route.affinity == Affinity::Address {
        found.push(say(
            "ip_hash",
            Severity::Warning,
            "the proxies are published through the routing mesh, which hides client addresses, so most clients go to one endpoint",
        ));
    }
    if route.tls.proxy_protocol.is_some() {
        found.push(say(
            "proxy_protocol",
            Severity::Warning,
            "the proxies are published through the routing mesh, which hides client addresses, so the app is told those of the mesh",
        ));
    }
    if route.allow_ips.is_some() {
        found.push(say(
            "allow_ips",
            Severity::Error,
            "the proxies are published through the routing mesh, which hides client addresses, so the list could not keep anybody out",
        ));
    }
    found
}
