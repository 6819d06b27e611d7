//! Every task of a service is replaced under load, and its app exits at once on SIGTERM.

use sim::scenario;
use sim::seed::sweep;

#[test]
fn a_start_first_update_loses_no_request() {
    sweep(2, scenario::rolling_update_start_first);
}

#[test]
fn a_stop_first_update_loses_no_request() {
    sweep(2, scenario::rolling_update_stop_first);
}
