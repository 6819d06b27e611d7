//! The simulated Swarm is held to what Tidegate relies on Docker for; `tests/tests/swarm_harness.rs` holds a real one to the same.

use sim::faults::DockerFaults;
use sim::seed::sweep;
use sim::world::World;

#[test]
fn the_simulated_swarm_does_what_a_real_one_does() {
    sweep(4, |seed| World::new(seed, DockerFaults::none()).hold_to_contract());
}
