//! One round of the harder scenarios of `cargo e2e zero-loss`, which has all of them: an application that exits at once on
//! SIGTERM loses no request, whatever Swarm does to it on purpose.

use e2e::zero_loss::{Options, zero_loss};
use e2e::{gate, swarm};

#[test]
fn updates_and_scaling_lose_no_request() {
    if !gate::may_run("swarm_zero_loss", swarm::obstacle()) {
        return;
    }
    let options = Options {
        names: ["stop-first", "one-replica", "scale"].map(String::from).into(),
        ..Options::default()
    };
    assert!(zero_loss(&options).unwrap(), "requests failed: see the lines above");
}
