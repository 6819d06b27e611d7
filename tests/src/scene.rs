//! Tidegate on a real Swarm, deployed as its users do: three managers with the controllers, two workers or more with the proxies
//! (published in host mode), applications on the managers. Load goes to the nodes' own addresses.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::clock::{Look, now, wait_for};
use crate::command::run;
use crate::report::say;
use crate::swarm::{Node, Swarm};
use crate::web::{self, Answer};
use crate::{image, tidy};

/// Port that the proxies publish on their nodes.
pub const PORT: u16 = 8080;
/// Port of the second service cluster's proxies.
pub const INTERNAL_PORT: u16 = 8081;
/// Service of the controllers, made by `deploy/tidegate.yml`.
pub const CONTROLLER: &str = "tidegate_controller";
/// Service of the proxies, made by the controllers.
pub const PROXY: &str = "tidegate_proxy";
/// Name of the second service cluster.
pub const INTERNAL: &str = "internal";
/// What an operator adds for a second service cluster.
const TWO_CLUSTERS: &str = r#"version: "3.8"
services:
  controller:
    environment:
      TIDEGATE_CLUSTERS__INTERNAL__GLOBAL: "true"
      TIDEGATE_CLUSTERS__INTERNAL__CONSTRAINTS: "node.role==worker"
      TIDEGATE_CLUSTERS__INTERNAL__HTTP_PORT: "8081"
      TIDEGATE_CLUSTERS__INTERNAL__PUBLISH_MODE: "host"
      TIDEGATE_CLUSTERS__INTERNAL__NETWORKS: "apps"
"#;
/// Network that applications share with the proxies, unless these join networks by themselves.
pub const SHARED: &str = "apps";
/// What is added to the files of `deploy/` for the use cases: a service cluster on the routing mesh, without a network of
/// applications.
const MESH_CLUSTER: &str = r#"version: "3.8"
services:
  controller:
    environment:
      TIDEGATE_CLUSTERS__MESH__REPLICAS: "1"
      TIDEGATE_CLUSTERS__MESH__CONSTRAINTS: "node.role==worker"
      TIDEGATE_CLUSTERS__MESH__HTTP_PORT: "8090"
      TIDEGATE_CLUSTERS__MESH__HTTPS_PORT: "8490"
      TIDEGATE_CLUSTERS__MESH__NETWORKS: ""
"#;

/// What an operator adds to be told of task changes.
const SWARM_WATCH: &str = include_str!("../../deploy/examples/swarm-watch.yml");

/// For a change to have its effect. Far beyond what is promised, as machines of CI are slow: what is measured is printed.
const LIMIT: Duration = Duration::from_secs(120);
/// For everything to have ended that should: applications have time to stop, and nodes to come back.
const REST_LIMIT: Duration = Duration::from_secs(180);
/// For one request of a probe.
const PROBE: Duration = Duration::from_secs(5);
const MANAGERS: usize = 3;
/// Of Swarms that nobody wants larger.
pub const WORKERS: usize = 2;

/// A Swarm with Tidegate on it.
#[derive(Debug)]
pub struct Scene {
    swarm: Swarm,
    /// Port of the default cluster's proxies.
    port: u16,
}

impl Scene {
    /// Starts the Swarm and deploys `deploy/tidegate.yml`. `networks` is `attach`, `legs`, or [`SHARED`], which is made then.
    ///
    /// # Errors
    /// What Docker says.
    pub fn set_up(networks: &str) -> Result<Scene> {
        Scene::start(networks, &[])
    }

    /// [`Scene::set_up`] on the network [`SHARED`] with few addresses, so that they are soon given anew, and with so many
    /// workers.
    ///
    /// # Errors
    /// What Docker says.
    pub fn set_up_small(workers: usize) -> Result<Scene> {
        Scene::start_on(workers, SHARED, &["--subnet", "10.99.7.0/27"], &[])
    }

    /// [`Scene::set_up`] with proxies over legs, and the service cluster [`INTERNAL`] on the network [`SHARED`] beside them;
    /// `more` are further files for `docker stack deploy`.
    ///
    /// # Errors
    /// What Docker says.
    pub fn set_up_legs(more: &[&str]) -> Result<Scene> {
        Scene::start("legs", &[&[TWO_CLUSTERS][..], more].concat())
    }

