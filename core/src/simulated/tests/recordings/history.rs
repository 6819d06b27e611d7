//! What the lists of a Swarm showed over time, be it a recorded or the simulated one.

use core::ops::Range;

use serde_json::Value;

use super::*;

/// A moment in milliseconds after the first command; what comes before it is the state at the start.
pub(super) type Ms = i64;

/// One task in a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) id: String,
    /// Name of its service.
    pub(super) service: String,
    /// Its slot, or its node where its service is global.
    pub(super) place: String,
    /// Name of its node, empty until it has one.
    pub(super) node: String,
    pub(super) state: TaskState,
    pub(super) desired: DesiredState,
    pub(super) error: String,
    pub(super) networks: usize,
}

/// What became of a task, each with the moment at which a list showed it first.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// As it was listed last.
    pub(super) last: Look,
    pub(super) listed: Ms,
    pub(super) assigned: Option<Ms>,
    /// Container made.
    pub(super) ready: Option<Ms>,
    /// It should run.
    pub(super) wanted: Option<Ms>,
    pub(super) runs: Option<Ms>,
    /// It should stop.
    pub(super) told: Option<Ms>,
    /// It is reported to be over.
    pub(super) over: Option<Ms>,
    /// It is no longer listed.
    pub(super) gone: Option<Ms>,
    /// Its process began, was told to stop and ended. No list says so.
    pub(super) started: Option<Ms>,
    pub(super) signalled: Option<Ms>,
    pub(super) exited: Option<Ms>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct History {
    /// When something was done.
    pub(super) marks: Vec<Ms>,
    /// When the last line of a recording was written.
    pub(super) end: Ms,
    pub(super) lives: Vec<Life>,
    /// Changes of a node's state, with its name.
    pub(super) nodes: Vec<(Ms, String, String)>,
    /// Changes of its availability.
    pub(super) availability: Vec<(Ms, String, String)>,
    /// Changes of `UpdateStatus.State`, with the service; empty where there is none.
    pub(super) updates: Vec<(Ms, String, String)>,
    /// What events told of objects.
    pub(super) told: Vec<Told>,
}

/// What an event tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) at: Ms,
    /// Kind and name, or that it is a node: which one something happens to is another thing.
    pub(super) object: String,
    /// What was done, and the attributes besides the name; of images only which they are.
    pub(super) line: String,
}

impl History {
    /// A list of all tasks.
    pub(super) fn list(&mut self, at: Ms, list: Vec<Look>) {
        for life in &mut self.lives {
            if life.gone.is_none() && !list.iter().any(|look| look.id == life.last.id) {
                life.gone = Some(at);
                // It may have gone between the two looks at which it was over.
                life.over.get_or_insert(at);
            }
        }
        for look in list {
            let known = self.lives.iter().position(|life| life.last.id == look.id);
            let known = known.unwrap_or_else(|| {
                self.lives.push(Life::new(look.clone(), at));
                self.lives.len() - 1
            });
            self.lives[known].look(at, look);
        }
    }

    /// What the process of a task says: `start`, `sigterm`, `exit` or `crash`.
    pub(super) fn said(&mut self, at: Ms, id: &str, word: &str) {
        // The first words of a process come before any list knows its task; none of them is at the start of a recording.
        let Some(life) = self.lives.iter_mut().find(|life| life.last.id == id) else {
            return;
        };
        let moment = match word {
            "start" => &mut life.started,
            "sigterm" => &mut life.signalled,
            _ => &mut life.exited,
        };
        moment.get_or_insert(at);
    }

    /// An event. Updates that name no change are passed over: Docker tells of nodes by accident, and of services and networks
    /// whenever its allocator looks at one, also after an election.
    pub(super) fn hears(&mut self, at: Ms, [kind, action]: [&str; 2], attributes: &BTreeMap<String, String>) {
        let changes = attributes.iter().filter(|(key, _)| *key != "name");
        let changes: Vec<String> = changes
            .map(|(key, value)| match key.starts_with("image.") {
                true => key.clone(),
                false => format!("{key}={value}"),
            })
            .collect();
        if at < 0 || (action == "update" && changes.is_empty()) {
            return;
        }
        let object = match kind {
            "node" => kind.to_string(),
            _ => format!("{kind} {}", attributes["name"]),
        };
        let line = format!("{action} {}", changes.join(" "));
        self.told.push(Told { at, object, line });
    }

    /// What was told of each object, in this order; of nodes in no order.
    pub(super) fn told(&self) -> BTreeMap<&str, Vec<&Told>> {
        let mut all: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
        for told in &self.told {
            all.entry(&told.object).or_default().push(told);
        }
        if let Some(nodes) = all.get_mut("node") {
            nodes.sort_by(|one, other| one.line.cmp(&other.line));
        }
        all
    }

    /// The time from a command to the next one.
    pub(super) fn after(&self, mark: usize) -> Range<Ms> {
        self.marks[mark]..self.marks.get(mark + 1).copied().unwrap_or(Ms::MAX)
    }

