//! One round of each scenario of `cargo e2e zero-loss`: an application that exits at once on SIGTERM loses no request,
//! whatever Swarm does to it on purpose.

use e2e::zero_loss::{Options, zero_loss};
use e2e::{gate, swarm};

#[test]
fn updates_scaling_drains_and_rollbacks_lose_no_request() {
    if !gate::may_run("swarm_zero_loss", swarm::obstacle()) {
        return;
    }
    assert!(
        zero_loss(&Options::default()).unwrap(),
        "requests failed: see the lines above"
    );
}
