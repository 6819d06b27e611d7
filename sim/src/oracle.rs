//! A naive model of who should answer what, fed by the same Docker facts as the controller, and as slow and plain as a
//! reader can check: it scans all services for every request.
//!
//! It knows eras. An era begins when the facts change; a request must be answered as some era allows that overlaps it,
//! or that ended less than the grace time before it was sent: that is how long the product may take to follow.
//!
//! While a fault keeps facts from the product it is blind, and may go on by what was true when that began, or, in a proxy that
//! starts meanwhile, when the table of its node was stored. Even then a request is not lost while a task serves it that has
//! served all that time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tidegate_core::id::TaskId;
use tidegate_core::simulated::Swarm;
use tidegate_core::swarm::model::TaskState;
use tidegate_core::time::Instant;

use crate::client::{Answer, Outcome, PATIENCE, Wish};
use crate::witness::{Arrival, Late, StreamEnd, UNDER_WAY, Witness};

/// How long a fault that nobody announces may go unseen.
const OWN_EYES: Duration = Duration::from_millis(1500);

/// How long a request waits for a service that has nobody: the setting `park_ms`, which no story changes.
const WAITS_MAX: Duration = Duration::from_secs(10);

/// It may have tried whom it knew before: four times, half a second each.
const SEES_NOBODY: Duration = Duration::from_secs(2);

/// A stream that ends within this time after a blow may have ended by it: users wait 5 s for an echo, and a task that is cut off
/// may have been heard for a while.
const STREAM_ENDS: Duration = Duration::from_secs(15);

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
    pub serving: BTreeSet<TaskId>,
    /// Whether no task runs, as far as Docker knows: there is nobody to ask.
    pub is_deserted: bool,
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
    /// When facts did not reach the product, from and until when.
    blind: Vec<(Instant, Option<Instant>)>,
}

/// What a request is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: Instant,
    to: Instant,
    /// Whether the product may go on by what was true at its beginning.
    blind: bool,
}

impl Oracle {
    /// Looks at the facts.
    pub fn observe(&mut self, swarm: &Swarm, frozen: impl Fn(&TaskId) -> bool, now: Instant) {
        let claims = claims(swarm, &frozen);
        if self.eras.last().is_none_or(|era| era.claims != claims) {
            self.eras.push(Era { from: now, claims });
        }
    }

    /// From now on facts may not reach the product.
    pub fn blinds(&mut self, now: Instant) {
        if !self.is_blind() {
            self.blind.push((now, None));
        }
    }

    /// It has all facts again.
    pub fn sees(&mut self, now: Instant) {
        if let Some((_, until)) = self.blind.last_mut() {
            until.get_or_insert(now);
        }
    }

    /// Whether facts may not reach the product now.
    pub fn is_blind(&self) -> bool {
        self.blind.last().is_some_and(|(_, until)| until.is_none())
    }

    /// What may have been true for the product between two moments, if it follows within `grace`.
    fn window(&self, from: Instant, to: Instant, grace: Duration) -> Window {
        let from = from - grace;
        let overlaps = |(begin, end): &&(Instant, Option<Instant>)| *begin <= to && end.is_none_or(|end| end >= from);
        let first = self.blind.iter().find(overlaps).map(|(begin, _)| *begin - grace);
        Window {
            from: first.map_or(from, |first| first.min(from)),
            to,
            blind: first.is_some(),
        }
    }

    /// The eras of a window.
    fn eras(&self, window: Window) -> impl Iterator<Item = &Era> {
        self.between(window.from, window.to)
    }

    /// Whether a product that does its work answers this wish.
    fn is_served(&self, wish: &Wish, window: Window) -> bool {
        let serving = |era: &Era| -> BTreeSet<TaskId> {
            let owners = era.owners(wish).into_iter();
            owners.flat_map(|claim| claim.serving.iter().cloned()).collect()
        };
        let mut eras = self.eras(window).map(serving);
        match window.blind {
            // It may know none but those that were there when it saw last.
            true => !in_all(eras).is_empty(),
            false => eras.all(|era| !era.is_empty()),
        }
    }

    /// How many tasks of a service could answer all the time between two moments.
    fn serving_all_along(&self, service: &str, from: Instant, to: Instant) -> usize {
        let serving = |era: &Era| -> BTreeSet<TaskId> {
            let claims = era.claims.iter().filter(|claim| claim.service == service);
            claims.flat_map(|claim| claim.serving.iter().cloned()).collect()
        };
        in_all(self.between(from, to).map(serving)).len()
    }

