//! A peer for the same work: HAProxy finds the application's tasks by Docker's DNS, as its own documentation has it
//! (`resolvers` and `server-template` on `tasks.<service>`, health checks, redispatch of failed connections).

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail};

use super::fault::LIMIT;
use super::scenario::SERVICE;
use super::traffic::{Target, Traffic};
use crate::clock::{Look, wait_for};
use crate::command::is_installed;
use crate::image;
use crate::scene::{SHARED, Scene};

/// Of the nodes, published in host mode.
const PORT: u16 = 9090;
/// The service in whose networks it runs.
const PLACE: &str = "beside";
const CONFIG: &str = "global
  maxconn 4096
resolvers docker
  nameserver dns 127.0.0.11:53
  resolve_retries 3
  timeout resolve 1s
  timeout retry 1s
  hold other 10s
  hold refused 10s
  hold nx 10s
  hold timeout 10s
  hold valid 1s
  hold obsolete 10s
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout queue 10s
  retries 3
  option redispatch
  option forwardfor
  default-server init-addr libc,none
frontend in
  bind :9090
  default_backend app
backend app
  balance roundrobin
  server-template app 10 tasks.SERVICE:8080 check inter 1s resolvers docker resolve-prefer ipv4
";

/// HAProxy on each of the proxies' nodes, until it is dropped.
#[derive(Debug)]
pub struct Beside {
    entrances: Vec<SocketAddr>,
    running: Vec<Child>,
}

impl Beside {
    /// Starts it, in the network of a container on each node: so it is on the application's network, as Tidegate's proxies are.
    ///
    /// # Errors
    /// If it is not installed, or what Docker says.
    pub fn set_up(scene: &Scene) -> Result<Beside> {
        if !is_installed("haproxy") {
            bail!("haproxy is not installed (apt-get install haproxy)");
        }
        let publish = format!("mode=host,published={PORT},target={PORT}");
        let create = ["service", "create", "--detach", "--name", PLACE, "--mode", "global"];
        let place = [
            "--network",
            SHARED,
            "--constraint",
            "node.role==worker",
            "--publish",
            &publish,
        ];
        scene.docker(&[&create[..], &place, &["--endpoint-mode", "dnsrr", image::APP]].concat())?;
        let config = scene.swarm().folder().join("haproxy.conf");
        fs::write(&config, CONFIG.replace("SERVICE", SERVICE))?;
        let mut beside = Beside {
            entrances: scene.entrances_at(PORT),
            running: Vec::new(),
        };
        for node in scene.proxies() {
            let (container, _) = wait_for("a place for HAProxy", LIMIT, || match node.containers_of(PLACE) {
                Ok(containers) if containers.len() == 1 => Look::Holds(containers[0].clone()),
                other => Look::NotYet(format!("{other:?}")),
            })?;
            let log = fs::File::create(scene.swarm().folder().join(format!("haproxy-{}.log", node.name())))?;
            let mut haproxy = node.beside(&container, "haproxy")?;
            haproxy.args(["-db", "-f"]).arg(&config);
            haproxy.stdout(Stdio::from(log.try_clone()?)).stderr(log);
            beside.running.push(haproxy.spawn().context("cannot start haproxy")?);
        }
        Ok(beside)
    }

    /// Starts the same requests as to Tidegate.
    ///
    /// # Errors
    /// If it does not find the application, or the system gives no threads.
    pub fn start(&self, target: Target) -> Result<Traffic> {
        for entrance in &self.entrances {
            let answers = || match crate::web::get(*entrance, target.host, "/", LIMIT) {
                Ok(answer) if answer.status == 200 => Look::Holds(()),
                Ok(answer) => Look::NotYet(answer.summary()),
                Err(error) => Look::NotYet(format!("{error:#}")),
            };
            wait_for(&format!("HAProxy at {entrance} finds the application"), LIMIT, answers)?;
        }
        Traffic::start(&self.entrances, target)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for child in &mut self.running {
            // Its node ends it in any case.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
