//! Options that need more than a new name.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use toml::Value;

use super::directives::{Counterpart, Directive, counterpart};
use super::import::{Given, Import, Verdict, as_text, is_empty, lines_of, shown, texts, value_of};
use super::options::{Form, Special};
use crate::settings::{ciphers, log_format};

/// What UCP writes into every file; nodes outside UCP do not carry the label.
const UCP_NODES: &str = "node.labels.com.docker.ucp.orchestrator.swarm==true";
const LINUX: &str = "node.platform.os==linux";
/// Interlock's main format, which is ours but for what follows it.
const STOCK_LOG: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
                         \"$http_user_agent\" \"$http_x_forwarded_for\"";

/// From a connection's timeout on, a dead address is felt by users.
const PATIENT_MS: i64 = 5_000;

pub(super) fn take(import: &mut Import<'_>, special: Special, given: &Given<'_>) {
    let value = given.value;
    match special {
        Special::Config | Special::Extensions => import.answer(given, Verdict::Lost, "is no table, and is left out"),
        Special::ServiceCluster => import.answer(given, Verdict::Kept, "names the cluster"),
        Special::AccessLogPath => access_log_path(import, given),
        Special::Ciphers => cipher_list(import, given),
        Special::Constraints => constraints(import, given),
        Special::Directives => {
            let directives = lines_of(value);
            if directives.is_empty() {
                import.answer(given, Verdict::Needless, "says nothing");
            }
            for directive in directives {
                take_directive(import, given, &directive);
            }
        }
        Special::Docker => match as_text(value).as_str() {
            "" => import.answer(given, Verdict::Needless, "says nothing"),
            text if text.starts_with("unix://") || text.starts_with("tcp://") => {
                import.keep(given, "controller.docker", Value::String(text.to_string()));
            }
            _ => import.answer(
                given,
                Verdict::Lost,
                "write unix:///path or tcp://host:port into controller.docker",
            ),
        },
        Special::HeaderBuffers => header_buffers(import, given),
        Special::HttpVersion => match as_text(value).as_str() {
            "" | "1.0" | "1.1" => import.answer(given, Verdict::Needless, given.row.ours),
            _ => import.answer(
                given,
                Verdict::Lost,
                "write the label tidegate.backend_protocol=h2c on services that speak HTTP/2",
            ),
        },
        Special::LogFormat => main_log_format(import, given),
        // `[]` is none, unlike an option that is not there; and so is `[""]`.
        Special::Networks => {
            let names = texts(value).into_iter().map(Value::String).collect();
            import.keep(given, "networks", Value::Array(names));
        }
        Special::Poll => match value_of(value, Form::Millis) {
            Ok(None) => import.change(given, "controller.poll_tasks_ms", Value::Integer(0), "events alone"),
            Ok(Some(Value::Integer(ms))) if ms < 200 => {
                import.change(
                    given,
                    "controller.poll_tasks_ms",
                    Value::Integer(200),
                    "more often would flood Docker",
                );
            }
            Ok(Some(value)) => import.keep(given, "controller.poll_tasks_ms", value),
            Err(problem) => import.answer(given, Verdict::Lost, &format!("{} {problem}", shown(value))),
        },
        Special::Preferences => preferences(import, given),
        Special::Protocols => protocols(import, given),
        Special::PublishMode => match as_text(value).to_ascii_lowercase().as_str() {
            "" => import.answer(given, Verdict::Needless, "says nothing: ingress"),
            mode @ ("host" | "ingress") => import.keep(given, "publish_mode", Value::String(mode.to_string())),
            _ => import.answer(given, Verdict::Lost, "write ingress or host"),
        },
        Special::ServiceName => match as_text(value).as_str() {
            "" => import.answer(given, Verdict::Needless, "says nothing"),
            "ucp-interlock-proxy" | "interlock-proxy" => {
                import.answer(
                    given,
                    Verdict::Needless,
                    "the proxy service has a name of its own, so both may run for a while",
                );
            }
            name => import.keep(given, "service_name", Value::String(name.to_string())),
        },
        Special::Silence => silence(import, given),
        Special::StopGrace => stop_grace(import, given),
        Special::Workers => match as_text(value).as_str() {
            "" | "auto" | "0" => import.answer(given, Verdict::Needless, "one thread per core"),
            "1" => import.answer(
                given,
                Verdict::Changed,
                "one thread per core, since 1 is what Interlock writes by itself; workers = 1 keeps it",
            ),
            _ => match value_of(value, Form::Number) {
                Ok(Some(number)) => import.keep(given, "workers", number),
                Ok(None) | Err(_) => import.answer(given, Verdict::Lost, "write a number of threads into workers"),
            },
        },
    }
}

