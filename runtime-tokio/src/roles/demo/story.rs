//! What happens in the demo: the fixed script of `--once`, and the endless one.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tidegate_core::id::ServiceId;
use tidegate_core::rng::Rng;
use tidegate_core::simulated::Swarm;
use tidegate_core::swarm::model::Task;

use super::engine::Engine;
use super::load::{Load, Wish};
use super::{DemoError, SHOP_HOST, STORE_HOST, wishes};

/// Requests that `--once` makes at least.
pub(super) const REQUESTS_MIN: u64 = 10_000;
/// No step of the script takes longer.
const STEP_LIMIT: Duration = Duration::from_secs(60);
/// `--once` ends after this, however slow the machine.
const SCRIPT_LIMIT: Duration = Duration::from_secs(180);

/// One of the demo's stories.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) engine: Engine,
    pub(super) load: Load,
    pub(super) shop: ServiceId,
    pub(super) blog: ServiceId,
    pub(super) rng: Rng,
}

impl Story {
    /// Waits until every service runs and is answered through the proxy.
    pub(super) async fn begin(&self) -> Result<(), DemoError> {
        self.settled("three services start").await?;
        for wish in wishes() {
            self.answered(&wish).await?;
        }
        Ok(())
    }

    /// The fixed script.
    pub(super) async fn once(&self) -> Result<(), DemoError> {
        let Story {
            engine,
            load,
            shop,
            blog,
            ..
        } = self;
        load.ask_for(wishes());
        self.say("load on three services");
        engine.wait(Duration::from_secs(2)).await;

        self.say("scale shop from 3 to 6 tasks");
        self.scale(shop, 6)?;
        self.settled("shop has 6 tasks").await?;
        self.say("scale shop from 6 to 2 tasks; its app exits at once when told to");
        self.scale(shop, 2)?;
        self.settled("shop has 2 tasks").await?;

        self.say("update shop, old task before new, its app exits at once");
        self.new_image(shop, false)?;
        self.settled("shop is updated").await?;

        self.say("update blog, new task before old");
        self.new_image(blog, true)?;
        self.settled("blog is updated").await?;

        self.say("a task of shop crashes");
        self.crash(shop);
        engine.wait(Duration::from_secs(1)).await;

        self.say("shop is also store.example.org");
        self.set_hosts(&format!("{SHOP_HOST},{STORE_HOST}"))?;
        let store = Wish {
            host: STORE_HOST,
            path: "/",
            service: "shop",
        };
        self.answered(&store).await?;
        load.ask_for(wishes().into_iter().chain([store]).collect());
        engine.wait(Duration::from_secs(2)).await;
        load.ask_for(wishes());
        engine.wait(Duration::from_millis(200)).await;
        self.say("shop is store.example.org no more");
        self.set_hosts(SHOP_HOST)?;
        self.settled("the crashed task is replaced").await?;

        let end = engine.clock().now() + SCRIPT_LIMIT;
        while load.requests() < REQUESTS_MIN && engine.clock().now() < end {
            engine.wait(Duration::from_millis(100)).await;
        }
        load.finish().await;
        Ok(())
    }

    /// Something every few seconds, and a line about it all every second; never ends.
    pub(super) async fn for_ever(&mut self) -> Result<(), DemoError> {
        self.load.ask_for(wishes());
        let mut seconds = 0_u64;
        let mut next_change = 4;
        let mut before = 0;
        loop {
            self.engine.wait(Duration::from_secs(1)).await;
            seconds += 1;
            let requests = self.load.requests();
            self.show(requests - before, seconds);
            before = requests;
            if seconds >= next_change && self.at_rest() {
                self.change()?;
                next_change = seconds + self.rng.between(4, 8);
            }
        }
    }

    fn change(&mut self) -> Result<(), DemoError> {
        let (shop, blog) = (self.shop.clone(), self.blog.clone());
        match self.rng.below(6) {
            0 => {
                let size = self.rng.between(2, 6);
                self.say(&format!("scale shop to {size} tasks"));
                self.scale(&shop, size)
            }
            1 | 2 => {
                self.say("update shop, old task before new; its app exits at once when told to");
                self.new_image(&shop, false)
            }
            3 => {
                self.say("update blog, new task before old");
                self.new_image(&blog, true)
            }
            4 => {
                let has_store = self.engine.ask(|swarm| {
                    let shape = swarm.shape(&shop);
                    shape.is_some_and(|shape| shape.labels.values().any(|value| value.contains(STORE_HOST)))
                });
                if has_store {
                    self.say("shop is store.example.org no more");
                    self.set_hosts(SHOP_HOST)
                } else {
                    self.say("shop is also store.example.org");
                    self.set_hosts(&format!("{SHOP_HOST},{STORE_HOST}"))
                }
            }
            _ => {
                self.say("a task of shop crashes");
                self.crash(&shop);
                Ok(())
            }
        }
    }