    /// [`Scene::set_up`] on the network [`SHARED`], with controllers that follow SwarmKit's watch.
    ///
    /// # Errors
    /// What Docker says.
    pub fn set_up_watching() -> Result<Scene> {
        Scene::start(SHARED, &[SWARM_WATCH])
    }

    /// [`Scene::set_up`] on the network [`SHARED`], with the service cluster [`INTERNAL`] beside the default one.
    ///
    /// # Errors
    /// What Docker says.
    pub fn set_up_two_clusters() -> Result<Scene> {
        Scene::start(SHARED, &[TWO_CLUSTERS])
    }

    /// Tidegate as a site has it that follows the examples `production.yml` and `service-clusters.yml`, with the ports of the
    /// web: the first worker is in zone a and region east, the second in zone b and region west.
    ///
    /// # Errors
    /// What Docker says.
    pub fn set_up_for_use_cases() -> Result<Scene> {
        let scene = Scene::without_tidegate(WORKERS, 80)?;
        for (node, [zone, region]) in scene.proxies().iter().zip([["a", "east"], ["b", "west"]]) {
            let labels = [
                "nodetype=loadbalancer".into(),
                format!("zone={zone}"),
                format!("region={region}"),
            ];
            let mut update = vec!["node", "update"];
            for label in &labels {
                update.extend(["--label-add", label]);
            }
            let name = node.name();
            update.push(&name);
            scene.docker(&update)?;
        }
        for network in [SHARED, "apps-east", "apps-west"] {
            scene.docker(&["network", "create", "--driver", "overlay", network])?;
        }
        scene.deploy_for_use_cases(&[])?;
        scene.until_proxies_answer()?;
        Ok(scene)
    }

    /// `docker stack deploy` of Tidegate as [`Scene::set_up_for_use_cases`] does it, with more variables.
    ///
    /// # Errors
    /// What Docker says.
    pub fn deploy_for_use_cases(&self, more: &[(&str, &str)]) -> Result<()> {
        let mesh = self.swarm.folder().join("mesh.yml");
        fs::write(&mesh, MESH_CLUSTER)?;
        let deploy = tidy::root().join("deploy");
        let files = [
            "tidegate.yml",
            "examples/production.yml",
            "examples/service-clusters.yml",
        ];
        let files: Vec<PathBuf> = files.iter().map(|file| deploy.join(file)).chain([mesh]).collect();
        let settings = [
            ("TIDEGATE_IMAGE", image::PRODUCT),
            ("TIDEGATE_NETWORKS", SHARED),
            ("PROXY_UPDATE_DELAY_MS", "1000"),
        ];
        self.deploy("tidegate", &files, &[&settings, more].concat())
    }

    fn without_tidegate(workers: usize, port: u16) -> Result<Scene> {
        let swarm = Swarm::start(MANAGERS, workers)?;
        image::load_both(&swarm)?;
        Ok(Scene { swarm, port })
    }

    fn start(networks: &str, more: &[&str]) -> Result<Scene> {
        Scene::start_on(WORKERS, networks, &[], more)
    }

    fn start_on(workers: usize, networks: &str, subnet: &[&str], more: &[&str]) -> Result<Scene> {
        let scene = Scene::without_tidegate(workers, PORT)?;
        let shared = match networks {
            "attach" => None,
            "legs" => Some(SHARED),
            network => Some(network),
        };
        if let Some(network) = shared {
            let create = ["network", "create", "--driver", "overlay"];
            scene.docker(&[&create[..], subnet, &[network]].concat())?;
        }
        let port = PORT.to_string();
        let settings = [
            ("TIDEGATE_IMAGE", image::PRODUCT),
            ("TIDEGATE_GLOBAL", "true"),
            ("TIDEGATE_CONSTRAINTS", "node.role==worker"),
            ("TIDEGATE_HTTP_PORT", &port),
            ("TIDEGATE_PUBLISH_MODE", "host"),
            ("TIDEGATE_NETWORKS", networks),
        ];
        let start = now();
        let mut files = vec![tidy::root().join("deploy/tidegate.yml")];
        for (number, text) in more.iter().enumerate() {
            let file = scene.swarm.folder().join(format!("more-{number}.yml"));
            fs::write(&file, text)?;
            files.push(file);
        }
        scene.deploy("tidegate", &files, &settings)?;
        scene.until_proxies_answer()?;
        effect(
            "docker stack deploy of Tidegate, to 503 for an unknown host by every proxy",
            start,
        );
        Ok(scene)
    }