fn access_log_path(import: &mut Import<'_>, given: &Given<'_>) {
    match as_text(given.value).as_str() {
        "" | "/dev/stdout" => import.answer(given, Verdict::Needless, "access lines go to standard output"),
        "off" | "/dev/null" => import.keep(given, "access_log", Value::String("off".into())),
        path => {
            let said = format!(
                "access lines go to standard output, where `docker service logs` finds them, and not to {path}"
            );
            import.answer(given, Verdict::Lost, &said);
        }
    }
}

fn cipher_list(import: &mut Import<'_>, given: &Given<'_>) {
    let text = as_text(given.value);
    let names: Vec<&str> = text.split([':', ',', ' ']).filter(|name| !name.is_empty()).collect();
    let known: Vec<Value> = names
        .iter()
        .filter(|name| ciphers::find(name).is_some())
        .map(|name| Value::from(*name))
        .collect();
    // Words that name whole families, and what is to be left out of them.
    let is_family = |name: &&str| {
        name.starts_with(['!', '-', '+', '@']) || matches!(*name, "HIGH" | "DEFAULT" | "ALL" | "EECDH" | "ECDHE")
    };
    let gone: Vec<&str> = names
        .iter()
        .filter(|name| ciphers::find(name).is_none() && !is_family(name))
        .copied()
        .collect();
    if known.is_empty() && gone.is_empty() {
        import.answer(given, Verdict::Needless, "every cipher here is a strong one");
    } else if known.is_empty() {
        import.answer(
            given,
            Verdict::Lost,
            &format!("none of them is spoken; write some of {}", ciphers::names()),
        );
    } else if gone.is_empty() {
        import.keep(given, "proxy.tls_ciphers", Value::Array(known));
    } else {
        let why = format!("not spoken: {}", gone.join(", "));
        import.change(given, "proxy.tls_ciphers", Value::Array(known), &why);
    }
}

fn constraints(import: &mut Import<'_>, given: &Given<'_>) {
    let spaceless = |text: &String| text.split_whitespace().collect::<String>();
    let all: Vec<String> = texts(given.value).iter().map(spaceless).collect();
    let kept: Vec<String> = all.iter().filter(|text| *text != UCP_NODES).cloned().collect();
    let is_stock = kept.is_empty() || kept == [LINUX];
    if all.is_empty() {
        import.answer(
            given,
            Verdict::Needless,
            "says nothing: workers, where the Swarm has any",
        );
    } else if is_stock {
        import.answer(
            given,
            Verdict::Changed,
            "Interlock's own constraints, which let proxies run on managers; here they run on workers, where the Swarm has any",
        );
    } else {
        let value = Value::Array(kept.iter().cloned().map(Value::String).collect());
        if kept.len() == all.len() {
            import.keep(given, "constraints", value);
        } else {
            import.change(
                given,
                "constraints",
                value,
                "without the label that nodes have in UCP alone",
            );
        }
    }
}

fn preferences(import: &mut Import<'_>, given: &Given<'_>) {
    let all = texts(given.value);
    if all.is_empty() {
        import.answer(given, Verdict::Needless, "says nothing");
        return;
    }
    let descriptor = |text: &String| {
        let text = text.trim();
        let after = text
            .strip_prefix("spread")
            .map_or(text, |rest| rest.trim_start().trim_start_matches(['=', ':']));
        Value::String(after.trim().to_string())
    };
    import.keep(given, "spread", Value::Array(all.iter().map(descriptor).collect()));
}

fn protocols(import: &mut Import<'_>, given: &Given<'_>) {
    let text = as_text(given.value);
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let has = |word: &str| words.iter().any(|found| found.eq_ignore_ascii_case(word));
    let min = |version: &str| Value::String(version.to_string());
    let old: Vec<&str> = words
        .iter()
        .filter(|word| !["tlsv1.2", "tlsv1.3"].contains(&word.to_ascii_lowercase().as_str()))
        .copied()
        .collect();
    if words.is_empty() {
        import.answer(given, Verdict::Needless, "says nothing: TLS 1.2 and 1.3");
    } else if !old.is_empty() {
        let why = format!("not spoken any more: {}", old.join(", "));
        let version = if has("TLSv1.3") && !has("TLSv1.2") {
            "1.3"
        } else {
            "1.2"
        };
        import.change(given, "proxy.tls_min_version", min(version), &why);
    } else if has("TLSv1.2") {
        match has("TLSv1.3") {
            true => import.keep(given, "proxy.tls_min_version", min("1.2")),
            false => import.change(given, "proxy.tls_min_version", min("1.2"), "TLS 1.3 is spoken too"),
        }
    } else {
        import.keep(given, "proxy.tls_min_version", min("1.3"));
    }
}

