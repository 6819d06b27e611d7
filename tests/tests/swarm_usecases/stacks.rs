//! Stacks of examples: deployed with the test application, tried by their headers, removed together.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use e2e::clock::{Look, now, wait_for};
use e2e::example::Example;
use e2e::image;
use e2e::scene::{CONTROLLER, Scene, effect};

use crate::tls;

/// What has been deployed so far.
pub(crate) struct Stacks<'a> {
    pub(crate) scene: &'a Scene,
    deployed: Vec<(String, Example)>,
}

impl<'a> Stacks<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        let deployed = Vec::new();
        Stacks { scene, deployed }
    }

    /// Folder of the files that commands name.
    pub(crate) fn folder(&self) -> PathBuf {
        self.scene.swarm().folder().to_path_buf()
    }

    /// `docker stack deploy -c deploy/examples/EXAMPLE.yml STACK`.
    pub(crate) fn deploy(&mut self, stack: &str, example: &str, more: &[(&str, &str)]) -> Result<()> {
        let example = Example::read(example)?;
        let usual = [("APP_IMAGE", image::APP), ("APP_CONSTRAINT", "node.role==manager")];
        self.scene
            .deploy(stack, std::slice::from_ref(&example.file), &[&usual, more].concat())?;
        self.deployed.push((stack.into(), example));
        Ok(())
    }

    /// A stack that was removed alone.
    pub(crate) fn forget(&mut self, stack: &str) {
        self.deployed.retain(|(name, _)| name != stack);
    }

    /// Runs the commands of every header, against every proxy.
    pub(crate) fn try_all(&self) -> Result<()> {
        let [east, west] = self.scene.proxies() else {
            anyhow::bail!("two proxies were expected")
        };
        let (east_address, west_address) = (east.address(), west.address());
        for (stack, example) in &self.deployed {
            if example.tries.is_empty() || *stack == "mesh" {
                continue; // answered by no proxy that this machine reaches
            }
            for proxy in [&east_address, &west_address] {
                let words = [
                    ("ANY-NODE", proxy.as_str()),
                    ("EAST-NODE", &east_address),
                    ("WEST-NODE", &west_address),
                ];
                example
                    .try_all(&self.folder(), &words)
                    .with_context(|| format!("stack {stack}"))?;
            }
        }
        Ok(())
    }

    /// `docker stack rm` of all of them, until no route is left.
    pub(crate) fn remove(self) -> Result<()> {
        let start = now();
        let names = self.deployed.iter().map(|(stack, _)| stack.as_str());
        self.scene
            .docker(&["stack", "rm"].into_iter().chain(names).collect::<Vec<_>>())?;
        wait_for("no route is left", tls::LIMIT, || {
            match self.scene.tidegate(CONTROLLER, &["routes"]) {
                Ok(text) if !text.lines().any(|line| line.starts_with("rule ")) => Look::Holds(()),
                Ok(text) => Look::NotYet(text),
                Err(error) => Look::NotYet(error.to_string()),
            }
        })?;
        for host in ["canary.example.org", "shop.example.org", "host.example.org"] {
            self.scene
                .until("docker stack rm of all use cases, to 503", start, host, |answer| {
                    answer.status == 503
                })?;
        }
        effect("docker stack rm of all use cases, to no route left", start);
        Ok(())
    }
}
