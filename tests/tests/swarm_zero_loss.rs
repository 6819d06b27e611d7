//! One round of the harder scenarios of `cargo e2e zero-loss`, which has all of them: an application that exits at once on
//! SIGTERM loses no request, whatever Swarm does to it on purpose. Then `tidegate prove` on applications that do and do not.

use e2e::scene::{Scene, WORKERS};
use e2e::zero_loss::{Options, proof, zero_loss_on};
use e2e::{gate, swarm};

#[test]
fn updates_and_scaling_lose_no_request_and_prove_names_what_does() {
    if !gate::may_run("swarm_zero_loss", swarm::obstacle()) {
        return;
    }
    let scene = Scene::set_up_small(WORKERS).unwrap();
    let options = Options {
        names: ["stop-first", "one-replica", "scale", "proxies-updated"]
            .map(String::from)
            .into(),
        ..Options::default()
    };
    let kept = zero_loss_on(&scene, &options).unwrap();
    assert!(kept, "requests failed: see the lines above");
    scene.explained(proof::prove_the_examples(&scene)).unwrap();
}
