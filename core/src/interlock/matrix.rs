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
    cell("sticky", "task", "yes", "yes", &["matrix_sticky_task_pins_clients_to_tasks"]),
    cell("sticky", "vip", "no", "no: ignored, with a warning", &["matrix_sticky_vip_is_ignored_with_a_warning"]),
    cell("sticky", "passthrough", "no", "`ip_hash` yes; a cookie cannot be seen: ignored, with a warning", &["matrix_sticky_passthrough_goes_by_the_address_alone"]),
    cell("sticky", "cert", "yes", "yes", &["matrix_sticky_cert_go_together"]),
    cell("sticky", "redirect", "n/a", "both hold: the redirect answers before an endpoint is chosen", &["matrix_sticky_redirect_the_redirect_answers_before_anybody_is_pinned"]),
    cell("sticky", "context_root", "of the host", "of the route: each context root has its own", &["matrix_sticky_context_root_has_each_its_own"]),
    cell("websockets", "task", "yes", "yes", &["matrix_websockets_task_work_without_being_listed"]),
    cell("websockets", "vip", "unclear", "yes", &["matrix_websockets_vip_work_too"]),
    cell("websockets", "passthrough", "as raw TCP", "as raw TCP", &["matrix_websockets_passthrough_go_together"]),
    cell("websockets", "cert", "yes", "yes", &["matrix_websockets_cert_go_together"]),
    cell("websockets", "context_root", "no", "yes", &["matrix_websockets_context_root_work_too"]),
    cell("canary", "task", "by tasks", "by tasks, or by `weight`", &["matrix_canary_task_goes_by_the_number_of_tasks"]),
    cell("canary", "vip", "by services", "by services", &["matrix_canary_vip_goes_by_the_number_of_services"]),
    cell("canary", "passthrough", "pool of one service", "the oldest service alone", &["matrix_canary_passthrough_the_oldest_serves_and_the_next_takes_over"]),
    cell("canary", "cert", "yes", "yes", &["matrix_canary_cert_have_weights"]),
    cell("canary", "context_root", "yes", "yes: services with the same host and context root share a pool", &["matrix_canary_context_root_shares_a_pool_per_root"]),
    cell("context_root", "task", "yes", "yes", &["matrix_context_root_task_and_vip_lead_to_their_endpoints"]),
    cell("context_root", "vip", "yes", "yes", &["matrix_context_root_vip_is_stripped_as_with_tasks"]),
    cell("context_root", "passthrough", "no", "no: ignored, with a warning", &["matrix_context_root_passthrough_the_path_cannot_be_seen"]),
    cell("context_root", "cert", "yes", "yes", &["matrix_context_root_cert_go_together"]),
    cell("context_root", "redirect", "yes", "the redirect comes first, for every path of its host", &["matrix_context_root_redirect_comes_first_for_every_path"]),
    cell("cert", "task", "yes", "yes", &["matrix_cert_task_tls_ends_here_and_begins_anew"]),
    cell("cert", "vip", "yes", "yes", &["matrix_cert_vip_go_together"]),
    cell("cert", "passthrough", "excluded", "passthrough holds, with a warning", &["matrix_cert_passthrough_exclude_each_other"]),
    cell("cert", "redirect", "none over TLS", "a source with `https://` is redirected over TLS", &["matrix_cert_redirect_over_both_schemes"]),
    cell("passthrough", "task", "yes", "yes", &["matrix_passthrough_task_an_endpoint_that_refuses_is_passed_over_for_the_next"]),
    cell("passthrough", "vip", "yes", "yes", &["matrix_passthrough_vip_go_together"]),
    cell("passthrough", "redirect", "does not work", "plain HTTP is redirected", &["matrix_passthrough_redirect_over_plain_http_alone"]),
    cell("max_fails", "task", "per task", "per task", &["matrix_max_fails_task_holds_for_each_task_of_its_service"]),
    cell("max_fails", "vip", "one server, so without meaning", "one endpoint, which is never set aside for bad answers", &["matrix_max_fails_vip_is_of_one_endpoint"]),
    cell("max_fails", "passthrough", "unknown", "connections that fail count", &["matrix_max_fails_passthrough_go_together"]),
    cell("max_fails", "cert", "yes", "yes", &["matrix_max_fails_cert_go_together"]),
    cell("max_fails", "context_root", "yes", "yes", &["matrix_max_fails_context_root_is_each_roots_own"]),
];
