//! `cargo e2e`: what needs a real Swarm or the peers of the trade, and a person who looks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use e2e::bench::{self, bench};
use e2e::freshness;
use e2e::image;
use e2e::scene::{SHARED, Scene, WORKERS};
use e2e::swarm::{self, Swarm};
use e2e::zero_loss::proof::{prove_over_https, prove_the_examples};
use e2e::zero_loss::scenario::SCENARIOS;
use e2e::zero_loss::{Options, zero_loss};

#[derive(Parser)]
#[command(name = "cargo e2e", about = "Tidegate on a real Swarm, and beside its peers")]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Start a Swarm to play with, and keep it until Ctrl-C
    Swarm {
        /// Managers among the nodes
        #[arg(long, default_value_t = 1)]
        managers: usize,
        /// Nodes, managers included
        #[arg(long, default_value_t = 3)]
        nodes: usize,
        /// Build the images of Tidegate and of the test application, and load them on every node
        #[arg(long)]
        images: bool,
    },
    /// Measure Tidegate beside nginx and HAProxy, and print a page of Markdown
    Bench {
        /// Rounds of each peer; the median counts
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds of a round
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Clients that stay connected
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Bytes of an answer's body
        #[arg(long, default_value_t = 512)]
        bytes: usize,
    },
    /// Measure how long a change takes from Docker to every proxy, and what the controllers ask of Docker
    Freshness {
        /// Changes of tasks, and as many new routes
        #[arg(long, default_value_t = 200)]
        changes: usize,
        /// Measure a second time with so many services in the Swarm; 0 = do not
        #[arg(long, default_value_t = 2000)]
        services: usize,
        /// Have the controllers follow SwarmKit's watch
        #[arg(long)]
        feed: bool,
    },
    /// Networks that come and go through legs, under load and with open connections
    Legs {
        /// Applications with a network each
        #[arg(long, default_value_t = 20)]
        networks: usize,
        /// Upgraded connections that stay open
        #[arg(long, default_value_t = 200)]
        sockets: usize,
    },
    /// Update, scale, drain and roll back an application under traffic, lose its nodes, and exit 1 if a request failed that may not
    ZeroLoss {
        /// Scenarios by name; all without any
        names: Vec<String>,
        /// Requests in all; each scenario has one round at least
        #[arg(long, default_value_t = 10_000)]
        requests: u64,
        /// Have HAProxy do the same work on the same nodes, and print its failures too
        #[arg(long)]
        beside: bool,
        /// Nodes with a proxy each, in host mode
        #[arg(long, default_value_t = WORKERS, value_parser = at_least_one)]
        workers: usize,
        /// Name the scenarios and what each promises
        #[arg(long)]
        list: bool,
    },
    /// Run `tidegate prove` on the two example stacks, on the clean one over HTTPS too, and exit 1 if it does not name the fault
    Prove,
    /// Ask an admin listener from where it can be reached (`cargo e2e freshness` starts this itself)
    #[command(hide = true)]
    Admin {
        address: SocketAddr,
        path: String,
        /// Go on asking, and print the endpoints of an explanation whenever they change
        #[arg(long)]
        follow: bool,
    },
    /// Remove a Swarm when standard input ends (the harness starts this itself)
    #[command(hide = true)]
    Guard { name: String, dir: PathBuf },
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("requests go to proxies: write 1 or more".to_owned()),
    }
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        What::Swarm {
            managers,
            nodes,
            images,
        } => keep(managers, nodes, images),
        What::Bench {
            rounds,
            seconds,
            connections,
            bytes,
        } => {
            let options = bench::Options {
                rounds: rounds.max(1),
                duration: Duration::from_secs(seconds.max(1)),
                connections,
                bytes,
            };
            print!("{}", bench(&image::product_program("release")?, &options)?);
            Ok(())
        }
        What::Freshness {
            changes,
            services,
            feed,
        } => {
            if let Some(obstacle) = swarm::obstacle() {
                bail!("{obstacle}");
            }
            let options = freshness::Options {
                changes: changes.max(1),
                services,
                feed,
            };
            if !freshness::freshness(&options)? {
                bail!("a goal was missed");
            }
            Ok(())
        }
        What::Admin { address, path, follow } => freshness::admin::ask(address, &path, follow),
        What::Legs { networks, sockets } => legs(e2e::legs::Options { networks, sockets }),
        What::ZeroLoss { list: true, .. } => {
            for scenario in &SCENARIOS {
                println!("{:16} {}", scenario.name, scenario.promise);
            }
            Ok(())
        }
        What::ZeroLoss {
            names,
            requests,
            beside,
            workers,
            ..
        } => {
            if let Some(obstacle) = swarm::obstacle() {
                bail!("{obstacle}");
            }
            if !zero_loss(&Options {
                names,
                requests,
                beside,
                workers,
            })? {
                bail!("a promise broke: requests failed");
            }
            Ok(())
        }
        What::Prove => {
            if let Some(obstacle) = swarm::obstacle() {
                bail!("{obstacle}");
            }
            let scene = Scene::set_up(SHARED)?;
            scene.explained(prove_the_examples(&scene))?;
            scene.explained(prove_over_https(&scene))
        }
        What::Guard { name, dir } => swarm::guard::guard(&name, &dir),
    }
}

fn legs(options: e2e::legs::Options) -> Result<()> {
    if let Some(obstacle) = swarm::obstacle() {
        bail!("{obstacle}");
    }
    let scene = e2e::legs::set_up()?;
    let told = |result: Result<()>| scene.explained(result);
    told(e2e::legs::what_a_connection_costs(&scene))?;
    told(e2e::legs::networks_come_and_go(&scene, options))?;
    told(e2e::legs::a_network_without_a_stack(&scene))?;
    told(e2e::legs::updates_without_controllers(&scene))
}

fn keep(managers: usize, nodes: usize, images: bool) -> Result<()> {
    if let Some(obstacle) = swarm::obstacle() {
        bail!("{obstacle}");
    }
    let swarm = Swarm::start(managers, nodes.saturating_sub(managers))?;
    for node in swarm.nodes() {
        println!(
            "{}  {}  docker -H unix://{} node ls",
            node.name(),
            node.address(),
            node.socket().display()
        );
    }
    if images {
        image::load_both(&swarm)?;
        println!("images: {} {} {}", image::PRODUCT, image::APP, image::APP_2);
    }
    println!("Ctrl-C removes it all.");
    loop {
        std::thread::park();
    }
}
