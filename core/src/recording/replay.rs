//! Feeds a fresh controller with what a recorded one was told, at the same moments.
//!
//! The same program decides the same, so each question of the recording is this one's too. Once a decision differs, numbers of
//! questions, writes and streams may differ as well; from then on an answer goes to the question of its kind that is under way,
//! and says what the recording last said about what is asked now. Moments at which this controller wants to be woken and the
//! recorded one did not are kept as well. What proxies said stays as it was recorded.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::decision::without_digest;
use super::lists::Lists;
use super::recorder::{Observed, observe, observe_recorded};
use super::step::{Recorded, Step, told};
use super::{Header, Hide, Line, Recorder, RecorderSettings, Recording, Told};
use crate::controller::{Controller, ControllerFact};
use crate::id::{ClusterName, Revision};
use crate::machine::{Input, Machine as _};
use crate::route::RouteTable;
use crate::swarm::world::{Fetch, FetchId, WorldFact};
use crate::time::{Duration, Instant};

/// See the module. Steps come one by one from [`Replay::step`].
#[derive(Debug)]
pub struct Replay {
    header: Header,
    machine: Controller,
    hide: Hide,
    lines: alloc::vec::IntoIter<Line>,
    lists: Lists,
    tables: BTreeMap<ClusterName, (Revision, String)>,
    next: Option<(Instant, String)>,
    /// What the recorded controller waits for.
    recorded_next: Option<Instant>,
    /// Whether any decision differed so far.
    differs: bool,
    save_from: Option<Instant>,
    saved: Option<Recorder>,
}

impl Replay {
    /// At the beginning of `recording`.
    pub fn new(recording: Recording) -> Replay {
        let Recording {
            header,
            checkpoint,
            lines,
        } = recording;
        let (settings, me) = (header.settings.clone(), header.me.clone());
        // Everything that is to be hidden was hidden when it was recorded, so the key does not matter.
        let hide = Hide::new([0; 32], &settings);
        let machine = match checkpoint {
            Some(checkpoint) => Controller::resume(settings, me, *checkpoint),
            None => Controller::new(settings, me),
        };
        let next = machine
            .poll_timeout()
            .map(|deadline| (deadline.at, deadline.why.to_string()));
        let mut replay = Replay {
            recorded_next: next.as_ref().map(|(at, _)| *at),
            next,
            header,
            hide,
            lines: lines.into_iter(),
            lists: Lists::default(),
            tables: BTreeMap::new(),
            differs: false,
            save_from: None,
            saved: None,
            machine,
        };
        replay.look_at_tables();
        replay
    }

    /// Whose recording it is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The controller as it is now.
    pub fn machine(&self) -> &Controller {
        &self.machine
    }

    /// Whether any decision differed from the recording so far.
    pub fn differs(&self) -> bool {
        self.differs
    }

    /// Makes a recording of what is replayed from `from` on, as this program decides.
    pub fn save_from(&mut self, from: Instant) {
        self.save_from = Some(from);
    }

    /// That recording, as the lines of a file; none where nothing happened since `from`.
    pub fn saved(&self) -> Option<String> {
        self.saved.as_ref()?.recording().ok()
    }

    /// The next mutation that is not later than `until`; none at the end.
    pub fn step(&mut self, until: Instant) -> Option<Step> {
        let at = self.lines.as_slice().first()?.at;
        if let Some((due, why)) = &self.next
            && *due < at
            && self.recorded_next.is_none_or(|recorded| *due < recorded)
        {
            let (due, why) = (*due, why.clone());
            if due > until {
                return None;
            }
            let mut step = self.apply(Input::Timeout, due, alloc::format!("of its own: {why}"));
            if !step.decided.is_empty() {
                self.differs = true;
                step.recorded = Some(Recorded {
                    decided: Vec::new(),
                    next: step.next.clone(),
                });
            }
            return Some(step);
        }
        if at > until {
            return None;
        }
        let line = self.lines.next()?;
        let mut text = told(&line.told);
        if let (Told::Timeout, Some((_, why))) = (&line.told, &self.next) {
            text.push_str(": ");
            text.push_str(why);
        }
        if line.fresh {
            self.lists = Lists::default();
        }
        let input = self.input(line.told);
        let mut step = self.apply(input, at, text);
        self.recorded_next = line.next.as_ref().map(|(at, _)| *at);
        if step.decided != line.decided || step.next.as_ref().map(|(at, _)| *at) != self.recorded_next {
            self.differs = true;
            step.recorded = Some(Recorded {
                decided: line.decided,
                next: line.next,
            });
        }
        Some(step)
    }

    /// All that is decided but questions to Docker, as text, without the recorded decisions and without digests: what a regression
    /// test expects.
    pub fn story(recording: Recording) -> String {
        let mut replay = Replay::new(recording);
        let mut story = String::new();
        while let Some(mut step) = replay.step(Instant::at(Duration::MAX)) {
            step.recorded = None;
            for line in &mut step.decided {
                *line = without_digest(line).to_string();
            }
            if !step.is_silent() {
                story.push_str(&step.to_string());
            }
        }
        story
    }

    fn apply(&mut self, input: Input<ControllerFact>, at: Instant, told: String) -> Step {
        if self.saved.is_none() && self.save_from.is_some_and(|from| from <= at) {
            let Header {
                version, me, settings, ..
            } = self.header.clone();
            self.saved = Some(Recorder::new(
                RecorderSettings::UNBOUNDED,
                &version,
                me,
                settings,
                [0; 32],
            ));
        }
        let Observed { decided, next } = match &mut self.saved {
            Some(recorder) => observe_recorded(&mut self.machine, recorder, input, at, drop),
            None => observe(&mut self.machine, &self.hide, input, at, drop),
        };
        self.next = next.map(|deadline| (deadline.at, deadline.why.to_string()));
        Step {
            at,
            told,
            decided,
            table: self.look_at_tables(),
            next: self.next.clone(),
            recorded: None,
        }
    }

