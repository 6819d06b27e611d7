//! Flight recordings of the simulated controllers. Whatever befell one, its recording replays to the same decisions, or an
//! operator's incident could not be looked at afterwards.

use std::time::Duration;

use tidegate::app::controller::ControllerQuery;
use tidegate_core::controller::Me;
use tidegate_core::id::TaskId;
use tidegate_core::recording::{Recorder, RecorderSettings, Recording, Replay};
use tidegate_core::settings::Settings;
use tidegate_core::time::Instant;
use tokio::sync::{mpsc, oneshot};

use crate::shared::Shared;
use crate::world::World;

/// How long a controller that stands still for a moment may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// So little that most recordings begin with a state of the middle, and not with the process.
const LIMITS: RecorderSettings = RecorderSettings {
    span: Duration::from_secs(10),
    bytes_max: RecorderSettings::BYTES_MAX,
};

impl Shared {
    /// What records the controller of a task, and where it is asked for it.
    pub(crate) fn records(&self, me: &Me, settings: &Settings) -> (Option<Recorder>, mpsc::Receiver<ControllerQuery>) {
        let (ask, asked) = mpsc::channel(1);
        let is_recorded = self.recorded.get();
        if is_recorded {
            let task = TaskId::from(me.task.as_str());
            self.recordings.borrow_mut().insert(task, ask);
        }
        let recorder = || Recorder::new(LIMITS, &me.version, me.clone(), settings.clone(), [7; 32]);
        (is_recorded.then(recorder), asked)
    }
}

impl World {
    /// Controllers that start from now on record what they are told and decide.
    pub fn record(&mut self) {
        self.shared.recorded.set(true);
    }

    /// Takes the recordings of all controllers that live, and replays them.
    ///
    /// # Panics
    /// If one cannot be had or read, or if a step of it is decided otherwise; or if there is none at all.
    pub fn replay_recordings(&mut self) {
        let asked = std::mem::take(&mut *self.shared.recordings.borrow_mut());
        let mut replayed = 0;
        for (task, ask) in asked {
            let (question, mut answer) = oneshot::channel();
            if ask.try_send(ControllerQuery::Recording(question)).is_err() {
                continue; // it is gone
            }
            let mut text = None;
            self.until("a controller gives its recording", PATIENCE, |_| {
                match answer.try_recv() {
                    Ok(recording) => {
                        text = Some(recording);
                        true
                    }
                    Err(oneshot::error::TryRecvError::Empty) => false,
                    Err(oneshot::error::TryRecvError::Closed) => true,
                }
            });
            let Some(text) = text else { continue }; // it went meanwhile
            let text = text.unwrap_or_else(|why| panic!("controller {task} has no recording: {why}"));
            let recording = Recording::read(&text).unwrap_or_else(|why| panic!("controller {task}: {why}"));
            let mut replay = Replay::new(recording);
            let mut steps = 0;
            while let Some(step) = replay.step(Instant::at(Duration::MAX)) {
                steps += 1;
                assert!(
                    step.recorded.is_none(),
                    "controller {task} replays to something else:\n{step}"
                );
            }
            assert!(steps > 0, "controller {task} recorded nothing");
            replayed += 1;
        }
        assert!(replayed > 0, "no controller was recorded");
        self.shared
            .trace("world", &format!("{replayed} recordings replay to the same decisions"));
    }
}
