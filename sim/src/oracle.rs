//! A naive model of who should answer what, fed by the same Docker facts as the controller, and as slow and plain as a
//! reader can check: it scans all services for every request.
//!
//! It knows eras. An era begins when the facts change; a request must be answered as some era allows that overlaps it,
//! or that ended less than the grace time before it was sent: that is how long the product may take to follow.

use std::time::Duration;

use tidegate_core::simulated::Swarm;
use tidegate_core::swarm::model::TaskState;
use tidegate_core::time::Instant;

use crate::client::{Answer, Outcome, Wish};

/// One service's claim during an era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of the service.
    pub service: String,
    /// Its hosts, lower case.
    pub hosts: Vec<String>,
    /// Its path prefix, `/` for all.
    pub path: String,
    /// Tasks whose process serves, leaving or not.
    pub serving: usize,
}

/// A time during which the facts did not change.
#[derive(Clone, Debug)]
pub struct Era {
    /// Its beginning.
    pub from: Instant,
    /// All claims.
    pub claims: Vec<Claim>,
}

/// All eras so far.
#[derive(Debug, Default)]
pub struct Oracle {
    eras: Vec<Era>,
}

impl Oracle {
    /// Looks at the facts.
    pub fn observe(&mut self, swarm: &Swarm, now: Instant) {
        let claims = claims(swarm);
        if self.eras.last().is_none_or(|era| era.claims != claims) {
            self.eras.push(Era { from: now, claims });
        }
    }

