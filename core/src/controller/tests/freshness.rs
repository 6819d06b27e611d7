//! What acknowledgements say about time, from the object that Docker wrote to the proxy's answer.

use super::*;
use crate::snapshot::{Ack, Message, Served};
use crate::swarm::model::{DesiredState, Network, Service, Task};
use crate::swarm::world::{Answer, Fetch};
use crate::testing::sample;

fn wall(ms: u64) -> Option<Duration> {
    Some(Duration::from_secs(1_800_000_000) + Duration::from_millis(ms))
}

/// A controller, a Swarm of one service made by hand, and a proxy that answers at once.
struct Desk {
    controller: Controller,
    services: Vec<Service>,
    tasks: Vec<Task>,
    networks: Vec<Network>,
    now: Instant,
    served: Vec<Served>,
}

impl Desk {
    fn new() -> Desk {
        let labels = [("tidegate.hosts", "shop.example"), ("tidegate.port", "80")];
        let shop = sample::service("shop", &labels, &["edge"]);
        let mut shop = Service {
            version: Version(1),
            updated_at: wall(0),
            ..shop
        };
        shop.endpoint_mode = crate::swarm::model::EndpointMode::Dnsrr;
        let tasks = [1, 2].map(|slot| Task {
            version: Version(1),
            updated_at: wall(0),
            ..sample::task(&shop, slot, &["edge"])
        });
        let mut desk = Desk {
            controller: Controller::new(Settings::default(), me("c1", &[])),
            services: [shop].into(),
            tasks: tasks.into(),
            networks: [sample::network("edge")].into(),
            now: Instant::START,
            served: Vec::new(),
        };
        let connected = ControllerFact::Connected {
            connection: Connection(1),
            cluster: ClusterName::default_cluster(),
            proxy: "p".into(),
            digest: None,
        };
        desk.turn(Input::Fact(connected));
        desk.run(1_000);
        desk
    }

    fn turn(&mut self, input: Input<ControllerFact>) {
        let mut actions = Vec::new();
        step(&mut self.controller, input, self.now, |action| actions.push(action));
        for action in actions {
            let fact = match action {
                ControllerAction::Fetch { id, fetch } => {
                    let answer = match fetch {
                        Fetch::Managed => Answer::Managed(Vec::new()),
                        Fetch::Networks => Answer::Networks(self.networks.clone()),
                        Fetch::Nodes => Answer::Nodes(Vec::new()),
                        Fetch::Secrets => Answer::Secrets(Vec::new()),
                        Fetch::Services(of) => {
                            let asked = |service: &&Service| of.is_empty() || of.contains(&service.id);
                            Answer::Services(self.services.iter().filter(asked).cloned().collect())
                        }
                        Fetch::Tasks(_) => Answer::Tasks(self.tasks.clone()),
                    };
                    ControllerFact::World(WorldFact::Answer { id, result: Ok(answer) })
                }
                ControllerAction::OpenEvents(stream) => ControllerFact::World(WorldFact::EventStreamOpened(stream)),
                ControllerAction::Send(send) => {
                    let (revision, digest) = match serde_json::from_str(&send.line).unwrap() {
                        Message::Delta(delta) => (delta.revision, delta.digest),
                        Message::Full(full) => (full.revision, full.digest),
                        Message::Hello(_) | Message::Ping(_) => continue,
                    };
                    ControllerFact::Ack {
                        cluster: ClusterName::default_cluster(),
                        ack: Ack {
                            proxy: "p".into(),
                            revision,
                            digest,
                            refused: Vec::new(),
                        },
                    }
                }
                ControllerAction::Acked { served, .. } => {
                    self.served.extend(served);
                    continue;
                }
                ControllerAction::CreateNetwork(_)
                | ControllerAction::CreateSecret(_)
                | ControllerAction::Deliver(_)
                | ControllerAction::Diagnosed(_)
                | ControllerAction::Notice(_)
                | ControllerAction::Published { .. }
                | ControllerAction::RemoveSecret { .. }
                | ControllerAction::Write { .. }
                | ControllerAction::OpenFeed { .. }
                | ControllerAction::WriteOwnService { .. } => continue,
            };
            self.turn(Input::Fact(fact));
        }
    }

    /// Lets so many milliseconds pass.
    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.controller.poll_timeout().filter(|deadline| deadline.at <= end) {
            self.now = self.now.max(deadline.at);
            self.turn(Input::Timeout);
        }
        self.now = end;
    }

    /// The times of what was decided since this was asked last.
    fn decided(&mut self) -> Vec<u128> {
        let served = core::mem::take(&mut self.served);
        let times = served.iter().flat_map(|served| served.decided.to_vec());
        times.map(|time| (time - wall(0).unwrap()).as_millis()).collect()
    }
}

#[test]
fn what_was_there_before_the_controller_is_not_late() {
    let mut desk = Desk::new();
    assert_eq!(
        desk.controller.publishers()[&ClusterName::default_cluster()]
            .revision()
            .0,
        1
    );
    assert_eq!(desk.decided(), []);
}

#[test]
fn a_task_that_leaves_is_decided_when_it_was_written_and_others_are_not_asked() {
    let mut desk = Desk::new();
    desk.decided();
    let other = &mut desk.tasks[0]; // another write that changes no endpoint
    (other.version, other.updated_at) = (Version(2), wall(2_000));
    let leaving = &mut desk.tasks[1];
    (leaving.version, leaving.updated_at) = (Version(3), wall(2_500));
    leaving.desired = DesiredState::Shutdown;
    desk.run(10_000);
    assert_eq!(desk.decided(), [2_500]);
}

#[test]
fn a_label_is_decided_when_the_service_was_written_however_old_its_tasks_are() {
    let mut desk = Desk::new();
    desk.decided();
    let service = &mut desk.services[0];
    (service.version, service.updated_at) = (Version(9), wall(40_000));
    service
        .labels
        .insert("tidegate.hosts".to_string(), "store.example".to_string());
    desk.run(40_000);
    assert_eq!(desk.decided(), [40_000]);
    (desk.services[0].version, desk.services[0].updated_at) = (Version(10), wall(80_000));
    desk.run(40_000);
    assert_eq!(desk.decided(), [], "a write that changes no route is not published");
}

#[test]
fn what_another_object_makes_of_a_service_has_no_time() {
    let mut desk = Desk::new();
    desk.networks.clear();
    let gone = desk.controller.publishers()[&ClusterName::default_cluster()].revision();
    desk.services[0].networks.clear();
    desk.services[0].virtual_ips.clear();
    desk.run(90_000);
    desk.decided();
    desk.networks = [sample::network("edge"), sample::network("back")].into();
    desk.run(90_000);
    assert!(desk.controller.publishers()[&ClusterName::default_cluster()].revision() > gone);
    assert_eq!(desk.decided(), []);
}

#[test]
fn a_task_that_comes_is_decided_when_it_was_written() {
    let mut desk = Desk::new();
    desk.decided();
    let new = Task {
        version: Version(20),
        updated_at: wall(1_900),
        ..sample::task(&desk.services[0], 3, &["edge"])
    };
    desk.tasks.push(new);
    desk.run(10_000);
    assert_eq!(desk.decided(), [1_900]);
}