    fn until_proxies_answer(&self) -> Result<()> {
        for entrance in self.entrances() {
            let answers = || match web::get(entrance, "nobody.example", "/", PROBE) {
                Ok(answer) if answer.status == 503 => Look::Holds(()),
                Ok(answer) => Look::NotYet(answer.summary()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            };
            self.explained(wait_for(&format!("the proxy at {entrance} answers"), LIMIT, answers))?;
        }
        Ok(())
    }

    /// The Swarm below.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Docker's client against a manager.
    ///
    /// # Errors
    /// What the client says.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        self.swarm.docker(arguments)
    }

    /// The nodes of the proxies.
    pub fn proxies(&self) -> &[Node] {
        &self.swarm.nodes()[MANAGERS..]
    }

    /// Where users reach the proxies.
    pub fn entrances(&self) -> Vec<SocketAddr> {
        self.entrances_at(self.port)
    }

    /// The proxies' nodes with another port.
    pub fn entrances_at(&self, port: u16) -> Vec<SocketAddr> {
        self.proxies()
            .iter()
            .map(|node| address_of(&node.address(), port))
            .collect()
    }

    /// The nodes of controllers and applications.
    pub fn managers(&self) -> &[Node] {
        &self.swarm.nodes()[..MANAGERS]
    }

    /// `docker stack deploy` of files, with variables.
    ///
    /// # Errors
    /// What the client says.
    pub fn deploy(&self, stack: &str, files: &[PathBuf], variables: &[(&str, &str)]) -> Result<()> {
        let mut client = self.swarm.docker_command()?;
        client.args(["stack", "deploy", "--resolve-image", "never"]);
        for file in files {
            client.arg("--compose-file").arg(file);
        }
        client.arg(stack).envs(variables.iter().copied());
        run(&mut client).map(drop)
    }

    /// Deploys one of the demo applications with the test application's image, on the managers.
    ///
    /// # Errors
    /// What the client says.
    pub fn deploy_app(&self, stack: &str, file: &str, host: &str) -> Result<()> {
        self.deploy_app_file(stack, &tidy::root().join(file), host)
    }

    /// [`Scene::deploy_app`] of a file anywhere.
    ///
    /// # Errors
    /// What the client says.
    pub fn deploy_app_file(&self, stack: &str, file: &Path, host: &str) -> Result<()> {
        let variables = [
            ("DEMO_IMAGE", image::APP),
            ("DEMO_PORT", "8080"),
            ("DEMO_HOST", host),
            ("DEMO_NETWORK", SHARED),
            ("DEMO_CONSTRAINT", "node.role==manager"),
        ];
        self.deploy(stack, &[file.to_path_buf()], &variables)
    }

    /// Creates a service of the test application, which exits at once on SIGTERM, on the managers and the network [`SHARED`].
    ///
    /// # Errors
    /// What the client says.
    pub fn create_app(&self, name: &str, replicas: usize, labels: &[(&str, &str)]) -> Result<()> {
        let replicas = replicas.to_string();
        let mut create = vec!["service", "create", "--detach", "--name", name, "--replicas", &replicas];
        create.extend(["--network", SHARED, "--endpoint-mode", "dnsrr", "--env", "STOP=now"]);
        create.extend(["--env", "TASK={{.Task.Name}}", "--constraint", "node.role==manager"]);
        create.extend(["--update-order", "start-first"]);
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        for label in &labels {
            create.extend(["--label", label]);
        }
        create.push(image::APP);
        self.docker(&create).map(drop)
    }

    /// Sets a label of a service.
    ///
    /// # Errors
    /// What the client says.
    pub fn set_label(&self, service: &str, key: &str, value: &str) -> Result<()> {
        let label = format!("{key}={value}");
        self.docker(&["service", "update", "--detach", "--label-add", &label, service])
            .map(drop)
    }

    /// Containers of a service that run on the managers.
    ///
    /// # Errors
    /// What the client says.
    pub fn count(&self, service: &str) -> Result<usize> {
        let lists = self.managers().iter().map(|node| node.containers_of(service));
        Ok(lists.collect::<Result<Vec<_>>>()?.concat().len())
    }

