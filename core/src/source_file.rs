//! Routes from a file instead of a Swarm: services with labels and the addresses of their endpoints.
//!
//! ```toml
//! [services.shop]
//! labels = { "tidegate.hosts" = "shop.example.org" }
//! endpoints = ["127.0.0.1:9001", "app.internal:9002"]
//! ```
//!
//! The same labels as on a Swarm service; `port` and `network` are not needed, since endpoints say where they are. Of
//! two services that claim one thing the one that is named first in the alphabet wins. A syntax error is an error of the
//! whole file, and the caller keeps what it had; anything else affects its own service alone.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use toml::{Table, Value};

use crate::controller::routes::OwnedClaim;
use crate::id::{ClusterName, EndpointId, ServiceId, Version};
use crate::labels::diagnostic::{Diagnostic, Severity};
use crate::labels::{self, LabelledRoute};
use crate::route::spec::{EndpointSpec, RouteSpec};
use crate::swarm::model::{EndpointMode, Service, ServiceMode};
use crate::text::nearest;

/// Services that a file may have.
pub const SERVICES_MAX: usize = 100_000;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// Services whose labels are right.
    pub services: Vec<FileService>,
    /// Findings, sorted.
    pub diagnostics: Vec<Diagnostic>,
}

/// One service of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileService {
    /// As if it were a Swarm service.
    pub service: Service,
    /// What its labels ask for.
    pub route: LabelledRoute,
    /// `host:port`, in the order of the file.
    pub endpoints: Vec<Endpoint>,
}

/// Where an endpoint is: an address, or a name that the shell resolves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Reads a file.
///
/// # Errors
/// Where the text is no TOML: line, column and what was expected.
pub fn read(text: &str) -> Result<SourceFile, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| describe(text, &error))?;
    let mut file = SourceFile::default();
    for (key, value) in table {
        match value {
            Value::Table(services) if key == "services" => {
                if services.len() > SERVICES_MAX {
                    return Err(format!(
                        "{} services are more than the limit of {SERVICES_MAX}",
                        services.len()
                    ));
                }
                for (name, value) in services {
                    read_service(&name, value, &mut file);
                }
            }
            Value::Array(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Float(_)
            | Value::Integer(_)
            | Value::String(_)
            | Value::Table(_) => file.diagnostics.push(finding(
                "",
                &key,
                Severity::Warning,
                "is no key of this file, and is ignored".to_string(),
                "write services as [services.NAME]".to_string(),
            )),
        }
    }
    file.diagnostics.sort();
    Ok(file)
}

impl SourceFile {
    /// What each service claims, for explanations.
    pub fn claims(&self) -> Vec<OwnedClaim> {
        let claims = self.services.iter().map(|service| {
            let reading = labels::read(&service.service);
            OwnedClaim {
                service: service.service.name.clone(),
                hosts: reading.hosts,
                label: reading.hosts_label,
                diagnostics: reading.diagnostics,
            }
        });
        claims.collect()
    }
}

impl FileService {
    /// The spec of the service, with the addresses that the shell found for its endpoints.
    pub fn spec(&self, resolve: impl Fn(&Endpoint) -> Vec<IpAddr>) -> RouteSpec {
        let mut endpoints = Vec::new();
        for endpoint in &self.endpoints {
            for ip in resolve(endpoint) {
                let addr = SocketAddr::new(ip, endpoint.port);
                endpoints.push(EndpointSpec {
                    id: EndpointId::from(addr.to_string()),
                    addr,
                    via: None,
                    node: None,
                    leaving: None,
                    unsure: false,
                });
            }
        }
        self.route.to_spec(&self.service, endpoints)
    }
}

