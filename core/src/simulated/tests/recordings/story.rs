//! What a history tells: what took how long, and what was the case. Two Swarms are alike if they tell the same.

use super::history::{History, Life, Ms, Told, read};
use super::scene::{Scene, Stage};
use super::*;

/// Something that took its time.
#[derive(Debug)]
struct Span {
    what: &'static str,
    from: Ms,
    to: Ms,
    strand: usize,
}

#[derive(Debug, Default)]
pub(super) struct Story {
    spans: Vec<Span>,
    facts: Vec<String>,
    /// Spans of one strand come in the recorded order.
    strand: usize,
}

impl Story {
    #[track_caller]
    pub(super) fn took(&mut self, what: &'static str, from: Option<Ms>, to: Option<Ms>) {
        let (Some(from), Some(to)) = (from, to) else {
            panic!("{what}: from {from:?} to {to:?}");
        };
        let strand = self.strand;
        self.spans.push(Span { what, from, to, strand });
    }

    /// The same for some tasks, which are told apart by nothing but the order in which it happened to them.
    #[track_caller]
    pub(super) fn each(
        &mut self,
        what: &'static str,
        lives: &[&Life],
        from: impl Fn(&Life) -> Option<Ms>,
        to: impl Fn(&Life) -> Option<Ms>,
    ) {
        let mut lives = lives.to_vec();
        lives.sort_by_key(|life| to(life));
        for life in lives {
            self.took(what, from(life), to(life));
        }
    }

    /// What follows has nothing to do with what was told before: either may come first.
    pub(super) fn meanwhile(&mut self) {
        self.strand += 1;
    }

    /// What was the case.
    pub(super) fn fact(&mut self, fact: String) {
        self.facts.push(fact);
    }
}

/// How far the spans of one name may be from those recorded, in milliseconds.
pub(super) type Limits<'a> = &'a [(&'static str, Ms)];

/// Does at each mark of a recording what was done there, and compares what lists and events then say. `act` is told which
/// mark it is.
pub(super) fn reproduces(
    text: &str,
    limits: Limits,
    stage: Stage,
    act: impl Fn(&mut Scene, usize),
    tell: impl Fn(&History) -> Story,
) {
    let real = read(text);
    let expected = tell(&real);
    for seed in 0..SEEDS {
        let mut scene = Scene::new(seed, stage);
        for (mark, at) in real.marks.iter().enumerate() {
            scene.run_to(*at);
            act(&mut scene, mark);
            // It may have waited for something that comes at another time here.
            scene.history.marks.push(scene.now());
        }
        // Here the last things may come later than there.
        scene.run_to(real.end.max(scene.now()) + 10_000);
        assert_alike(&expected, &tell(&scene.history), limits, seed);
        if stage.events {
            assert_told_alike(&real, &scene.history, seed);
        }
    }
}

/// Events come with the same attributes and in the same order for each object. Here more may come after the end of the
/// recording.
fn assert_told_alike(real: &History, fake: &History, seed: u64) {
    let (there, here) = (real.told(), fake.told());
    assert_eq!(
        there.keys().collect::<Vec<_>>(),
        here.keys().collect::<Vec<_>>(),
        "seed {seed}"
    );
    let last = fake.marks.last().copied().unwrap_or_default();
    for (object, told) in &there {
        let lines = |told: &[&Told]| told.iter().map(|told| told.line.clone()).collect::<Vec<_>>();
        let (same, more) = here[object].split_at(told.len().min(here[object].len()));
        assert_eq!(lines(told), lines(same), "seed {seed}: {object}");
        assert!(
            more.iter().all(|told| told.at > last),
            "seed {seed}: {object}: {more:?}"
        );
    }
}

fn assert_alike(real: &Story, fake: &Story, limits: Limits, seed: u64) {
    assert_eq!(real.facts, fake.facts, "seed {seed}");
    let names = |story: &Story| story.spans.iter().map(|span| span.what).collect::<Vec<_>>();
    assert_eq!(names(real), names(fake), "seed {seed}");
    for (expected, found) in real.spans.iter().zip(&fake.spans) {
        let limit = limits.iter().find(|(what, _)| *what == expected.what);
        let limit = limit.unwrap_or_else(|| panic!("no limit for {:?}", expected.what)).1;
        let (there, here) = (expected.to - expected.from, found.to - found.from);
        assert!(
            (there - here).abs() <= limit,
            "seed {seed}: {:?} took {here} ms, {there} ms on a real Swarm: {found:?}, {expected:?}",
            expected.what
        );
    }
    // What is a second apart comes in the same order.
    let pairs = || real.spans.iter().zip(&fake.spans);
    for (before, here) in pairs() {
        let mut later = pairs().filter(|(after, _)| after.strand == before.strand && before.to + 1000 <= after.to);
        assert!(
            later.all(|(_, there)| here.to < there.to),
            "seed {seed}: another order: {fake:#?}, {real:#?}"
        );
    }
}
