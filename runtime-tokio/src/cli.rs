//! Flags and environment, parsed once. Every option is a flag and an environment variable; settings of the controller and of
//! service clusters are also keys of the settings file (see `--set`).

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod recording;
mod watch;
pub use recording::{RecordArgs, ReplayArgs};
pub use watch::WatchArgs;

/// Exit code of a finding: unhealthy, or a check that failed.
pub const EXIT_FINDING: u8 = 1;
/// Exit code of wrong usage, wrong settings included.
pub const EXIT_USAGE: u8 = 2;
/// Exit code where Docker or the control plane cannot be reached.
pub const EXIT_UNREACHABLE: u8 = 3;

/// `0.1.0 (27b903b2)`: the revision where the build was told it, as `deploy/build-image` does.
pub(crate) fn version() -> &'static str {
    static VERSION: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let revision = option_env!("TIDEGATE_REVISION").filter(|revision| !revision.is_empty());
        let revision = revision.map_or(String::new(), |revision| format!(" ({revision})"));
        format!("{}{revision}", env!("CARGO_PKG_VERSION"))
    });
    &VERSION
}

/// Layer-7 router for Docker Swarm: users reach services by domain name.
///
/// On a Swarm, `docker stack deploy -c deploy/tidegate.yml tidegate` starts the controllers, and they keep the proxies.
/// Without one, try `tidegate demo`, or `tidegate run --source file:routes.toml`.
///
/// Exit codes: 0 ok, 1 finding or unhealthy, 2 usage, 3 cannot reach Docker or the control plane.
#[derive(Clone, Debug, Parser)]
#[command(name = "tidegate", version = version(), max_term_width = 120)]
pub struct Cli {
    /// Log filter, e.g. `info`, `debug`, or `tidegate=debug,info`.
    #[arg(
        long,
        env = "TIDEGATE_LOG",
        default_value = "info",
        global = true,
        value_name = "FILTER"
    )]
    pub log: String,
    /// Log format.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub role: Role,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What a process does.
#[derive(Clone, Debug, Subcommand)]
pub enum Role {
    /// Watches the Swarm, publishes tables and keeps the proxy services. Runs on managers.
    Controller(ControllerArgs),
    /// Hands the secrets that labels name to the controllers, which give proxies what they use. Controllers keep it.
    Courier(CourierArgs),
    /// Shows it all on this machine: a simulated Swarm with three real HTTP services, updated all the time. No Docker needed.
    Demo(DemoArgs),
    /// Says why a URL is answered as it is: rule, service, label, endpoints and their states.
    Explain(ExplainArgs),
    /// Exit 0 if the process beside this one is ready.
    Healthcheck(AskArgs),
    /// Makes a settings file of another router's, and says line by line what is kept, changed or lost.
    Import(ImportArgs),
    /// Opens connections inside one network for proxies that are not on it. Started by controllers.
    Leg(LegArgs),
    /// Updates a service, or each routed service of a stack, under a load of its own, and says what to change in its stack file
    /// where a request failed.
    ///
    /// It sends requests to the proxies for 2 s, and goes on only if none fails. Then it replaces every task, as `docker service
    /// update --force` does, with the service's own update settings, and sends on until the old tasks have ended. It prints
    /// requests, failures by cause (with Tidegate's own reason where it answered), the longest wait, and settings to change, as
    /// lines of the stack file: `fix` for what explains a failure, `advice` for what may fail another time.
    ///
    /// `tidegate prove shop --yes`
    /// `tidegate prove shop_web --entrance http://node-1:80 --path /health --rate 200`
    ///
    /// Run it on a manager, where Docker is, or name one with `--set controller.docker=tcp://manager:2375`.
    ///
    /// Exit codes: 0 no request failed, 1 a request failed or the update did not end well, 2 usage, 3 cannot reach Docker.
    #[command(verbatim_doc_comment)]
    Prove(ProveArgs),
    /// Takes users' requests to tasks, by the tables of a controller.
    Proxy(ProxyArgs),
    /// Prints what the controller beside this one recorded lately, for `tidegate replay`.
    ///
    /// `docker exec CONTROLLER /tidegate recording > incident.jsonl`. The controller records where it is started with `--record`.
    ///
    /// Exit codes: 0 ok, 1 nothing is recorded, 3 the process does not answer.
    #[command(verbatim_doc_comment)]
    Recording(AskArgs),
    /// Runs what a controller recorded, prints each decision, and says where this program decides otherwise.
    ///
    /// FILE is what `tidegate recording` printed. Decisions that differ from the recorded ones are marked with `!`.
    /// `--save-test core/tests/incidents/NAME` makes a regression test of it: the recording from `--since` to `--until`, and what
    /// this program decides.
    ///
    /// `tidegate replay incident.jsonl --since 2026-11-25T12:03:00Z --until 2026-11-25T12:04:00Z`
    ///
    /// Exit codes: 0 all is decided as recorded, 1 something is not, 2 usage or a file that cannot be read.
    #[command(verbatim_doc_comment)]
    Replay(ReplayArgs),
    /// Prints the table and what is wrong with labels.
    Routes(RoutesArgs),
    /// Controller and proxy in one process, for one node or for routes from a file.
    Run(RunArgs),
    /// Prints the state of the process beside this one.
    Status(AskArgs),
    /// Prints the table that stack files would give, and what is wrong with their labels. No Docker needed.
    ///
    /// FILE is a stack file, a settings file, Interlock's config.toml, or a file of routes as `run --source file:` takes it.
    /// Later stack files are laid over earlier ones, as by `docker stack deploy -c a.yml -c b.yml`; ${VARIABLES} come from
    /// the environment. Each replica becomes an endpoint with a made-up address that depends on its name alone.
    ///
    /// In your CI, `tidegate table shop.yml --check routes.txt` shows what differs; `--write routes.txt` accepts it.
    ///
    /// Exit codes: 0 ok, 1 a label is refused or the table differs, 2 usage or a file that cannot be read.
    Table(TableArgs),
}

