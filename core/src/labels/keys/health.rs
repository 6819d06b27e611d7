//! The labels that say which endpoints are sick, and what becomes of them, beside Interlock's `max_fails` and `fail_timeout`.

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
