//! The three forms of host mode: the application's port, the proxies' ports, and both.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, wait_for};
use e2e::scene::Scene;
use e2e::web::Ask;

use crate::balancing::{endpoints_of, until_tasks};

const LIMIT: Duration = Duration::from_secs(60);

/// More tasks than nodes, also on those of the proxies: some share a node, and some are reached from their own.
pub(crate) const ON_EVERY_NODE: [(&str, &str); 2] =
    [("APP_CONSTRAINT", "node.platform.os==linux"), ("APP_REPLICAS", "6")];
/// Behind proxies that are on the routing mesh.
pub(crate) const IN_THE_MESH_CLUSTER: [(&str, &str); 4] = [
    ("APP_CONSTRAINT", "node.platform.os==linux"),
    ("APP_REPLICAS", "5"),
    ("APP_CLUSTER", "mesh"),
    ("HOST_MODE_HOST", "mesh"),
];

/// Hybrid, and the application alone: the proxies of the cluster `mesh` publish on the routing mesh.
pub(crate) fn an_application_without_overlay_is_reached_at_its_nodes(scene: &Scene) -> Result<()> {
    until_tasks(scene, "host.example.org", 6)?;
    for (service, count) in [("host_web", 6), ("mesh_web", 5)] {
        let endpoints = endpoints_of(scene, service)?;
        let addresses: BTreeSet<String> = scene.swarm().nodes().iter().map(|node| node.address()).collect();
        let parts = endpoints
            .iter()
            .filter_map(|endpoint| endpoint.split_whitespace().next()?.split_once(':'));
        let parts: Vec<(&str, u16)> = parts.filter_map(|(ip, port)| Some((ip, port.parse().ok()?))).collect();
        assert_eq!(parts.len(), count, "{endpoints:?}");
        for (ip, port) in &parts {
            assert!(
                addresses.contains(*ip) && *port >= 30_000,
                "{ip}:{port} is no high port of a node"
            );
        }
        let nodes: BTreeSet<&str> = parts.iter().map(|(ip, _)| *ip).collect();
        assert_eq!(nodes.len(), 5, "tasks are not on every node: {endpoints:?}");
    }
    let proxy = "tidegate_proxy-mesh";
    let networks = scene.docker(&[
        "service",
        "inspect",
        "--format",
        "{{len .Spec.TaskTemplate.Networks}}",
        proxy,
    ])?;
    assert_eq!(
        networks, "1",
        "the proxies of the mesh are on more than the control network"
    );
    let mut seen = BTreeSet::new();
    wait_for(
        "proxies on the mesh reach a task of every node",
        LIMIT,
        || match ask_beside(scene, proxy) {
            Ok(node) => {
                seen.insert(node);
                if seen.len() == 5 {
                    Look::Holds(())
                } else {
                    Look::NotYet(format!("{seen:?}"))
                }
            }
            Err(error) => Look::NotYet(format!("{error:#}")),
        },
    )?;
    Ok(())
}

/// The node that answers to a request in the network of a proxy, where the mesh would bring it.
fn ask_beside(scene: &Scene, proxy: &str) -> Result<String> {
    for node in scene.proxies() {
        if let Some(container) = node.containers_of(proxy)?.first() {
            let mut curl = node.beside(container, "curl")?;
            curl.args([
                "-sS",
                "--max-time",
                "5",
                "-H",
                "Host: mesh.example.org",
                "http://127.0.0.1:8080/",
            ]);
            let text = e2e::command::run(&mut curl)?;
            let node = text.lines().find_map(|line| line.strip_prefix("node: "));
            return node.map(String::from).context(text.clone());
        }
    }
    anyhow::bail!("no task of {proxy} runs")
}

/// The application is on an overlay and publishes nothing.
pub(crate) fn proxies_in_host_mode_see_their_clients(scene: &Scene) -> Result<()> {
    let [client] = scene.swarm().client_addresses(1)?[..] else {
        anyhow::bail!("one address was asked for")
    };
    for server in scene.entrances() {
        let ask = Ask {
            server,
            from: Some(client),
            host: "new.example.org",
            path: "/",
            cookie: "",
            limit: LIMIT,
        };
        let answer = ask.send()?;
        let told = answer.says("header x-forwarded-for");
        assert_eq!(told, Some(client.to_string().as_str()), "{}", answer.body);
    }
    Ok(())
}
