//! Certificates by courier, and TLS that apps end themselves.

use sim::scenario;
use sim::seed::sweep;

#[test]
fn secrets_reach_their_own_service_cluster_alone_and_replace_no_proxy() {
    sweep(2, scenario::certificates);
}

#[test]
fn a_certificate_that_was_forgotten_is_named_and_the_next_one_is_trusted_at_once() {
    sweep(1, scenario::forgotten_certificate);
}

#[test]
fn identities_are_renewed_for_years_without_a_lost_request() {
    sweep(2, scenario::identities);
}

#[test]
fn an_app_that_ends_tls_itself_is_updated_and_scaled_without_a_lost_request() {
    sweep(1, scenario::passthrough);
}
