//! `tidegate prove`: updates services of the Swarm under a load of its own, and says what that cost and what to change.
//! What it means is core's, see [`tidegate_core::prove`].

mod load;
mod roll;

use std::future::Future;
use std::io::{BufRead as _, IsTerminal as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tidegate_core::id::ClusterName;
use tidegate_core::labels::{LabelledRoute, read};
use tidegate_core::prove::{Ending, HealthCheck, Subject, judge};
use tidegate_core::reconcile::desired::{CLUSTER_LABEL, ROLE_LABEL};
use tidegate_core::reconcile::proxy::{PROXY_HTTP_PORT, PROXY_HTTPS_PORT};
use tidegate_core::swarm::model::{ApiError, NodeState, PublishMode, Service};
use tidegate_docker::Docker;
use tidegate_docker::prove::Inspected;

use self::load::{Load, Request, Tls};
use super::{Failure, run::docker};
use crate::cli::{EXIT_FINDING, ProveArgs};
use crate::clock::Clock;
use crate::config;
use crate::net::{Net, TokioNet};

/// For one call to Docker.
const CALL: Duration = Duration::from_secs(10);
/// Load before the update: what fails then is not its fault.
const BEFORE: Duration = Duration::from_secs(2);
/// Begins an entrance that is spoken HTTPS to.
const HTTPS: &str = "https://";
/// Host of requests to a service that is the default for hosts that nobody claims.
const UNCLAIMED: &str = "prove.invalid";

/// A service that can be proved.
struct Candidate {
    service: Service,
    route: LabelledRoute,
}

pub(super) async fn run(args: ProveArgs) -> Result<ExitCode, Failure> {
    let settings = config::settings(&args.settings, std::env::vars()).map_err(Failure::usage)?;
    let api = docker(&settings.controller)?;
    let services = call(api.services(&[])).await?;
    let (candidates, refused) = choose(services, &args.target)?;
    for line in &refused {
        println!("{line}");
    }
    if candidates.is_empty() {
        return Ok(ExitCode::from(EXIT_FINDING));
    }
    confirm(&args, &candidates)?;
    let mut is_clean = refused.is_empty();
    for candidate in &candidates {
        is_clean &= prove(&api, &args, candidate).await?;
    }
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FINDING)
    })
}

/// A call to Docker within its limit.
async fn call<T>(asked: impl Future<Output = Result<T, ApiError>>) -> Result<T, Failure> {
    match tokio::time::timeout(CALL, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::unreachable(format!("error: {error}"))),
        Err(_) => Err(Failure::unreachable(format!(
            "error: Docker gives no answer within {} s",
            CALL.as_secs()
        ))),
    }
}

/// The service of this name, or the routed ones of the stack of this name; and what is to be said of those that are not routed.
fn choose(services: Vec<Service>, target: &str) -> Result<(Vec<Candidate>, Vec<String>), Failure> {
    let is_service = services.iter().any(|service| service.name == target);
    let (mut candidates, mut refused, mut unlabelled) = (Vec::new(), Vec::new(), Vec::new());
    for service in services {
        let is_meant = if is_service {
            service.name == target
        } else {
            service.stack() == Some(target)
        };
        if !is_meant {
            continue;
        }
        let reading = read(&service);
        match reading.route {
            Some(route) => candidates.push(Candidate { service, route }),
            None if reading.diagnostics.is_empty() => unlabelled.push(service.name),
            None => refused.extend(reading.diagnostics.iter().map(ToString::to_string)),
        }
    }
    if candidates.is_empty() && refused.is_empty() {
        return Err(Failure::usage(match unlabelled.is_empty() {
            true => format!("error: {target}: there is no service and no stack of this name: see `docker service ls`"),
            false => format!(
                "error: {target}: Tidegate routes nothing to {}: give it the labels tidegate.hosts and tidegate.port",
                unlabelled.join(", ")
            ),
        }));
    }
    Ok((candidates, refused))
}

