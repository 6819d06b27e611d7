//! The controller dies under load.

use sim::scenario;
use sim::seed::sweep;

#[test]
fn without_a_controller_traffic_goes_on_and_its_successor_follows_changes() {
    sweep(2, scenario::controller_restart);
}
