//! The text of stack files, one laid over the other.

use std::collections::BTreeMap;

use serde_yaml_ng::{Mapping, Value};
use tidegate_core::swarm::model::{EndpointMode, PublishMode, PublishedPort, ServiceMode};

use super::Parts;
use super::interpolate::interpolate;

/// Replicas that a service may have here.
const REPLICAS_MAX: u64 = 10_000;

/// What the files say, as far as routes depend on it.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    pub(super) services: Parts<ServicePart>,
    pub(super) networks: Parts<NetworkPart>,
}

/// One service; what is absent in a later file keeps the value of an earlier one.
#[derive(Debug, Default)]
pub(super) struct ServicePart {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) networks: Vec<String>,
    pub(super) ports: Vec<PublishedPort>,
    pub(super) mode: Option<ServiceMode>,
    pub(super) replicas: Option<u64>,
    pub(super) endpoint_mode: Option<EndpointMode>,
    pub(super) has_health_check: bool,
}

#[derive(Debug, Default)]
pub(super) struct NetworkPart {
    pub(super) name: Option<String>,
    pub(super) external: bool,
}

impl NetworkPart {
    /// The name that Docker gives the network.
    pub(super) fn name_in(&self, stack: &str, key: &str) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None if self.external => key.to_owned(),
            None => format!("{stack}_{key}"),
        }
    }
}

