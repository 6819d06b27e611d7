//! Applications with networks of their own, which legs reach for the proxies: nothing of the proxies is replaced, no
//! connection is closed, and `docker stack rm` works the first time. Without controllers, updates are followed all the same.

use anyhow::Result;
use e2e::legs::{self, Options};
use e2e::scene::Scene;
use e2e::{gate, swarm};

#[test]
fn networks_come_and_go_without_the_proxies() {
    if !gate::may_run("swarm_legs", swarm::obstacle()) {
        return;
    }
    let scene = legs::set_up().unwrap();
    let told = |result: Result<()>| Scene::explained(&scene, result).unwrap();
    told(legs::what_a_connection_costs(&scene));
    let options = Options {
        networks: 5,
        sockets: 20,
    };
    told(legs::networks_come_and_go(&scene, options));
    told(legs::a_network_without_a_stack(&scene));
    told(legs::updates_without_controllers(&scene));
}
