//! The managers' engines as their clients meet them: one that is stopped, that starts, that is cut off from its peers and
//! believes what was true then, that replays its history as events, and all of them without a leader (facts §3, §4).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidegate_core::id::{NodeId, Version};
use tidegate_core::simulated::{Swarm, TaskLog};
use tidegate_core::swarm::model::{Event, FeedEnd, TaskEvent};
use tidegate_core::time::Instant;
use tokio::sync::mpsc;

/// A manager that lost its peers answers with what it knew for this long.
const BELIEVES: Duration = Duration::from_secs(10);
/// Without a leader calls hang until this long after the loss, and are refused at once from then on.
const HOPES: Duration = Duration::from_secs(30);
/// A manager that stops as at a reboot is no manager any more, and gone after this long.
const STOPS: Duration = Duration::from_secs(2);
/// Events of its history that a restarted manager replays.
const REPLAYED_MAX: usize = 300;

/// One manager's engine.
enum Engine {
    /// Its links to the other managers are cut.
    CutOff {
        since: Instant,
        believed: Box<Swarm>,
        missed: Vec<Event>,
    },
    Starting {
        until: Instant,
    },
    Stopped,
    Stopping {
        until: Instant,
    },
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// By the Swarm itself.
    Answers,
    /// By the Swarm as it was when this manager was cut off.
    Believes,
    /// Not before this moment.
    Hangs,
    /// Refused: there is no leader.
    Leaderless,
    /// Refused: nobody listens.
    Stopped,
    /// Refused: this node is no manager any more, as it stops.
    Stopping,
    /// Answered from this moment on.
    Starts(Instant),
}

/// All engines; one that is not named is well.
#[derive(Default)]
pub(crate) struct Engines {
    unwell: BTreeMap<NodeId, Engine>,
    subscribers: Vec<(NodeId, mpsc::UnboundedSender<Event>)>,
    history: Vec<Event>,
    tasks: TaskLog,
    watchers: Vec<(NodeId, mpsc::UnboundedSender<Vec<TaskEvent>>)>,
    /// Managers whose next stream begins with their history.
    replaying: BTreeMap<NodeId, ()>,
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.unwell.keys()).finish()
    }
}

impl Engines {
    pub(crate) fn reach(&self, node: &NodeId, swarm: &Swarm, now: Instant) -> Reach {
        match self.unwell.get(node) {
            Some(Engine::Stopping { until }) if *until > now => Reach::Stopping,
            Some(Engine::Stopped | Engine::Stopping { .. }) => Reach::Stopped,
            Some(Engine::Starting { until }) if *until > now => Reach::Starts(*until),
            Some(Engine::CutOff { since, .. }) => match now.since(*since) {
                long if long < BELIEVES => Reach::Believes,
                long if long < HOPES => Reach::Hangs,
                _ => Reach::Leaderless,
            },
            Some(Engine::Starting { .. }) | None => match swarm.leaderless_since() {
                None => Reach::Answers,
                Some(since) if now.since(since) < HOPES => Reach::Hangs,
                Some(_) => Reach::Leaderless,
            },
        }
    }

    /// The Swarm that a manager which is cut off believes in.
    pub(crate) fn believed(&mut self, node: &NodeId) -> Option<&mut Swarm> {
        match self.unwell.get_mut(node) {
            Some(Engine::CutOff { believed, .. }) => Some(believed),
            Some(Engine::Starting { .. } | Engine::Stopped | Engine::Stopping { .. }) | None => None,
        }
    }

    /// It is told to stop: at first it tells everybody that it is no manager, then its streams end with it.
    pub(crate) fn stops(&mut self, node: &NodeId, now: Instant) {
        self.unwell
            .insert(node.clone(), Engine::Stopping { until: now + STOPS });
        self.watchers.retain(|(of, _)| of != node);
    }

