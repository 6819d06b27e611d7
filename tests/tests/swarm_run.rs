//! `tidegate run --source docker`: one process beside a real Swarm, which it reaches by host-mode ports, and only reads.

use e2e::clock::now;
use e2e::product::Product;
use e2e::scene::effect;
use e2e::{gate, image, swarm};

#[test]
fn one_process_follows_a_swarm_and_changes_nothing_in_it() {
    if !gate::may_run("swarm_run", swarm::obstacle()) {
        return;
    }
    let swarm = swarm::Swarm::start(1, 1).unwrap();
    image::load_app(&swarm).unwrap();
    let product = Product::over_docker(&swarm.node(1).socket()).unwrap();
    assert_eq!(product.get("shop.example", "/").unwrap().status, 503);

    let start = now();
    let service = ["service", "create", "--detach", "--name", "shop", "--replicas", "2"];
    let reached = [
        "--publish",
        "mode=host,target=8080",
        "--label",
        "tidegate.hosts=shop.example",
    ];
    let app = ["--env", "NODE={{.Node.Hostname}}", image::APP];
    swarm.docker(&[&service[..], &reached[..], &app[..]].concat()).unwrap();
    product
        .until("the service answers", "shop.example", |answer| answer.status == 200)
        .unwrap();
    effect("tidegate run: docker service create, to its answer", start);
    for number in [1, 2] {
        let name = swarm.node(number).name();
        product
            .until("every node's task answers", "shop.example", |a| {
                a.says("node") == Some(&name)
            })
            .unwrap();
    }
    let explained = product.ask("explain", &["http://shop.example/cart"]).unwrap();
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    for word in ["shop.example/", "tidegate.hosts of shop", "ready"] {
        assert!(explained.contains(word), "explain does not say {word}:\n{explained}");
    }

    let start = now();
    swarm
        .docker(&[
            "service",
            "update",
            "--detach",
            "--label-add",
            "tidegate.hosts=store.example",
            "shop",
        ])
        .unwrap();
    product
        .until("the new host answers", "store.example", |answer| answer.status == 200)
        .unwrap();
    product
        .until("the old host is gone", "shop.example", |answer| answer.status == 503)
        .unwrap();
    effect("tidegate run: a changed host label, to its answer", start);
    swarm.docker(&["service", "rm", "shop"]).unwrap();
    product
        .until("the service is gone", "store.example", |answer| answer.status == 503)
        .unwrap();
    assert_eq!(
        swarm.docker(&["secret", "ls", "--quiet"]).unwrap().trim(),
        "",
        "it keeps nothing in the Swarm"
    );
    assert_eq!(swarm.docker(&["service", "ls", "--quiet"]).unwrap().trim(), "");
}
