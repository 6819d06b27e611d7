//! The labels about TLS between the proxies and the app: `ssl_backend`, `ssl_backend_tls_verify`, `ssl_backend_ca`,
//! `ssl_backend_server_name` (row 16).
//!
//! All of them protect, so what cannot be read refuses the route: neither plain text nor an unverified app is ever a fallback.

use alloc::format;
use alloc::string::{String, ToString};
use core::net::IpAddr;

use crate::labels::diagnostic::Severity;
use crate::labels::keys::{self, Found};
use crate::labels::read::Reader;
use crate::labels::tls::may_be_secret;
use crate::labels::value::{self, Wrong};
use crate::route::spec::{BackendTls, Trust};

/// Reads them all. Beside passthrough none of them means anything: the app ends the client's own TLS.
pub(super) fn read(reader: &mut Reader<'_>, passthrough: bool) -> Option<BackendTls> {
    if passthrough {
        say_what_passthrough_leaves_out(reader);
        return None;
    }
    let on = switch(reader);
    let verify = present(reader, "ssl_backend_tls_verify");
    let authority = present(reader, "ssl_backend_ca");
    let name = present(reader, "ssl_backend_server_name");
    if on != Some(true) {
        say_what_needs_tls(reader, on, [verify, authority, name]);
        return None;
    }
    let secret = authority.as_ref().and_then(|found| secret(reader, found));
    let trust = match verify.as_ref().map(|found| (found, verification(reader, found))) {
        Some((_, Some(true))) | None if authority.is_some() => Trust::Secret(secret?),
        Some((_, Some(true))) => Trust::Web,
        Some((_, Some(false))) => {
            if let Some(found) = &authority {
                reader.say(
                    found,
                    Severity::Warning,
                    "ssl_backend_tls_verify is none, so these authorities are not asked and any certificate is taken",
                    "write ssl_backend_tls_verify=required, or take this label away",
                );
            }
            Trust::Any
        }
        Some((_, None)) => return None,
        None => Trust::Any,
    };
    let server_name = match &name {
        Some(found) => Some(server_name(reader, found)?),
        None => first_host(reader),
    };
    if server_name.is_none() && trust != Trust::Any {
        let found = verify.or(authority)?;
        reader.say(
            &found,
            Severity::Error,
            "no host is named in full, so it is unknown for which name the app's certificate must be",
            "add ssl_backend_server_name with a name in the app's certificate",
        );
        return None;
    }
    Some(BackendTls { trust, server_name })
}

/// The label as it is, also where its value is empty: then something was meant, and got lost.
fn present<'a>(reader: &Reader<'a>, name: &str) -> Option<Found<'a>> {
    keys::find(reader.service(), keys::label(name)?)
}

/// Row 1, but what is neither true nor false refuses the route. `None` where the label is absent.
fn switch(reader: &mut Reader<'_>) -> Option<bool> {
    let found = reader.find("ssl_backend")?;
    match value::boolean(found.value) {
        Ok(on) => Some(on),
        Err(wrong) => {
            reader.report(&found, Severity::Error, wrong);
            Some(false)
        }
    }
}

/// Row 16.
fn verification(reader: &mut Reader<'_>, found: &Found<'_>) -> Option<bool> {
    match found.value.to_ascii_lowercase().as_str() {
        "none" => Some(false),
        "required" => Some(true),
        _ => {
            reader.say(
                found,
                Severity::Error,
                "this says neither that the app's certificate is to be verified nor that it is not",
                "write required, or none to take any certificate",
            );
            None
        }
    }
}

fn secret(reader: &mut Reader<'_>, found: &Found<'_>) -> Option<String> {
    if may_be_secret(found.value) {
        return Some(found.value.to_string());
    }
    let problem = format!(
        "{} is no name of a Docker secret, so it is unknown who may sign the app's certificate",
        value::quote(found.value)
    );
    let remedy = String::from(
        "write the name of one secret with the authorities' certificates as PEM; never the certificates themselves",
    );
    reader.report(found, Severity::Error, Wrong { problem, remedy });
    None
}

/// A host name or an address, without port.
fn server_name(reader: &mut Reader<'_>, found: &Found<'_>) -> Option<String> {
    if let Ok(addr) = found.value.parse::<IpAddr>() {
        return Some(addr.to_string());
    }
    let wrong = match value::host(found.value) {
        Ok(host) if !host.had_port && host.pattern.wildcard_suffix().is_none() => {
            return Some(host.pattern.as_str().to_string());
        }
        Ok(_) => Wrong {
            problem: format!("{} is not one name", value::quote(found.value)),
            remedy: String::from("write one name in the app's certificate, without port and without *"),
        },
        Err(wrong) => wrong,
    };
    reader.report(found, Severity::Error, wrong);
    None
}

/// The first of the hosts that is a name, as it was written: what an app's certificate is most likely for.
pub(super) fn first_host(reader: &Reader<'_>) -> Option<String> {
    let found = reader.find("hosts")?;
    value::list(found.value).find_map(|item| {
        let host = value::host(item).ok()?.pattern;
        host.wildcard_suffix().is_none().then(|| host.as_str().to_string())
    })
}

/// Labels beside which `ssl_backend` is off. Where it is missing, whoever wrote them expects TLS: that refuses the route.
fn say_what_needs_tls(reader: &mut Reader<'_>, on: Option<bool>, found: [Option<Found<'_>>; 3]) {
    for found in found.into_iter().flatten() {
        let is_none = found.key.ends_with("tls_verify") && found.value.eq_ignore_ascii_case("none");
        if is_none {
            continue;
        }
        match on {
            None => reader.say(
                &found,
                Severity::Error,
                "ssl_backend is not set, so the app would be spoken to in the clear, which is not what this label wants",
                "add ssl_backend=true, or take this label away",
            ),
            Some(_) => reader.say(
                &found,
                Severity::Warning,
                "ssl_backend is off, so there is no TLS to the app and this is ignored",
                "write ssl_backend=true, or take this label away",
            ),
        }
    }
}

fn say_what_passthrough_leaves_out(reader: &mut Reader<'_>) {
    for name in [
        "ssl_backend",
        "ssl_backend_ca",
        "ssl_backend_server_name",
        "ssl_backend_tls_verify",
    ] {
        let Some(found) = reader.find(name) else { continue };
        let is_off = match name {
            "ssl_backend" => value::boolean(found.value) == Ok(false),
            _ => found.value.eq_ignore_ascii_case("none"),
        };
        if !is_off {
            reader.say(
                &found,
                Severity::Warning,
                "with ssl_passthrough the app gets the client's own TLS, so the proxies make none and this is ignored",
                "take this label away, or end TLS here with ssl_cert",
            );
        }
    }
}
