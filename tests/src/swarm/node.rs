//! One node: an init process in pid, mount, network, host name and IPC namespaces, a link to the switch, and a dockerd
//! that can be stopped, killed and started again, while its containers or the whole node can be frozen or cut off.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::slot::Slot;
use super::{cgroup, guard};
use crate::clock::{Look, once_ok, wait_for};
use crate::command::{command, run};

/// A node of a [`super::Swarm`].
#[derive(Debug)]
pub struct Node {
    number: usize,
    swarm: String,
    net: String,
    dir: PathBuf,
    /// Number of the init process, as the machine sees it.
    init: String,
    switch: String,
    /// `nsenter`, which lives as long as the dockerd that it started.
    dockerd: Mutex<Option<Child>>,
    _init_launcher: Child,
}

impl Node {
    /// Starts the init process and its link.
    pub(super) fn boot(slot: &Slot, number: usize) -> Result<Node> {
        let name = format!("n{number}");
        let dir = slot.dir.join(&name);
        for folder in ["data", "etc", "cgroup"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        fs::write(
            dir.join("resolv.conf"),
            format!("nameserver {}.1\noptions timeout:1 attempts:1\n", slot.net),
        )?;
        let script = dir.join("init.sh");
        fs::write(&script, include_str!("node-init.sh"))?;
        let launcher = command("unshare")
            .args([
                "-m",
                "-u",
                "-i",
                "-n",
                "-p",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
                "sh",
            ])
            .arg(&script)
            .arg(&dir)
            .arg(format!("node{number}"))
            .args(cgroup::create(&slot.name, &name)?)
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("init.log"))?)
            .spawn()
            .context("cannot start unshare")?;
        let ready = dir.join("ready");
        wait_for(&format!("node{number} boots"), Duration::from_secs(20), || {
            if ready.exists() {
                Look::Holds(())
            } else {
                Look::NotYet(tail(&dir.join("init.log")))
            }
        })?;
        let running = |name: &str| {
            let file = slot.dir.join(format!("{name}.pid"));
            guard::living(&file).with_context(|| format!("{} names no living process", file.display()))
        };
        let node = Node {
            number,
            swarm: slot.name.clone(),
            net: slot.net.clone(),
            init: running(&name)?,
            switch: running("switch")?,
            dir,
            dockerd: Mutex::new(None),
            _init_launcher: launcher,
        };
        let link = r#"
            nsenter -t "$2" -n ip link add "$1" type veth peer name eth0 netns "$3"
            nsenter -t "$2" -n ip link set "$1" master br0 up
            nsenter -t "$3" -n ip addr add "$4/24" dev eth0
            nsenter -t "$3" -n ip link set eth0 up
            nsenter -t "$3" -n ip route add unreachable default"#;
        crate::command::shell(link, &[&name, &node.switch, &node.init, &node.address()])?;
        Ok(node)
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its host name, which is its name in the Swarm.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// Its address, which the machine reaches too.
    pub fn address(&self) -> String {
        format!("{}.{}", self.net, 10 + self.number)
    }

