//! Raw lines of NGINX in Interlock's file: what they say, and the settings that say the same.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::options::Form;

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// Its first word.
    pub(super) name: String,
    /// The words after it, without quotation marks.
    pub(super) words: Vec<String>,
    /// As it was written.
    pub(super) text: String,
}

/// Takes lines apart at `;`. A block stays one directive, which nobody knows.
pub(super) fn split(text: &str) -> Vec<Directive> {
    let mut found = Vec::new();
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quote, mut depth, mut begin) = (None, 0_u32, 0);
    let end_word = |words: &mut Vec<String>, word: &mut String| {
        if !word.is_empty() {
            words.push(core::mem::take(word));
        }
    };
    for (at, c) in text.char_indices().chain([(text.len(), ';')]) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth > 1 => depth -= 1,
            (None, ';' | '}') if depth == 0 || c == '}' || at == text.len() => {
                depth = 0;
                end_word(&mut words, &mut word);
                if !words.is_empty() {
                    let end = if c == '}' { at + 1 } else { at };
                    let text = text[begin..end.max(begin)].trim().to_string();
                    let mut all = core::mem::take(&mut words).into_iter();
                    let name = all.next().unwrap_or_default().to_ascii_lowercase();
                    found.push(Directive {
                        name,
                        words: all.collect(),
                        text,
                    });
                }
                begin = (at + 1).min(text.len());
            }
            (None, c) if c.is_whitespace() => end_word(&mut words, &mut word),
            (_, c) => word.push(c),
        }
    }
    found
}

/// What a directive is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counterpart {
    /// A setting, from its first word.
    Key(&'static str, Form),
    /// Always so, or nothing that could be set.
    Always(&'static str),
    /// Nothing; with what to do instead.
    None(&'static str),
}

/// The counterpart of a directive by name; `None` for one that nobody here knows.
pub(super) fn counterpart(name: &str) -> Option<Counterpart> {
    use Counterpart::{Always, Key, None as Nothing};
    Some(match name {
        "client_max_body_size" => Key("proxy.body_bytes_max", Form::Size),
        "client_body_timeout" => Key("proxy.body_timeout_ms", Form::Millis),
        "client_header_timeout" => Key("proxy.header_timeout_ms", Form::Millis),
        "keepalive_timeout" => Key("proxy.keepalive_timeout_ms", Form::Millis),
        "proxy_connect_timeout" => Key("proxy.connect_timeout_ms", Form::Millis),
        "proxy_read_timeout" => Key("proxy.first_byte_timeout_ms", Form::Millis),
        "proxy_send_timeout" | "send_timeout" | "proxy_timeout" => Key("proxy.idle_timeout_ms", Form::Millis),
        "proxy_next_upstream_tries" => Key("proxy.retries_max", Form::Number),
        "underscores_in_headers" => Key("proxy.underscores_in_headers", Form::Flag),
        "worker_connections" => Key("proxy.connections_max", Form::Number),
        "worker_rlimit_nofile" => Key("open_files_max", Form::Number),
        "worker_shutdown_timeout" => Key("proxy.drain_ms", Form::Millis),
        "keepalive" | "keepalive_requests" | "multi_accept" | "sendfile" | "tcp_nodelay" | "tcp_nopush" | "use" => {
            Always("connections are kept open and written to as fast as they take it")
        }
        "proxy_buffering"
        | "proxy_request_buffering"
        | "proxy_buffers"
        | "proxy_buffer_size"
        | "client_body_buffer_size" => Always("bodies are passed on as they arrive"),
        "server_names_hash_bucket_size"
        | "server_names_hash_max_size"
        | "variables_hash_max_size"
        | "types_hash_max_size" => Always("there is no such table"),
        "server_tokens" => Always("no Server header is added; proxy.hide_info_headers hides x-server-info"),
        "pid" | "user" | "daemon" | "error_log" | "include" | "default_type" => Always("there is nothing to set"),
        "proxy_http_version" => Always("HTTP/1.1, or HTTP/2 by the label backend_protocol"),
        "add_header" => Nothing("write it as the label tidegate.response_headers of the services that need it"),
        "proxy_set_header" => Nothing("write it as the label tidegate.request_headers of the services that need it"),
        "proxy_hide_header" => Nothing("write `remove Name` into the label tidegate.response_headers"),
        "allow" | "deny" => Nothing("write the label tidegate.allow_ips"),
        "auth_basic" | "auth_basic_user_file" => {
            Nothing("write the label tidegate.basic_auth with the Docker secret that holds the file of htpasswd")
        }
        "gzip" | "gzip_types" | "gzip_min_length" | "gzip_comp_level" | "gzip_proxied" | "gzip_vary" => {
            Nothing("write the label tidegate.compress, e.g. gzip, of the services that want it")
        }
        "limit_req" | "limit_req_zone" | "limit_conn" | "limit_conn_zone" => Nothing("there is no rate limit"),
        "set_real_ip_from" | "real_ip_header" | "real_ip_recursive" => Nothing(
            "write the balancer's addresses into proxy.trusted_proxies; for the PROXY protocol also proxy.proxy_protocol",
        ),
        "proxy_cache" | "proxy_cache_path" => Nothing("there is no cache"),
        "load_module" => Nothing("there are no modules"),
        _ => return None,
    })
}