    /// The eras that overlap the time between two moments.
    fn between(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Era> {
        let ends = self.eras.iter().skip(1).map(|era| Some(era.from)).chain([None]);
        let eras = self.eras.iter().zip(ends);
        let overlapping = eras.filter(move |(era, end)| era.from <= to && end.is_none_or(|end| end >= from));
        overlapping.map(|(era, _)| era)
    }
}

/// The tasks that are in all of these.
fn in_all(eras: impl Iterator<Item = BTreeSet<TaskId>>) -> BTreeSet<TaskId> {
    eras.reduce(|all, era| &all & &era).unwrap_or_default()
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
        let has_port = label("port").is_none_or(|port| port.parse::<u16>().is_ok());
        claims.push(Claim {
            service: service.name.clone(),
            hosts: hosts.split(',').map(|host| host.trim().to_lowercase()).collect(),
            path: label("context_root").map_or("/", String::as_str).to_owned(),
            is_deserted: tasks.iter().all(|task| task.state != TaskState::Running),
            serving: tasks
                .into_iter()
                .map(|task| task.id)
                // Nobody knows where tasks listen whose operator wrote no port.
                .filter(|task| has_port && swarm.can_answer(task) && !frozen(task))
                .collect(),
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
}

impl Seen<'_> {
    fn window(&self, outcome: &Outcome) -> Window {
        let window = self.oracle.window(outcome.sent, outcome.done, self.grace);
        self.widened(window, Some(outcome.proxy))
    }

    /// The window of a proxy, or of any, that may have started meanwhile with a stored table.
    fn widened(&self, window: Window, proxy: Option<IpAddr>) -> Window {
        let table = self.witness.oldest_table(proxy, window.from, window.to);
        match table.filter(|_| window.blind) {
            Some(since) => Window {
                from: window.from.min(since - self.grace),
                ..window
            },
            None => window,
        }
    }

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
            .eras(self.window(outcome))
            .flat_map(|era| era.owners(&outcome.wish))
            .map(|claim| claim.service.clone())
            .collect();
        owners.iter().any(|owner| self.witness.fails_by_itself(owner))
            // Nobody may send it again, so an app that fails it has failed it.
            || (outcome.once_only && self.witness.is_ailing(&owners))
            || self.witness.blows().iter().any(|blow| {
                let is_struck = outcome.once_only || !blow.spares_safe;
                let at_the_time = blow.at <= outcome.done && outcome.sent <= blow.at + OWN_EYES;
                is_struck && at_the_time && !blow.services.is_disjoint(&owners)
            })
    }
}

/// A request for which a service with a serving task existed all the time is answered, and by that service.
pub fn no_request_lost(seen: Seen<'_>) -> Result<(), String> {
    for outcome in seen.outcomes {
        // A route may be younger than the grace time, so the look back covers it; a route that goes is not lost.
        let always_served = seen.oracle.is_served(&outcome.wish, seen.window(outcome));
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
        let mut eras = seen.oracle.eras(seen.window(outcome));
        if !eras.any(|era| era.owners(&outcome.wish).iter().any(|claim| &claim.service == by)) {
            return Err(format!("a service answered for another: {outcome}"));
        }
    }
    Ok(())
}

/// What nobody owns is answered by the proxy itself: 503 for a host that nobody has, 404 for a path.
pub fn unknown_is_refused(seen: Seen<'_>) -> Result<(), String> {
    for outcome in seen.outcomes {
        let eras = || seen.oracle.eras(seen.window(outcome));
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

/// No request reaches a service that does not own host and path, whether it is answered or not.
pub fn only_owners_are_asked(seen: Seen<'_>) -> Result<(), String> {
    for (arrival, moments) in seen.witness.arrivals() {
        let wish = Wish::new(&arrival.host, &arrival.path);
        for at in moments {
            let window = seen.widened(seen.oracle.window(at - PATIENCE, at, seen.grace), None);
            let owns = |era: &Era| era.owners(&wish).iter().any(|claim| claim.service == arrival.service);
            if !seen.oracle.eras(window).any(owns) {
                let Arrival { service, host, path } = arrival;
                return Err(format!("{at}: a request for {host}{path} reached {service}"));
            }
        }
    }
    Ok(())
}

/// No request reaches a task that the Swarm wants gone, once there was time to follow, while others serve.
pub fn nobody_asks_who_leaves(seen: Seen<'_>) -> Result<(), String> {
    for late in seen.witness.late() {
        let Late {
            service,
            task,
            since,
            proxy,
            at,
        } = &late;
        let window = seen.oracle.window(*since, *at, seen.grace);
        let in_time = *at <= *since + seen.grace + UNDER_WAY;
        if in_time || window.blind || seen.witness.is_mended(*at) {
            continue;
        }
        let is_forced = seen.witness.may_use_what_leaves(service, *since, *at);
        let others = seen.oracle.serving_all_along(service, *since, *at);
        if !is_forced && others > 0 {
            let late = at.since(*since);
            return Err(format!(
                "{at}: a request reached task {task} of {service} through proxy {proxy} {late:?} after the Swarm wanted it gone, \
                 and {others} others served"
            ));
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
        let struck = seen.witness.blows().iter().any(|blow| {
            let at_the_time = from <= blow.at && blow.at <= to && to <= blow.at + STREAM_ENDS;
            at_the_time && blow.struck(&stream.service, &stream.task)
        });
        if !over && !unreachable && !exited && !struck {
            let StreamEnd {
                opened,
                ended,
                service,
                task,
                proxy,
                why,
            } = stream;
            return Err(format!(
                "a stream to {service}, task {task}, through {proxy}, opened {opened}, ended {ended}, and both ends live on: {why}"
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

/// Where there is nobody to ask all the time, who asks is told so once the time to wait is over.
pub fn nobody_waits_in_vain(seen: Seen<'_>) -> Result<(), String> {
    for outcome in seen.outcomes {
        if outcome.done.since(outcome.sent) <= WAITS_MAX + SEES_NOBODY {
            continue;
        }
        let window = seen.oracle.window(outcome.sent, outcome.done, Duration::ZERO);
        let is_deserted = |era: &Era| {
            let owners = era.owners(&outcome.wish);
            !owners.is_empty() && owners.iter().all(|claim| claim.is_deserted)
        };
        let in_vain = !window.blind && seen.oracle.eras(window).all(is_deserted);
        if in_vain && !seen.is_excused(outcome) {
            return Err(format!(
                "nobody was there, and after {WAITS_MAX:?} it was due to say so: {outcome}"
            ));
        }
    }
    Ok(())
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
mod tests;