    /// The tasks of a service for which something happened in a time, in the order in which it did.
    pub(super) fn of(&self, service: &str, when: Range<Ms>, what: fn(&Life) -> Option<Ms>) -> Vec<&Life> {
        let mut found: Vec<&Life> = self
            .lives
            .iter()
            .filter(|life| life.last.service == service && what(life).is_some_and(|at| when.contains(&at)))
            .collect();
        found.sort_by_key(|life| (what(life), life.last.place.clone()));
        found
    }

    /// When a node, or an update of a service, is first said to be like this in a time.
    pub(super) fn change(changes: &[(Ms, String, String)], when: Range<Ms>, of: &str, is: &str) -> Option<Ms> {
        let found = changes
            .iter()
            .find(|(at, name, new)| when.contains(at) && name == of && new == is);
        found.map(|(at, ..)| *at)
    }
}

impl Life {
    fn new(last: Look, listed: Ms) -> Life {
        Life {
            last,
            listed,
            assigned: None,
            ready: None,
            wanted: None,
            runs: None,
            told: None,
            over: None,
            gone: None,
            started: None,
            signalled: None,
            exited: None,
        }
    }

    fn look(&mut self, at: Ms, look: Look) {
        let (state, desired) = (look.state, look.desired);
        let is_up = state <= TaskState::Running;
        for (is, moment) in [
            (state >= TaskState::Assigned, &mut self.assigned),
            (state >= TaskState::Ready && is_up, &mut self.ready),
            (desired == DesiredState::Running, &mut self.wanted),
            (state == TaskState::Running, &mut self.runs),
            (desired.is_past_running(), &mut self.told),
            (!is_up, &mut self.over),
        ] {
            if is {
                moment.get_or_insert(at);
            }
        }
        self.last = look;
    }
}

/// Notes what is not as it was.
pub(super) fn note(changes: &mut Vec<(Ms, String, String)>, at: Ms, news: Vec<(String, String)>) {
    for (name, new) in news {
        let last = changes.iter().rev().find(|(_, of, _)| *of == name);
        if last.is_none_or(|(.., last)| *last != new) {
            changes.push((at, name, new));
        }
    }
}

/// A recording.
pub(super) fn read(text: &str) -> History {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let id = |item: &Value| item["ID"].as_str().or(item["Id"].as_str()).unwrap().to_string();
    // Who is called how. Tasks may be listed before the first list of services.
    let mut names = BTreeMap::new();
    for item in lines.iter().flat_map(|line| line["body"].as_array()).flatten() {
        let name = item["Spec"]["Name"]
            .as_str()
            .or(item["Description"]["Hostname"].as_str());
        if let Some(name) = name {
            names.insert(id(item), name.to_string());
        }
    }
    let name = |id: &Value| id.as_str().map_or(String::new(), |id| names[id].clone());
    let mut objects: BTreeMap<String, Value> = BTreeMap::new();
    let mut history = History::default();
    for line in &lines {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a minute")]
        let at = line["t_ms"].as_f64().unwrap() as Ms;
        history.end = at;
        let body = &line["body"];
        // An object that is as before is its ID alone.
        let mut items = Vec::new();
        for item in body.as_array().into_iter().flatten() {
            if let Some(known) = item.as_str() {
                items.push(objects[known].clone());
            } else {
                objects.insert(id(item), item.clone());
                items.push(item.clone());
            }
        }
        match line["kind"].as_str().unwrap() {
            "mark" if body != "GET /events opened" => history.marks.push(at),
            "app" => history.said(at, body["task"].as_str().unwrap(), body["event"].as_str().unwrap()),
            "tasks" => {
                let looks = items.iter().map(|task| {
                    let node = name(&task["NodeID"]);
                    let place = task["Slot"].as_u64().map_or(node.clone(), |slot| slot.to_string());
                    Look {
                        id: id(task),
                        service: name(&task["ServiceID"]),
                        place,
                        node,
                        state: serde_json::from_value(task["Status"]["State"].clone()).unwrap(),
                        desired: serde_json::from_value(task["DesiredState"].clone()).unwrap(),
                        error: task["Status"]["Err"].as_str().unwrap_or_default().to_string(),
                        networks: task["NetworksAttachments"].as_array().map_or(0, Vec::len),
                    }
                });
                history.list(at, looks.collect());
            }
            "services" => {
                let state = |service: &Value| {
                    service["UpdateStatus"]["State"]
                        .as_str()
                        .unwrap_or_default()
                        .to_string()
                };
                let states = items.iter().map(|service| (name(&service["ID"]), state(service)));
                note(&mut history.updates, at, states.collect());
            }
            "event" => {
                // Lists of nodes were read too seldom.
                let attributes = &body["Actor"]["Attributes"];
                for (new, changes) in [
                    ("state.new", &mut history.nodes),
                    ("availability.new", &mut history.availability),
                ] {
                    if let Some(new) = attributes[new].as_str() {
                        let name = attributes["name"].as_str().unwrap();
                        changes.push((at, name.to_string(), new.to_string()));
                    }
                }
                if body["scope"] == "swarm" {
                    let [kind, action] = [&body["Type"], &body["Action"]].map(|text| text.as_str().unwrap());
                    let attributes = serde_json::from_value(attributes.clone()).unwrap();
                    history.hears(at, [kind, action], &attributes);
                }
            }
            _ => {}
        }
    }
    history
}