/// Nothing is updated that nobody agreed to.
fn confirm(args: &ProveArgs, candidates: &[Candidate]) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let names: Vec<&str> = candidates
        .iter()
        .map(|candidate| candidate.service.name.as_str())
        .collect();
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "error: this replaces every task of a service: say so with --yes where nobody can be asked",
        ));
    }
    println!(
        "Every task of {} is replaced now, as its update settings say, under {} requests a second. Write yes to go on:",
        names.join(", "),
        args.rate
    );
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).ok();
    match line.trim() {
        "yes" | "y" => Ok(()),
        _ => Err(Failure::usage("nothing was changed")),
    }
}

/// Whether not a request failed.
async fn prove(api: &Docker, args: &ProveArgs, candidate: &Candidate) -> Result<bool, Failure> {
    let Candidate { service, route } = candidate;
    let host = host(route);
    let wants_tls = args.entrance.iter().any(|entrance| entrance.starts_with(HTTPS));
    let tls = match route.tls.passthrough || route.tls.only || wants_tls {
        true => Some(Tls::to(&host).map_err(|error| Failure::usage(format!("error: {}: {error}", service.name)))?),
        false => None,
    };
    let request = Request {
        entrances: entrances(api, args, &route.cluster, tls.is_some()).await?,
        host,
        path: args.path.clone().unwrap_or_else(|| route.path.to_string()),
        method: args.method.clone(),
        tls,
    };
    let inspected = call(api.inspect_service(&service.id)).await?;
    let tasks = call(api.tasks_and_exits(&service.id)).await?;
    let running = tasks.iter().filter(|(task, _)| task.is_serving()).count() as u64;
    let subject = subject(api, candidate, &inspected, running).await?;
    println!(
        "service   {}: {} tasks, {}, {} at a time, on failure {}",
        service.name,
        subject.replicas,
        if subject.start_first {
            "start-first"
        } else {
            "stop-first"
        },
        match subject.parallelism {
            0 => "all".to_owned(),
            tasks => tasks.to_string(),
        },
        subject.failure_action,
    );
    println!("load      {request}, {} a second", args.rate);

    let clock = Clock::system();
    let load = Load::start(clock, request, args.rate, Duration::from_secs(args.timeout));
    clock.pause(BEFORE).await;
    let before = load.account();
    println!("before    {before}");
    if before.failed() > 0 || before.requests() == 0 {
        let account = load.finish().await;
        for (cause, count) in &account.failures {
            println!("    {count} × {cause}");
        }
        println!("requests fail already, so nothing was updated: see `tidegate explain`, and whether the tasks run");
        return Ok(false);
    }
    let mut seen = roll::roll(api, clock, service, &inspected, Duration::from_secs(args.limit)).await?;
    clock.pause(Duration::from_secs(args.after)).await;
    seen.account = load.finish().await;
    println!("requests  {}", seen.account);
    for (cause, count) in &seen.account.failures {
        println!("    {count} × {cause}");
    }
    let advice = judge(&subject, &seen);
    for advice in &advice {
        println!("{advice}");
    }
    let is_clean = seen.account.failed() == 0 && seen.ending == Ending::Completed;
    println!(
        "result    {}: {}",
        service.name,
        match (is_clean, advice.is_empty()) {
            (true, true) => "clean: an update loses nothing",
            (true, false) => "clean this time; the advice above is for the next",
            (false, _) => "not clean",
        }
    );
    Ok(is_clean)
}

/// A host that the route has.
fn host(route: &LabelledRoute) -> String {
    let exact = route.hosts.iter().find(|host| host.wildcard_suffix().is_none());
    match exact.or(route.hosts.first()) {
        None => UNCLAIMED.to_owned(),
        Some(host) => match host.wildcard_suffix() {
            None => host.to_string(),
            Some(suffix) => format!("prove.{suffix}"),
        },
    }
}

