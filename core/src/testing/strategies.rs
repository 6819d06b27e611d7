//! Proptest strategies: few names and many meetings, so that conflicts, merges and near misses are the rule.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use proptest::collection::{btree_map, btree_set, vec as many};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::id::{EndpointId, ServiceId};
use crate::labels::keys::{INTERLOCK_PREFIX, LABELS, PREFIX};
use crate::route::redirect::{Redirect, Scheme};
use crate::route::spec::{
    Affinity, BackendTls, Balance, CertificateRef, ClientTls, EndpointSpec, HostPattern, Leaving, PassiveChecks,
    PathPrefix, ProxyProtocol, RouteLimits, RouteSpec, Trust, UpstreamProtocol,
};
use crate::swarm::model::{DesiredState, EndpointMode, STACK_LABEL, Service, ServiceMode, Task, TaskState};
use crate::testing::sample;

/// Names of the networks that [`service_and_tasks`] uses.
pub const NETWORKS: &[&str] = &["ingress", "shared", "shop_backend"];

const HOSTS: &[&str] = &[
    "a.example",
    "b.a.example",
    "c.b.a.example",
    "*.a.example",
    "*.b.a.example",
    "*.example",
    "other.test",
    "10.0.0.1",
];

const RANGES: &[&str] = &["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"];

const PATHS: &[&str] = &[
    "/",
    "/",
    "/app",
    "/app/x",
    "/application",
    "/app/x/y",
    "/admin",
    "/caf%C3%A9",
];

const REQUEST_HOSTS: &[&str] = &[
    "a.example",
    "A.Example",
    "b.a.example",
    "x.a.example",
    "x.y.a.example",
    "c.b.a.example",
    "d.b.a.example",
    ".a.example",
    "example",
    "z.example",
    "other.test",
    "nobody.test",
    "10.0.0.1",
    "",
];

const SEGMENTS: &[&str] = &[
    "app",
    "app",
    "app",
    "x",
    "y",
    "admin",
    "application",
    "%61pp",
    "caf%c3%a9",
    "..",
    "..",
    "..",
    "..",
    ".",
    "%2e%2E",
    "%2e",
    "..;",
    "..;a=b",
    "..%2fadmin",
    "..%5cadmin",
    "..\\admin",
    "app%2fx",
    "%252e%252e",
    "...",
    "",
    "a;b=.",
    "%",
    "%4",
];

const VALUES: &[&str] = &[
    "true",
    "false",
    "1",
    "",
    "shop.example.org",
    "shop.example.org",
    "*.example.org, SHOP.example.org:80;",
    "8080",
    "80",
    "/app",
    "/app/../x",
    "vip",
    "task",
    "shared",
    "backend",
    "ingress",
    "round_robin",
    "h2c",
    "10s",
    "bücher.example",
    "[::1]",
    "http://x/y",
    "us-east",
    "http://a.example,http://b.example/x; https://*.a.example,https://c.example",
    "10.0.0.0/8, 2001:db8::/32",
    "set X-A b; add X-C \"d;e\"; remove Host",
    "32m",
    "5",
];

/// A host pattern out of a few that cover each other.
pub fn host_pattern() -> impl Strategy<Value = HostPattern> {
    select(HOSTS).prop_map(|text| HostPattern::from_normalised(text.to_string()))
}

/// A path prefix out of a few that cover each other.
pub fn path_prefix() -> impl Strategy<Value = PathPrefix> {
    select(PATHS).prop_map(|text| PathPrefix::from_normalised(text.to_string()))
}

/// A host as clients send it: most are claimed by someone, in some spelling.
pub fn request_host() -> impl Strategy<Value = Option<String>> {
    let ends = select(vec!["", "", ":80", ".", ".:8080"]);
    let host = (select(REQUEST_HOSTS), ends).prop_map(|(name, end)| format!("{name}{end}"));
    option::weighted(0.95, host)
}

/// A request target, many of them made to be misread.
pub fn request_target() -> impl Strategy<Value = String> {
    let query = select(vec!["", "", "?a=/../b", "?"]);
    let segments = many(select(SEGMENTS), 0..6);
    (segments, query).prop_map(|(segments, query)| format!("/{}{query}", segments.join("/")))
}