/// Options of `import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// Whose file it is.
    #[command(subcommand)]
    pub source: ImportSource,
}

/// Files that can be imported.
#[derive(Clone, Debug, Subcommand)]
pub enum ImportSource {
    /// Interlock's config.toml, as `docker config inspect --pretty com.docker.ucp.interlock.conf-1` shows it.
    ///
    /// The settings go to standard output, the report to standard error: `FILE:LINE: kept, changed, not needed or LOST:
    /// option: what became of it`. Labels of services need no import: com.docker.lb.* is read as it is.
    ///
    /// Exit codes: 0 all is carried, 1 something is lost, 2 the file cannot be read.
    Interlock(InterlockArgs),
}

/// Options of `import interlock`.
#[derive(Args, Clone, Debug)]
pub struct InterlockArgs {
    /// Interlock's file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the settings here instead of to standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Form of the report.
    #[arg(long, default_value = "text")]
    pub report: ReportFormat,
}

/// How a report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A list of objects.
    Json,
    /// A line for each option.
    Text,
}

/// Where settings come from.
#[derive(Args, Clone, Debug)]
pub struct SettingsArgs {
    /// Settings file (TOML), see docs/settings.md.
    #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting by its key in the file, e.g. `clusters.default.http_port=8080`; wins over environment and file. The
    /// same as an environment variable: `TIDEGATE_CLUSTERS__DEFAULT__HTTP_PORT=8080`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Where a process answers about itself.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Address of the admin listener; loopback, or an address of the control network.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:7172", value_name = "ADDR")]
    pub admin: SocketAddr,
    /// Also answer on this port of the process's own address on the control network, e.g. for Prometheus; 0 = no.
    #[arg(long, env = "TIDEGATE_ADMIN_CONTROL_PORT", default_value_t = 0, value_name = "PORT")]
    pub admin_control_port: u16,
}

/// Options of `controller`.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Admin listener.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Flight recorder.
    #[command(flatten)]
    pub record: RecordArgs,
    /// How task changes are learnt.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Name of the controllers' own Swarm service; without it no proxies are kept.
    #[arg(long = "self", env = "TIDEGATE_SELF", value_name = "SERVICE")]
    pub service: Option<String>,
    /// Name of this task, for people.
    #[arg(long, env = "TIDEGATE_TASK", default_value = "controller", value_name = "NAME")]
    pub task: String,
    /// Folder of the mounted authorities.
    #[arg(long, env = "TIDEGATE_SECRETS", default_value = "/run/secrets", value_name = "DIR")]
    pub secrets: PathBuf,
}

/// Options of `courier`.
#[derive(Args, Clone, Debug)]
pub struct CourierArgs {
    /// Admin listener.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Controllers as `host:port`; a name may stand for many.
    #[arg(long, env = "TIDEGATE_CONTROLLER", value_name = "HOST:PORT")]
    pub controller: String,
    /// Name of this task, for people.
    #[arg(long, env = "TIDEGATE_TASK", default_value = "courier", value_name = "NAME")]
    pub task: String,
    /// Folder of the mounted secrets; its own identity is among them.
    #[arg(long, env = "TIDEGATE_SECRETS", default_value = "/run/secrets", value_name = "DIR")]
    pub secrets: PathBuf,
}

