//! Hosts and paths reach their services, over the real controller and proxies.

use sim::scenario;
use sim::seed::sweep;

#[test]
fn hosts_and_paths_reach_their_services_and_label_changes_are_followed() {
    sweep(2, scenario::routing);
}