    /// What to tell this controller.
    fn input(&mut self, told: Told) -> Input<ControllerFact> {
        Input::Fact(match told {
            Told::Timeout => return Input::Timeout,
            Told::List(line) => {
                let recorded = line.id;
                let (fetch, answer) = self.lists.lengthen(line);
                let (id, result) = match self.asked_instead(&fetch) {
                    Some((id, asked)) if *asked != fetch => (id, self.lists.answer(asked)),
                    Some((id, _)) => (id, answer),
                    None => (self.unasked(recorded), answer),
                };
                ControllerFact::World(WorldFact::Answer { id, result: Ok(result) })
            }
            Told::Failed { id, fetch, error } => {
                let id = self
                    .asked_instead(&fetch)
                    .map_or_else(|| self.unasked(id), |(id, _)| id);
                ControllerFact::World(WorldFact::Answer { id, result: Err(error) })
            }
            Told::Fact(fact) if self.differs => self.adapted(fact),
            Told::Fact(fact) => fact,
        })
    }

    /// The question that is under way here in place of a recorded one, once numbers are not those of the recording.
    fn asked_instead(&self, fetch: &Fetch) -> Option<(FetchId, &Fetch)> {
        let flights = self.machine.world().flights();
        counterpart(flights.filter(|_| self.differs), fetch)
    }

    /// The number of a question that nobody asked here: once numbers differ, another question may have the recorded one.
    fn unasked(&self, recorded: FetchId) -> FetchId {
        if self.differs { FetchId(u64::MAX) } else { recorded }
    }

    /// A fact with the numbers of this controller's own questions.
    fn adapted(&self, mut fact: ControllerFact) -> ControllerFact {
        let world = self.machine.world();
        match &mut fact {
            ControllerFact::World(WorldFact::EventStreamOpened(stream)) => *stream = world.stream().unwrap_or(*stream),
            ControllerFact::World(WorldFact::EventStreamClosed { stream, .. }) => {
                *stream = world.stream().unwrap_or(*stream);
            }
            ControllerFact::World(WorldFact::FeedOpened(stream) | WorldFact::FeedClosed { stream, .. }) => {
                *stream = world.feed().unwrap_or(*stream);
            }
            // It came too late for the one who asked, and it must not be taken for an answer to another question.
            ControllerFact::World(WorldFact::Answer { id, .. }) => *id = self.unasked(*id),
            ControllerFact::Written { id, .. } => *id = self.machine.write_in_flight().unwrap_or(*id),
            ControllerFact::Ack { .. }
            | ControllerFact::Connected { .. }
            | ControllerFact::Disconnected { .. }
            | ControllerFact::CourierConnected { .. }
            | ControllerFact::OwnNetworks(_)
            | ControllerFact::Report { .. }
            | ControllerFact::SecretsWanted { .. }
            | ControllerFact::SecretsEnded(_)
            | ControllerFact::Done { .. }
            | ControllerFact::World(_) => {}
        }
        fact
    }

    /// The lines of tables that came and went since it was last asked.
    fn look_at_tables(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for (cluster, publisher) in self.machine.publishers() {
            let revision = publisher.revision();
            let known = self.tables.entry(cluster.clone()).or_default();
            if known.0 == revision {
                continue;
            }
            let text = RouteTable::compile(&self.machine.snapshot(cluster)).canonical_text();
            let only = |a: &str, b: &str, sign: char| -> Vec<String> {
                let missing = a.lines().filter(|line| !b.lines().any(|other| other == *line));
                missing.map(|line| alloc::format!("{sign} {line}")).collect()
            };
            lines.extend(only(&known.1, &text, '-'));
            lines.extend(only(&text, &known.1, '+'));
            *known = (revision, text);
        }
        lines
    }
}

/// The question about the same kind of objects as `fetch`: one about some for one about some, else the other one.
fn counterpart<'a>(flights: impl Iterator<Item = (FetchId, &'a Fetch)>, fetch: &Fetch) -> Option<(FetchId, &'a Fetch)> {
    let alike = flights.filter(|(_, asked)| asked.lane() == fetch.lane());
    alike.min_by_key(|(_, asked)| asked.is_partial() != fetch.is_partial())
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::id::ServiceId;

    #[test]
    fn an_answer_goes_to_its_own_kind_of_question() {
        let some = |id: &str| Fetch::Tasks(vec![ServiceId::from(id)]);
        let asked = [Fetch::Tasks(Vec::new()), some("shop"), Fetch::Nodes];
        let flights = |of: &'static [usize]| of.iter().map(|at| (FetchId(*at as u64), &asked[*at]));
        let number = |of, fetch: &Fetch| counterpart(flights(of), fetch).map(|(id, _)| id.0);
        // Another look stands for a look, and the list where there is none.
        assert_eq!(number(&[0, 1, 2], &some("blog")), Some(1));
        assert_eq!(number(&[0, 1, 2], &Fetch::Tasks(Vec::new())), Some(0));
        assert_eq!(number(&[0, 2], &some("blog")), Some(0));
        assert_eq!(number(&[0, 1, 2], &Fetch::Services(Vec::new())), None);
    }
}
