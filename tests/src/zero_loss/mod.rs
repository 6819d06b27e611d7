//! Zero loss on a real Swarm: an application that exits at once on SIGTERM is updated, scaled, drained and rolled back under
//! traffic of every kind, and every request counts. Then what nobody announces befalls it: those that may be sent twice count.

pub mod beside;
pub mod fault;
mod ourselves;
pub mod proof;
pub mod scenario;
mod streams;
pub mod traffic;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::beside::Beside;
use self::scenario::{SCENARIOS, Scenario, Stage};
use self::traffic::{Tally, Traffic, Trouble};
use crate::clock::now;
use crate::report::say;
use crate::scene::{Scene, WORKERS};

/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scenarios by name; none = all.
    pub names: Vec<String>,
    /// Requests in all, shared out evenly. Each scenario has one round at least, whatever that takes.
    pub requests: u64,
    /// Whether HAProxy does the same work on the same nodes, beside.
    pub beside: bool,
    /// Nodes with a proxy each.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            names: Vec::new(),
            requests: 0,
            beside: false,
            workers: WORKERS,
        }
    }
}

/// Runs the scenarios on a Swarm of their own, prints a line for each, and says whether every promise held.
///
/// # Errors
/// If there is no such scenario, or Docker refuses something.
pub fn zero_loss(options: &Options) -> Result<bool> {
    choose(&options.names)?;
    zero_loss_on(&Scene::set_up_small(options.workers)?, options)
}

/// [`zero_loss`] on a Swarm that is there.
///
/// # Errors
/// The same.
pub fn zero_loss_on(scene: &Scene, options: &Options) -> Result<bool> {
    let chosen = choose(&options.names)?;
    let requests = options.requests.div_ceil(chosen.len() as u64);
    let mut kept = true;
    let peer = options.beside.then(|| Beside::set_up(scene)).transpose()?;
    say(Tally::HEAD);
    for scenario in chosen {
        let result = run(scene, peer.as_ref(), scenario, requests).with_context(|| scenario.name.to_string());
        let Seen {
            tally,
            beside,
            rounds,
            struck,
        } = scene.explained(result)?;
        let after = steady(struck, &tally);
        say(format_args!("{tally}  {} ({rounds} rounds){after}", scenario.name));
        if let Some(beside) = beside {
            let after = steady(struck, &beside);
            say(format_args!("{beside}  {}, HAProxy beside{after}", scenario.name));
        }
        kept &= tally.failed() == if scenario.may_lose_posts { tally.failed_posts } else { 0 };
        if let Some(limit) = scenario.seen_within
            && let Some(after) = late_failure(limit, struck, tally.last_failure)
        {
            kept = false;
            let (after, limit) = (after.as_secs_f64(), limit.as_secs());
            say(format_args!(
                "  it is to be seen within {limit} s, and the last failure began after {after:.1} s"
            ));
        }
    }
    Ok(kept)
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !SCENARIOS.iter().any(|scenario| scenario.name == **name))
    {
        let all: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("there is no scenario {unknown:?}; write one of {}", all.join(", "));
    }
    let is_chosen = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(SCENARIOS.iter().filter(is_chosen).collect())
}

/// What came of a scenario.
struct Seen {
    tally: Tally,
    /// Of the peer.
    beside: Option<Tally>,
    rounds: u64,
    /// When the last fault began.
    struck: Option<Instant>,
}

/// How long after the last fault a request began that failed, where that is longer than `limit`.
fn late_failure(limit: Duration, struck: Option<Instant>, last: Option<Instant>) -> Option<Duration> {
    let after = last?.checked_duration_since(struck?)?;
    (after > limit).then_some(after)
}

/// Which request was in trouble last, which one most, and when they began.
fn steady(struck: Option<Instant>, tally: &Tally) -> String {
    let Some(struck) = struck else { return String::new() };
    let at = |trouble: Trouble| match trouble.began.checked_duration_since(struck) {
        Some(after) => format!("{trouble}, begun {:.1} s after the last fault", after.as_secs_f64()),
        None => format!(
            "{trouble}, begun {:.1} s before the last fault",
            (struck - trouble.began).as_secs_f64()
        ),
    };
    match (tally.last_trouble, tally.worst_trouble) {
        (Some(last), Some(worst)) if last == worst => format!("; last in trouble, and worst: {}", at(last)),
        (Some(last), Some(worst)) => {
            format!("; last in trouble: {}; worst: {}", at(last), at(worst))
        }
        (None, _) | (_, None) => "; nobody waited longer than 0.5 s".into(),
    }
}

fn run(scene: &Scene, peer: Option<&Beside>, scenario: &Scenario, requests: u64) -> Result<Seen> {
    let stage = Stage::set(scene, scenario)?;
    let target = stage.target(scenario);
    let beside = peer.map(|peer| peer.start(target)).transpose()?;
    let traffic = Traffic::start(&scene.entrances(), target)?;
    let (mut rounds, mut said) = (0, now());
    while rounds == 0 || traffic.requests() < requests {
        (scenario.round)(&stage)?;
        rounds += 1;
        if said.elapsed() >= PROGRESS_EVERY {
            said = now();
            let (sent, failed) = (traffic.requests(), traffic.failed());
            say(format_args!(
                "{sent:8} {failed:8}  so far, of {requests} at least: {}",
                scenario.name
            ));
        }
    }
    // What was told to stop ends seconds later, and until then its end may hurt somebody.
    stage.until_at_rest()?;
    let tally = traffic.finish();
    let beside = beside.map(Traffic::finish);
    stage.clear()?;
    Ok(Seen {
        tally,
        beside,
        rounds,
        struck: stage.struck(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_long_after_the_fault_is_late() {
        let (start, limit) = (now(), Duration::from_secs(3));
        let after = |seconds| Some(start + Duration::from_secs(seconds));
        let late = Some(Duration::from_secs(4));
        assert_eq!(late_failure(limit, Some(start), after(3)), None);
        assert_eq!(late_failure(limit, Some(start), after(4)), late);
        assert_eq!(late_failure(limit, Some(start), None), None);
        assert_eq!(late_failure(limit, None, after(4)), None);
    }

    #[test]
    fn scenarios_are_chosen_by_name_and_an_unknown_one_is_answered_with_all() {
        assert_eq!(choose(&[]).unwrap().len(), SCENARIOS.len());
        let names: Vec<&str> = choose(&["drain".into(), "force".into()])
            .unwrap()
            .iter()
            .map(|s| s.name)
            .collect();
        assert_eq!(names, ["drain", "force"]);
        let error = choose(&["reboot".into()]).unwrap_err().to_string();
        assert!(error.contains("\"reboot\"") && error.contains("one-replica"), "{error}");
    }
}
