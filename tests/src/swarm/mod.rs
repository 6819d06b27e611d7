//! A real multi-node Docker Swarm on one Linux machine: dockerd processes in namespaces of their own, joined by a bridge.
//!
//! Overlay networks, task addresses, host-mode ports, secrets, configs, rolling updates, node loss and partitions are
//! real. Kernels without IPVS forward neither virtual IPs nor the ingress mesh; task addresses, `tasks.NAME` and
//! host-mode ports work everywhere. No dockerd of the machine is used or touched, nodes reach nothing outside, and
//! nothing is left behind (see `guard`).

mod cgroup;
pub mod guard;
mod node;
mod slot;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::guard::Guard;
pub use self::node::Node;
use self::slot::Slot;
use crate::clock::{Look, now, once_ok, wait_for};
use crate::command::{command, is_installed, run, shell};
use crate::report::say;

/// Programs that a Swarm needs, and the Debian package of each.
const PROGRAMS: [(&str, &str); 7] = [
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
];

/// What keeps a Swarm from running here; none if nothing does.
pub fn obstacle() -> Option<String> {
    if run(command("id").arg("-u")).ok().as_deref() != Some("0") {
        return Some("a Swarm of namespaces needs root".into());
    }
    let missing = PROGRAMS.iter().find(|(program, _)| !is_installed(program));
    if let Some((program, package)) = missing {
        return Some(format!("{program} is not installed (apt-get install {package})"));
    }
    if let Err(error) = shell("unshare -n -p -m -u -i --fork true", &[]) {
        return Some(format!("namespaces are not allowed here: {error}"));
    }
    None
}

/// A running Swarm. Dropping it removes it; so does the end of the process, whatever ends it.
#[derive(Debug)]
pub struct Swarm {
    guard: Mutex<Guard>,
    nodes: Vec<Node>,
    managers: usize,
    started: Instant,
    slot: Slot,
    // Reaped by nobody but us; ended by the guard.
    _switch: Child,
}

impl Swarm {
    /// Starts so many nodes of each kind: `node1` and so on, managers first. Takes 3 to 6 s for three.
    ///
    /// # Errors
    /// If anything fails; what was started is gone then.
    pub fn start(managers: usize, workers: usize) -> Result<Swarm> {
        let started = now();
        if managers == 0 || managers + workers > 100 {
            bail!("a Swarm has a manager at least, and 100 nodes at most here");
        }
        let slot = Slot::take()?;
        guard::remove(&slot.name, &slot.dir).context("what an earlier run left behind")?;
        fs::create_dir_all(slot.dir.join("client"))?;
        let mut guard = Guard::start(&slot)?;
        let start = || -> Result<(Child, Vec<Node>)> {
            // Each may be built in, loaded, or missing: dockerd says what it misses.
            let _ = shell(
                "for m in overlay bridge br_netfilter veth vxlan; do modprobe -q $m || :; done",
                &[],
            );
            let switch = start_switch(&slot)?;
            let mut nodes = Vec::new();
            for number in 1..=managers + workers {
                let node = Node::boot(&slot, number)?;
                node.start_dockerd()?;
                nodes.push(node);
            }
            for node in &nodes {
                node.wait_for_api()?;
            }
            Ok((switch, nodes))
        };
        let (switch, nodes) = match start() {
            Ok(parts) => parts,
            Err(error) => {
                guard.finish();
                return Err(error);
            }
        };
        let swarm = Swarm {
            guard: Mutex::new(guard),
            nodes,
            managers,
            started,
            slot,
            _switch: switch,
        };
        swarm.join()?;
        Ok(swarm)
    }

