//! What is measured: requests by wrk, processor time and memory by the kernel's account of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::{command, run};

/// Clock ticks of `/proc/PID/stat` per second: `USER_HZ`, which is 100 on every Linux that runs Docker.
const TICKS: u64 = 100;

/// What wrk says of one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Requests that were answered.
    pub requests: u64,
    /// Per second.
    pub rate: f64,
    /// Of the latencies, in milliseconds.
    pub p50_ms: f64,
    /// Of the latencies, in milliseconds.
    pub p99_ms: f64,
}

/// Runs wrk on a processor for so long.
///
/// # Errors
/// If it fails, or a single request did.
pub fn wrk(url: &str, host: &str, cpu: usize, connections: usize, duration: Duration) -> Result<Round> {
    let mut wrk = command("taskset");
    wrk.args(["-c", &cpu.to_string(), "wrk", "--latency", "-t1"]);
    wrk.arg(format!("-c{connections}"))
        .arg(format!("-d{}s", duration.as_secs()));
    wrk.args(["-H", &format!("Host: {host}"), url]);
    parse(&run(&mut wrk)?)
}

fn parse(text: &str) -> Result<Round> {
    let bad = ["Non-2xx", "Socket errors"];
    if let Some(line) = text.lines().find(|line| bad.iter().any(|word| line.contains(word))) {
        bail!("a benchmark with failures measures nothing: {}", line.trim());
    }
    let behind = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("wrk does not tell {name}"))
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ").map(|(count, _)| count));
    Ok(Round {
        requests: requests.context("wrk does not tell its requests")?.parse()?,
        rate: behind("Requests/sec:")?.parse()?,
        p50_ms: milliseconds(behind("50%")?)?,
        p99_ms: milliseconds(behind("99%")?)?,
    })
}

/// `850.00us`, `1.25ms`, `2.00s`
fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let found = units
        .iter()
        .find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    found.with_context(|| format!("{text} is no duration of wrk"))
}

/// Processor time that a process has used with all its threads, the kernel's work for it included.
///
/// # Errors
/// If there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    // Fields 14 and 15, counted from the one behind the name, which is field 3.
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
            .context("no ticks")
    };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS))
}

/// Memory that a process holds, in kB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kb(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 5s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Latency Distribution
     50%  850.00us
     75%    1.00ms
     90%    1.20ms
     99%    2.50ms
  200000 requests in 5.00s, 30.00MB read
Requests/sec:  40000.50
Transfer/sec:      6.00MB
";

    #[test]
    fn a_round_of_wrk_is_read() {
        let round = Round {
            requests: 200_000,
            rate: 40_000.5,
            p50_ms: 0.85,
            p99_ms: 2.5,
        };
        assert_eq!(parse(TEXT).unwrap(), round);
    }

    #[test]
    fn a_round_with_failures_is_no_round() {
        assert!(parse(&format!("{TEXT}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn a_process_has_used_time_and_holds_memory() {
        let own = std::process::id();
        assert!(cpu_time(own).is_ok());
        assert!(resident_kb(own).unwrap() > 100);
    }
}
