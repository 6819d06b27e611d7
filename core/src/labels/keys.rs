//! Every label there is: the one table that parsing, suggestions and `docs/labels.md` share.

use alloc::format;
use alloc::string::String;

use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::swarm::model::Service;
use crate::text;

mod health;

/// Interlock's prefix.
pub const INTERLOCK_PREFIX: &str = "com.docker.lb.";
/// Our own prefix; wins where both say different things.
pub const PREFIX: &str = "tidegate.";
/// Label of Tidegate's own services; a service with it is never routed.
pub const ROLE_LABEL: &str = "tidegate.role";

/// Keys under [`PREFIX`] that mark Tidegate's own services and secrets, and are no route labels.
const OWN: &[&str] = &["applied", "cluster", "role"];
/// Beginnings of such keys.
const OWN_FAMILIES: &[&str] = &["identity"];

/// Labels that keep clients out: misspelled, they refuse the route rather than do nothing.
const GUARDS: &[&str] = &[
    "allow_ips",
    "basic_auth",
    "ssl_backend",
    "ssl_backend_ca",
    "ssl_backend_tls_verify",
];

/// How far this version goes with a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Accepted without effect, because what it asks for is always so.
    Hint,
    /// Does what it says.
    Honoured,
}

/// One label, as documented.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// The key without prefix.
    pub name: &'static str,
    /// Whether Interlock has it too, so that both prefixes are read.
    pub interlock: bool,
    /// How far this version goes.
    pub support: Support,
    /// What the value looks like.
    pub syntax: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// A value.
    pub example: &'static str,
    /// What follows from a wrong value.
    pub when_wrong: &'static str,
    /// The test that shows it: a function whose name begins with `label_`, the label's name and `_`.
    pub test: &'static str,
}

const fn honoured(name: &'static str, syntax: &'static str, default: &'static str) -> Label {
    Label {
        name,
        interlock: true,
        support: Support::Honoured,
        syntax,
        default,
        meaning: "",
        example: "",
        when_wrong: "",
        test: "",
    }
}

