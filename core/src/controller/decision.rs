//! Since when Docker wants what a route shows: the time of the object that made it differ. For measuring alone; nothing is
//! decided by it, since the clocks are the managers'.

use alloc::collections::BTreeMap;

use crate::id::EndpointId;
use crate::route::spec::{EndpointSpec, RouteSpec};
use crate::swarm::model::{Service, Task};
use crate::time::Duration;

/// When Docker wrote what makes `after` differ from `before`: the service, if it has a new version, else the first of the
/// tasks whose endpoints came, changed or went. None where nothing differs, or where Docker does not say: a service or task
/// that is gone has no time.
pub(super) fn decided_at<'a>(
    before: Option<&RouteSpec>,
    after: Option<&RouteSpec>,
    service: &Service,
    is_new_version: bool,
    tasks: impl Iterator<Item = &'a Task>,
) -> Option<Duration> {
    if before == after {
        return None;
    }
    if is_new_version {
        return service.updated_at;
    }
    let [before, after] = [before, after].map(endpoints);
    let differs = |task: &&Task| {
        let id = EndpointId::from(task.id.as_str());
        before.get(&id) != after.get(&id)
    };
    tasks.filter(differs).filter_map(|task| task.updated_at).min()
}

fn endpoints(spec: Option<&RouteSpec>) -> BTreeMap<&EndpointId, &EndpointSpec> {
    let endpoints = spec.into_iter().flat_map(|spec| &spec.endpoints);
    endpoints.map(|endpoint| (&endpoint.id, endpoint)).collect()
}