fn affinity() -> impl Strategy<Value = Affinity> {
    select(vec![
        Affinity::None,
        Affinity::None,
        Affinity::Address,
        Affinity::AppCookie("session".to_string()),
        Affinity::OwnCookie("stick".to_string()),
    ])
}

/// A scheme.
pub fn scheme() -> impl Strategy<Value = Scheme> {
    select(vec![Scheme::Http, Scheme::Https])
}

/// A spec for the service with this number; its age is not that of its number.
pub fn route_spec(number: u8) -> impl Strategy<Value = RouteSpec> {
    let settings = (
        select(vec![Balance::LeastRequests, Balance::RoundRobin]),
        select(vec![
            UpstreamProtocol::Auto,
            UpstreamProtocol::H2c,
            UpstreamProtocol::Http1,
        ]),
        option::of(0..20_000_u32),
        affinity(),
        option::of(0..4_u32),
        option::of(0..4_u32),
        option::of(many(select(RANGES), 1..3)),
        (client_tls(), option::weighted(0.2, backend_tls())),
    );
    (
        btree_set(host_pattern(), 0..4),
        prop::bool::weighted(0.2),
        path_prefix(),
        any::<bool>(),
        settings,
        btree_map(0..6_u8, prop::bool::weighted(0.2), 0..4),
        1..4_u8,
        btree_map(
            (host_pattern(), any::<bool>()),
            select(vec!["http://a.example", "https://b.example/x"]),
            0..2,
        ),
    )
        .prop_map(
            move |(hosts, default_backend, path, strip_path, settings, endpoints, day, redirects)| {
                let (balance, protocol, park_ms, affinity, weight, max_fails, allow_ips, (tls, backend_tls)) = settings;
                let endpoints = endpoints.into_iter().map(|(slot, is_leaving)| EndpointSpec {
                    id: EndpointId::from(format!("s{number}.{slot}")),
                    addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, number, slot)), 8080),
                    via: None,
                    node: None,
                    leaving: is_leaving.then_some(Leaving { last_resort_ms: 2_500 }),
                    unsure: false,
                });
                RouteSpec {
                    hosts: hosts.into_iter().collect(),
                    default_backend,
                    path,
                    strip_path,
                    balance,
                    protocol,
                    limits: RouteLimits {
                        park_ms,
                        ..RouteLimits::default()
                    },
                    affinity,
                    weight,
                    checks: PassiveChecks {
                        max_fails,
                        fail_timeout_ms: None,
                        slow_start_ms: None,
                        ..PassiveChecks::default()
                    },
                    allow_ips: allow_ips.map(|ranges| ranges.iter().filter_map(|range| range.parse().ok()).collect()),
                    redirects: redirects
                        .into_iter()
                        .map(|((host, is_https), target)| Redirect {
                            host,
                            scheme: if is_https { Scheme::Https } else { Scheme::Http },
                            target: target.to_string(),
                        })
                        .collect(),
                    requires: tls.requires(),
                    backend_tls: backend_tls.filter(|_| !tls.passthrough),
                    tls,
                    endpoints: endpoints.collect(),
                    ..RouteSpec::new(
                        ServiceId::from(format!("s{number}")),
                        format!("service-{number}"),
                        format!("2026-01-0{day}T00:00:00Z"),
                    )
                }
            },
        )
}

/// TLS settings of a route, as labels can make them.
pub fn client_tls() -> impl Strategy<Value = ClientTls> {
    let certificate = select(vec!["a.cert", "b.cert"]).prop_map(|name| CertificateRef {
        certificate: name.to_string(),
        key: None,
    });
    let kinds = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        many(certificate, 0..2),
    );
    kinds.prop_map(|(passthrough, only, certificates)| ClientTls {
        passthrough,
        proxy_protocol: (passthrough && only).then_some(ProxyProtocol::V2),
        only,
        certificates: if passthrough { Vec::new() } else { certificates },
    })
}