/// Every label, sorted by name.
pub const LABELS: &[Label] = &[
    Label {
        interlock: false,
        meaning: "Client addresses that are served; others are answered 403. The address is that of the connection, \
                  or what `trusted_proxies` of the settings say. Behind the routing mesh, which hides addresses, and \
                  without them the route is refused: publish the proxies in host mode then. Of several services in one pool, all must allow the client. An empty list, and a label that is \
                  misspelled so that this one seems to be meant, refuse the route too.",
        example: "10.0.0.0/8, 2001:db8::/32",
        when_wrong: "the route is refused",
        test: "label_allow_ips_serves_only_clients_of_the_list",
        ..honoured("allow_ips", "addresses and ranges between commas", "everybody")
    },
    Label {
        meaning: "`task`: requests go to each task's own address. `vip`: they go to the service's virtual IP, and Swarm \
                  chooses the task; a service without virtual IP (`dnsrr`) is served by its tasks, with a warning.",
        example: "vip",
        when_wrong: "warning; `task` holds",
        test: "label_backend_mode_is_the_tasks_or_one_virtual_ip",
        ..honoured("backend_mode", "`task` or `vip`", "`task`")
    },
    Label {
        interlock: false,
        meaning: "What is spoken to the app. `auto`: HTTP/1.1, and HTTP/2 for gRPC requests: with prior knowledge, or with \
                  `ssl_backend` if the app agrees to it. `h2c`, or `h2`: always HTTP/2. `http1`: always HTTP/1.1.",
        example: "h2c",
        when_wrong: "warning; `auto` holds",
        test: "label_backend_protocol_h2c_reaches_an_http_2_app",
        ..honoured("backend_protocol", "`auto`, `h2c`, `h2` or `http1`", "`auto`")
    },
    Label {
        interlock: false,
        meaning: "How an endpoint is chosen. `least_requests`: of two drawn at random, the one with fewer requests under way. \
                  `round_robin`: one after the other.",
        example: "round_robin",
        when_wrong: "warning; `least_requests` holds",
        test: "label_balance_spreads_requests_by_either_policy",
        ..honoured("balance", "`least_requests` or `round_robin`", "`least_requests`")
    },
    Label {
        interlock: false,
        meaning: "Asks clients for a user and a password. The Docker secret (in a stack `<stack>_<secret>`) holds what `htpasswd -B` \
                  writes, a user and a hash per line: bcrypt (`$2y$`, at most cost 14), SHA-256 and SHA-512 crypt, Apache's MD5 \
                  and `{SHA}`; passwords in plain text are left out. Who is none of them is answered 401. Without the secret, or \
                  a usable line in it, the answer is 503; one that goes or breaks later leaves the last good users. \
                  `Authorization` does not reach the app, see `basic_auth_forward`. Of several services in one pool, clients \
                  must be users of all; `allow_ips` holds beside it. Redirects of the host come before it. Passwords travel as \
                  clients send them: add `ssl_only`. A label that is misspelled so that this one seems to be meant refuses the \
                  route.",
        example: "shop-users",
        when_wrong: "the route is refused; so it is beside `ssl_passthrough`",
        test: "label_basic_auth_lets_users_of_the_secret_in_alone",
        ..honoured("basic_auth", "a Docker secret", "anybody")
    },
    Label {
        interlock: false,
        meaning: "Passes `Authorization` on to the app, which `basic_auth` keeps to itself otherwise.",
        example: "true",
        when_wrong: "warning; `false` holds",
        test: "label_basic_auth_forward_shows_the_app_what_the_client_said",
        ..honoured("basic_auth_forward", "a boolean", "`false`")
    },
    Label {
        interlock: false,
        meaning: "What clients are told that they log in to.",
        example: "Shop of Example",
        when_wrong: "warning; the host is shown",
        test: "label_basic_auth_realm_is_what_clients_are_shown",
        ..honoured("basic_auth_realm", "plain words", "the host")
    },
    Label {
        interlock: false,
        meaning: "The largest request body that is forwarded; a larger one is answered 413. `0`: no limit.",
        example: "100m",
        when_wrong: "warning; the cluster's setting holds",
        test: "label_body_limit_goes_beyond_the_clusters_or_below",
        ..honoured(
            "body_limit",
            "bytes, or a number with `k`, `m` or `g`",
            "the cluster's `body_bytes_max`",
        )
    },
    Label {
        interlock: false,
        meaning: "Compresses responses for clients that take it (`Accept-Encoding`, by the client's weights, then in the order of \
                  the list): text of any kind, JSON, XML, JavaScript, SVG, WebAssembly and uncompressed fonts, of 1 KiB or of \
                  unknown length. Left as they are: what the app compressed, `Cache-Control: no-transform`, parts (206), \
                  answers to HEAD, gRPC, upgrades. `Vary: accept-encoding` is added and `ETag` made weak. Where the app pauses, \
                  what it sent goes out, so streams of events do not wait. Beside secrets of a page, compressing what clients \
                  sent can give them away (BREACH): leave it off there.",
        example: "zstd, br, gzip",
        when_wrong: "the wrong words are left out with a warning",
        test: "label_compress_codes_what_clients_take",
        ..honoured(
            "compress",
            "`zstd`, `br`, `gzip` between commas, or `true` for all",
            "no compression",
        )
    },
    Label {
        interlock: false,
        meaning: "How long a TCP connection to an endpoint may take before another one is tried. At most 1m.",
        example: "2s",
        when_wrong: "warning; the cluster's setting holds",
        test: "label_connect_timeout_is_the_routes_own",
        ..honoured("connect_timeout", "a time", "the cluster's `connect_timeout_ms`")
    },
    Label {
        meaning: "Serves only the paths under this prefix, by whole segments: `/app` covers `/app` and `/app/x`, not \
                  `/application`. Several services may share a host with a context root each; the longest one that fits serves.",
        example: "/app",
        when_wrong: "the route is refused",
        test: "label_context_root_serves_only_what_is_below_it",
        ..honoured("context_root", "a path", "`/`")
    },
    Label {
        meaning: "Takes the context root away before forwarding: `/app/x` reaches the app as `/x`, and `/app` as `/`.",
        example: "true",
        when_wrong: "warning; `false` holds",
        test: "label_context_root_rewrite_takes_the_prefix_away",
        ..honoured("context_root_rewrite", "a boolean", "`false`")
    },
    Label {
        meaning: "Also serves every host that nobody claims, and requests without a host. Of several such services the oldest \
                  serves. Needs no `hosts`.",
        example: "true",
        when_wrong: "warning; `false` holds",
        test: "label_default_backend_serves_what_nobody_claims",
        ..honoured("default_backend", "a boolean", "`false`")
    },
    health::EJECT_MAX,
    health::FAIL_ON,
    health::FAIL_RATE,
    health::FAIL_TIMEOUT,
    Label {
        interlock: false,
        meaning: "How long the app may take from the request's last byte to the response's first before the answer is \
                  504. At most 24h.",
        example: "5m",
        when_wrong: "warning; the cluster's setting holds",
        test: "label_first_byte_timeout_beats_the_clusters",
        ..honoured("first_byte_timeout", "a time", "the cluster's `first_byte_timeout_ms`")
    },
    Label {
        interlock: false,
        meaning: "Sends a second copy of a request to another endpoint where no response has begun by then; the first \
                  answer is used, and the other request is cancelled. For `GET`, `HEAD`, `OPTIONS` and `TRACE` without \
                  body. Each copy is taken from the retry budget, so a slow app never gets twice its load. At most 1m.",
        example: "300ms",
        when_wrong: "warning; requests are sent once",
        test: "label_hedge_after_sends_a_second_copy_and_cancels_the_loser",
        ..honoured("hedge_after", "a time", "never")
    },
    Label {
        meaning: "The host names to serve, compared without case, port and trailing dot. `*.example.org` covers every name \
                  below `example.org`; an exact name beats a wildcard, a longer wildcard a shorter one. Names outside ASCII are \
                  written in punycode. Several services with one host and path are one pool, weighted by their tasks (canary). At most \
                  20,000.",
        example: "shop.example.org, *.shop.example.org",
        when_wrong: "the wrong names are left out with a warning; without a right one the route is refused",
        test: "label_hosts_name_who_is_served",
        ..honoured(
            "hosts",
            "host names between commas",
            "none; required unless `default_backend`",
        )
    },
    Label {
        interlock: false,
        meaning: "How long a running response or an upgraded connection may be silent in both directions. At most 24h.",
        example: "1h",
        when_wrong: "warning; the cluster's setting holds",
        test: "label_idle_timeout_beats_the_clusters_whichever_is_longer",
        ..honoured("idle_timeout", "a time", "the cluster's `idle_timeout_ms`")
    },
    Label {
        meaning: "A client comes back to the endpoint that its address leads to, by consistent hashing: where \
                  endpoints come or go, only clients of those endpoints move. The routing mesh hides client addresses (a warning says \
                  so): publish the proxies in host mode, or name `trusted_proxies` in the settings. Ignored with \
                  `backend_mode=vip`, and beside a sticky cookie.",
        example: "true",
        when_wrong: "warning; `false` holds",
        test: "label_ip_hash_sends_one_client_to_one_endpoint",
        ..honoured("ip_hash", "a boolean", "`false`")
    },
    health::MAX_FAILS,
    Label {
        meaning: "The network over which proxies reach the tasks: its name, its id, or in a stack its name without the stack's. \
                  Without it, of several networks one that the proxies are on already is taken, else the first by name, with a warning.",
        example: "shop_backend",
        when_wrong: "with exactly one usable network that one is taken, with a warning; else the route is refused; \
                     `ingress` is always refused",
        test: "label_network_says_over_which_one_tasks_are_reached",
        ..honoured("network", "one network", "the service's only network")
    },
    health::PANIC_THRESHOLD,
    Label {
        interlock: false,
        meaning: "How long a request may wait while the service has no endpoint that is ready, or all that are have `requests_max` requests, \
                  before it is answered 503. \
                  At most 10m; `0` answers at once.",
        example: "5s",
        when_wrong: "warning; the cluster's setting holds",
        test: "label_park_timeout_is_a_time_of_at_most_ten_minutes",
        ..honoured("park_timeout", "a time", "the cluster's `park_ms`")
    },
    health::PARKED_MAX,
    Label {
        meaning: "The port on which the app listens. Where the service publishes it in host mode, requests go to the node's \
                  address and the published port, if there is no overlay network shared with the proxies, or if the proxies \
                  are published in host mode too and neither `network` nor `backend_mode=vip` asks for the overlay.",
        example: "8080",
        when_wrong: "the route is refused",
        test: "label_port_is_where_the_app_listens",
        ..honoured(
            "port",
            "a number from 1 to 65535",
            "the only published TCP port; else required",
        )
    },
    health::PROBE_INTERVAL,
    health::PROBE_PATH,
    health::PROBE_STATUS,
    health::PROBE_TIMEOUT,
    Label {
        interlock: false,
        meaning: "With `ssl_passthrough`, tells the app the client's address: each connection begins with a header of the PROXY \
                  protocol, `v1` as a line of text or `v2` in binary. The app must expect it. Ignored without `ssl_passthrough`, where \
                  `X-Forwarded-For` says it.",
        example: "v2",
        when_wrong: "the route is refused",
        test: "label_proxy_protocol_says_who_the_client_is_before_its_first_byte",
        ..honoured("proxy_protocol", "`v1` or `v2`", "none")
    },
    Label {
        meaning: "Answers every request of a source host with 302 and the target followed by path and query of the \
                  request. A source with `http://` concerns plain HTTP, one with `https://` requests over TLS, \
                  which need a certificate for the source. A source has no path; it may be a wildcard; it should be among the \
                  `hosts`, and is redirected with a warning if it is not. A redirect comes before all routes of its \
                  host, also those of other services, if its service is the oldest that names the host; else it is \
                  ignored with a warning.",
        example: "http://old.example.org,https://new.example.org/shop;",
        when_wrong: "the wrong pairs are left out with a warning, as are those that lead back to themselves",
        test: "label_redirects_are_read_as_interlock_writes_them",
        ..honoured("redirects", "`source,target;…`", "none")
    },
    Label {
        interlock: false,
        meaning: "Changes header fields of requests before they are forwarded, in this order. A value with `;` stands \
                  between quotation marks. Fields that frame or address the message (`Host`, `Content-Length`, \
                  `Connection`, `Transfer-Encoding`, `TE`, `Upgrade` and the like) cannot be changed. At most 64 \
                  edits.",
        example: "set X-Tenant blue; remove X-Debug",
        when_wrong: "the wrong edits are left out with a warning",
        test: "label_request_headers_are_edited_on_the_way_in",
        ..honoured(
            "request_headers",
            "`set Name value; add Name value; remove Name`",
            "none",
        )
    },
    health::REQUESTS_MAX,
    Label {
        interlock: false,
        meaning: "The same for responses of the app; answers of the proxy itself stay as they are.",
        example: "set Strict-Transport-Security \"max-age=31536000; includeSubDomains\"; remove Server",
        when_wrong: "the wrong edits are left out with a warning",
        test: "label_response_headers_are_edited_on_the_way_out",
        ..honoured(
            "response_headers",
            "`set Name value; add Name value; remove Name`",
            "none",
        )
    },
    Label {
        meaning: "The service cluster whose proxies serve the service; others answer as if they had never heard of it.",
        example: "us-east",
        when_wrong: "the route is refused; one that the settings do not have is not routed and reported",
        test: "label_service_cluster_says_whose_proxies_serve",
        ..honoured("service_cluster", "one name", "`default`")
    },
    health::SLOW_START,
    Label {
        meaning: "Speaks TLS to the app, and never anything else: where the handshake fails, the request goes to another endpoint or \
                  is answered 502. `connect_timeout` covers the handshake. Which HTTP version is spoken is agreed on by ALPN, see \
                  `backend_protocol`. Beside `ssl_passthrough` it is ignored.",
        example: "true",
        when_wrong: "the route is refused",
        test: "label_ssl_backend_speaks_tls_and_takes_any_certificate",
        ..honoured("ssl_backend", "a boolean", "`false`")
    },
    Label {
        interlock: false,
        meaning: "Who may have signed the app's certificate: the name of the Docker secret with the authorities' certificates as PEM \
                  (in a stack `<stack>_<secret>`). A certificate of the app itself may stand in it too. While the secret cannot be \
                  read, requests are answered 503.",
        example: "shop.ca",
        when_wrong: "the route is refused",
        test: "label_ssl_backend_ca_that_cannot_be_read_answers_503_until_it_can",
        ..honoured(
            "ssl_backend_ca",
            "one Docker secret",
            "the authorities that browsers trust, as of Tidegate's release",
        )
    },
    Label {
        interlock: false,
        meaning: "The name that the app is asked for (SNI) and that its certificate must be for where it is verified; an address is only \
                  verified. It is the same for all requests, whatever their host, so that connections serve all of them.",
        example: "shop.internal",
        when_wrong: "the route is refused",
        test: "label_ssl_backend_server_name_is_what_the_app_is_asked_for",
        ..honoured(
            "ssl_backend_server_name",
            "one host name or address",
            "the first of the `hosts` that has no `*`",
        )
    },
    Label {
        meaning: "`none`: any certificate of the app is taken, so that nobody can listen, but anybody could answer. `required`: it must be \
                  valid now, for `ssl_backend_server_name`, and signed by `ssl_backend_ca`; else requests go to another endpoint or are \
                  answered 502.",
        example: "required",
        when_wrong: "the route is refused, also where it asks for verification and `ssl_backend` is missing",
        test: "label_ssl_backend_tls_verify_refuses_what_it_cannot_honour",
        ..honoured(
            "ssl_backend_tls_verify",
            "`none` or `required`",
            "`none`; `required` where `ssl_backend_ca` is set",
        )
    },
    Label {
        meaning: "Ends TLS at the proxies with this certificate: the name of the Docker secret that holds it and its chain as \
                  PEM (in a stack `<stack>_<secret>`). Several between commas may serve one host, such as one with an RSA and one \
                  with an ECDSA key; each client gets one that it can use. The hosts stay reachable over plain HTTP; see \
                  `ssl_only`. To renew, make a new secret and name it here.",
        example: "shop.example.org.cert",
        when_wrong: "warning; the hosts keep their last good certificate, and plain HTTP goes on",
        test: "label_ssl_cert_ends_tls_and_the_app_learns_of_it",
        ..honoured("ssl_cert", "Docker secrets between commas", "none")
    },
    Label {
        meaning: "The key of the certificate in `ssl_cert`, as PEM; several in the order of the certificates. Not needed where \
                  the secret in `ssl_cert` holds both.",
        example: "shop.example.org.key",
        when_wrong: "warning; the hosts keep their last good certificate, and plain HTTP goes on",
        test: "label_ssl_key_names_the_secret_beside_ssl_cert_under_both_prefixes",
        ..honoured("ssl_key", "Docker secrets between commas", "the key in `ssl_cert`")
    },
    Label {
        meaning: "Answers plain HTTP with a redirect (302) to the same host and URI over HTTPS. Needs `ssl_cert` or \
                  `ssl_passthrough`.",
        example: "true",
        when_wrong: "the route is refused; without a certificate a warning",
        test: "label_ssl_only_redirects_plain_http",
        ..honoured("ssl_only", "a boolean", "`false`")
    },
    Label {
        meaning: "Passes TLS to the app untouched, by the name that the client asks for (SNI); the app ends it with a certificate of \
                  its own. Clients that name no host reach the default backend, if that has passthrough. Plain HTTP is \
                  answered 503, or redirected with `ssl_only`. `ssl_cert`, `context_root` and whatever else needs to see HTTP are ignored beside it; `allow_ips`, `ip_hash` and \
                  the limits of connections hold.",
        example: "true",
        when_wrong: "the route is refused",
        test: "label_ssl_passthrough_leads_each_name_to_the_app_that_ends_tls_itself",
        ..honoured("ssl_passthrough", "a boolean", "`false`")
    },
    Label {
        interlock: false,
        meaning: "A client comes back to the endpoint that it had, by a cookie that the proxy sets: a random value, \
                  `HttpOnly`, `SameSite=Lax`, which says nothing about endpoints and is good at every proxy. Where \
                  endpoints come or go, only clients of those endpoints move. Ignored with `backend_mode=vip`.",
        example: "lb",
        when_wrong: "warning; clients are not pinned",
        test: "label_sticky_cookie_is_set_once_and_leads_back",
        ..honoured("sticky_cookie", "a cookie's name", "none")
    },
    Label {
        meaning: "A client comes back to the endpoint that it had, by the value of a cookie that the app sets, by \
                  consistent hashing: where endpoints come or go, only clients of those endpoints move. An endpoint \
                  that is set aside or leaves is stood in for by the next one, and has its clients again when it is \
                  back. Without the cookie, and with an empty one, requests are balanced as usual; the proxy sets no \
                  cookie. Ignored with `backend_mode=vip`, and beside `sticky_cookie`.",
        example: "app_session",
        when_wrong: "warning; clients are not pinned",
        test: "label_sticky_session_cookie_leads_back_and_scaling_moves_the_fewest",
        ..honoured("sticky_session_cookie", "a cookie's name", "none")
    },
    Label {
        support: Support::Hint,
        meaning: "Upgrades (WebSocket and others) work on every route, so this changes nothing.",
        when_wrong: "nothing: every value is accepted",
        test: "label_websocket_endpoints_is_a_hint_that_changes_nothing",
        ..honoured("websocket_endpoints", "paths between commas", "none")
    },
    Label {
        interlock: false,
        meaning: "The service's share of the requests of a pool that it has together with other services (canary): of \
                  two services with weights 95 and 5, the second gets one request in twenty, however many tasks it \
                  has. A service without weight beside one with it counts one per ready endpoint. `0` gets nothing.",
        example: "5",
        when_wrong: "warning; each endpoint counts as one",
        test: "label_weight_is_the_share_that_a_service_gets",
        ..honoured("weight", "a number from 0 to 1000", "one per endpoint")
    },
];

