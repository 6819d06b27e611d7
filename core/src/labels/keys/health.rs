//! The labels that say which endpoints are sick, what becomes of them, and how they come in.

use super::{Label, honoured};

pub(super) const EJECT_MAX: Label = Label {
    interlock: false,
    meaning: "The share of the pool that may be set aside for bad answers at once, by `max_fails` and `fail_rate` together; \
              one task may always, and one always stays. `0`: none is. Tasks that refuse connections do not count.",
    example: "30",
    when_wrong: "warning; the cluster's setting holds",
    test: "label_eject_max_is_the_share_of_the_pool_that_may_rest",
    ..honoured(
        "eject_max",
        "percent, from 0 to 100",
        "the cluster's `eject_max_percent`",
    )
};

pub(super) const FAIL_ON: Label = Label {
    interlock: false,
    meaning: "Answers of the app that count as failures for `max_fails` and `fail_rate`. Without it no status does, as in \
              Interlock: only requests count that no valid response came to. Clients get the answer all the same; for what \
              is tried elsewhere see `retry_on_500` in the settings.",
    example: "502, 503, 504",
    when_wrong: "the wrong ones are left out with a warning",
    test: "label_fail_on_ejects_a_task_for_its_answers",
    ..honoured("fail_on", "statuses from 500 to 599 between commas", "none")
};

pub(super) const FAIL_RATE: Label = Label {
    interlock: false,
    meaning: "Sets an endpoint aside whose share of failures within 10 s is so many points of percent above that of the \
              pool's others, at ten answers or more: `50` for one that fails 8 of 10 requests where the others fail 2. It rests for 1 s, and twice \
              as long each time that it happens again, up to 1m; each 10 s of good answers take one doubling back. `0`: never. Each \
              worker of a proxy counts for itself.",
    example: "30",
    when_wrong: "warning; the cluster's setting holds",
    test: "label_fail_rate_ejects_who_fails_far_more_often_than_the_others",
    ..honoured(
        "fail_rate",
        "percent, from 0 to 100",
        "the cluster's `fail_rate_percent`; with `max_fails=0` never",
    )
};

pub(super) const PANIC_THRESHOLD: Label = Label {
    interlock: false,
    meaning: "The share of the pool that must be ready. Where fewer are, tasks that were set aside for bad answers are used \
              like the others, as the few that are left could not bear the load of all. Tasks that refuse connections \
              are not. `0`: they rest whatever happens, unless no other task is left.",
    example: "30",
    when_wrong: "warning; the cluster's setting holds",
    test: "label_panic_threshold_brings_back_who_rests_where_too_few_are_ready",
    ..honoured(
        "panic_threshold",
        "percent, from 0 to 100",
        "the cluster's `panic_threshold_percent`",
    )
};

pub(super) const FAIL_TIMEOUT: Label = Label {
    meaning: "Within this time `max_fails` failures set an endpoint of this service aside, for as long. In a pool \
              of several services each endpoint keeps the values of its own. At most 24h.",
    example: "30s",
    when_wrong: "warning; the cluster's setting holds",
    test: "label_fail_timeout_is_the_services_own",
    ..honoured("fail_timeout", "a time", "the cluster's `fail_timeout_ms`")
};

pub(super) const MAX_FAILS: Label = Label {
    meaning: "Failures within `fail_timeout` after which an endpoint of this service is set aside; `0`: never. The \
              last endpoint that is left is never set aside for bad answers. One that refuses connections is tried \
              in the background until it takes them.",
    example: "3",
    when_wrong: "warning; the cluster's setting holds",
    test: "label_max_fails_is_the_services_own",
    ..honoured("max_fails", "a number from 0 to 1000000", "the cluster's `max_fails`")
};

pub(super) const SLOW_START: Label = Label {
    interlock: false,
    meaning: "In this time the share of a task that is new, or was set aside, grows in a straight line from a tenth to \
              the full one. Only beside other tasks: where all are new, or no other is left, nothing changes. With \
              any `balance`, also beside `weight`. Clients that are known again (`ip_hash`, sticky cookies) go where \
              they belong at once. At most 24h.",
    example: "30s",
    when_wrong: "warning; new tasks get their full share at once",
    test: "label_slow_start_gives_a_new_task_few_requests_at_first",
    ..honoured("slow_start", "a time", "none: new tasks get their full share at once")
};

pub(super) const PROBE_INTERVAL: Label = Label {
    interlock: false,
    meaning: "How long after an answer to `probe_path`, or its timeout, the next request follows. From 100ms to 24h.",
    example: "2s",
    when_wrong: "warning; 5s",
    test: "label_probe_interval_is_a_time_of_a_tenth_of_a_second_or_more",
    ..honoured("probe_interval", "a time", "5s")
};

pub(super) const PROBE_PATH: Label = Label {
    interlock: false,
    meaning: "Every proxy asks every task `GET` this path, over legs and with `ssl_backend` too, as it asks for users, with the \
              first of the `hosts` as `Host`. A task that answers wrongly 3 times in a row, or not in time, is set aside until it \
              answers rightly twice in a row. Where fewer are left than `panic_threshold` asks for, those that are set aside and take \
              connections are used all the same, as is the last one. A new task is used before it is asked. With \
              `backend_mode=vip` each request meets another task, so leave it away there. Ignored with `ssl_passthrough`.",
    example: "/healthz",
    when_wrong: "warning; tasks are not asked",
    test: "label_probe_path_takes_a_task_out_while_it_answers_wrongly",
    ..honoured("probe_path", "a path, with a query if need be", "tasks are not asked")
};

pub(super) const PROBE_STATUS: Label = Label {
    interlock: false,
    meaning: "The answers to `probe_path` that are right.",
    example: "200, 401-403",
    when_wrong: "the wrong ones are left out with a warning",
    test: "label_probe_status_says_which_answers_are_right",
    ..honoured(
        "probe_status",
        "statuses and ranges of them between commas",
        "`200-399`",
    )
};

pub(super) const PROBE_TIMEOUT: Label = Label {
    interlock: false,
    meaning: "How long connection and answer to `probe_path` may take together. At most 1m.",
    example: "500ms",
    when_wrong: "warning; 2s",
    test: "label_probe_timeout_is_a_time_of_at_most_a_minute",
    ..honoured("probe_timeout", "a time", "2s")
};

pub(super) const PARKED_MAX: Label = Label {
    interlock: false,
    meaning: "How many requests may wait for an endpoint at once in each worker of a proxy, see `park_timeout` and `requests_max`. \
              Those beyond are answered 503.",
    example: "100",
    when_wrong: "warning; the cluster's setting holds",
    test: "label_parked_max_bounds_who_waits",
    ..honoured("parked_max", "a number from 0 to 100000", "the cluster's `parked_max`")
};

pub(super) const REQUESTS_MAX: Label = Label {
    interlock: false,
    meaning: "How many requests, upgraded connections included, one task may have under way from one proxy. Where all tasks have as \
              many, requests wait in the order in which they came, at most `park_timeout` long and `parked_max` at once; then the \
              answer is 503 (`busy_timed_out` or `busy` in the access log). A client that is known again goes to another task while \
              its own is full. The workers of a proxy share the number evenly, rounded up, so with 4 workers `10` is 3 for each.",
    example: "100",
    when_wrong: "warning; there is no limit",
    test: "label_requests_max_lets_requests_wait_in_their_order",
    ..honoured("requests_max", "a number from 1 to 1000000", "no limit")
};