/// How requests are taken and logged.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// Address for users' HTTP.
    #[arg(long, env = "TIDEGATE_HTTP", default_value = "0.0.0.0:8080", value_name = "ADDR")]
    pub http: SocketAddr,
    /// Address for users' HTTPS and TLS passthrough; without it there is none.
    #[arg(long, env = "TIDEGATE_HTTPS", value_name = "ADDR")]
    pub https: Option<SocketAddr>,
    /// Folder with the certificates and keys that labels name, one file each; mounted Docker secrets are there. Changes are picked up live.
    #[arg(
        long,
        env = "TIDEGATE_CERTIFICATES",
        default_value = "/run/secrets",
        value_name = "DIR"
    )]
    pub certificates: PathBuf,
    /// Threads that serve; 0 = one per core.
    #[arg(long, env = "TIDEGATE_WORKERS", default_value_t = 0, value_name = "N")]
    pub workers: usize,
    /// Access log on standard output.
    #[arg(long, env = "TIDEGATE_ACCESS_LOG", default_value = "common")]
    pub access_log: AccessLogFormat,
    /// Form of access lines in place of `common`: text with NGINX's variables, e.g. `$remote_addr "$request" $status`.
    #[arg(long, env = "TIDEGATE_ACCESS_LOG_FORMAT", default_value = "", value_name = "FORMAT")]
    pub access_log_format: String,
    /// Files that this process may have open; 0 = as many as the system lets it.
    #[arg(long, env = "TIDEGATE_OPEN_FILES", default_value_t = 0, value_name = "N")]
    pub open_files: u64,
    /// Parts that the access log leaves out, with commas: `client`, `query`, `user-agent`, `referer`.
    #[arg(
        long,
        env = "TIDEGATE_ACCESS_LOG_REDACT",
        value_delimiter = ',',
        value_name = "PARTS"
    )]
    pub access_log_redact: Vec<String>,
}

/// How access lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogFormat {
    /// Common log format with referer and user agent.
    Common,
    /// One JSON object a line.
    Json,
    /// None.
    Off,
}

/// Options of `proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// How requests are taken.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Admin listener.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Controllers as `host:port`; a name may stand for many.
    #[arg(long, env = "TIDEGATE_CONTROLLER", value_name = "HOST:PORT")]
    pub controller: String,
    /// Take the secrets that labels name from a controller, which has them of the courier; without it they are files in the
    /// folder of `--certificates`.
    #[arg(long, env = "TIDEGATE_COURIER", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub courier: bool,
    /// Service cluster.
    #[arg(long, env = "TIDEGATE_CLUSTER", default_value = "default", value_name = "NAME")]
    pub cluster: String,
    /// Name of this proxy.
    #[arg(long, env = "TIDEGATE_TASK", default_value = "proxy", value_name = "NAME")]
    pub task: String,
    /// File with this proxy's identity.
    #[arg(
        long,
        env = "TIDEGATE_IDENTITY",
        default_value = "/run/secrets/tidegate-identity",
        value_name = "FILE"
    )]
    pub identity: PathBuf,
    /// Folder where legs are met, if there are any.
    #[arg(long, env = "TIDEGATE_LEGS_DIR", value_name = "DIR")]
    pub legs_dir: Option<PathBuf>,
    /// Folder where the last good table is kept.
    #[arg(
        long,
        env = "TIDEGATE_STATE_DIR",
        default_value = "/var/lib/tidegate",
        value_name = "DIR"
    )]
    pub state_dir: PathBuf,
}

/// Options of `leg`.
#[derive(Args, Clone, Debug)]
pub struct LegArgs {
    /// Id of the network.
    #[arg(long, env = "TIDEGATE_NETWORK", value_name = "ID")]
    pub network: String,
    /// Folder where proxies are met.
    #[arg(
        long,
        env = "TIDEGATE_LEGS_DIR",
        default_value = "/var/lib/tidegate-legs",
        value_name = "DIR"
    )]
    pub legs_dir: PathBuf,
    /// Address ranges that may be dialled, with commas; without them those of this process's own networks, but for the
    /// one that leads to the world outside.
    #[arg(long, env = "TIDEGATE_INSIDE", value_delimiter = ',', value_name = "RANGES")]
    pub inside: Vec<String>,
}