/// TLS to an app, as labels can make it.
pub fn backend_tls() -> impl Strategy<Value = BackendTls> {
    let trust = select(vec![Trust::Any, Trust::Web, Trust::Secret(String::from("a.ca"))]);
    (trust, select(vec!["a.example", "b.example"])).prop_map(|(trust, name)| BackendTls {
        trust,
        server_name: Some(String::from(name)),
    })
}

/// A change of the routes: this service gets this spec, or goes.
pub fn route_change() -> impl Strategy<Value = (ServiceId, Option<Arc<RouteSpec>>)> {
    (0..6_u8).prop_flat_map(|number| {
        let id = ServiceId::from(format!("s{number}"));
        option::weighted(0.8, route_spec(number)).prop_map(move |spec| (id.clone(), spec.map(Arc::new)))
    })
}

/// Routes of up to six services.
pub fn routes() -> impl Strategy<Value = BTreeMap<ServiceId, Arc<RouteSpec>>> {
    many(route_change(), 0..10).prop_map(|changes| {
        let specs = changes.into_iter().filter_map(|(id, spec)| Some((id, spec?)));
        specs.collect()
    })
}

/// A label with a known key or something like one, and a value that may be right.
pub fn label() -> impl Strategy<Value = (String, String)> {
    let prefix = || select(vec![PREFIX, INTERLOCK_PREFIX]);
    let names: Vec<&str> = LABELS.iter().map(|label| label.name).collect();
    let known = (prefix(), select(names)).prop_map(|(prefix, name)| format!("{prefix}{name}"));
    let near = (prefix(), ".{0,12}").prop_map(|(prefix, name)| format!("{prefix}{name}"));
    let key = prop_oneof![8 => known, 1 => near, 1 => any::<String>()];
    let usual = select(VALUES).prop_map(String::from);
    let value = prop_oneof![3 => usual, 1 => any::<String>(), 1 => "[a-z.,:/%*\\[\\]0-9 ]{0,40}"];
    (key, value)
}

/// A labelled service on some of [`NETWORKS`], and tasks of it in every state.
pub fn service_and_tasks() -> impl Strategy<Value = (Service, Vec<Task>)> {
    let states = select(vec![
        TaskState::Starting,
        TaskState::Running,
        TaskState::Running,
        TaskState::Shutdown,
        TaskState::Other,
    ]);
    let desired = select(vec![
        DesiredState::Ready,
        DesiredState::Running,
        DesiredState::Running,
        DesiredState::Shutdown,
        DesiredState::Other,
    ]);
    let modes = vec![
        ServiceMode::Global,
        ServiceMode::Job,
        ServiceMode::Replicated { replicas: 2 },
        ServiceMode::Replicated { replicas: 3 },
    ];
    (
        many(label(), 0..8),
        any::<bool>(),
        prop::sample::subsequence(NETWORKS, 0..=NETWORKS.len()),
        select(vec![EndpointMode::Dnsrr, EndpointMode::Vip]),
        select(modes),
        btree_set(select(vec![80_u16, 8080]), 0..2),
        many((states, desired, any::<bool>()), 0..4),
    )
        .prop_map(|(labels, is_usual, networks, endpoint_mode, mode, ports, tasks)| {
            let usual: &[_] = &[("tidegate.hosts", "shop.example.org"), ("tidegate.port", "80")];
            let mut service = sample::service("shop", if is_usual { usual } else { &[] }, &networks);
            service.labels.extend(labels);
            service.labels.insert(STACK_LABEL.to_string(), "shop".to_string());
            service.endpoint_mode = endpoint_mode;
            service.mode = mode;
            if endpoint_mode == EndpointMode::Dnsrr {
                service.virtual_ips.clear();
            }
            service.ports = ports.iter().map(|port| sample::host_port(*port, None)).collect();
            let tasks = (1..).zip(tasks).map(|(slot, (state, desired, is_attached))| {
                let mut task = sample::task(&service, slot, if is_attached { &networks } else { &[] });
                (task.state, task.desired) = (state, desired);
                let bound = ports.iter().map(|port| sample::host_port(*port, Some(30_000 + port)));
                task.ports = bound.collect();
                task
            });
            let tasks = tasks.collect();
            (service, tasks)
        })
}
