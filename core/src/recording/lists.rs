//! Docker's lists in a recording: what differs from the list before, since most of them differ in nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::Hide;
use crate::id::ServiceId;
use crate::reconcile::desired::ManagedService;
use crate::swarm::model::{Network, Node, Secret, Service, Task};
use crate::swarm::world::{Answer, Fetch, FetchId};

/// One list, by what differs from what is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListLine {
    /// The fetch that it answers.
    pub id: FetchId,
    /// Of services and tasks: these services alone, and those of these, unless empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<ServiceId>,
    /// Objects that are new or changed.
    pub put: Answer,
    /// Ids of those that are in it no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<String>,
}

/// All objects as they were listed last.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    managed: BTreeMap<String, ManagedService>,
    networks: BTreeMap<String, Network>,
    nodes: BTreeMap<String, Node>,
    secrets: BTreeMap<String, Secret>,
    services: BTreeMap<String, Service>,
    tasks: BTreeMap<String, Task>,
}

impl Lists {
    /// What of `answer` to `fetch` is news, with the secrets hidden; and remembers it.
    pub(super) fn shorten(&mut self, id: FetchId, fetch: &Fetch, answer: &Answer, hide: &Hide) -> ListLine {
        let of = fetch.of();
        let (mut put, gone) = match answer {
            Answer::Managed(list) => split(&mut self.managed, list, |o| o.id.as_str(), |_| true, Answer::Managed),
            Answer::Networks(list) => split(&mut self.networks, list, |o| o.id.as_str(), |_| true, Answer::Networks),
            Answer::Nodes(list) => split(&mut self.nodes, list, |o| o.id.as_str(), |_| true, Answer::Nodes),
            Answer::Secrets(list) => split(&mut self.secrets, list, |o| o.id.as_str(), |_| true, Answer::Secrets),
            Answer::Services(list) => {
                let asked = |service: &Service| is_asked(of, &service.id);
                split(&mut self.services, list, |o| o.id.as_str(), asked, Answer::Services)
            }
            Answer::Tasks(list) => {
                let asked = |task: &Task| is_asked(of, &task.service);
                split(&mut self.tasks, list, |o| o.id.as_str(), asked, Answer::Tasks)
            }
        };
        hide.answer(&mut put);
        ListLine {
            id,
            of: of.to_vec(),
            put,
            gone,
        }
    }

    /// The whole list again, ordered by id; and remembers it.
    pub(super) fn lengthen(&mut self, line: ListLine) -> (Fetch, Answer) {
        let ListLine { of, put, gone, .. } = line;
        let fetch = match &put {
            Answer::Managed(_) => Fetch::Managed,
            Answer::Networks(_) => Fetch::Networks,
            Answer::Nodes(_) => Fetch::Nodes,
            Answer::Secrets(_) => Fetch::Secrets,
            Answer::Services(_) => Fetch::Services(of),
            Answer::Tasks(_) => Fetch::Tasks(of),
        };
        match put {
            Answer::Managed(list) => join(&mut self.managed, list, &gone, |o| o.id.as_str()),
            Answer::Networks(list) => join(&mut self.networks, list, &gone, |o| o.id.as_str()),
            Answer::Nodes(list) => join(&mut self.nodes, list, &gone, |o| o.id.as_str()),
            Answer::Secrets(list) => join(&mut self.secrets, list, &gone, |o| o.id.as_str()),
            Answer::Services(list) => join(&mut self.services, list, &gone, |o| o.id.as_str()),
            Answer::Tasks(list) => join(&mut self.tasks, list, &gone, |o| o.id.as_str()),
        }
        let answer = self.answer(&fetch);
        (fetch, answer)
    }

    /// What is known as an answer to `fetch`.
    pub(super) fn answer(&self, fetch: &Fetch) -> Answer {
        match fetch {
            Fetch::Managed => Answer::Managed(self.managed.values().cloned().collect()),
            Fetch::Networks => Answer::Networks(self.networks.values().cloned().collect()),
            Fetch::Nodes => Answer::Nodes(self.nodes.values().cloned().collect()),
            Fetch::Secrets => Answer::Secrets(self.secrets.values().cloned().collect()),
            Fetch::Services(of) => {
                let asked = self.services.values().filter(|service| is_asked(of, &service.id));
                Answer::Services(asked.cloned().collect())
            }
            Fetch::Tasks(of) => {
                let asked = self.tasks.values().filter(|task| is_asked(of, &task.service));
                Answer::Tasks(asked.cloned().collect())
            }
        }
    }
}

