//! Rolling updates beside recordings of a real Swarm: the same steps in the same order, each change as long after the
//! one before it as there, within the ranges of facts §1.

use super::*;

/// Lists of the recordings were read this often.
const POLL_MS: u64 = 25;

/// When what happened to one place, in milliseconds after the command.
#[derive(Clone, Debug, Default)]
struct Step {
    /// The new task is listed.
    created: Option<u64>,
    /// The old task should stop.
    left: Option<u64>,
    /// The old task is reported to have ended.
    ended: Option<u64>,
    /// The new task is reported running.
    served: Option<u64>,
}

/// One task in a list.
#[derive(Clone, Copy, Debug)]
struct Look {
    slot: u64,
    leaves: bool,
    ended: bool,
    serves: bool,
}

/// A rolling update as the lists show it.
#[derive(Debug, Default)]
struct Timeline {
    old: Vec<String>,
    steps: BTreeMap<u64, Step>,
    completed: Option<u64>,
}

impl Timeline {
    fn note(&mut self, at: u64, list: &BTreeMap<String, Look>) {
        for (id, look) in list {
            let step = self.steps.entry(look.slot).or_default();
            let seen = if self.old.contains(id) {
                [(look.leaves, &mut step.left), (look.ended, &mut step.ended)]
            } else {
                [(true, &mut step.created), (look.serves, &mut step.served)]
            };
            for (is, moment) in seen {
                if is {
                    moment.get_or_insert(at);
                }
            }
        }
    }

    /// The steps in the order in which they began, each as created, left, ended, served.
    fn moments(&self) -> Vec<[u64; 4]> {
        let whole = |step: &Step| Some([step.created?, step.left?, step.ended?, step.served?]);
        let mut steps: Vec<[u64; 4]> = self
            .steps
            .values()
            .map(|step| whole(step).unwrap_or_else(|| panic!("a step is not whole: {self:?}")))
            .collect();
        steps.sort();
        steps
    }
}

/// The first update of a recording, up to the command that follows.
fn recorded(text: &str) -> Timeline {
    use serde_json::Value;

    let mut objects: BTreeMap<String, Value> = BTreeMap::new();
    let mut timeline = Timeline::default();
    let mut shop = None;
    let mut marks = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let kind = line["kind"].as_str().unwrap();
        marks += usize::from(kind == "mark");
        if marks == 3 {
            break;
        }
        let mut list = BTreeMap::new();
        for item in line["body"].as_array().into_iter().flatten() {
            let item = match item.as_str() {
                Some(id) => objects[id].clone(),
                None => item.clone(),
            };
            let id = item["ID"].as_str().or(item["Id"].as_str()).unwrap().to_string();
            objects.insert(id.clone(), item.clone());
            list.insert(id, item);
        }
        let at = Duration::try_from_secs_f64(line["t_ms"].as_f64().unwrap() / 1000.0);
        // What comes before the command is the state at its start.
        let began = at.is_ok();
        let at = at.map_or(0, |at| u64::try_from(at.as_millis()).unwrap());
        if kind == "services" {
            let service = list.values().find(|service| service["Spec"]["Name"] == "shop").unwrap();
            shop = Some(service["ID"].clone());
            if service["UpdateStatus"]["State"] == "completed" {
                timeline.completed.get_or_insert(at);
            }
        }
        if kind == "tasks" {
            let is_shop = |task: &Value| match &shop {
                Some(shop) => &task["ServiceID"] == shop,
                None => task["Slot"].is_number(),
            };
            let looks: BTreeMap<String, Look> = list
                .into_iter()
                .filter(|(_, task)| is_shop(task))
                .map(|(id, task)| {
                    let (state, desired) = (&task["Status"]["State"], &task["DesiredState"]);
                    let look = Look {
                        slot: task["Slot"].as_u64().unwrap(),
                        leaves: desired == "shutdown",
                        ended: state == "shutdown" || state == "complete",
                        serves: state == "running" && desired == "running",
                    };
                    (id, look)
                })
                .collect();
            if began {
                timeline.note(at, &looks);
            } else {
                timeline.old = looks.into_keys().collect();
            }
        }
    }
    timeline
}

