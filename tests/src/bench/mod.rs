//! Tidegate beside nginx and HAProxy: one processor for the proxy, another for load and backend, the same work.
//!
//! Rounds of the peers alternate, so that whatever the machine does besides hits all alike; the median round counts.
//! Requests per second say who is faster only while the proxy's processor is the one that is full; processor time per
//! request says it always.

pub mod measure;
pub mod peer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use self::measure::{Round, cpu_time, resident_kb, wrk};
use self::peer::{HOST, Peer, backend};
use crate::command::{command, is_installed, run, shell};

/// Processor of the proxy, and that of load and backend.
const CPUS: [usize; 2] = [0, 1];
/// Routes of the second memory figure.
const MANY_ROUTES: usize = 5_000;

/// How long and how hard.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds of each peer.
    pub rounds: usize,
    /// Of one round.
    pub duration: Duration,
    /// Clients that stay connected.
    pub connections: usize,
    /// Bytes of an answer's body.
    pub bytes: usize,
}

/// A round and what the proxy spent on it.
#[derive(Clone, Debug)]
struct Measured {
    round: Round,
    /// None without a proxy.
    cpu: Option<Duration>,
}

impl Measured {
    /// Microseconds of processor time for a request.
    fn cost_us(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.round.requests as f64)
    }

    /// How full the proxy's processor was, in percent.
    fn busy(&self, duration: Duration) -> Option<f64> {
        self.cpu.map(|cpu| cpu.as_secs_f64() / duration.as_secs_f64() * 100.0)
    }
}

/// What keeps the benchmark from running here.
pub fn obstacle() -> Option<String> {
    let missing = ["wrk", "nginx", "haproxy", "taskset"]
        .iter()
        .find(|program| !is_installed(program));
    if let Some(program) = missing {
        return Some(format!(
            "{program} is not installed (apt-get install wrk nginx-light haproxy util-linux)"
        ));
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (cpus < 2).then(|| "a benchmark needs two processors: one for the proxy alone".into())
}

/// Measures, and gives a page of Markdown.
///
/// # Errors
/// If a peer cannot be started, or a request fails.
pub fn bench(program: &Path, options: &Options) -> Result<String> {
    if let Some(obstacle) = obstacle() {
        bail!("{obstacle}");
    }
    let folder = tempfile::tempdir()?;
    let [proxy_cpu, load_cpu] = CPUS;
    let backend = backend(folder.path(), load_cpu, options.bytes)?;
    let peers = [Peer::Direct, Peer::Nginx, Peer::Haproxy, Peer::Tidegate];
    let mut results: BTreeMap<Peer, Vec<Measured>> = BTreeMap::new();
    // Round 0 warms up and is thrown away.
    for number in 0..=options.rounds {
        for peer in peers {
            let running = peer.start(folder.path(), program, proxy_cpu, backend.port, 1)?;
            let port = running.as_ref().map_or(backend.port, |running| running.port);
            let url = format!("http://127.0.0.1:{port}/");
            wrk(&url, HOST, load_cpu, options.connections, Duration::from_secs(1))?;
            let spent = || running.as_ref().map(|running| cpu_time(running.pid())).transpose();
            let before = spent()?;
            let round = wrk(&url, HOST, load_cpu, options.connections, options.duration)?;
            let cpu = spent()?.zip(before).map(|(after, before)| after.saturating_sub(before));
            if number > 0 {
                eprintln!("round {number} {:9} {:8.0} requests/s", peer.name(), round.rate);
                results.entry(peer).or_default().push(Measured { round, cpu });
            }
        }
    }
    let mut page = conditions(options)?;
    page.push_str("| | requests/s (median) | lowest … highest | CPU per request | proxy's CPU | p50 | p99 |\n");
    page.push_str("|---|---|---|---|---|---|---|\n");
    for peer in peers {
        let rounds = results.entry(peer).or_default();
        rounds.sort_by(|a, b| a.round.rate.total_cmp(&b.round.rate));
        row(&mut page, peer, rounds, options.duration);
    }
    page.push_str(&memory(folder.path(), program, proxy_cpu, backend.port)?);
    Ok(page)
}

fn row(page: &mut String, peer: Peer, sorted: &[Measured], duration: Duration) {
    let median = &sorted[sorted.len() / 2];
    let (low, high) = (&sorted[0].round, &sorted[sorted.len() - 1].round);
    let or_dash = |value: Option<f64>, unit: &str| value.map_or("–".into(), |value| format!("{value:.1} {unit}"));
    writeln!(
        page,
        "| {} | {:.0} | {:.0} … {:.0} | {} | {} | {:.2} ms | {:.2} ms |",
        peer.name(),
        median.round.rate,
        low.rate,
        high.rate,
        or_dash(median.cost_us(), "µs"),
        or_dash(median.busy(duration), "%"),
        median.round.p50_ms,
        median.round.p99_ms,
    )
    .expect("a String takes any text");
}

/// Memory of each peer before its first load, and of Tidegate with many routes.
fn memory(folder: &Path, program: &Path, cpu: usize, backend: u16) -> Result<String> {
    let mut page = String::from("\n| resident memory, idle | routes | MB |\n|---|---|---|\n");
    for (peer, routes) in [
        (Peer::Nginx, 1),
        (Peer::Haproxy, 1),
        (Peer::Tidegate, 1),
        (Peer::Tidegate, MANY_ROUTES),
    ] {
        if let Some(running) = peer.start(folder, program, cpu, backend, routes)? {
            let mb = resident_kb(running.pid())? as f64 / 1024.0;
            writeln!(page, "| {} | {routes} | {mb:.1} |", peer.name()).expect("a String takes any text");
        }
    }
    Ok(page)
}

fn conditions(options: &Options) -> Result<String> {
    let first_line = |text: Result<String>| text.map(|text| text.lines().next().unwrap_or_default().to_string());
    let model = shell("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1", &[])?;
    let load = shell("cut -d' ' -f1 /proc/loadavg", &[])?;
    Ok(format!(
        "Conditions: {model}, {} processors, Linux {}, load {load} before; the proxy alone on one processor, load (wrk, one \
         thread) and backend (nginx, {} bytes from memory) on another; HTTP/1.1 without TLS, {} connections kept open, \
         one host rule, X-Forwarded-For and X-Request-Id added, no access log; median of {} rounds of {} s, rounds of the \
         peers in turn, one more to warm up. {}; {}.\n\n",
        std::thread::available_parallelism().map_or(1, usize::from),
        shell("uname -r", &[])?,
        options.bytes,
        options.connections,
        options.rounds,
        options.duration.as_secs(),
        first_line(shell("nginx -v 2>&1", &[]))?,
        first_line(run(command("haproxy").arg("-v")))?,
    ))
}