/// Whether a question for `of` asks for `service`.
fn is_asked(of: &[ServiceId], service: &ServiceId) -> bool {
    of.is_empty() || of.contains(service)
}

fn split<T: Clone + PartialEq>(
    known: &mut BTreeMap<String, T>,
    list: &[T],
    id: impl Fn(&T) -> &str,
    asked: impl Fn(&T) -> bool,
    answer: impl Fn(Vec<T>) -> Answer,
) -> (Answer, BTreeSet<String>) {
    let listed: BTreeSet<&str> = list.iter().map(&id).collect();
    let gone: BTreeSet<String> = known
        .iter()
        .filter(|(id, object)| asked(object) && !listed.contains(id.as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    known.retain(|id, _| !gone.contains(id));
    let mut put = Vec::new();
    for object in list {
        let id = id(object);
        if known.get(id) != Some(object) {
            known.insert(id.to_string(), object.clone());
            put.push(object.clone());
        }
    }
    (answer(put), gone)
}

fn join<T>(known: &mut BTreeMap<String, T>, put: Vec<T>, gone: &BTreeSet<String>, id: impl Fn(&T) -> &str) {
    known.retain(|id, _| !gone.contains(id));
    for object in put {
        known.insert(id(&object).to_string(), object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::testing::sample;
    use alloc::vec;

    fn lists() -> (Lists, Lists, Hide) {
        let hide = Hide::new([1; 32], &Settings::default());
        (Lists::default(), Lists::default(), hide)
    }

    #[test]
    fn a_list_that_is_as_before_has_no_news() {
        let (mut here, mut there, hide) = lists();
        let list = Answer::Networks(vec![sample::network("a"), sample::network("b")]);
        let first = here.shorten(FetchId(1), &Fetch::Networks, &list, &hide);
        assert_eq!(first.put, list);
        assert_eq!(there.lengthen(first), (Fetch::Networks, list.clone()));
        let second = here.shorten(FetchId(2), &Fetch::Networks, &list, &hide);
        assert_eq!(second.put, Answer::Networks(Vec::new()));
        assert_eq!(there.lengthen(second), (Fetch::Networks, list));
    }

    #[test]
    fn services_that_were_not_asked_for_stay_known() {
        let (mut here, mut there, hide) = lists();
        let all = ["api", "blog", "shop"]
            .map(|name| sample::service(name, &[], &[]))
            .to_vec();
        let whole = Fetch::Services(Vec::new());
        there.lengthen(here.shorten(FetchId(1), &whole, &Answer::Services(all.clone()), &hide));
        let some = Fetch::Services(vec![all[1].id.clone(), all[2].id.clone()]);
        let answer = Answer::Services(vec![all[2].clone()]);
        let line = here.shorten(FetchId(2), &some, &answer, &hide);
        assert_eq!((&line.put, line.gone.len()), (&Answer::Services(Vec::new()), 1));
        assert_eq!(there.lengthen(line), (some, answer));
        let rest = Answer::Services(vec![all[0].clone(), all[2].clone()]);
        assert_eq!(there.answer(&whole), rest);
    }

    #[test]
    fn tasks_of_other_services_stay_known() {
        let (mut here, mut there, hide) = lists();
        let service = |name: &str| sample::service(name, &[], &[]);
        let (api, shop) = (service("api"), service("shop"));
        let task = |of: &Service, slot: u8| sample::task(of, slot, &[]);
        let all = vec![task(&api, 1), task(&shop, 1), task(&shop, 2)];
        let shop = shop.id;
        let whole = here.shorten(
            FetchId(1),
            &Fetch::Tasks(Vec::new()),
            &Answer::Tasks(all.clone()),
            &hide,
        );
        there.lengthen(whole);
        let some = Fetch::Tasks(vec![shop]);
        let line = here.shorten(FetchId(2), &some, &Answer::Tasks(vec![all[1].clone()]), &hide);
        assert_eq!(line.gone, ["shop.2".to_string()].into());
        assert_eq!(there.lengthen(line), (some, Answer::Tasks(vec![all[1].clone()])));
        let rest = Answer::Tasks(all[..2].to_vec());
        assert_eq!(there.answer(&Fetch::Tasks(Vec::new())), rest);
    }
}
