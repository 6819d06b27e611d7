//! The labels about TLS between clients and the hosts: `ssl_passthrough`, `proxy_protocol`, `ssl_cert`, `ssl_key`, `ssl_only`.
//!
//! A switch that cannot be read refuses the route, since it protects; a certificate that cannot be named right leaves the
//! hosts to plain HTTP with a warning (row 14).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::identity::PROXY_FILE;
use crate::labels::diagnostic::Severity;
use crate::labels::keys::Found;
use crate::labels::read::Reader;
use crate::labels::value::{self, Wrong};
use crate::route::redirect::{Redirect, Scheme};
use crate::route::spec::{CertificateRef, ClientTls, HostPattern, ProxyProtocol};

/// Certificates of one service: one of each kind of key, and some to spare.
const CERTIFICATES_MAX: usize = 8;

/// Labels about what only shows once TLS has ended (§2.3).
const UNSEEN: [&str; 9] = [
    "backend_protocol",
    "body_limit",
    "context_root",
    "context_root_rewrite",
    "first_byte_timeout",
    "request_headers",
    "response_headers",
    "sticky_cookie",
    "sticky_session_cookie",
];

/// Reads them all.
pub(super) fn read(reader: &mut Reader<'_>) -> ClientTls {
    let passthrough = switch(reader, "ssl_passthrough");
    let only = switch(reader, "ssl_only");
    let certificates = certificates(reader);
    let proxy_protocol = proxy_protocol(reader, passthrough);
    if passthrough {
        say_what_passthrough_leaves_out(reader, !certificates.is_empty());
        return ClientTls {
            passthrough,
            proxy_protocol,
            only,
            certificates: Vec::new(),
        };
    }
    // Row 15.
    if let (true, true, Some(found)) = (only, certificates.is_empty(), reader.find("ssl_only")) {
        reader.say(
            &found,
            Severity::Warning,
            "there is neither a certificate nor passthrough, so clients are redirected to where only another service's \
             certificate could serve them",
            "add ssl_cert, or take this label away",
        );
    }
    ClientTls {
        passthrough,
        proxy_protocol,
        only,
        certificates,
    }
}

/// One connection of the app's serves many clients unless they are passed on, so only then is there one address to tell.
fn proxy_protocol(reader: &mut Reader<'_>, passthrough: bool) -> Option<ProxyProtocol> {
    let found = reader.find("proxy_protocol")?;
    if !passthrough {
        reader.say(
            &found,
            Severity::Warning,
            "without ssl_passthrough a connection to the app carries requests of many clients, so this is ignored",
            "take this label away: the app finds the client's address in X-Forwarded-For",
        );
        return None;
    }
    match found.value.to_ascii_lowercase().as_str() {
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        _ => {
            reader.say(
                &found,
                Severity::Error,
                "this is no version of the PROXY protocol, and an app that waits for its header would understand nothing",
                "write v1 or v2, or take this label away",
            );
            None
        }
    }
}

/// What protects is never guessed.
fn switch(reader: &mut Reader<'_>, name: &str) -> bool {
    let Some(found) = reader.find(name) else { return false };
    value::boolean(found.value).unwrap_or_else(|wrong| {
        reader.report(&found, Severity::Error, wrong);
        false
    })
}

fn say_what_passthrough_leaves_out(reader: &mut Reader<'_>, has_certificate: bool) {
    // Row 12.
    if let (true, Some(found)) = (has_certificate, reader.find("ssl_cert")) {
        reader.say(
            &found,
            Severity::Warning,
            "ssl_passthrough is set too and wins: the app ends TLS, so this certificate is not used",
            "take one of the two labels away",
        );
    }
    for name in UNSEEN {
        if let Some(found) = reader.find(name) {
            reader.say(
                &found,
                Severity::Warning,
                "with ssl_passthrough nothing of HTTP can be seen, so this is ignored",
                "take this label away, or end TLS here with ssl_cert",
            );
        }
    }
}

/// Row 18: redirects of plain HTTP hold beside passthrough; over TLS nobody but the app could answer.
pub(super) fn say_what_passthrough_cannot_redirect(
    reader: &mut Reader<'_>,
    hosts: &[HostPattern],
    redirects: &[Redirect],
) {
    let unseen = |redirect: &&Redirect| redirect.scheme == Scheme::Https && hosts.contains(&redirect.host);
    let Some(first) = redirects.iter().find(unseen) else {
        return;
    };
    let Some(found) = reader.find("redirects") else { return };
    let problem = format!(
        "with ssl_passthrough requests for https://{} reach the app unseen, so they are not redirected",
        first.host
    );
    let remedy = format!("write http://{} as the source, or let the app redirect", first.host);
    reader.report(&found, Severity::Warning, Wrong { problem, remedy });
}

/// Rows 13 and 14: each certificate with its key, which may be in the same secret.
fn certificates(reader: &mut Reader<'_>) -> Vec<CertificateRef> {
    let key = reader.find("ssl_key");
    let Some(found) = reader.find("ssl_cert") else {
        if let Some(key) = key {
            reader.say(
                &key,
                Severity::Warning,
                "there is no ssl_cert that this key could belong to, so it is ignored",
                "add ssl_cert, or take this label away",
            );
        }
        return Vec::new();
    };
    let Some(certificates) = secrets(reader, &found) else {
        return Vec::new();
    };
    let keys = match &key {
        None => Vec::new(),
        Some(key) => match secrets(reader, key) {
            Some(keys) => keys,
            None => return Vec::new(),
        },
    };
    if let (Some(key), true) = (&key, keys.len() != certificates.len()) {
        let problem = format!(
            "ssl_cert names {} secrets and ssl_key {}, so it is unclear what belongs together, and neither is used",
            certificates.len(),
            keys.len()
        );
        reader.say(
            key,
            Severity::Warning,
            &problem,
            "name one key for each certificate, in the same order, or no key where the secrets hold both",
        );
        return Vec::new();
    }
    let mut keys = keys.into_iter();
    let pairs = certificates.into_iter().map(|certificate| CertificateRef {
        key: keys.next().filter(|key| *key != certificate),
        certificate,
    });
    let mut unique: Vec<CertificateRef> = Vec::new();
    for pair in pairs {
        if !unique.contains(&pair) {
            unique.push(pair);
        }
    }
    unique
}

/// Whether a Docker secret may have this name, and may be used here.
pub(super) fn may_be_secret(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
        // In a proxy's folder of secrets, this is its own identity.
        && name != PROXY_FILE
}

/// Names of secrets between commas; `None` where one of them cannot be.
fn secrets(reader: &mut Reader<'_>, found: &Found<'_>) -> Option<Vec<String>> {
    let names: Vec<String> = value::list(found.value).map(ToString::to_string).collect();
    if let Some(wrong) = names.iter().find(|name| !may_be_secret(name)) {
        let problem = format!(
            "{} is no name of a Docker secret, so this is not used",
            value::quote(wrong)
        );
        reader.say(
            found,
            Severity::Warning,
            &problem,
            "write the name of a secret: at most 64 letters, digits, \'-\', \'_\' and \'.\'; never the certificate itself",
        );
        return None;
    }
    if names.is_empty() || names.len() > CERTIFICATES_MAX {
        let problem = format!(
            "{} secrets are named, and 1 to {CERTIFICATES_MAX} can be used",
            names.len()
        );
        reader.say(
            found,
            Severity::Warning,
            &problem,
            "name one secret for each kind of key",
        );
        return None;
    }
    Some(names)
}
