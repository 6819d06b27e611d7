//! The dialect before Interlock: `com.docker.ucp.mesh.http[.N]=key=value,…` of UCP 2's HTTP routing mesh. Read, never written.
//!
//! Each label is one route. A service here has one pool, so those of one service become one route: their hosts together,
//! behind one port. What that cannot say refuses the service. Everything else is left to the labels that they are turned into.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::labels::keys::{self, INTERLOCK_PREFIX, PREFIX};
use crate::labels::value::{self, Wrong};
use crate::swarm::model::Service;

/// The label's key, alone or before `.N`.
const KEY: &str = "com.docker.ucp.mesh.http";
/// Labels that say where a service is: beside one of them this dialect is not read.
const PLACES: [&str; 3] = ["hosts", "default_backend", "redirects"];

/// A service with the labels that its HRM labels mean.
pub(super) struct Translated {
    /// It, with labels under `com.docker.lb.` in their place.
    pub(super) service: Service,
    /// The key and value that each label under `com.docker.lb.` comes from, by its key.
    origins: BTreeMap<String, (String, String)>,
    /// What is wrong with the HRM labels themselves.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Whether nothing can be served.
    pub(super) is_refused: bool,
}

impl Translated {
    /// The key that was written for `key`.
    pub(super) fn written_key(&self, key: String) -> String {
        self.origins.get(&key).map_or(key, |(written, _)| written.clone())
    }

    /// The finding as one about the label that was written.
    pub(super) fn about_what_was_written(&self, finding: Diagnostic) -> Diagnostic {
        let Some((key, text)) = self.origins.get(&finding.label) else {
            return finding;
        };
        let Diagnostic {
            severity,
            problem,
            remedy,
            ..
        } = finding;
        Diagnostic::new(&self.service, key, text, severity, problem, remedy)
    }

    fn say(&mut self, (key, text): (&str, &str), severity: Severity, wrong: Wrong) {
        self.is_refused |= severity == Severity::Error;
        let Wrong { problem, remedy } = wrong;
        let finding = Diagnostic::new(&self.service, key, text, severity, problem, remedy);
        self.diagnostics.push(finding);
    }

    /// Adds a label unless one under either prefix is there already.
    fn add(&mut self, name: &str, value: String, from: (&str, &str)) {
        let key = format!("{INTERLOCK_PREFIX}{name}");
        let ours = format!("{PREFIX}{name}");
        let labels = &mut self.service.labels;
        if let Some(there) = [&ours, &key].into_iter().find(|key| labels.contains_key(*key)) {
            let is_same = labels[there].trim() == value;
            let problem = format!("{there} says something else, and it wins");
            if !is_same {
                let remedy = "take one of the two away, or make them equal";
                self.say(from, Severity::Warning, wrong(problem, remedy));
            }
            return;
        }
        labels.insert(key.clone(), value);
        self.origins.insert(key, (from.0.to_string(), from.1.to_string()));
    }
}

/// One label's route.
struct Route<'a> {
    from: (&'a str, &'a str),
    /// As written, perhaps with a port; `None` for every host that nobody claims.
    host: Option<&'a str>,
    is_sni: bool,
    port: Option<u16>,
    cookie: Option<&'a str>,
    redirect: Option<&'a str>,
}

fn wrong(problem: impl Into<String>, remedy: impl Into<String>) -> Wrong {
    Wrong {
        problem: problem.into(),
        remedy: remedy.into(),
    }
}

fn is_hrm(key: &str) -> bool {
    key.strip_prefix(KEY)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The service in terms of Interlock's labels; `None` for one without HRM labels.
pub(super) fn translate(service: &Service) -> Option<Translated> {
    let written: Vec<(&str, &str)> = service
        .labels
        .iter()
        .filter(|(key, _)| is_hrm(key))
        .map(|(key, text)| (key.as_str(), text.as_str()))
        .collect();
    if written.is_empty() {
        return None;
    }
    let mut out = Translated {
        service: service.clone(),
        origins: BTreeMap::new(),
        diagnostics: Vec::new(),
        is_refused: false,
    };
    let place = PLACES.iter().find_map(|name| keys::find(service, keys::label(name)?));
    if let Some(place) = place {
        for from in written {
            let problem = format!("{} says where the service is, so this label is ignored", place.key);
            out.say(
                from,
                Severity::Warning,
                wrong(problem, "take this label away once nothing else reads it"),
            );
        }
        return Some(out);
    }
    let (mut routes, mut faults) = (Vec::new(), Vec::new());
    for from in written {
        match route(from, &mut out) {
            Ok(route) => routes.push(route),
            Err(wrong) => faults.push((from, wrong)),
        }
    }
    let severity = if routes.is_empty() {
        Severity::Error
    } else {
        Severity::Warning
    };
    for (from, mut wrong) in faults {
        if severity == Severity::Warning {
            wrong.problem.push_str(", so this route is not served");
        }
        out.say(from, severity, wrong);
    }
    merge(&routes, &mut out);
    Some(out)
}

/// Reads one label; what does not keep its route from being served is said at once.
fn route<'a>(from: (&'a str, &'a str), out: &mut Translated) -> Result<Route<'a>, Wrong> {
    let mut external = None;
    let mut route = Route {
        from,
        host: None,
        is_sni: false,
        port: None,
        cookie: None,
        redirect: None,
    };
    for item in value::list(from.1) {
        let (key, text) = item.split_once('=').map_or((item, ""), |(k, v)| (k.trim(), v.trim()));
        match key.to_ascii_lowercase().as_str() {
            "external_route" if external.is_some() => {
                return Err(wrong(
                    "it names two external routes",
                    format!("write the second one as a label of its own, e.g. {KEY}.2"),
                ));
            }
            "external_route" => external = Some(text),
            "internal_port" => route.port = Some(value::port(text)?),
            "sticky_sessions" => route.cookie = Some(text).filter(|name| !name.is_empty()),
            "redirect" => route.redirect = Some(text).filter(|target| !target.is_empty()),
            "include_forwarded_for" => match value::boolean(text) {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    let problem = "X-Forwarded-For is always written, so include_forwarded_for is ignored";
                    out.say(
                        from,
                        Severity::Warning,
                        wrong(problem, "take include_forwarded_for away"),
                    );
                }
            },
            _ => {
                let problem = format!("{} is no key of this label, and it is ignored", value::quote(key));
                let remedy =
                    "write external_route, internal_port, sticky_sessions or redirect, each with = and its value";
                out.say(from, Severity::Warning, wrong(problem, remedy));
            }
        }
    }
    let example = "write external_route=http://shop.example.org";
    let external =
        external.ok_or_else(|| wrong("it names no external_route, so there is nothing to serve", example))?;
    let (scheme, rest) = external.split_once("://").unwrap_or(("", external));
    route.is_sni = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "sni" => true,
        _ => {
            let problem = format!(
                "the external route {} begins with neither http:// nor sni://",
                value::quote(external)
            );
            let remedy = "write http://HOST, or sni://HOST where the app ends TLS itself; for certificates of the proxies \
                          write the labels hosts and ssl_cert in place of this one";
            return Err(wrong(problem, remedy));
        }
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if !host.is_empty() {
        value::host(host)?;
        route.host = Some(host);
    }
    check_scheme(&mut route, out)?;
    Ok(route)
}

