//! Service clusters: a host name may be served by another application in each, and no cluster knows of the others.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use e2e::clock::{Look, wait_for};
use e2e::load::Load;
use e2e::scene::{PROXY, Scene};
use e2e::web::{self, Answer};

const LIMIT: Duration = Duration::from_secs(60);
/// Of the clusters `east` and `west`, each on a node of its own.
const PORT: u16 = 8081;

fn get(entrance: SocketAddr, host: &str) -> Result<Answer> {
    web::get(entrance, host, "/", LIMIT)
}

pub(crate) fn each_cluster_is_a_world_of_its_own(scene: &Scene) -> Result<()> {
    let [east, west] = scene.entrances_at(PORT)[..] else {
        anyhow::bail!("two workers were expected")
    };
    for (entrance, own, other, unknown) in [(east, "east", "west", 503), (west, "west", "east", 404)] {
        assert_eq!(get(entrance, "region.example.org")?.says("Name"), Some(own));
        let foreign = [
            format!("{other}.example.org"),
            "new.example.org".into(),
            "canary.example.org".into(),
        ];
        for host in foreign {
            assert_eq!(get(entrance, &host)?.status, unknown, "{host} leaks into {own}");
        }
    }
    for host in ["region.example.org", "east.example.org", "west.example.org"] {
        for answer in scene.ask_all(host, "/")? {
            assert_eq!(answer.status, 503, "{host} leaks into the default cluster");
        }
    }
    let shape = "{{.Spec.Mode}} {{.Spec.TaskTemplate.Placement.Constraints}} {{len .Spec.TaskTemplate.Networks}}";
    let inspect = |service: &str| scene.docker(&["service", "inspect", "--format", shape, service]);
    let of_east = inspect("tidegate_proxy-east")?;
    assert!(
        of_east.contains("node.labels.region==east") && of_east.ends_with(" 2"),
        "{of_east}"
    );
    assert!(inspect("west-proxy")?.contains("node.labels.region==west"));
    a_change_in_one_is_nothing_to_the_others(scene, east, west)
}

fn a_change_in_one_is_nothing_to_the_others(scene: &Scene, east: SocketAddr, west: SocketAddr) -> Result<()> {
    let version = |service: &str| scene.docker(&["service", "inspect", "--format", "{{.Version.Index}}", service]);
    let before = [version("west-proxy")?, version(PROXY)?];
    let load = Load::start(&[west], "region.example.org");
    let hosts = "region.example.org,east2.example.org";
    scene.set_label("regions_east", "com.docker.lb.hosts", hosts)?;
    wait_for("the changed host answers in its cluster", LIMIT, || {
        match get(east, "east2.example.org") {
            Ok(answer) if answer.says("Name") == Some("east") => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        }
    })?;
    assert_eq!(get(west, "east2.example.org")?.status, 404);
    assert_eq!(
        [version("west-proxy")?, version(PROXY)?],
        before,
        "a proxy service of another cluster was written"
    );
    let account = load.finish();
    assert_eq!(account.failed(), 0, "{account}");
    Ok(())
}