    /// Those that were told to stop have stopped, when their time is over.
    pub(crate) fn end_stopped(&mut self, now: Instant) {
        let is_over = |engine: &Engine| matches!(engine, Engine::Stopping { until } if *until <= now);
        let over = self.unwell.iter().filter(|(_, engine)| is_over(engine));
        let over: Vec<NodeId> = over.map(|(node, _)| node.clone()).collect();
        over.iter().for_each(|node| self.stop(node));
    }

    /// It is gone at once.
    pub(crate) fn stop(&mut self, node: &NodeId) {
        self.unwell.insert(node.clone(), Engine::Stopped);
        self.subscribers.retain(|(of, _)| of != node);
        self.watchers.retain(|(of, _)| of != node);
    }

    pub(crate) fn start(&mut self, node: &NodeId, until: Instant) {
        if matches!(self.unwell.get(node), Some(Engine::Stopped | Engine::Stopping { .. })) {
            self.stop(node); // it may not have had the time
            self.unwell.insert(node.clone(), Engine::Starting { until });
            self.replaying.insert(node.clone(), ());
            // It starts from a snapshot, and knows nothing of how that came to be.
            self.compact();
        }
    }

    pub(crate) fn cut_off(&mut self, node: &NodeId, believed: Swarm, now: Instant) {
        let cut_off = Engine::CutOff {
            since: now,
            believed: Box::new(believed),
            missed: Vec::new(),
        };
        self.unwell.insert(node.clone(), cut_off);
    }

    /// A manager hears its peers again, and tells its subscribers what it missed.
    pub(crate) fn rejoin(&mut self, node: &NodeId) {
        if let Some(Engine::CutOff { .. }) = self.unwell.get(node)
            && let Some(Engine::CutOff { missed, believed, .. }) = self.unwell.remove(node)
        {
            for event in missed {
                self.tell(Some(node), &event);
            }
            let changes = self.tasks.since(believed.index());
            self.watchers.retain(|(of, watcher)| {
                of != node
                    || changes
                        .as_ref()
                        .is_ok_and(|changes| watcher.send(changes.clone()).is_ok())
            });
        }
    }