/// The label with this name.
pub fn label(name: &str) -> Option<&'static Label> {
    LABELS.iter().find(|label| label.name == name)
}

/// A label as its service has it.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    /// The whole key, with prefix. Where the label is absent, the key under which we would like it.
    pub(super) key: String,
    /// The value, trimmed; empty where it is absent.
    pub(super) value: &'a str,
}

/// Looks a label up under both prefixes; ours wins.
pub(super) fn find<'a>(service: &'a Service, label: &Label) -> Option<Found<'a>> {
    let prefixes: &[&str] = if label.interlock {
        &[PREFIX, INTERLOCK_PREFIX]
    } else {
        &[PREFIX]
    };
    prefixes.iter().find_map(|prefix| {
        let key = format!("{prefix}{}", label.name);
        let value = service.labels.get(&key)?.trim();
        Some(Found { key, value })
    })
}

/// Looks a label up by name, for messages: absent ones have our key and an empty value.
pub(super) fn find_or_absent<'a>(service: &'a Service, name: &str) -> Found<'a> {
    label(name)
        .and_then(|label| find(service, label))
        .unwrap_or_else(|| Found {
            key: format!("{PREFIX}{name}"),
            value: "",
        })
}

/// The whole key and the value of a label as a service has it; for absent ones our key and nothing.
pub fn as_written<'a>(service: &'a Service, name: &str) -> (String, &'a str) {
    let found = find_or_absent(service, name);
    (found.key, found.value)
}