/// What one scheme has and the other does not.
fn check_scheme(route: &mut Route<'_>, out: &mut Translated) -> Result<(), Wrong> {
    if let Some(target) = route.redirect {
        let remedy = "write external_route=http://HOST beside redirect";
        if route.is_sni {
            return Err(wrong("TLS that is passed through cannot be redirected", remedy));
        }
        let Some(host) = route.host else {
            return Err(wrong("the route of all other hosts cannot be redirected", remedy));
        };
        value::redirect::pair(&format!("http://{host},{target}"))?;
    }
    if route.is_sni && route.host.is_none() {
        let remedy = "write the name that clients ask for, e.g. sni://shop.example.org";
        return Err(wrong("TLS is passed through by name, and there is none", remedy));
    }
    if route.is_sni && route.cookie.take().is_some() {
        let problem = "a cookie cannot be seen within TLS that is passed through, so sticky_sessions is ignored";
        out.say(
            route.from,
            Severity::Warning,
            wrong(problem, "take sticky_sessions away"),
        );
    }
    Ok(())
}

/// All routes as one set of labels.
fn merge(routes: &[Route<'_>], out: &mut Translated) {
    let (moved, served): (Vec<&Route<'_>>, Vec<&Route<'_>>) = routes.iter().partition(|route| route.redirect.is_some());
    let published: BTreeSet<u16> = out
        .service
        .ports
        .iter()
        .filter(|port| port.tcp)
        .map(|port| port.target)
        .collect();
    let port_of = |route: &Route<'_>| {
        route
            .port
            .or_else(|| published.first().copied().filter(|_| published.len() == 1))
    };
    let split = "make a service of its own for it, with labels hosts and port";
    let mut cookie = None;
    if let Some(first) = served.first() {
        for route in &served[1..] {
            if route.is_sni != first.is_sni {
                let problem = format!(
                    "{} is of another kind: a service is either served over HTTP or passed through",
                    first.from.0
                );
                out.say(route.from, Severity::Error, wrong(problem, split));
            } else if port_of(route) != port_of(first) {
                let problem = format!("{} leads to another port, and a service has one", first.from.0);
                out.say(route.from, Severity::Error, wrong(problem, split));
            }
        }
    }
    for route in &served {
        match (cookie, route.cookie) {
            (None, Some(name)) => {
                cookie = route.cookie;
                out.add("sticky_session_cookie", name.to_string(), route.from);
            }
            (Some(first), Some(other)) if first != other => {
                let problem = format!(
                    "the service's sessions go by the cookie {} already",
                    value::quote(first)
                );
                out.say(
                    route.from,
                    Severity::Warning,
                    wrong(problem, "write the same cookie in both"),
                );
            }
            _ => {}
        }
    }
    let is_passed_through = served.first().is_some_and(|route| route.is_sni);
    // A host that is only redirected has no TLS to pass through.
    let listed = routes.iter().filter(|route| route.is_sni || !is_passed_through);
    let hosts: Vec<&str> = listed.filter_map(|route| route.host).collect();
    let Some(first) = routes.first() else { return };
    if !hosts.is_empty() {
        out.add("hosts", hosts.join(","), first.from);
    }
    if let Some(route) = routes.iter().find(|route| route.host.is_none()) {
        out.add("default_backend", String::from("true"), route.from);
    }
    if let Some(route) = served.first().filter(|_| is_passed_through) {
        out.add("ssl_passthrough", String::from("true"), route.from);
    }
    let with_port = served.iter().chain(&moved).find(|route| route.port.is_some());
    if let Some((route, port)) = with_port.and_then(|route| Some((route, route.port?))) {
        out.add("port", port.to_string(), route.from);
    }
    let pairs: Vec<String> = moved
        .iter()
        .filter_map(|route| Some(format!("http://{},{}", route.host?, route.redirect?)))
        .collect();
    if let Some(route) = moved.first() {
        out.add("redirects", pairs.join(";"), route.from);
    }
}
