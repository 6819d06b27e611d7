//! A naive model of who should answer what, fed by the same Docker facts as the controller, and as slow and plain as a
//! reader can check: it scans all services for every request.
//!
//! It knows eras. An era begins when the facts change; a request must be answered as some era allows that overlaps it,
//! or that ended less than the grace time before it was sent: that is how long the product may take to follow.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_core::id::TaskId;
use tidegate_core::simulated::Swarm;
use tidegate_core::time::Instant;

use crate::client::{Answer, Outcome, Wish};
use crate::witness::{StreamEnd, Witness};

/// How long a fault that nobody announces may go unseen.
const OWN_EYES: Duration = Duration::from_millis(1500);

/// One service's claim during an era.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of the service.
    pub service: String,
    /// Its hosts, lower case.
    pub hosts: Vec<String>,
    /// Its path prefix, `/` for all.
    pub path: String,
    /// Tasks that should run and can answer.
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
    pub fn observe(&mut self, swarm: &Swarm, frozen: impl Fn(&TaskId) -> bool, now: Instant) {
        let claims = claims(swarm, &frozen);
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

fn claims(swarm: &Swarm, frozen: &dyn Fn(&TaskId) -> bool) -> Vec<Claim> {
    let mut claims = Vec::new();
    for service in swarm.services(&[]) {
        let label = |key: &str| {
            let tidegate = service.labels.get(&format!("tidegate.{key}"));
            tidegate.or_else(|| service.labels.get(&format!("com.docker.lb.{key}")))
        };
        let Some(hosts) = label("hosts") else { continue };
        if label("service_cluster").is_some_and(|cluster| cluster != "default") {
            continue; // no user enters there
        }
        let tasks = swarm.tasks(std::slice::from_ref(&service.id)).unwrap_or_default();
        claims.push(Claim {
            service: service.name.clone(),
            hosts: hosts.split(',').map(|host| host.trim().to_lowercase()).collect(),
            path: label("context_root").map_or("/", String::as_str).to_owned(),
            serving: tasks
                .iter()
                .filter(|task| swarm.can_answer(&task.id) && !frozen(&task.id))
                .count(),
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
    /// What really happened.
    pub witness: &'a Witness,
    /// Services whose apps drop or keep requests by themselves.
    pub unreliable: &'a BTreeSet<String>,
}

impl Seen<'_> {
    /// Whether no product could have answered: the request was under way at a task that a fault struck, or sent before
    /// anybody's eyes could see it, or its proxy could not be reached.
    fn is_excused(&self, outcome: &Outcome) -> bool {
        if self.witness.was_unreachable(outcome.proxy, outcome.sent, outcome.done)
            || self.witness.was_refusing(outcome.proxy, outcome.sent)
        {
            return true;
        }
        let owners: BTreeSet<String> = self
            .oracle
            .between(outcome.sent - self.grace, outcome.done)
            .flat_map(|era| era.owners(&outcome.wish))
            .map(|claim| claim.service.clone())
            .collect();
        owners.iter().any(|owner| self.unreliable.contains(owner))
            // Nobody may send it again, so an app that fails it has failed it.
            || (outcome.unsafe_method && self.witness.is_ailing(&owners))
            || self.witness.blows().iter().any(|blow| {
                let is_struck = outcome.unsafe_method || !blow.spares_safe;
                let at_the_time = blow.at <= outcome.done && outcome.sent <= blow.at + OWN_EYES;
                is_struck && at_the_time && !blow.services.is_disjoint(&owners)
            })
    }
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
        if always_served && !ok && !seen.is_excused(outcome) {
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
        if !refused && !seen.is_excused(outcome) {
            return Err(format!("nobody owns this, so {allowed:?} was due: {outcome}"));
        }
    }
    Ok(())
}

/// A stream ends with the task or the proxy at its ends, and with nothing else.
pub fn no_stream_lost(seen: Seen<'_>) -> Result<(), String> {
    for stream in seen.witness.streams() {
        let over = seen.witness.ended(&stream.task).is_some_and(|at| at <= stream.ended);
        let (from, to) = (stream.opened, stream.ended);
        let unreachable = seen.witness.was_unreachable(stream.proxy, from, to);
        let exited = seen.witness.has_exited(stream.proxy, from, to);
        let struck = seen
            .witness
            .blows()
            .iter()
            .any(|blow| stream.opened <= blow.at && blow.at <= stream.ended);
        if !over && !unreachable && !exited && !struck {
            let StreamEnd {
                opened,
                ended,
                task,
                proxy,
                why,
            } = stream;
            return Err(format!(
                "a stream to {task} through {proxy}, opened {opened}, ended {ended}, and both ends live on: {why}"
            ));
        }
    }
    Ok(())
}

/// Nothing new went to a task after a proxy served by a table that says it leaves, and no proxy was given what belongs
/// to another service cluster.
pub fn nothing_forbidden(seen: Seen<'_>) -> Result<(), String> {
    match seen.witness.broken().into_iter().next() {
        Some(broken) => Err(broken),
        None => Ok(()),
    }
}

/// When no request is under way any more, none waits in a proxy.
pub fn nobody_waits(seen: Seen<'_>) -> Result<(), String> {
    match seen.witness.waiting().into_iter().find(|(_, requests)| *requests > 0) {
        Some((proxy, requests)) => Err(format!(
            "{requests} requests wait in proxy {proxy} when everything is over"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Channel;

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
                channel: Channel::Clear,
            },
            unsafe_method: false,
            proxy: [10, 0, 0, 9].into(),
            answer: Answer::Status {
                code,
                service: service.map(str::to_owned),
                task: None,
            },
        }]
    }

    fn judge(oracle: &Oracle, outcomes: &[Outcome]) -> [bool; 3] {
        let grace = Duration::from_millis(100);
        let (witness, unreliable) = Default::default();
        let seen = Seen {
            oracle,
            outcomes,
            grace,
            witness: &witness,
            unreliable: &unreliable,
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
    fn what_a_fault_struck_is_excused_for_as_long_as_nobody_can_know() {
        let served = oracle(&[(0, &[("a", "shop", "/", 1)])]);
        let (witness, unreliable): (Witness, _) = Default::default();
        witness.blow(Instant::from_millis(500), ["a".to_owned()].into(), "a crash");
        let judge = |sent| {
            let outcomes = got(sent, "/", 502, None);
            no_request_lost(Seen {
                oracle: &served,
                outcomes: &outcomes,
                grace: Duration::from_millis(100),
                witness: &witness,
                unreliable: &unreliable,
            })
            .is_ok()
        };
        let late = 500 + u64::try_from(OWN_EYES.as_millis()).unwrap() + 1;
        assert_eq!([480, 495, 600, late].map(judge), [false, true, true, false]);
    }

    #[test]
    fn a_stream_whose_ends_live_on_may_not_end() {
        let (witness, unreliable): (Witness, _) = Default::default();
        let judge = |witness: &Witness| {
            let seen = Seen {
                oracle: &Oracle::default(),
                outcomes: &[],
                grace: Duration::ZERO,
                witness,
                unreliable: &unreliable,
            };
            no_stream_lost(seen).is_ok()
        };
        witness.stream(StreamEnd {
            opened: Instant::from_millis(100),
            ended: Instant::from_millis(900),
            task: "t1".into(),
            proxy: [10, 0, 0, 9].into(),
            why: "reset".to_owned(),
        });
        assert!(!judge(&witness));
        witness.exits([10, 0, 0, 8].into(), Instant::from_millis(800));
        assert!(!judge(&witness), "that was another proxy");
        witness.ends(&"t1".into(), Instant::from_millis(800));
        assert!(judge(&witness));
    }

    #[test]
    fn a_stream_may_end_with_its_proxy() {
        let (witness, unreliable): (Witness, _) = Default::default();
        let proxy = [10, 0, 0, 9].into();
        witness.stream(StreamEnd {
            opened: Instant::from_millis(100),
            ended: Instant::from_millis(900),
            task: "t1".into(),
            proxy,
            why: "end of file".to_owned(),
        });
        witness.exits(proxy, Instant::from_millis(890));
        let seen = Seen {
            oracle: &Oracle::default(),
            outcomes: &[],
            grace: Duration::ZERO,
            witness: &witness,
            unreliable: &unreliable,
        };
        assert_eq!(no_stream_lost(seen), Ok(()));
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
