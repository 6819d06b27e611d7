//! The harness itself: before it judges Tidegate, it shows that it can start, hurt and mend a Swarm. Then the Swarm is held
//! to what simulations have the simulated one do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use e2e::clock::{Look, once_ok, wait_for};
use e2e::report::say;
use e2e::{gate, image, swarm, web};
use sim::contract::{self, Ground};
use tidegate::clock::Clock;
use tidegate_core::id::{NetworkId, NodeId};
use tidegate_core::swarm::model::Task;
use tidegate_docker::Docker;

#[test]
fn a_swarm_runs_the_app_and_survives_what_is_done_to_it() {
    if !gate::may_run("swarm_harness", swarm::obstacle()) {
        return;
    }
    let swarm = swarm::Swarm::start(1, 1).unwrap();
    image::load_app(&swarm).unwrap();
    let publish = "mode=host,published=8080,target=8080";
    let create = [
        "service",
        "create",
        "--detach",
        "--name",
        "app",
        "--mode",
        "global",
        "--publish",
        publish,
    ];
    let environment = ["--env", "NODE={{.Node.Hostname}}", image::APP];
    swarm.docker(&[&create[..], &environment[..]].concat()).unwrap();

    let limit = Duration::from_secs(30);
    for node in swarm.nodes() {
        let address = format!("{}:8080", node.address()).parse().unwrap();
        let (answer, waited) = wait_for("the app answers", limit, || {
            once_ok(web::get(address, "app", "/x", limit))
        })
        .unwrap();
        assert_eq!((answer.status, answer.says("node")), (200, Some(node.name().as_str())));
        say(format_args!(
            "app on {} after {:.2} s",
            node.name(),
            waited.as_secs_f64()
        ));
    }

    let worker = swarm.node(2);
    let address = format!("{}:8080", worker.address()).parse().unwrap();
    let short = Duration::from_millis(500);
    worker.pause().unwrap();
    assert!(web::get(address, "app", "/", short).is_err(), "a frozen node answers");
    worker.resume().unwrap();
    web::get(address, "app", "/", limit).unwrap();
    worker.cut(true).unwrap();
    assert!(
        web::get(address, "app", "/", short).is_err(),
        "a node without network answers"
    );
    worker.cut(false).unwrap();
    wait_for("the healed node answers", limit, || {
        once_ok(web::get(address, "app", "/", limit))
    })
    .unwrap();

    worker.kill_dockerd().unwrap();
    web::get(address, "app", "/", limit).expect("containers outlive a killed dockerd");
    worker.start_dockerd().unwrap();
    worker.wait_for_api().unwrap();
    worker.wait_for_swarm().unwrap();
    wait_for("the node takes part again", limit, || {
        match swarm.docker(&["node", "ls", "--format", "{{.Status}}"]) {
            Ok(list) if list == "Ready\nReady" => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        }
    })
    .unwrap();
    assert_eq!(swarm.leader().unwrap(), 1);

    swarm.docker(&["service", "rm", "app"]).unwrap();
    let api = Docker::connect(&format!("unix://{}", swarm.node(1).socket().display())).unwrap();
    let ground = Ground {
        api: &api,
        clock: Clock::system(),
        images: [image::APP, image::APP_2],
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let held = runtime.block_on(async {
        contract::hold(&ground).await?;
        contract::hold_orchestration(&ground, &Operator(&swarm)).await
    });
    assert_eq!(held, Ok(()), "the simulated Swarm does what this one does not");
}

/// An operator at the command line.
struct Operator<'a>(&'a swarm::Swarm);

impl Operator<'_> {
    fn docker(&self, arguments: &[&str]) -> Result<(), String> {
        self.0.docker(arguments).map(drop).map_err(|error| format!("{error:#}"))
    }
}

impl contract::Operator for Operator<'_> {
    fn set_active(&self, node: &NodeId, is_active: bool) -> Result<(), String> {
        let availability = if is_active { "active" } else { "drain" };
        self.docker(&["node", "update", "--availability", availability, node.as_str()])
    }

    fn remove_network(&self, network: &NetworkId) -> Result<(), String> {
        self.docker(&["network", "rm", network.as_str()])
    }

    fn resolve(&self, from: &Task, name: &str) -> Result<BTreeSet<IpAddr>, String> {
        let filter = format!("label=com.docker.swarm.task.id={}", from.id);
        for node in self.0.nodes() {
            let list = node.docker(&["ps", "-q", "--filter", &filter]);
            let list = list.map_err(|error| format!("{error:#}"))?;
            if let Some(container) = list.lines().next() {
                let told = node.docker(&["exec", container, "/app", "resolve", name]);
                let told = told.map_err(|error| format!("{error:#}"))?;
                return told
                    .lines()
                    .map(|line| line.parse().map_err(|_| told.clone()))
                    .collect();
            }
        }
        Err(format!("no container of task {} runs", from.id))
    }
}