/// A route label's prefix and name; `None` for labels of others and for those of Tidegate's own services.
pub(crate) fn split(key: &str) -> Option<(&str, &str)> {
    if let Some(name) = key.strip_prefix(INTERLOCK_PREFIX) {
        return Some((INTERLOCK_PREFIX, name));
    }
    let name = key.strip_prefix(PREFIX)?;
    let is_own = OWN.contains(&name) || OWN_FAMILIES.iter().any(|family| name.starts_with(family));
    (!is_own).then_some((PREFIX, name))
}

/// What to say about a key that is no label: the nearest that is.
pub(super) fn unknown(service: &Service, key: &str, prefix: &str, name: &str, value: &str) -> Diagnostic {
    let known = || LABELS.iter().filter(|label| label.interlock || prefix == PREFIX);
    let lower = name.to_ascii_lowercase();
    let elsewhere = LABELS.iter().find(|label| label.name == lower && !label.interlock);
    let (meant, remedy) = match elsewhere.filter(|_| prefix != PREFIX) {
        Some(label) => (
            label.name,
            format!("write {PREFIX}{}, which is no label of Interlock", label.name),
        ),
        None => match nearest(&lower, known().map(|label| label.name)) {
            Some(near) => (near, format!("did you mean {prefix}{near}?")),
            None => ("", String::from("take it away; docs/labels.md lists every label")),
        },
    };
    if GUARDS.contains(&meant) {
        let problem = "there is no such label, and what seems to be meant protects the route";
        return Diagnostic::new(service, key, value, Severity::Error, problem, remedy);
    }
    Diagnostic::new(
        service,
        key,
        value,
        Severity::Warning,
        "there is no such label, so it does nothing",
        remedy,
    )
}

/// The nearest word, for texts short enough that the search costs nothing.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    (word.len() <= 64).then(|| text::nearest(word, known)).flatten()
}

#[cfg(test)]
mod tests;