fn read_service(name: &str, value: Value, file: &mut SourceFile) {
    let error = |key: &str, problem: &str, remedy: &str| {
        finding(name, key, Severity::Error, problem.to_string(), remedy.to_string())
    };
    let Value::Table(table) = value else {
        file.diagnostics.push(error(
            "",
            "a service is a table",
            "write it as [services.NAME] with labels and endpoints",
        ));
        return;
    };
    let mut service = Service {
        id: ServiceId::from(name),
        name: name.to_owned(),
        version: Version(0),
        created_at: String::new(),
        updated_at: None,
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        endpoint_mode: EndpointMode::Dnsrr,
        virtual_ips: Vec::new(),
        ports: Vec::new(),
        networks: Vec::new(),
        has_health_check: false,
    };
    let mut endpoints = Vec::new();
    let mut is_wrong = false;
    for (key, value) in table {
        match (key.as_str(), value) {
            ("labels", Value::Table(labels)) => {
                for (label, value) in labels {
                    let text = if let Value::String(text) = value {
                        text
                    } else {
                        value.to_string()
                    };
                    service.labels.insert(label, text);
                }
            }
            ("labels", _) => {
                is_wrong = true;
                file.diagnostics.push(error(
                    "labels",
                    "is no table",
                    "write { \"tidegate.hosts\" = \"shop.example.org\" }",
                ));
            }
            ("endpoints", Value::Array(items)) => {
                for item in items {
                    match item.as_str().ok_or("is no text").and_then(endpoint) {
                        Ok(endpoint) => endpoints.push(endpoint),
                        Err(problem) => {
                            is_wrong = true;
                            let problem = format!("{item} {problem}");
                            file.diagnostics.push(error(
                                "endpoints",
                                &problem,
                                "write \"host:port\", e.g. \"127.0.0.1:9001\"",
                            ));
                        }
                    }
                }
            }
            ("endpoints", _) => {
                is_wrong = true;
                file.diagnostics
                    .push(error("endpoints", "is no list", "write [\"127.0.0.1:9001\"]"));
            }
            (unknown, _) => {
                let hint = nearest(unknown, ["labels", "endpoints"].into_iter());
                let remedy = hint.map_or("take it away".to_string(), |near| format!("did you mean {near}?"));
                let problem = "is no key of a service, and is ignored".to_string();
                file.diagnostics
                    .push(finding(name, unknown, Severity::Warning, problem, remedy));
            }
        }
    }
    let reading = labels::read(&service);
    let says_nothing = reading.route.is_none() && reading.diagnostics.is_empty();
    file.diagnostics.extend(reading.diagnostics);
    if says_nothing {
        file.diagnostics.push(error(
            "labels",
            "names no route",
            "add a label, e.g. \"tidegate.hosts\" = \"shop.example.org\"",
        ));
    }
    if let (Some(mut route), false) = (reading.route, is_wrong) {
        // One process serves one table: everybody in the file belongs to it.
        route.cluster = ClusterName::default_cluster();
        file.services.push(FileService {
            service,
            route,
            endpoints,
        });
    }
}

fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(Endpoint {
            host: addr.ip().to_string(),
            port: addr.port(),
        });
    }
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or("has no port from 1 to 65535")?;
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if is_name {
        Ok(Endpoint {
            host: host.to_owned(),
            port,
        })
    } else {
        Err("names no host")
    }
}

/// On one line, for logs.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message().replace('\n', ", "))
}

fn finding(service: &str, key: &str, severity: Severity, problem: String, remedy: String) -> Diagnostic {
    Diagnostic {
        service: service.to_owned(),
        label: key.to_owned(),
        value: String::new(),
        severity,
        problem,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_services_with_labels_and_endpoints() {
        let file = read(
            "[services.shop]\nlabels = { \"tidegate.hosts\" = \"shop.example.org\" }\n\
             endpoints = [\"127.0.0.1:9001\", \"[::1]:9002\", \"app.internal:80\"]\n",
        )
        .unwrap();
        assert_eq!(file.diagnostics, []);
        let local = |endpoint: &Endpoint| endpoint.host.parse().ok().into_iter().collect();
        let spec = file.services[0].spec(local);
        let addresses: Vec<String> = spec
            .endpoints
            .iter()
            .map(|endpoint| endpoint.addr.to_string())
            .collect();
        assert_eq!(
            addresses,
            ["127.0.0.1:9001", "[::1]:9002"],
            "a name that is not resolved has no endpoint"
        );
    }

    #[test]
    fn a_syntax_error_says_where_it_is() {
        let error = read("[services.shop\nlabels = 1").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn one_wrong_service_leaves_the_others() {
        let file = read(
            "[services.a]\nlabels = { \"tidegate.hosts\" = \"a.example.org\" }\nendpoints = [\"127.0.0.1\"]\n\
             [services.b]\nlabels = { \"tidegate.hosts\" = \"b.example.org\" }\nendpoint = [\"127.0.0.1:1\"]\n\
             [services.c]\nendpoints = []\n",
        )
        .unwrap();
        let names: Vec<&str> = file
            .services
            .iter()
            .map(|service| service.service.name.as_str())
            .collect();
        assert_eq!(names, ["b"]);
        let findings: Vec<String> = file.diagnostics.iter().map(ToString::to_string).collect();
        assert!(
            findings.iter().any(|text| text.contains("has no port")),
            "{findings:#?}"
        );
        assert!(
            findings.iter().any(|text| text.contains("did you mean endpoints?")),
            "{findings:#?}"
        );
        assert!(
            findings.iter().any(|text| text.contains("names no route")),
            "{findings:#?}"
        );
    }
}
