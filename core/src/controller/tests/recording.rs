//! What a recorder keeps of a controller, and that a controller made of it decides as the original did.

use super::*;
use crate::recording::{RecorderSettings, Recording, Replay, Step};
use crate::secrets::message::Parcel;
use crate::secrets::{Finding, SecretText};
use crate::snapshot::{Ack, Connection};
use crate::swarm::model::FeedEnd;

const MARKER: &str = "swordfish";
const END: Instant = Instant::at(Duration::MAX);

/// Some answers of Docker are errors, and some come to nothing.
pub(super) fn spoil(fact: &mut ControllerFact, rng: &mut Rng) {
    let error = match rng.below(60) {
        0 => ApiError::Unreachable("connection refused".to_string()),
        1 => ApiError::Server("the swarm does not have a leader".to_string()),
        2 => ApiError::Conflict("update out of sequence".to_string()),
        _ => return,
    };
    match fact {
        ControllerFact::World(WorldFact::Answer { result, .. }) => *result = Err(error),
        ControllerFact::World(WorldFact::EventStreamOpened(stream)) => {
            *fact = ControllerFact::World(WorldFact::EventStreamClosed {
                stream: *stream,
                error: Some(error),
            });
        }
        ControllerFact::World(WorldFact::FeedOpened(stream)) => {
            *fact = ControllerFact::World(WorldFact::FeedClosed {
                stream: *stream,
                end: FeedEnd::Broken(error),
            });
        }
        ControllerFact::Done { result, .. } | ControllerFact::Written { result, .. } => *result = Err(error),
        ControllerFact::Ack { .. }
        | ControllerFact::Connected { .. }
        | ControllerFact::CourierConnected { .. }
        | ControllerFact::Disconnected { .. }
        | ControllerFact::OwnNetworks(_)
        | ControllerFact::Report { .. }
        | ControllerFact::SecretsEnded(_)
        | ControllerFact::SecretsWanted { .. }
        | ControllerFact::World(_) => {}
    }
}

fn recorder(limits: RecorderSettings, settings: &Settings, me: &Me) -> Recorder {
    Recorder::new(limits, "test", me.clone(), settings.clone(), [9; 32])
}

/// A controller that lives through whatever comes: apps, edits, proxies, couriers, failures.
fn life(seed: u64, seconds: u64, limits: RecorderSettings) -> Harness {
    let mut rng = Rng::new(seed);
    let mut harness = Harness::new();
    let mut settings = if rng.chance(1, 2) {
        two_clusters()
    } else {
        Settings::default()
    };
    if rng.fork("feed").chance(1, 2) {
        settings.controller.swarm_watch = "/run/control.sock".to_string();
    }
    let me = me("c1", &[1]);
    harness.recorder = Some(recorder(limits, &settings, &me));
    harness.faults = Some(rng.fork("faults"));
    harness.start(settings, me);
    live(&mut harness, &mut rng, seconds);
    harness
}

/// What is there at the end of a life.
#[derive(Default)]
pub(super) struct Lived {
    pub(super) apps: Vec<ServiceId>,
    pub(super) proxies: Vec<(Connection, ClusterName)>,
    /// Acts so far, by which connections are numbered.
    pub(super) serial: u64,
}

/// Lets its first controller live through so many seconds.
pub(super) fn live(harness: &mut Harness, rng: &mut Rng, seconds: u64) -> Lived {
    let mut lived = Lived::default();
    let end = harness.now + Duration::from_secs(seconds);
    while harness.now < end {
        let next = harness.now + Duration::from_millis(rng.between(1, 1500));
        harness.run(3600, |h| h.now >= next);
        lived.serial += 1;
        act(harness, rng, &mut lived);
    }
    lived
}