    /// Makes one Swarm of the nodes.
    fn join(&self) -> Result<()> {
        let first = self.node(1);
        let address = |node: &Node| [node.address(), format!("{}:2377", node.address())];
        let [advertise, listen] = address(first);
        first.docker(&[
            "swarm",
            "init",
            "--advertise-addr",
            &advertise,
            "--listen-addr",
            &listen,
        ])?;
        for (number, node) in (1..).zip(&self.nodes).skip(1) {
            // One after the other: two managers at a time fight over the membership.
            let kind = if number <= self.managers { "manager" } else { "worker" };
            let token = first.docker(&["swarm", "join-token", "-q", kind])?;
            let [own, own_listen] = address(node);
            let join = [
                "swarm",
                "join",
                "--token",
                &token,
                "--advertise-addr",
                &own,
                "--listen-addr",
                &own_listen,
                &listen,
            ];
            let joining = || once_ok(node.docker(&join));
            wait_for(&format!("node{number} joins"), Duration::from_secs(60), joining)?;
        }
        let expected = self.nodes.len();
        wait_for("all nodes are ready", Duration::from_secs(60), || {
            let list = first
                .docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"])
                .unwrap_or_default();
            let ready = list.lines().filter(|line| line.ends_with(" Ready")).count();
            if ready == expected {
                Look::Holds(())
            } else {
                Look::NotYet(list)
            }
        })?;
        say(format_args!(
            "swarm {}: {expected} nodes after {:.1} s",
            self.slot.name,
            self.started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// A node by its number, from 1.
    pub fn node(&self, number: usize) -> &Node {
        let index = number.checked_sub(1).expect("nodes are numbered from 1");
        self.nodes
            .get(index)
            .unwrap_or_else(|| panic!("there is no node {number}"))
    }

    /// All nodes, managers first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Docker's client against a node that is a manager: the first that runs.
    ///
    /// # Errors
    /// What the client says.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        self.manager()?.docker(arguments)
    }

    /// The client's command against the first manager that runs, to which arguments and variables are to be added.
    ///
    /// # Errors
    /// If no manager runs.
    pub fn docker_command(&self) -> Result<Command> {
        Ok(self.manager()?.docker_command())
    }

    /// Loads an image, in the form of `docker save`, on every node.
    ///
    /// # Errors
    /// What the client says.
    pub fn load(&self, image: &Path) -> Result<()> {
        let file = image.to_string_lossy();
        std::thread::scope(|scope| {
            let file: &str = &file;
            let load = |node| scope.spawn(move || Node::docker(node, &["load", "-q", "-i", file]).map(drop));
            let loads: Vec<_> = self.nodes.iter().map(load).collect();
            loads
                .into_iter()
                .try_for_each(|load| load.join().expect("loading does not panic"))
        })
    }

    /// The number of the managers' leader.
    ///
    /// # Errors
    /// If there is none.
    pub fn leader(&self) -> Result<usize> {
        let list = self.docker(&["node", "ls", "--format", "{{.ManagerStatus}} {{.Hostname}}"])?;
        let name = list
            .lines()
            .find_map(|line| line.strip_prefix("Leader node"))
            .context("no leader")?;
        name.parse().context("nodes are called node1 and so on")
    }

    fn manager(&self) -> Result<&Node> {
        let mut managers = self.nodes.iter().take(self.managers);
        managers.find(|node| node.is_running()).context("no manager runs")
    }

    /// Folder of this Swarm's files, for what a test writes itself. Goes with the Swarm.
    pub fn folder(&self) -> &Path {
        &self.slot.dir
    }

    /// Gives this machine so many more addresses on the nodes' network, for clients that are not to be one. They go with the
    /// Swarm.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn client_addresses(&self, count: u8) -> Result<Vec<IpAddr>> {
        let add = |number: u8| -> Result<IpAddr> {
            let address = format!("{}.{}", self.slot.net, 254 - number);
            let link = guard::uplink(&self.slot.name);
            run(command("ip").args(["addr", "replace", &format!("{address}/32"), "dev", &link]))?;
            Ok(address.parse()?)
        };
        (0..count).map(add).collect()
    }

    /// What one needs to see after a failure: services, their tasks, and the last lines of their logs.
    pub fn describe(&self, services: &[&str]) -> String {
        let ask = |arguments: &[&str]| self.docker(arguments).unwrap_or_else(|error| error.to_string());
        let mut text = format!(
            "--- services\n{}\n--- nodes\n{}\n",
            ask(&["service", "ls"]),
            ask(&["node", "ls"])
        );
        for service in services {
            let tasks = ask(&["service", "ps", "--no-trunc", service]);
            let logs = ask(&["service", "logs", "--tail", "40", "--no-trunc", service]);
            text.push_str(&format!(
                "--- tasks of {service}\n{tasks}\n--- logs of {service}\n{logs}\n"
            ));
        }
        text
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        match self.guard.get_mut() {
            Ok(guard) => guard.finish(),
            Err(poisoned) => poisoned.into_inner().finish(),
        }
    }
}

/// A bridge in a network namespace of its own, and a link from it to the machine.
fn start_switch(slot: &Slot) -> Result<Child> {
    let pid_file = slot.dir.join("switch.pid");
    let script = r#"
        read -r stat </proc/self/stat
        echo "${stat%% *} $(echo "${stat##*) }" | cut -d' ' -f20)" >"$1.new"
        ip link set lo up
        ip link add br0 type bridge forward_delay 0 stp_state 0
        ip link set br0 up
        mv "$1.new" "$1"
        exec sleep infinity"#;
    let switch = command("unshare")
        .args(["-n", "sh", "-e", "-c", script, "switch"])
        .arg(&pid_file)
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the switch")?;
    let (pid, _) = wait_for("the switch is up", Duration::from_secs(10), || {
        match guard::living(&pid_file) {
            Some(pid) => Look::Holds(pid),
            None => Look::NotYet("no process".into()),
        }
    })?;
    let uplink = r#"
        ip link add "$1" type veth peer name uplink netns "$2"
        nsenter -t "$2" -n ip link set uplink master br0 up
        ip addr add "$3" dev "$1"
        ip link set "$1" up"#;
    shell(
        uplink,
        &[&guard::uplink(&slot.name), &pid, &format!("{}.2/24", slot.net)],
    )?;
    Ok(switch)
}
