//! What Interlock's settings do beside each other, and what Tidegate's do.

/// One cell: two settings of one service, or of services that share a host.
pub(super) struct Cell {
    pub(super) first: &'static str,
    pub(super) second: &'static str,
    pub(super) interlock: &'static str,
    pub(super) tidegate: &'static str,
    /// Names of functions; each begins with `matrix_`.
    pub(super) tests: &'static [&'static str],
}

const fn cell(
    first: &'static str,
    second: &'static str,
    interlock: &'static str,
    tidegate: &'static str,
    tests: &'static [&'static str],
) -> Cell {
    Cell {
        first,
        second,
        interlock,
        tidegate,
        tests,
    }
}

/// Every cell, row by row.
#[rustfmt::skip]
pub(super) const CELLS: &[Cell] = &[
    cell("sticky", "task", "yes", "yes", &[]),
    cell("sticky", "vip", "no", "no: ignored, with a warning", &[]),
    cell("sticky", "passthrough", "no", "`ip_hash` yes; a cookie cannot be seen: ignored, with a warning", &[]),
    cell("sticky", "cert", "yes", "yes", &[]),
    cell("sticky", "redirect", "n/a", "both hold: the redirect answers before an endpoint is chosen", &[]),
    cell("sticky", "context_root", "of the host", "of the route: each context root has its own", &[]),
    cell("websockets", "task", "yes", "yes", &[]),
    cell("websockets", "vip", "unclear", "yes", &[]),
    cell("websockets", "passthrough", "as raw TCP", "as raw TCP", &[]),
    cell("websockets", "cert", "yes", "yes", &[]),
    cell("websockets", "context_root", "no", "yes", &[]),
    cell("canary", "task", "by tasks", "by tasks, or by `weight`", &[]),
    cell("canary", "vip", "by services", "by services", &[]),
    cell("canary", "passthrough", "pool of one service", "the oldest service alone", &[]),
    cell("canary", "cert", "yes", "yes", &[]),
    cell("canary", "context_root", "yes", "yes: services with the same host and context root share a pool", &[]),
    cell("context_root", "task", "yes", "yes", &[]),
    cell("context_root", "vip", "yes", "yes", &[]),
    cell("context_root", "passthrough", "no", "no: ignored, with a warning", &[]),
    cell("context_root", "cert", "yes", "yes", &[]),
    cell("context_root", "redirect", "yes", "the redirect comes first, for every path of its host", &[]),
    cell("cert", "task", "yes", "yes", &[]),
    cell("cert", "vip", "yes", "yes", &[]),
    cell("cert", "passthrough", "excluded", "passthrough holds, with a warning", &[]),
    cell("cert", "redirect", "none over TLS", "a source with `https://` is redirected over TLS", &[]),
    cell("passthrough", "task", "yes", "yes", &[]),
    cell("passthrough", "vip", "yes", "yes", &[]),
    cell("passthrough", "redirect", "does not work", "plain HTTP is redirected", &[]),
    cell("max_fails", "task", "per task", "per task", &[]),
    cell("max_fails", "vip", "one server, so without meaning", "one endpoint, which is never set aside for bad answers", &[]),
    cell("max_fails", "passthrough", "unknown", "connections that fail count", &[]),
    cell("max_fails", "cert", "yes", "yes", &[]),
    cell("max_fails", "context_root", "yes", "yes", &[]),
];