fn header_buffers(import: &mut Import<'_>, given: &Given<'_>) {
    let text = as_text(given.value);
    let parts: Vec<&str> = text.split_whitespace().collect();
    let bytes = match parts.as_slice() {
        [] => {
            import.answer(given, Verdict::Needless, "says nothing");
            return;
        }
        [count, each] => count.parse::<u64>().ok().zip(crate::labels::value::size(each).ok()),
        _ => None,
    };
    let bytes = bytes
        .and_then(|(count, each)| count.checked_mul(each))
        .and_then(|bytes| u32::try_from(bytes).ok());
    match bytes.filter(|bytes| *bytes > 0) {
        Some(bytes) => import.keep(given, "proxy.header_bytes_max", Value::Integer(bytes.into())),
        None => import.answer(given, Verdict::Lost, "is no number and size, as in \"4 8k\""),
    }
}

fn main_log_format(import: &mut Import<'_>, given: &Given<'_>) {
    let line = unquoted(&as_text(given.value));
    if line.is_empty() || line == STOCK_LOG {
        import.answer(
            given,
            Verdict::Needless,
            "access_log = \"common\" begins with the same fields",
        );
        return;
    }
    match log_format::parse(&line) {
        Ok(_) => import.keep(given, "access_log_format", Value::String(line)),
        Err(problem) => import.answer(given, Verdict::Lost, &problem),
    }
}

/// The pieces of NGINX's `log_format`, joined: `'a ' 'b';` is `a b`.
fn unquoted(text: &str) -> String {
    let text = text.trim().trim_end_matches(';').trim_end();
    if !text.starts_with('\'') {
        return text.to_string();
    }
    text.split('\'').skip(1).step_by(2).collect()
}

/// Interlock counts silence towards an app by direction; here it is one limit for both, and one for the first byte.
fn silence(import: &mut Import<'_>, given: &Given<'_>) {
    let ms = match value_of(given.value, Form::Seconds) {
        Ok(None) => return import.answer(given, Verdict::Needless, "says nothing"),
        Ok(Some(value)) => value.as_integer().unwrap_or_default(),
        Err(problem) => return import.answer(given, Verdict::Lost, &format!("{} {problem}", shown(given.value))),
    };
    let before = import
        .get("proxy.idle_timeout_ms")
        .and_then(Value::as_integer)
        .unwrap_or_default();
    let idle = import.set("proxy.idle_timeout_ms", Value::Integer(ms.max(before)));
    if matches!(given.row.name, "ReadTimeout" | "ServerTimeout") {
        let first = import.set("proxy.first_byte_timeout_ms", Value::Integer(ms));
        import.answer(given, Verdict::Kept, &format!("{first} and {idle}"));
    } else {
        import.answer(
            given,
            Verdict::Kept,
            &format!("{idle}, the longest silence of either direction"),
        );
    }
}

fn stop_grace(import: &mut Import<'_>, given: &Given<'_>) {
    match value_of(given.value, Form::Millis) {
        Ok(None) => import.answer(given, Verdict::Needless, "says nothing"),
        Ok(Some(Value::Integer(ms))) if ms >= 1_000 => {
            let drain = import.set("proxy.drain_ms", Value::Integer((ms - ms / 5).min(ms - 200)));
            let grace = import.set("stop_grace_ms", Value::Integer(ms));
            import.answer(
                given,
                Verdict::Kept,
                &format!("{grace} and {drain}; Tidegate's own are 30000 and 25000"),
            );
        }
        Ok(Some(_)) => import.answer(
            given,
            Verdict::Lost,
            "is too short for any request to finish; write stop_grace_ms",
        ),
        Err(problem) => import.answer(given, Verdict::Lost, &format!("{} {problem}", shown(given.value))),
    }
}

fn take_directive(import: &mut Import<'_>, given: &Given<'_>, directive: &Directive) {
    let text = format!("`{}`", directive.text);
    match counterpart(&directive.name) {
        Some(Counterpart::Key(key, form)) if directive.words.len() == 1 => {
            match value_of(&Value::String(directive.words[0].clone()), form) {
                Ok(Some(value)) => {
                    let said = import.set(key, value);
                    import.answer(given, Verdict::Kept, &format!("{text}: {said}"));
                }
                Ok(None) => import.answer(given, Verdict::Needless, &format!("{text} says nothing")),
                Err(problem) => import.answer(
                    given,
                    Verdict::Lost,
                    &format!("{text}: {} {problem}", directive.words[0]),
                ),
            }
        }
        Some(Counterpart::Key(..)) => import.answer(given, Verdict::Lost, &format!("{text}: takes one value")),
        Some(Counterpart::Always(why)) => import.answer(given, Verdict::Needless, &format!("{text}: {why}")),
        Some(Counterpart::None(instead)) => import.answer(given, Verdict::Lost, &format!("{text}: {instead}")),
        None => import.answer(given, Verdict::Lost, &format!("{text}: has no counterpart here")),
    }
}

/// Whether a timeout of connections is one that users would feel.
pub(super) fn is_patient(value: &Value) -> bool {
    !is_empty(value) && value.as_integer().is_some_and(|ms| ms > PATIENT_MS)
}