    /// Waits until exactly so many containers of a service run on the managers.
    ///
    /// # Errors
    /// After three minutes, with how many do.
    pub fn until_count(&self, service: &str, count: usize) -> Result<()> {
        let counted = || match self.count(service) {
            Ok(running) if running == count => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        };
        wait_for(&format!("{count} containers of {service} run"), REST_LIMIT, counted).map(drop)
    }

    /// Waits until the last update of a service is over, as that of the controllers which mount their own authority.
    ///
    /// # Errors
    /// After three minutes, with its state.
    pub fn until_updated(&self, service: &str) -> Result<()> {
        let format = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}";
        let state = || match self.docker(&["service", "inspect", "--format", format, service]) {
            Ok(state) if state == "completed" => Look::Holds(()),
            other => Look::NotYet(format!("{other:?}")),
        };
        wait_for(&format!("the update of {service} is over"), REST_LIMIT, state).map(drop)
    }

    /// Waits until each proxy's answer for the host pleases, and prints the seconds since `change` began.
    ///
    /// # Errors
    /// After two minutes, with what was answered last and the state of the services.
    pub fn until(
        &self,
        change: &str,
        start: Instant,
        host: &str,
        mut pleases: impl FnMut(&Answer) -> bool,
    ) -> Result<f64> {
        for entrance in self.entrances() {
            let look = || match web::get(entrance, host, "/", PROBE) {
                Ok(answer) if pleases(&answer) => Look::Holds(()),
                Ok(answer) => Look::NotYet(answer.summary()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            };
            self.explained(wait_for(&format!("{change} at {entrance}"), LIMIT, look))?;
        }
        Ok(effect(change, start))
    }

    /// One answer of each proxy.
    ///
    /// # Errors
    /// If one does not answer.
    pub fn ask_all(&self, host: &str, path: &str) -> Result<Vec<Answer>> {
        let ask = |entrance| web::get(entrance, host, path, PROBE).with_context(|| format!("{entrance}"));
        self.entrances().into_iter().map(ask).collect()
    }

    /// Names of a service's tasks that are to run, as `{{.Task.Name}}` has them.
    ///
    /// # Errors
    /// What the client says.
    pub fn tasks_of(&self, service: &str) -> Result<Vec<String>> {
        let format = "{{.Name}}.{{.ID}}";
        let filter = [
            "--no-trunc",
            "--filter",
            "desired-state=running",
            "--format",
            format,
            service,
        ];
        let list = self.docker(&[&["service", "ps"][..], &filter].concat())?;
        Ok(list.lines().map(String::from).collect())
    }

    /// Runs the product's program in a running container of a service, e.g. `tidegate routes`.
    ///
    /// # Errors
    /// If none runs, or what it says.
    pub fn tidegate(&self, service: &str, arguments: &[&str]) -> Result<String> {
        for node in self.swarm.nodes().iter().filter(|node| node.is_running()) {
            if let Some(container) = node.containers_of(service)?.first() {
                return node.docker(&[&["exec", container, "/tidegate"][..], arguments].concat());
            }
        }
        bail!("no task of {service} runs")
    }

    /// The same in every running container of a service: what each one printed, one after the other.
    ///
    /// # Errors
    /// If none runs, or what one of them says.
    pub fn tidegate_each(&self, service: &str, arguments: &[&str]) -> Result<String> {
        let mut printed = Vec::new();
        for node in self.swarm.nodes().iter().filter(|node| node.is_running()) {
            for container in node.containers_of(service)? {
                printed.push(node.docker(&[&["exec", &container, "/tidegate"][..], arguments].concat())?);
            }
        }
        match printed.is_empty() {
            true => bail!("no task of {service} runs"),
            false => Ok(printed.join("\n")),
        }
    }

    /// Adds the state of the Swarm to an error.
    ///
    /// # Errors
    /// The same one.
    pub fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| self.swarm.describe(&[CONTROLLER, PROXY]))
    }
}

/// Prints the seconds from the moment a change was begun (the client's own time included) to its effect.
pub fn effect(change: &str, start: Instant) -> f64 {
    let seconds = start.elapsed().as_secs_f64();
    say(format_args!("effect  {seconds:7.2} s  {change}"));
    seconds
}

fn address_of(address: &str, port: u16) -> SocketAddr {
    format!("{address}:{port}").parse().expect("nodes have IPv4 addresses")
}