    fn scale(&self, service: &ServiceId, replicas: u64) -> Result<(), DemoError> {
        let done = self.engine.command(|swarm, now| swarm.scale(service, replicas, now));
        done.map_err(DemoError::Swarm)
    }

    fn new_image(&self, service: &ServiceId, start_first: bool) -> Result<(), DemoError> {
        let done = self.engine.command(|swarm, now| {
            swarm.edit_service(service, now, |shape| {
                let (name, version) = shape.image.split_once(':').unwrap_or((&shape.image, "0"));
                let version: u64 = version.parse().unwrap_or_default();
                shape.image = format!("{name}:{}", version + 1);
                shape.update.start_first = start_first;
            })
        });
        done.map_err(DemoError::Swarm)
    }

    fn set_hosts(&self, hosts: &str) -> Result<(), DemoError> {
        let done = self.engine.command(|swarm, now| {
            swarm.edit_service(&self.shop, now, |shape| {
                shape.labels.insert("com.docker.lb.hosts".to_owned(), hosts.to_owned());
            })
        });
        done.map_err(DemoError::Swarm)
    }

    fn crash(&self, service: &ServiceId) {
        let victim = self.tasks(service).into_iter().find(Task::is_serving);
        if let Some(task) = victim {
            self.engine.crash(&task.id);
        }
    }

    fn tasks(&self, service: &ServiceId) -> Vec<Task> {
        self.engine
            .ask(|swarm| swarm.tasks(std::slice::from_ref(service)))
            .unwrap_or_default()
    }

    fn at_rest(&self) -> bool {
        self.engine.ask(Swarm::is_at_rest)
    }

    async fn settled(&self, what: &'static str) -> Result<(), DemoError> {
        let clock = self.engine.clock();
        let end = clock.now() + STEP_LIMIT;
        // The orchestrator has to take notice first.
        self.engine.wait(Duration::from_millis(100)).await;
        while !self.at_rest() {
            if clock.now() > end {
                return Err(DemoError::Stuck(what));
            }
            self.engine.wait(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn answered(&self, wish: &Wish) -> Result<(), DemoError> {
        let clock = self.engine.clock();
        let end = clock.now() + STEP_LIMIT;
        while !self.load.is_answered(wish).await {
            if clock.now() > end {
                return Err(DemoError::Stuck("a route is served"));
            }
            self.engine.wait(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// One line about what happens now.
    fn say(&self, what: &str) {
        let at = self.engine.clock().now().since_start().as_secs_f64();
        let (requests, failed) = (self.load.requests(), self.load.failed());
        clear_line();
        println!("{at:6.1} s  {what:<66} {requests:>7} requests, {failed} failed");
    }

    /// The live line.
    fn show(&self, rate: u64, seconds: u64) {
        let services = self.engine.ask(|swarm| {
            let mut text = String::new();
            for service in swarm.services(&[]) {
                let tasks = swarm.tasks(std::slice::from_ref(&service.id)).unwrap_or_default();
                let sign = |task: &Task| match task {
                    task if task.is_serving() => Some('●'),
                    task if task.is_leaving() => Some('◌'),
                    task if task.is_over() => None,
                    _ => Some('○'),
                };
                let signs: String = tasks.iter().filter_map(sign).collect();
                text.push_str(&format!("  {} {signs}", service.name));
            }
            text
        });
        let (requests, failed) = (self.load.requests(), self.load.failed());
        let (p50, p99) = (millis(self.load.within(50, 100)), millis(self.load.within(99, 100)));
        let line = format!("{rate:>5}/s  {requests} requests, {failed} failed  p50 {p50} p99 {p99} ms {services}");
        if std::io::stdout().is_terminal() {
            print!("\r\x1b[2K{line}");
            std::io::stdout().flush().ok(); // a closed terminal ends the demo by itself
        } else if seconds.is_multiple_of(10) {
            println!("{line}");
        }
        if seconds.is_multiple_of(10) {
            self.load.forget_latency();
        }
    }
}

fn clear_line() {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[2K");
    }
}

/// Milliseconds with two digits after the point.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}