    /// Its API socket, as the machine sees it. In the node it is `/var/run/docker.sock` as well.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// SwarmKit's control socket of a manager, as the machine sees it. In the node it is in `/var/run/docker/swarm`.
    pub fn control_socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/docker/swarm/control.sock", self.init))
    }

    /// Docker's client against this node.
    ///
    /// # Errors
    /// What the client says, or after two minutes.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        run(self.docker_command().args(arguments))
    }

    /// The client's command, to which arguments are to be added.
    pub fn docker_command(&self) -> Command {
        let mut client = command("timeout");
        let config = self.dir.with_file_name("client");
        client
            .args(["120", "docker", "-H"])
            .arg(format!("unix://{}", self.socket().display()));
        client
            .env("DOCKER_CONFIG", config)
            .env("DOCKER_CLI_HINTS", "false")
            .env("DOCKER_BUILDKIT", "0");
        client
    }

    /// A command inside the node: its network, mounts, processes.
    pub fn inside(&self, program: &str) -> Command {
        let mut inside = command("nsenter");
        inside.args(["-t", &self.init, "-m", "-u", "-i", "-n", "-p", "--", program]);
        inside
    }

    /// Starts dockerd and returns at once. Does nothing while one runs.
    ///
    /// # Errors
    /// If nsenter cannot be started.
    pub fn start_dockerd(&self) -> Result<()> {
        let mut running = self.running();
        if running.is_some() {
            return Ok(());
        }
        let _ = fs::remove_file(self.socket());
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("dockerd.log"))?;
        let groups = cgroup::create(&self.swarm, &format!("n{}", self.number))?;
        let enter = r#"while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@""#;
        let child = self
            .inside("sh")
            .args(["-c", enter, "sh"])
            .args(groups)
            .args(["--", "env", "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1", "dockerd"])
            .arg("--data-root")
            .arg(self.dir.join("data"))
            .args([
                "--exec-root",
                "/run/docker",
                "--pidfile",
                "/run/docker.pid",
                "--group",
                "root",
            ])
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["-H", "unix:///var/run/docker.sock"])
            .args(["--cgroup-parent", &format!("/{}/n{}", self.swarm, self.number)])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        *running = Some(child);
        Ok(())
    }

    /// Waits until dockerd answers.
    ///
    /// # Errors
    /// After a minute, with the end of its log.
    pub fn wait_for_api(&self) -> Result<()> {
        let answering = || once_ok(self.docker(&["version"]));
        let waited = wait_for(
            &format!("dockerd of {} answers", self.name()),
            Duration::from_secs(60),
            answering,
        );
        waited.with_context(|| tail(&self.dir.join("dockerd.log"))).map(drop)
    }

    /// Waits until the node takes part in its Swarm again, e.g. after its dockerd was started.
    ///
    /// # Errors
    /// After a minute.
    pub fn wait_for_swarm(&self) -> Result<Duration> {
        let (_, waited) = wait_for(
            &format!("{} is back in its Swarm", self.name()),
            Duration::from_secs(60),
            || match self.docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"]) {
                Ok(state) if state == "active" => Look::Holds(()),
                Ok(state) => Look::NotYet(state),
                Err(error) => Look::NotYet(error.to_string()),
            },
        )?;
        Ok(waited)
    }

    /// SIGTERM: dockerd stops its containers, then itself.
    ///
    /// # Errors
    /// If it does not end within a minute.
    pub fn stop_dockerd(&self) -> Result<()> {
        self.end_dockerd("-TERM")
    }

    /// SIGKILL: containers run on, until dockerd is started again and ends them.
    ///
    /// # Errors
    /// If it does not end within a minute.
    pub fn kill_dockerd(&self) -> Result<()> {
        self.end_dockerd("-KILL")
    }

    /// Whether a dockerd runs, as far as this harness ends and starts it.
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// Freezes every process of the node: its kernel still answers, nobody else does.
    ///
    /// # Errors
    /// If the machine has no freezer.
    pub fn pause(&self) -> Result<()> {
        cgroup::freeze(&self.swarm, &format!("n{}", self.number), true)
    }

    /// Ends a [`Node::pause`].
    ///
    /// # Errors
    /// If the machine has no freezer.
    pub fn resume(&self) -> Result<()> {
        cgroup::freeze(&self.swarm, &format!("n{}", self.number), false)
    }

    /// Drops all its frames at the switch, without a sign on the link, or lets them pass again.
    ///
    /// # Errors
    /// What `bridge` says.
    pub fn cut(&self, is_cut: bool) -> Result<()> {
        let state = if is_cut { "0" } else { "3" };
        let link = format!("n{}", self.number);
        run(command("nsenter").args([
            "-t",
            &self.switch,
            "-n",
            "bridge",
            "link",
            "set",
            "dev",
            &link,
            "state",
            state,
        ]))?;
        Ok(())
    }

    /// The end of dockerd's log.
    pub fn dockerd_log(&self) -> String {
        tail(&self.dir.join("dockerd.log"))
    }

    fn end_dockerd(&self, signal: &str) -> Result<()> {
        let mut running = self.running();
        let Some(launcher) = running.as_mut() else {
            return Ok(());
        };
        run(self
            .inside("sh")
            .args(["-c", "kill \"$1\" \"$(cat /run/docker.pid)\"", "sh", signal]))?;
        wait_for(
            &format!("dockerd of {} ends", self.name()),
            Duration::from_secs(60),
            || match launcher.try_wait() {
                Ok(Some(_)) => Look::Holds(()),
                Ok(None) => Look::NotYet("it runs".into()),
                Err(error) => Look::NotYet(error.to_string()),
            },
        )?;
        *running = None;
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        self.dockerd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The state of a task's container is nobody's business but its node's: containers of a service on this node.
impl Node {
    /// Ids of the running containers of a service on this node.
    ///
    /// # Errors
    /// What the client says.
    pub fn containers_of(&self, service: &str) -> Result<Vec<String>> {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        let list = self.docker(&["ps", "-q", "--no-trunc", "--filter", &filter])?;
        Ok(list.lines().map(String::from).collect())
    }

    /// Kills the running containers of a service on this node, without a word to Swarm. Gives how many.
    ///
    /// # Errors
    /// What the client says.
    pub fn kill_containers_of(&self, service: &str) -> Result<usize> {
        let containers = self.containers_of(service)?;
        if containers.is_empty() {
            bail!("no task of {service} runs on {}", self.name());
        }
        let mut kill = vec!["kill"];
        kill.extend(containers.iter().map(String::as_str));
        self.docker(&kill)?;
        Ok(containers.len())
    }

    /// A command in the network of a running container of this node, e.g. to ask what is published on a routing mesh that the
    /// kernel does not have.
    ///
    /// # Errors
    /// What the client says.
    pub fn beside(&self, container: &str, program: &str) -> Result<Command> {
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", container])?;
        let mut beside = self.inside("nsenter");
        beside.args(["-t", &pid, "-n", "--", program]);
        Ok(beside)
    }
}