/// Reads `files`, each a name for messages and its text; later ones win.
///
/// # Errors
/// A line that names the file, the line or the key, and what to write.
pub(crate) fn read(files: &[(String, String)], variable: &dyn Fn(&str) -> Option<String>) -> Result<Stack, String> {
    let mut stack = Stack::default();
    for (place, text) in files {
        let in_file = |error: String| format!("{place}: {error}");
        let mut value: Value = serde_yaml_ng::from_str(text).map_err(|error| in_file(error.to_string()))?;
        value.apply_merge().map_err(|error| in_file(error.to_string()))?;
        let root = mapping(&value, "the file").map_err(in_file)?;
        for (key, networks) in entries(root, "networks", variable).map_err(in_file)? {
            read_network(stack.networks.entry(key).or_default(), &networks);
        }
        for (key, service) in entries(root, "services", variable).map_err(in_file)? {
            let part = stack.services.entry(key.clone()).or_default();
            read_service(part, &service).map_err(|error| in_file(format!("service {key}: {error}")))?;
        }
    }
    for (key, service) in &mut stack.services {
        if service.networks.is_empty() {
            service.networks.push("default".to_owned());
            stack.networks.entry("default".to_owned()).or_default();
        }
        if let Some(unknown) = service.networks.iter().find(|name| !stack.networks.contains_key(*name)) {
            let place = files
                .iter()
                .map(|(place, _)| place.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(format!(
                "{place}: service {key}: the network {unknown} is not declared; add it below networks: of the file"
            ));
        }
    }
    Ok(stack)
}

/// The entries of a section, their variables filled in.
fn entries(
    root: &Mapping,
    section: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, Value)>, String> {
    let Some(value) = root.get(section).filter(|value| !value.is_null()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (key, value) in mapping(value, section)? {
        let key = text(key).ok_or_else(|| format!("a key of {section} is no text; write a name"))?;
        let mut value = value.clone();
        fill(&mut value, &mut format!("{section}.{key}"), variable)?;
        found.push((key, value));
    }
    Ok(found)
}

fn fill(value: &mut Value, place: &mut String, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    match value {
        Value::String(content) => {
            *content = interpolate(content, variable).map_err(|error| format!("{place}: {error}"))?;
        }
        Value::Sequence(items) => {
            for item in items {
                fill(item, place, variable)?;
            }
        }
        Value::Mapping(map) => {
            for (key, item) in map.iter_mut() {
                let length = place.len();
                place.push('.');
                place.push_str(&text(key).unwrap_or_default());
                fill(item, place, variable)?;
                place.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Tagged(_) => {}
    }
    Ok(())
}

fn read_network(part: &mut NetworkPart, value: &Value) {
    if let Some(name) = value.get("name").and_then(text) {
        part.name = Some(name);
    }
    match value.get("external") {
        Some(Value::Mapping(old)) => {
            part.external = true;
            part.name = old.get("name").and_then(text).or(part.name.take());
        }
        Some(external) => part.external = text(external).as_deref() == Some("true"),
        None => {}
    }
}

fn read_service(part: &mut ServicePart, value: &Value) -> Result<(), String> {
    mapping(value, "the service")?;
    match value.get("networks") {
        None | Some(Value::Null) => {}
        Some(networks) => {
            for name in names(networks).ok_or("networks: is no list; write networks: [NAME]")? {
                if !part.networks.contains(&name) {
                    part.networks.push(name);
                }
            }
        }
    }
    if let Some(ports) = value.get("ports").filter(|ports| !ports.is_null()) {
        let ports = ports
            .as_sequence()
            .ok_or("ports: is no list; write ports: [\"8080:80\"]")?;
        for port in ports {
            for port in read_port(port)? {
                if !part.ports.contains(&port) {
                    part.ports.push(port);
                }
            }
        }
    }
    part.has_health_check |= value.get("healthcheck").is_some();
    let Some(deploy) = value.get("deploy").filter(|deploy| !deploy.is_null()) else {
        return Ok(());
    };
    mapping(deploy, "deploy")?;
    if let Some(labels) = deploy.get("labels").filter(|labels| !labels.is_null()) {
        read_labels(&mut part.labels, labels)?;
    }
    if let Some(replicas) = deploy.get("replicas").and_then(text) {
        let count = replicas.parse().ok().filter(|count| *count <= REPLICAS_MAX);
        part.replicas = Some(count.ok_or_else(|| {
            format!("deploy.replicas: {replicas:?} is no number of tasks; write one between 0 and {REPLICAS_MAX}")
        })?);
    }
    match deploy.get("mode").and_then(text).as_deref() {
        None => {}
        Some("replicated") => part.mode = Some(ServiceMode::Replicated { replicas: 1 }),
        Some("global") => part.mode = Some(ServiceMode::Global),
        Some("replicated-job" | "global-job") => part.mode = Some(ServiceMode::Job),
        Some(mode) => return Err(format!("deploy.mode: {mode:?} is unknown; write replicated or global")),
    }
    match deploy.get("endpoint_mode").and_then(text).as_deref() {
        None => {}
        Some("vip") => part.endpoint_mode = Some(EndpointMode::Vip),
        Some("dnsrr") => part.endpoint_mode = Some(EndpointMode::Dnsrr),
        Some(mode) => return Err(format!("deploy.endpoint_mode: {mode:?} is unknown; write vip or dnsrr")),
    }
    Ok(())
}

fn read_labels(into: &mut BTreeMap<String, String>, labels: &Value) -> Result<(), String> {
    match labels {
        Value::Mapping(map) => {
            for (key, value) in map {
                let key = text(key).ok_or("deploy.labels: a key is no text; write KEY: \"value\"")?;
                let value = if value.is_null() {
                    Some(String::new())
                } else {
                    text(value)
                };
                let value = value
                    .ok_or_else(|| format!("deploy.labels: {key}: the value is no text; write {key}: \"value\""))?;
                into.insert(key, value);
            }
        }
        Value::Sequence(list) => {
            for item in list {
                let item = text(item).ok_or("deploy.labels: an item is no text; write - KEY=value")?;
                let (key, value) = item.split_once('=').unwrap_or((&item, ""));
                into.insert(key.to_owned(), value.to_owned());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {
            return Err("deploy.labels: is neither a list nor a map; write KEY: \"value\" below it".to_owned());
        }
    }
    Ok(())
}

/// `80`, `8080:80`, `127.0.0.1:8080:80/tcp`, ranges of equal length, or the long form.
fn read_port(value: &Value) -> Result<Vec<PublishedPort>, String> {
    let wrong = |port: &str| {
        format!("ports: {port:?} is no port; write \"8080:80\", or target: 80, published: 8080, mode: host")
    };
    if let Value::Mapping(map) = value {
        let number = |key: &str| match map.get(key).and_then(text).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(port) => port.parse::<u16>().map(Some).map_err(|_| wrong(&port)),
        };
        return Ok(vec![PublishedPort {
            tcp: map
                .get("protocol")
                .and_then(text)
                .is_none_or(|protocol| protocol == "tcp"),
            target: number("target")?.ok_or_else(|| wrong("a port without target"))?,
            published: number("published")?.filter(|port| *port != 0),
            mode: match map.get("mode").and_then(text).as_deref() {
                Some("host") => PublishMode::Host,
                None | Some("ingress") => PublishMode::Ingress,
                Some(mode) => return Err(format!("ports: the mode {mode:?} is unknown; write host or ingress")),
            },
        }]);
    }
    let whole = text(value).ok_or_else(|| wrong("an item"))?;
    let (ports, protocol) = whole.split_once('/').unwrap_or((&whole, "tcp"));
    let (published, target) = match ports.rsplit_once(':') {
        None => (None, ports),
        Some((published, target)) => (Some(published.rsplit(':').next().unwrap_or(published)), target),
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?;
        (!range.is_empty()).then_some(range)
    };
    let targets = range(target).ok_or_else(|| wrong(&whole))?;
    let mut published = match published {
        None | Some("") => None,
        Some(text) => Some(
            range(text)
                .filter(|range| range.len() == targets.len())
                .ok_or_else(|| wrong(&whole))?,
        ),
    };
    Ok(targets
        .map(|target| PublishedPort {
            tcp: protocol == "tcp",
            target,
            published: published.as_mut().and_then(Iterator::next),
            mode: PublishMode::Ingress,
        })
        .collect())
}

fn mapping<'a>(value: &'a Value, what: &str) -> Result<&'a Mapping, String> {
    value
        .as_mapping()
        .ok_or_else(|| format!("{what} is no map; write NAME: value below it"))
}

/// A scalar as YAML would write it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

/// The items of a list, or the keys of a map.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Sequence(items) => items.iter().map(text).collect(),
        Value::Mapping(map) => map.keys().map(text).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{PublishMode, read};

    fn files(texts: &[&str]) -> Vec<(String, String)> {
        let named = texts.iter().enumerate();
        named
            .map(|(at, text)| (format!("{at}.yml"), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn later_files_are_laid_over_earlier_ones() {
        let first = "services: {web: {networks: [a], ports: ['8080:80'], deploy: {replicas: 2, labels: [k=1, l=2]}}}\nnetworks: {a: }\n";
        let second = "services: {web: {networks: {b: }, ports: [{target: 81, mode: host}], deploy: {labels: {k: \"${K:-3}\"}}}}\nnetworks: {b: {external: true}}\n";
        let stack = read(&files(&[first, second]), &|_| None).unwrap();
        let web = &stack.services["web"];
        assert_eq!(web.networks, ["a", "b"]);
        assert_eq!(
            (web.labels["k"].as_str(), web.labels["l"].as_str(), web.replicas),
            ("3", "2", Some(2))
        );
        assert_eq!(
            (web.ports[0].published, web.ports[1].mode),
            (Some(8080), PublishMode::Host)
        );
        let facts = stack.facts("s");
        assert_eq!(facts.services[0].networks, ["s_a", "b"]);
        assert_eq!(facts.tasks.len(), 2);
    }

    #[test]
    fn anchors_and_merge_keys_are_followed() {
        let text = "x-l: &l {k: v}\nservices: {web: {deploy: {labels: {<<: *l, m: 1}}}}\n";
        let stack = read(&files(&[text]), &|_| None).unwrap();
        assert_eq!(
            (
                stack.services["web"].labels["k"].as_str(),
                stack.services["web"].labels["m"].as_str()
            ),
            ("v", "1")
        );
        assert_eq!(stack.facts("s").networks[0].name, "s_default");
    }

    #[test]
    fn errors_name_the_place_and_what_to_write() {
        for (text, words) in [
            (
                "services: {web: {networks: [x]}}",
                "service web: the network x is not declared; add",
            ),
            (
                "services: {web: {deploy: {replicas: many}}}",
                "service web: deploy.replicas: \"many\"",
            ),
            (
                "services: {web: {deploy: {labels: {k: [1]}}}}",
                "deploy.labels: k: the value is no text; write k:",
            ),
            (
                "services: {web: {ports: ['1-2:3']}}",
                "ports: \"1-2:3\" is no port; write",
            ),
            (
                "services: {web: {deploy: {labels: {k: '${A:?ask Ann}'}}}}",
                "services.web.deploy.labels.k: the variable A is missing: ask Ann",
            ),
            ("services:\n\tweb:", "line 2"),
            ("[]", "no map"),
        ] {
            let error = read(&files(&[text]), &|_| None).unwrap_err();
            assert!(error.starts_with("0.yml: ") && error.contains(words), "{error}");
        }
    }
}