async fn subject(api: &Docker, candidate: &Candidate, inspected: &Inspected, running: u64) -> Result<Subject, Failure> {
    let (service, shape) = (&candidate.service, &inspected.shape);
    let health = match shape.health_command.first().map(String::as_str) {
        Some("NONE") => HealthCheck::Missing,
        Some(_) => HealthCheck::Present,
        None => match call(api.image_has_health_check(&shape.image)).await? {
            Some(true) => HealthCheck::Present,
            Some(false) => HealthCheck::Missing,
            None => HealthCheck::Unknown,
        },
    };
    let short = service
        .stack()
        .and_then(|stack| service.name.strip_prefix(stack)?.strip_prefix('_'));
    let target = service.ports.iter().find(|port| port.tcp).map(|port| port.target);
    Ok(Subject {
        name: short.unwrap_or(&service.name).to_owned(),
        port: candidate.route.port.or(target).unwrap_or(8080),
        replicas: shape.replicas.unwrap_or(running),
        is_global: shape.replicas.is_none(),
        health,
        start_first: shape.update.start_first,
        parallelism: shape.update.parallelism,
        failure_action: shape.update.failure_action.clone(),
        stop_grace_ms: shape.stop_grace_ms,
        host_port: service
            .ports
            .iter()
            .filter(|port| port.mode == PublishMode::Host)
            .find_map(|port| port.published),
    })
}

/// Where the service cluster's proxies take requests, unless the operator says where to knock.
async fn entrances(
    api: &Docker,
    args: &ProveArgs,
    cluster: &ClusterName,
    is_https: bool,
) -> Result<Vec<SocketAddr>, Failure> {
    let (target, usual, scheme) = match is_https {
        true => (PROXY_HTTPS_PORT, 443, "https"),
        false => (PROXY_HTTP_PORT, 80, "http"),
    };
    let mut found = Vec::new();
    for entrance in &args.entrance {
        let bare = entrance.trim_start_matches("http://").trim_start_matches(HTTPS);
        let bare = bare.trim_end_matches('/');
        let (name, port) = bare
            .rsplit_once(':')
            .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
            .unwrap_or((bare, usual));
        let addresses = TokioNet.resolve(name.trim_matches(['[', ']']), port).await;
        let addresses = addresses.map_err(|error| {
            Failure::usage(format!(
                "error: --entrance {entrance}: {error}; write {scheme}://node:port"
            ))
        })?;
        found.extend(addresses);
    }
    if !found.is_empty() {
        return Ok(found);
    }
    let missing = |what: &str| {
        Failure::usage(format!(
            "error: {what}; say where they are with --entrance {scheme}://node:port"
        ))
    };
    let managed = call(api.managed_services()).await?;
    let is_label = |service: &&_, label: &str, value: &str| {
        let service: &&tidegate_core::reconcile::desired::ManagedService = service;
        service.shape.labels.get(label).is_some_and(|text| text == value)
    };
    let proxies = managed
        .iter()
        .find(|service| is_label(service, ROLE_LABEL, "proxy") && is_label(service, CLUSTER_LABEL, cluster.as_str()))
        .ok_or_else(|| missing(&format!("the service cluster {cluster} has no proxies here")))?;
    let port = proxies
        .shape
        .ports
        .iter()
        .find(|port| port.target == target)
        .and_then(|port| Some((port.published?, port.mode)));
    let (port, mode) = port.ok_or_else(|| missing(&format!("the proxies publish no port for {scheme}")))?;
    let of_proxies = call(api.tasks(std::slice::from_ref(&proxies.id))).await?;
    for node in call(api.nodes()).await? {
        let has_one = of_proxies
            .iter()
            .any(|task| task.is_serving() && task.node.as_ref() == Some(&node.id));
        if let (Some(addr), NodeState::Ready, true) = (node.addr, node.state, has_one || mode == PublishMode::Ingress) {
            found.push(SocketAddr::new(addr, port));
        }
    }
    match found.is_empty() {
        true => Err(missing("no node with a proxy is ready")),
        false => Ok(found),
    }
}