/// Options of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// `docker`, or `file:PATH` of a TOML file with services; edits of the file are picked up live.
    #[arg(long, env = "TIDEGATE_SOURCE", default_value = "docker", value_name = "SOURCE")]
    pub source: Source,
    /// How requests are taken.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Admin listener.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Flight recorder of the controller, with the source `docker`.
    #[command(flatten)]
    pub record: RecordArgs,
    /// How task changes are learnt, with the source `docker`.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// Where routes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Swarm manager.
    Docker,
    /// A file.
    File(PathBuf),
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "docker" => Ok(Source::Docker),
            Some(("file", path)) if !path.is_empty() => Ok(Source::File(PathBuf::from(path))),
            _ => Err(format!("{text:?} is no source; write docker or file:routes.toml")),
        }
    }
}

/// Options of commands that ask another process.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// Admin listener of the process to ask.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:7172", value_name = "ADDR")]
    pub admin: SocketAddr,
}

/// Options of `routes`.
#[derive(Args, Clone, Debug)]
pub struct RoutesArgs {
    /// The process to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Read `file:PATH` instead of asking a process.
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<Source>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The URL, e.g. `http://shop.example.org/cart`.
    pub url: String,
    /// The process to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Read `file:PATH` instead of asking a process.
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<Source>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `table`.
#[derive(Args, Clone, Debug)]
pub struct TableArgs {
    /// Stack files, settings, or one file of routes.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The stack's name, as in `docker stack deploy -c FILE STACK`.
    #[arg(long, default_value = "stack", value_name = "NAME")]
    pub stack: String,
    /// Compare with this file: print what differs, exit 1 if anything does.
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "write")]
    pub check: Option<PathBuf>,
    /// Write to this file instead of to standard output.
    #[arg(long, value_name = "SNAPSHOT")]
    pub write: Option<PathBuf>,
    /// Add what becomes of this URL; may be given several times.
    #[arg(long, value_name = "URL")]
    pub explain: Vec<String>,
}

/// Options of `prove`.
#[derive(Args, Clone, Debug)]
pub struct ProveArgs {
    /// Name of a service, or of a stack: then each of its routed services, one after the other.
    #[arg(value_name = "SERVICE|STACK")]
    pub target: String,
    /// Where requests go; may be given several times. Without it, to every node of the service cluster's proxies. With
    /// https:// all requests are HTTPS, as they are to services that are served over nothing else.
    #[arg(long, value_name = "http[s]://NODE:PORT")]
    pub entrance: Vec<String>,
    /// Path of the requests, with query; without it the path that the service is routed by.
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub path: Option<String>,
    /// Method of the requests. They have no body, and other methods than GET may change something.
    #[arg(long, default_value = "GET", value_name = "METHOD")]
    pub method: http::Method,
    /// Requests a second.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Seconds for one request.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
    /// Seconds for the update.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub limit: u64,
    /// Seconds of load after the old tasks have ended.
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3_600))]
    pub after: u64,
    /// Update without asking.
    #[arg(long)]
    pub yes: bool,
    /// Settings; `controller.docker` is where Docker is.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// A path as a request has it.
fn path(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(path) if text.starts_with('/') => Ok(path.to_string()),
        _ => Err("write a path that begins with /".to_owned()),
    }
}

/// Options of `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Runs a fixed script under load, prints a summary, and exits 0 only if no request failed.
    #[arg(long)]
    pub once: bool,
    /// Address for users' HTTP; port 0 = a free one.
    #[arg(long, env = "TIDEGATE_HTTP", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub http: SocketAddr,
    /// Address of the admin listener; port 0 = a free one.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:7172", value_name = "ADDR")]
    pub admin: SocketAddr,
    /// Requests a second of the demo's own load.
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub rate: u32,
    /// Flight recorder of its controller.
    #[command(flatten)]
    pub record: RecordArgs,
    /// Seed of the demo's chance.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_source_is_docker_or_a_file() {
        assert_eq!("docker".parse(), Ok(Source::Docker));
        assert_eq!(
            "file:routes.toml".parse(),
            Ok(Source::File(PathBuf::from("routes.toml")))
        );
        assert!(
            "routes.toml"
                .parse::<Source>()
                .unwrap_err()
                .contains("file:routes.toml")
        );
        assert!("file:".parse::<Source>().is_err());
    }
}