fn act(harness: &mut Harness, rng: &mut Rng, lived: &mut Lived) {
    let Lived { apps, proxies, serial } = lived;
    let serial = *serial;
    let now = harness.now;
    let cluster = ClusterName::from(*rng.pick(&["default", "east"]).unwrap());
    let connection = Connection(serial);
    match rng.below(12) {
        0..=2 => {
            let name = alloc::format!("app{serial}");
            let host = alloc::format!("{}.example.org", rng.below(4));
            let port = *rng.pick(&["8080", "http"]).unwrap();
            let network = *rng.pick(&["edge", "back"]).unwrap();
            let labels = [
                ("tidegate.hosts", host.as_str()),
                ("tidegate.port", port),
                ("tidegate.service_cluster", cluster.as_str()),
                ("tidegate.ssl_cert", "shop.pem"),
                ("tidegate.ssl_key", "shop.key"),
                ("proxy.users", MARKER),
            ];
            apps.push(harness.app(&name, network, &labels));
        }
        3 => {
            if let Some(app) = rng.pick(apps) {
                harness.swarm.scale(app, rng.below(6), now).ok();
            }
        }
        4 => {
            if !apps.is_empty() {
                let app = apps.swap_remove(rng.index(apps.len()));
                harness.swarm.remove_service(&app, now).ok();
            }
        }
        5 => {
            if let Some(app) = rng.pick(apps).cloned() {
                let host = alloc::format!("{}.example.org", rng.below(4));
                let edit = |shape: &mut ServiceShape| {
                    shape.labels.insert("tidegate.hosts".to_string(), host);
                };
                harness.swarm.edit_service(&app, now, edit).ok();
            }
        }
        6 | 7 => {
            proxies.push((connection, cluster.clone()));
            let proxy = ProxyId::from(alloc::format!("p{serial}"));
            let fact = ControllerFact::Connected {
                connection,
                cluster,
                proxy,
                digest: None,
            };
            harness.turn(0, Input::Fact(fact));
        }
        8 => {
            if let Some((connection, cluster)) = rng.pick(proxies).cloned() {
                let publisher = &harness.controllers[0].publishers().get(&cluster);
                let Some(publisher) = publisher else { return };
                let ack = Ack {
                    proxy: alloc::format!("p{}", connection.0).into(),
                    revision: publisher.revision(),
                    digest: publisher.digest(),
                    refused: Vec::new(),
                };
                harness.turn(0, Input::Fact(ControllerFact::Ack { cluster, ack }));
            }
        }
        9 => {
            if let Some((connection, cluster)) = rng.pick(proxies).cloned() {
                let proxy = alloc::format!("p{}", connection.0).into();
                let findings = [Finding::new("shop.key", "it is no key", "make another")].into();
                let report = crate::secrets::message::Report { proxy, findings };
                harness.turn(0, Input::Fact(ControllerFact::Report { cluster, report }));
            }
        }
        10 => {
            let parcel = |name: &str, content: String| Parcel {
                name: name.to_string(),
                content: Some(SecretText::new(content)),
                problem: None,
            };
            harness
                .swarm
                .create_secret("shop.key", &[], MARKER.as_bytes(), now)
                .ok();
            let content = alloc::format!("-----BEGIN PRIVATE KEY----- {MARKER} {}", rng.below(2));
            let fact = ControllerFact::CourierConnected {
                connection,
                task: "courier".to_string(),
                parcels: alloc::vec![parcel("shop.key", content)],
            };
            harness.turn(0, Input::Fact(fact));
            let proxy = ProxyId::from("p");
            let fact = ControllerFact::SecretsWanted {
                connection: Connection(serial + 1_000_000),
                cluster,
                proxy,
            };
            harness.turn(0, Input::Fact(fact));
        }
        _ => {
            let service = rng.pick(&harness.swarm.managed()).map(|service| service.id.clone());
            if let Some(service) = service {
                let variable = alloc::format!("PASSWORD={MARKER}{serial}");
                let edit = |shape: &mut ServiceShape| {
                    shape.env.insert(variable);
                    shape.labels.insert("proxy.users".to_string(), MARKER.to_string());
                };
                harness.swarm.edit_service(&service, now, edit).ok();
            }
        }
    }
}

