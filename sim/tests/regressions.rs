//! Seeds that once failed, with one sentence each.

use sim::scenario;
use sim::seed;

fn holds(seed: u64, story: fn(&seed::Seed)) {
    if let Err(failure) = seed::run(seed, story) {
        panic!("{}", seed::describe(&failure));
    }
}

/// On a fresh Swarm the list of secrets is empty; when it arrived last, the controller never made its first identity.
#[test]
fn a_list_without_content_that_arrives_last_holds_nothing_up() {
    holds(0x66, scenario::routing);
}
