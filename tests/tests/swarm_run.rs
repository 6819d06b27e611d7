//! `tidegate run --source docker`: one process beside a real Swarm, which it only reads. It reaches host-mode ports from
//! everywhere, and an overlay network from within.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, now, wait_for};
use e2e::product::Product;
use e2e::scene::effect;
use e2e::swarm::Swarm;
use e2e::{gate, image, swarm, web};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn one_process_follows_a_swarm_and_changes_nothing_in_it() {
    if !gate::may_run("swarm_run", swarm::obstacle()) {
        return;
    }
    let swarm = Swarm::start(1, 1).unwrap();
    image::load_both(&swarm).unwrap();
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
    an_overlay_network_is_reached_from_within(&swarm, &product).unwrap();
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

/// Outside, `tidegate run` says what to do; inside, it does what the other cannot, and says nothing.
fn an_overlay_network_is_reached_from_within(swarm: &Swarm, outside: &Product) -> Result<()> {
    let make = ["network", "create", "--driver", "overlay", "--attachable", "back"];
    swarm.docker(&make)?;
    let service = ["service", "create", "--detach", "--name", "deep", "--replicas", "2"];
    let labels = [
        "--label",
        "tidegate.hosts=deep.example",
        "--label",
        "tidegate.port=8080",
        // What is nowhere to be sent is not waited for.
        "--label",
        "tidegate.park_timeout=100ms",
    ];
    let app = ["--network", "back", "--env", "NODE={{.Node.Hostname}}", image::APP];
    swarm.docker(&[&service[..], &labels[..], &app[..]].concat())?;
    let (told, _) = wait_for("it says that it is outside", LIMIT, || {
        let routes = outside.ask("routes", &[]).map(|output| output.stdout);
        let routes = routes.map_or_else(
            |error| error.to_string(),
            |text| String::from_utf8_lossy(&text).into_owned(),
        );
        match routes.contains("2 of 2 addresses of the service get no requests") {
            true => Look::Holds(routes),
            false => Look::NotYet(routes),
        }
    })?;
    for word in [
        "not on the network back",
        "docker run --network back",
        "publish port 8080",
    ] {
        assert!(told.contains(word), "{told}");
    }
    let refused = outside.get("deep.example", "/")?;
    assert_eq!(refused.status, 503, "it is sent nowhere: {}", refused.summary());

    let start = now();
    let container = ["run", "--detach", "--name", "edge", "--network", "back"];
    // The socket belongs to root.
    let socket = ["--user", "0:0", "--volume", "/var/run/docker.sock:/var/run/docker.sock"];
    let publish = ["--publish", "8088:8088", image::PRODUCT];
    let product = ["run", "--source", "docker", "--http", "0.0.0.0:8088"];
    let node = swarm.node(1);
    node.docker(&[&container[..], &socket[..], &publish[..], &product[..]].concat())?;
    let address = format!("{}:8088", node.address()).parse()?;
    let mut answered = BTreeSet::new();
    // The network, and the port in host mode that the other reaches as well.
    for (host, wanted) in [("deep.example", 2), ("store.example", 2)] {
        answered.clear();
        wait_for(&format!("{host} within"), LIMIT, || {
            let answer = web::get(address, host, "/", LIMIT);
            if let Ok(answer) = &answer
                && answer.status == 200
            {
                answered.extend(answer.says("node").map(String::from));
            }
            match answered.len() == wanted {
                true => Look::Holds(()),
                false => Look::NotYet(format!("{answered:?}, {:?}", answer.map(|answer| answer.summary()))),
            }
        })
        .with_context(|| format!("{:?}", node.docker(&["logs", "edge"])))?;
    }
    effect(
        "docker run of tidegate run on an overlay network, to answers of every task",
        start,
    );
    let inside = node.docker(&["exec", "edge", "/tidegate", "routes"])?;
    assert!(
        inside.contains("deep.example") && !inside.contains("not on the network"),
        "{inside}"
    );
    node.docker(&["rm", "--force", "edge"])?;
    swarm.docker(&["service", "rm", "deep"])?;
    Ok(())
}