    /// The eras that overlap the time between two moments.
    fn between(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Era> {
        let ends = self.eras.iter().skip(1).map(|era| Some(era.from)).chain([None]);
        let eras = self.eras.iter().zip(ends);
        let overlapping = eras.filter(move |(era, end)| era.from <= to && end.is_none_or(|end| end >= from));
        overlapping.map(|(era, _)| era)
    }
}

impl Era {
    /// The services that own a wish: those of the longest path among those of the host.
    fn owners(&self, wish: &Wish) -> Vec<&Claim> {
        let of_host = self.claims.iter().filter(|claim| claim.hosts.contains(&wish.host));
        let matching: Vec<&Claim> = of_host.filter(|claim| is_below(&wish.path, &claim.path)).collect();
        let longest = matching.iter().map(|claim| claim.path.len()).max();
        matching
            .into_iter()
            .filter(|claim| Some(claim.path.len()) == longest)
            .collect()
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn claims(swarm: &Swarm) -> Vec<Claim> {
    let mut claims = Vec::new();
    for service in swarm.services() {
        let label = |key: &str| {
            let tidegate = service.labels.get(&format!("tidegate.{key}"));
            tidegate.or_else(|| service.labels.get(&format!("com.docker.lb.{key}")))
        };
        let Some(hosts) = label("hosts") else { continue };
        let tasks = swarm.tasks(std::slice::from_ref(&service.id)).unwrap_or_default();
        claims.push(Claim {
            service: service.name.clone(),
            hosts: hosts.split(',').map(|host| host.trim().to_lowercase()).collect(),
            path: label("context_root").map_or("/", String::as_str).to_owned(),
            serving: tasks.iter().filter(|task| task.state == TaskState::Running).count(),
        });
    }
    claims
}

/// What a simulation showed, for expectations to judge.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The facts.
    pub oracle: &'a Oracle,
    /// What users got.
    pub outcomes: &'a [Outcome],
    /// How long the product may take to follow a change.
    pub grace: Duration,
}

/// A request for which a service with a serving task existed all the time is answered, and by that service.
pub fn no_request_lost(seen: Seen<'_>) -> Result<(), String> {
    for outcome in seen.outcomes {
        // A route may be younger than the grace time, so the look back covers it; a route that goes is not lost.
        let mut eras = seen.oracle.between(outcome.sent - seen.grace, outcome.done);
        let always_served = eras.all(|era| era.owners(&outcome.wish).iter().any(|claim| claim.serving > 0));
        let ok = matches!(
            &outcome.answer,
            Answer::Status {
                code: 200,
                service: Some(_),
                ..
            }
        );
        if always_served && !ok {
            return Err(format!("a request was lost: {outcome}"));
        }
    }
    Ok(())
}

/// No answer comes from a service that does not own host and path.
pub fn only_owners_answer(seen: Seen<'_>) -> Result<(), String> {
    for outcome in seen.outcomes {
        let Answer::Status { service: Some(by), .. } = &outcome.answer else {
            continue;
        };
        let mut eras = seen.oracle.between(outcome.sent - seen.grace, outcome.done);
        if !eras.any(|era| era.owners(&outcome.wish).iter().any(|claim| &claim.service == by)) {
            return Err(format!("a service answered for another: {outcome}"));
        }
    }
    Ok(())
}

/// What nobody owns is answered by the proxy itself: 503 for a host that nobody has, 404 for a path.
pub fn unknown_is_refused(seen: Seen<'_>) -> Result<(), String> {
    for outcome in seen.outcomes {
        let eras = || seen.oracle.between(outcome.sent - seen.grace, outcome.done);
        if !eras().all(|era| era.owners(&outcome.wish).is_empty()) {
            continue;
        }
        let has_host = |era: &Era| era.claims.iter().any(|claim| claim.hosts.contains(&outcome.wish.host));
        let mut allowed = Vec::new();
        if eras().any(has_host) {
            allowed.push(404);
        }
        if !eras().all(has_host) {
            allowed.push(503);
        }
        let refused = matches!(&outcome.answer, Answer::Status { code, service: None, .. } if allowed.contains(code));
        if !refused {
            return Err(format!("nobody owns this, so {allowed:?} was due: {outcome}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Service, host, path, tasks that serve.
    type ClaimRow<'a> = (&'a str, &'a str, &'a str, usize);

    fn oracle(eras: &[(u64, &[ClaimRow<'_>])]) -> Oracle {
        let eras = eras.iter().map(|(from, claims)| Era {
            from: Instant::from_millis(*from),
            claims: claims
                .iter()
                .map(|(service, host, path, serving)| Claim {
                    service: (*service).to_owned(),
                    hosts: vec![(*host).to_owned()],
                    path: (*path).to_owned(),
                    serving: *serving,
                })
                .collect(),
        });
        Oracle { eras: eras.collect() }
    }

    fn got(sent: u64, path: &str, code: u16, service: Option<&str>) -> Vec<Outcome> {
        vec![Outcome {
            sent: Instant::from_millis(sent),
            done: Instant::from_millis(sent + 10),
            wish: Wish {
                host: "shop".to_owned(),
                path: path.to_owned(),
            },
            unsafe_method: false,
            answer: Answer::Status {
                code,
                service: service.map(str::to_owned),
                task: None,
            },
        }]
    }

    fn judge(oracle: &Oracle, outcomes: &[Outcome]) -> [bool; 3] {
        let grace = Duration::from_millis(100);
        let seen = Seen {
            oracle,
            outcomes,
            grace,
        };
        [
            no_request_lost(seen),
            only_owners_answer(seen),
            unknown_is_refused(seen),
        ]
        .map(|verdict| verdict.is_ok())
    }

    #[test]
    fn an_error_while_a_task_serves_is_a_lost_request() {
        let served = oracle(&[(0, &[("a", "shop", "/", 1)])]);
        assert_eq!(judge(&served, &got(500, "/", 502, None)), [false, true, true]);
        assert_eq!(judge(&served, &got(500, "/", 200, Some("a"))), [true; 3]);
        let gone = oracle(&[(0, &[("a", "shop", "/", 0)])]);
        assert_eq!(judge(&gone, &got(500, "/", 503, None)), [true; 3]);
    }

    #[test]
    fn after_the_grace_time_the_old_owner_may_not_answer_any_more() {
        let moved = oracle(&[(0, &[("a", "shop", "/", 1)]), (1000, &[("b", "shop", "/", 1)])]);
        assert!(judge(&moved, &got(1050, "/", 200, Some("a")))[1]);
        assert!(!judge(&moved, &got(1150, "/", 200, Some("a")))[1]);
        assert!(judge(&moved, &got(1150, "/", 200, Some("b")))[1]);
    }

    #[test]
    fn the_longest_path_owns_and_an_unknown_path_is_not_found() {
        let two = oracle(&[(0, &[("a", "shop", "/x", 1), ("b", "shop", "/x/y", 1)])]);
        assert!(!judge(&two, &got(500, "/x/y/z", 200, Some("a")))[1]);
        assert!(judge(&two, &got(500, "/x/yz", 200, Some("a")))[1]);
        assert!(judge(&two, &got(500, "/z", 404, None))[2]);
        assert!(!judge(&two, &got(500, "/z", 503, None))[2]);
    }
}