    pub(crate) fn subscribe(&mut self, node: &NodeId) -> (mpsc::UnboundedReceiver<Event>, usize) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut replayed = 0;
        if self.replaying.remove(node).is_some() {
            let from = self.history.len().saturating_sub(REPLAYED_MAX);
            for event in &self.history[from..] {
                replayed += usize::from(sender.send(event.clone()).is_ok());
            }
        }
        self.subscribers.push((node.clone(), sender));
        (receiver, replayed)
    }

    /// The watch of a manager, and what it tells of the past.
    pub(crate) fn watch(
        &mut self,
        node: &NodeId,
        from: Option<Version>,
    ) -> Result<(mpsc::UnboundedReceiver<Vec<TaskEvent>>, Vec<TaskEvent>), FeedEnd> {
        let heard = self.believed(node).map(|believed| believed.index());
        let missed = match (from, heard) {
            (None, _) => Vec::new(),
            (Some(from), None) => self.tasks.since(from)?,
            (Some(from), Some(heard)) => self.tasks.between(from, heard)?,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        self.watchers.push((node.clone(), sender));
        Ok((receiver, missed))
    }

    /// Managers forget how their tasks came to be as they are.
    pub(crate) fn compact(&mut self) {
        self.tasks.compact();
    }

    /// Tells watchers what became of tasks since it was last called.
    pub(crate) fn tell_tasks(&mut self, swarm: &Swarm) {
        let news = self.tasks.look(swarm);
        if news.is_empty() {
            return;
        }
        let unwell = &self.unwell;
        self.watchers.retain(|(of, watcher)| {
            let hears = !matches!(unwell.get(of), Some(Engine::CutOff { .. }));
            !hears || watcher.send(news.clone()).is_ok()
        });
    }

    pub(crate) fn emit(&mut self, event: &Event) {
        self.history.push(event.clone());
        for engine in self.unwell.values_mut() {
            if let Engine::CutOff { missed, .. } = engine {
                missed.push(event.clone());
            }
        }
        self.tell(None, event);
    }

    fn tell(&mut self, only: Option<&NodeId>, event: &Event) {
        let deaf: Vec<NodeId> = match only {
            Some(_) => Vec::new(),
            None => {
                let cut_off = |(_, engine): &(&NodeId, &Engine)| matches!(engine, Engine::CutOff { .. });
                self.unwell
                    .iter()
                    .filter(cut_off)
                    .map(|(node, _)| node.clone())
                    .collect()
            }
        };
        self.subscribers.retain(|(of, subscriber)| {
            let hears = only.is_none_or(|only| only == of) && !deaf.contains(of);
            !hears || subscriber.send(event.clone()).is_ok()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::rng::Rng;
    use tidegate_core::simulated::Delays;
    use tidegate_core::swarm::model::{EventAction, EventKind};

    fn event(id: &str) -> Event {
        Event {
            kind: EventKind::Service,
            action: EventAction::Update,
            id: id.to_owned(),
        }
    }

    fn heard(receiver: &mut mpsc::UnboundedReceiver<Event>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|event| event.id)
            .collect()
    }

    #[test]
    fn a_manager_that_is_cut_off_believes_then_hangs_then_refuses_and_hears_later_what_it_missed() {
        let swarm = Swarm::new(Delays::default(), Rng::new(1));
        let (mut engines, m1) = (Engines::default(), NodeId::from("m1"));
        let at = |s: u64| Instant::from_millis(s * 1000);
        let (mut stream, _) = engines.subscribe(&m1);
        engines.cut_off(&m1, swarm.clone(), at(0));
        let reach = [1, 11, 31].map(|s| engines.reach(&m1, &swarm, at(s)));
        assert_eq!(reach, [Reach::Believes, Reach::Hangs, Reach::Leaderless]);
        engines.emit(&event("a"));
        assert_eq!(heard(&mut stream), Vec::<String>::new());
        engines.rejoin(&m1);
        assert_eq!(heard(&mut stream), ["a"]);
        assert_eq!(engines.reach(&m1, &swarm, at(32)), Reach::Answers);
    }

    #[test]
    fn a_restarted_manager_replays_its_history_once() {
        let swarm = Swarm::new(Delays::default(), Rng::new(1));
        let (mut engines, m1) = (Engines::default(), NodeId::from("m1"));
        let at = |s: u64| Instant::from_millis(s * 1000);
        engines.emit(&event("old"));
        let (mut stream, _) = engines.subscribe(&m1);
        engines.stop(&m1);
        assert_eq!(engines.reach(&m1, &swarm, at(1)), Reach::Stopped);
        assert!(stream.is_closed(), "the stream ends with its engine");
        assert_eq!(heard(&mut stream), Vec::<String>::new());
        engines.start(&m1, at(4));
        assert_eq!(engines.reach(&m1, &swarm, at(2)), Reach::Starts(at(4)));
        assert_eq!(engines.reach(&m1, &swarm, at(5)), Reach::Answers);
        let (mut stream, replayed) = engines.subscribe(&m1);
        assert_eq!((heard(&mut stream), replayed), (vec!["old".to_owned()], 1));
        let (_, again) = engines.subscribe(&m1);
        assert_eq!(again, 0);
    }

    /// Lines of a recording of a real Swarm: when, of which kind, what.
    fn recorded(text: &str) -> Vec<(f64, String, serde_json::Value)> {
        text.lines()
            .map(|line| {
                let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                let kind = line["kind"].as_str().unwrap().to_owned();
                (line["t_ms"].as_f64().unwrap(), kind, line["body"].take())
            })
            .collect()
    }

    fn ms(at: f64) -> Instant {
        Instant::START + Duration::from_secs_f64(at / 1000.0)
    }

    /// A call that hangs is answered after its 20 s with an error, also where a leader was elected meanwhile; a call
    /// that is refused is refused at once.
    fn answers_as_recorded(text: &str, lose: fn(&mut Swarm, Instant)) {
        let mut swarm = Swarm::new(Delays::default(), Rng::new(1));
        lose(&mut swarm, ms(0.0));
        let (engines, m1) = (Engines::default(), NodeId::from("m1"));
        let hang = crate::docker::HANG.as_secs_f64() * 1000.0;
        let mut seen = 0;
        for (at, _, body) in recorded(text).iter().filter(|(_, kind, _)| kind == "error") {
            let (asked, reach) = if body.to_string().contains("DeadlineExceeded") {
                (at - hang, Reach::Hangs)
            } else {
                assert!(body.to_string().contains("The swarm does not have a leader."), "{body}");
                (*at, Reach::Leaderless)
            };
            // The first calls were made within a quarter of a second, later ones as soon as those before were answered.
            assert!(asked % hang < 300.0, "asked {asked} ms after the loss: {body}");
            assert_eq!(engines.reach(&m1, &swarm, ms(asked)), reach, "{at}: {body}");
            seen += 1;
        }
        assert!(seen >= 2, "{seen} errors");
    }

    #[test]
    fn calls_without_a_leader_are_answered_as_in_its_recording() {
        let text = include_str!("../../docker-source/tests/fixtures/recordings/leader-change.jsonl");
        answers_as_recorded(text, Swarm::lose_leader);
    }

    #[test]
    fn calls_without_a_quorum_are_answered_as_in_its_recording() {
        let text = include_str!("../../docker-source/tests/fixtures/recordings/no-quorum.jsonl");
        answers_as_recorded(text, Swarm::lose_quorum);
    }

    #[test]
    fn a_restarted_manager_fails_and_replays_as_in_its_recording() {
        let lines = recorded(include_str!(
            "../../docker-source/tests/fixtures/recordings/dockerd-restart.jsonl"
        ));
        let at = |kind: &str, text: &str| -> Vec<f64> {
            let found = lines
                .iter()
                .filter(|(_, of, body)| of == kind && body.to_string().contains(text));
            found.map(|(at, ..)| *at).collect()
        };
        let (stops, starts) = (at("mark", "dockerd of"), at("mark", "start it"));
        let swarm = Swarm::new(Delays::default(), Rng::new(1));
        let (mut engines, m1) = (Engines::default(), NodeId::from("m1"));
        for number in 0..1000 {
            engines.emit(&event(&number.to_string()));
        }
        for (number, (stop, start)) in stops.iter().zip(&starts).enumerate() {
            let is_told = number == 0;
            if is_told {
                engines.stops(&m1, ms(*stop));
            } else {
                engines.stop(&m1);
            }
            let errors = lines
                .iter()
                .filter(|(at, kind, _)| kind == "error" && (stop..start).contains(&at));
            let (mut seen, mut refused) = (0, 0);
            for (at, _, body) in errors {
                let is_no_manager = body["status"] == 503;
                let reach = if is_no_manager { Reach::Stopping } else { Reach::Stopped };
                engines.end_stopped(ms(*at));
                assert_eq!(engines.reach(&m1, &swarm, ms(*at)), reach, "{at}: {body}");
                (seen, refused) = (seen + 1, refused + usize::from(is_no_manager));
            }
            assert!(seen >= 9, "every list and the stream fail: {seen}");
            assert_eq!(refused > 0, is_told, "who is told to stop says that it is no manager");
            engines.start(&m1, ms(start + 4000.0));
            let after = ms(start + 100.0);
            assert_eq!(engines.reach(&m1, &swarm, after), Reach::Starts(ms(start + 4000.0)));
        }
        // History comes as one burst, far from any change.
        let events = at("event", "");
        let begin = events.iter().find(|at| **at > starts[1]).unwrap();
        let burst = events.iter().filter(|at| (*begin..begin + 500.0).contains(*at)).count();
        let (_, replayed) = engines.subscribe(&m1);
        assert!(
            burst.abs_diff(replayed) <= 20,
            "{replayed} replayed, {burst} on a real Swarm"
        );
    }
}