fn read(text: &str) -> Recording {
    Recording::read(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Replays all of it, and says what differs.
fn replayed(text: &str) -> (Replay, Vec<Step>) {
    let mut replay = Replay::new(read(text));
    let mut differing = Vec::new();
    while let Some(step) = replay.step(END) {
        differing.extend(step.recorded.is_some().then_some(step));
    }
    (replay, differing)
}

fn assert_replays(seed: u64, text: &str, harness: &Harness) {
    let (replay, differing) = replayed(text);
    if let Some(first) = differing.first() {
        panic!("seed {seed}: {} steps differ; the first one:\n{first}", differing.len());
    }
    let original = &harness.controllers[0];
    assert_eq!(
        replay.machine().status(harness.now),
        original.status(harness.now),
        "seed {seed}"
    );
    for cluster in original.publishers().keys() {
        assert_eq!(
            replay.machine().snapshot(cluster),
            original.snapshot(cluster),
            "seed {seed}"
        );
    }
}

#[test]
fn a_controller_that_is_told_the_same_decides_the_same_from_the_beginning_or_any_checkpoint() {
    for seed in 1..=3 {
        let harness = life(seed, 30, RecorderSettings::UNBOUNDED);
        let text = harness.recorder.as_ref().unwrap().recording().unwrap();
        assert_replays(seed, &text, &harness);
        let mut rng = Rng::new(seed);
        for _ in 0..2 {
            let mut replay = Replay::new(read(&text));
            replay.save_from(Instant::from_millis(rng.between(1, 28_000)));
            while replay.step(END).is_some() {}
            let saved = replay.saved().unwrap();
            assert!(read(&saved).checkpoint.is_some());
            assert_replays(seed, &saved, &harness);
        }
    }
}

#[test]
fn a_ring_that_lost_its_beginning_replays_from_what_is_left() {
    for seed in 20..=22 {
        let span = Duration::from_secs(10);
        let limits = RecorderSettings {
            span,
            bytes_max: RecorderSettings::BYTES_MAX,
        };
        let harness = life(seed, 50, limits);
        let recorder = harness.recorder.as_ref().unwrap();
        let text = recorder.recording().unwrap();
        let recording = read(&text);
        let kept = harness.now.since(recording.header.from);
        assert!(
            kept >= span && kept <= span * 3 / 2,
            "seed {seed}: {kept:?} are kept of {span:?}"
        );
        assert_replays(seed, &text, &harness);
    }
}

/// A later version has fields that this one did not write, and lacks some that it did.
#[test]
fn a_checkpoint_of_another_version_is_read() {
    let harness = life(6, 10, RecorderSettings::UNBOUNDED);
    let hide = crate::recording::Hide::new([1; 32], &Settings::default());
    let checkpoint = harness.controllers[0].checkpoint(&hide);
    let mut json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&checkpoint).unwrap()).unwrap();
    for machine in [
        "/world",
        "/fleet",
        "/fleet/reconciler",
        "/publishers/default",
        "/ledger",
        "/book",
    ] {
        let fields = json.pointer_mut(machine).and_then(serde_json::Value::as_object_mut);
        let fields = fields.unwrap_or_else(|| panic!("{machine} is there"));
        let last = fields.keys().next_back().cloned().unwrap();
        fields.remove(&last);
        fields.insert("of_a_later_version".to_string(), 1.into());
    }
    let text = serde_json::to_string(&json).unwrap();
    let read: Checkpoint = serde_json::from_str(&text).unwrap();
    let controller = Controller::resume(Settings::default(), me("c1", &[1]), read);
    let services = |controller: &Controller| controller.world().services().keys().cloned().collect::<Vec<_>>();
    assert_eq!(services(&controller), services(&harness.controllers[0]));
}

#[test]
fn a_recording_has_no_secret_in_it() {
    let harness = life(3, 60, RecorderSettings::UNBOUNDED);
    let whole = harness.recorder.as_ref().unwrap().recording().unwrap();
    let ring = life(
        3,
        60,
        RecorderSettings {
            span: Duration::from_secs(10),
            bytes_max: RecorderSettings::BYTES_MAX,
        },
    );
    let ring = ring.recorder.as_ref().unwrap().recording().unwrap();
    assert!(ring.contains("\"checkpoint\""));
    for text in [whole, ring] {
        // What was hidden was there.
        for there in ["PASSWORD=hidden:", "\"proxy.users\":\"hidden:", "\"content\":\"hidden:"] {
            assert!(text.contains(there), "{there} is not in the recording");
        }
        assert!(!text.contains(MARKER));
        assert!(!text.contains("PRIVATE KEY"));
    }
}

#[test]
fn a_recording_never_has_more_bytes_than_it_may() {
    for bytes_max in [60_000, 200_000, 1_000_000] {
        let limits = RecorderSettings {
            span: Duration::from_secs(3600),
            bytes_max,
        };
        let mut harness = life(4, 5, limits);
        for _ in 0..30 {
            let next = harness.now + Duration::from_secs(1);
            harness.run(3600, |h| h.now >= next);
            let recorder = harness.recorder.as_ref().unwrap();
            assert!(recorder.bytes() <= bytes_max, "{} of {bytes_max}", recorder.bytes());
        }
        let recorder = harness.recorder.as_ref().unwrap();
        assert_replays(4, &recorder.recording().unwrap(), &harness);
    }
}

#[test]
fn a_state_that_has_no_room_ends_the_recording_and_says_so() {
    let limits = RecorderSettings {
        span: Duration::from_secs(4),
        bytes_max: 2_000,
    };
    let harness = life(4, 20, limits);
    let recorder = harness.recorder.as_ref().unwrap();
    assert_eq!(recorder.bytes(), 0);
    let why = recorder.recording().unwrap_err();
    assert!(why.contains("2000"), "{why}");
}

#[test]
fn another_decision_is_shown_beside_the_recorded_one_and_the_rest_goes_on() {
    let harness = life(5, 30, RecorderSettings::UNBOUNDED);
    let text = harness.recorder.as_ref().unwrap().recording().unwrap();
    // The program that was recorded asked for one list less.
    let changed = text.replacen(",\"ask for secrets\"", "", 1);
    assert_ne!(text, changed);
    let (replay, differing) = replayed(&changed);
    assert!(replay.differs());
    let first = differing[0].to_string();
    assert!(first.contains("! ask for secrets"), "{first}");
    // Numbers are its own from here on, and it still follows the Swarm to the same end.
    assert_eq!(differing.len(), 1, "{}", differing[1]);
    let cluster = ClusterName::default_cluster();
    assert_eq!(
        replay.machine().snapshot(&cluster),
        harness.controllers[0].snapshot(&cluster)
    );
}
