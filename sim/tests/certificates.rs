//! Certificates by courier.

use sim::scenario;
use sim::seed::sweep;

#[test]
fn secrets_reach_their_own_service_cluster_alone_and_replace_no_proxy() {
    sweep(2, scenario::certificates);
}