/// The same update of the same service here: three replicas, apps that exit 300 ms after SIGTERM, watched for 2 s, beside
/// a global service that keeps the network on every node.
fn simulated(seed: u64, start_first: bool) -> Timeline {
    let mut shell = Shell::new(seed);
    shell.drain_ms = 300;
    let agent = ServiceShape {
        replicas: None,
        ..shape("agent", 1, false)
    };
    shell.command(|swarm, now| swarm.create_service(agent, now)).unwrap();
    let mut shop = shape("shop", 3, start_first);
    shop.update.monitor_ms = 2000;
    let shop = shell.command(|swarm, now| swarm.create_service(shop, now)).unwrap();
    shell.until(|swarm| serving(swarm, &shop).len() == 3);
    shell.run_for(2000);
    let mut timeline = Timeline {
        old: tasks(&shell.swarm, &shop)
            .iter()
            .map(|task| task.id.to_string())
            .collect(),
        ..Timeline::default()
    };
    let begin = shell.ms();
    new_image(&mut shell, &shop);
    for _ in 0..20_000 / POLL_MS {
        shell.run_for(POLL_MS);
        let at = shell.ms() - begin;
        let looks = tasks(&shell.swarm, &shop).into_iter().map(|task| {
            let look = Look {
                slot: task.slot.unwrap(),
                leaves: task.desired == DesiredState::Shutdown,
                ended: matches!(task.state, TaskState::Shutdown | TaskState::Complete),
                serves: task.is_serving(),
            };
            (task.id.to_string(), look)
        });
        timeline.note(at, &looks.collect());
        if !shell.swarm.is_updating(&shop) {
            timeline.completed.get_or_insert(at);
        }
    }
    timeline
}

/// Compares the update of a recording with that of many seeds; `limits` are how far each span may be from its like: from
/// the step before to this one, from its begin to the end of the old task, and from its cause to the new one serving.
fn reproduces(text: &str, start_first: bool, limits: [u64; 3]) {
    // What a step waits for, and what its new task waits for.
    let spans = |timeline: &Timeline| {
        let mut spans = Vec::new();
        let mut before = 0;
        for [created, left, ended, served] in timeline.moments() {
            let cause = if start_first { created } else { ended };
            spans.push([
                created.abs_diff(before),
                ended.checked_sub(left).unwrap(),
                served.checked_sub(cause).unwrap(),
            ]);
            before = served;
        }
        spans
    };
    let real = recorded(text);
    let order: Vec<u64> = real.moments().concat();
    for seed in 0..40 {
        let fake = simulated(seed, start_first);
        let (expected, found) = (spans(&real), spans(&fake));
        assert_eq!(expected.len(), found.len(), "{fake:?}");
        for (expected, found) in expected.iter().zip(&found) {
            for ((expected, found), limit) in expected.iter().zip(found).zip(limits) {
                assert!(
                    expected.abs_diff(*found) <= limit,
                    "seed {seed}: {found} ms, {expected} ms on a real Swarm: {fake:?}, {real:?}"
                );
            }
        }
        // What is a second apart comes in the same order.
        let here: Vec<u64> = fake.moments().concat();
        for (i, j) in (0..order.len()).flat_map(|i| (0..order.len()).map(move |j| (i, j))) {
            assert!(
                order[i] + 1000 > order[j] || here[i] < here[j],
                "seed {seed}: another order: {fake:?}, {real:?}"
            );
        }
        let watched = |timeline: &Timeline| timeline.completed.unwrap() - timeline.moments().last().unwrap()[3];
        assert!(
            watched(&real).abs_diff(watched(&fake)) <= 100,
            "seed {seed}: {fake:?}, {real:?}"
        );
    }
}

#[test]
fn a_stop_first_update_goes_as_in_its_recording() {
    let text = include_str!("../../../../docker-source/tests/fixtures/recordings/rolling-stop-first.jsonl");
    reproduces(text, false, [100, 650, 300]);
}

#[test]
fn a_start_first_update_goes_as_in_its_recording() {
    let text = include_str!("../../../../docker-source/tests/fixtures/recordings/rolling-start-first.jsonl");
    reproduces(text, true, [100, 650, 400]);
}
