//! Planned changes of every kind in any order.

use sim::scenario;
use sim::seed::sweep;

#[test]
fn planned_changes_one_upon_the_other_lose_no_request() {
    sweep(2, scenario::random);
}
