//! Every option of Interlock's configuration, and what becomes of it here: what `tidegate import interlock` does, and a
//! table of `docs/interlock.md`.

/// Where an option stands in Interlock's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// At the top.
    Core,
    /// `[Extensions.NAME]`
    Extension,
    /// `[Extensions.NAME.Config]` of the NGINX extension; those that HAProxy's has too mean the same there.
    Nginx,
    /// `[Extensions.NAME.Config]` of the HAProxy extension alone.
    Haproxy,
}

/// How a value is written, and what it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A boolean.
    Flag,
    /// A table of texts.
    Map,
    /// A time with units; becomes milliseconds.
    Millis,
    /// A whole number.
    Number,
    /// A number of seconds; becomes milliseconds.
    Seconds,
    /// Bytes with `k`, `m` or `g`.
    Size,
    /// A text.
    Text,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The value of this key: of the service cluster, or with `controller.` in front of the controller.
    Key(&'static str, Form),
    /// Needs more than a new name.
    Special(Special),
    /// Nothing: Tidegate has nothing to set there.
    Needless,
    /// Nothing where it is empty or one of these; else it is lost, and the report says so.
    LostUnless(&'static [&'static str]),
}

/// Options that need more than a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Where access lines go.
    AccessLogPath,
    /// Ciphers of TLS 1.2.
    Ciphers,
    /// The options of the proxy's own configuration.
    Config,
    /// Placement constraints.
    Constraints,
    /// Raw lines of an NGINX file.
    Directives,
    /// The address of Docker.
    Docker,
    /// The extensions.
    Extensions,
    /// Number and size of buffers.
    HeaderBuffers,
    /// The version of HTTP to the apps.
    HttpVersion,
    /// The form of access lines.
    LogFormat,
    /// The networks of the proxies.
    Networks,
    /// How often Docker is asked.
    Poll,
    /// Placement preferences.
    Preferences,
    /// Versions of TLS.
    Protocols,
    /// How ports are published.
    PublishMode,
    /// Seconds between two reads from, or writes to, an app.
    Silence,
    /// The name of the service cluster.
    ServiceCluster,
    /// The name of the proxy service.
    ServiceName,
    /// How long a proxy may take to stop.
    StopGrace,
    /// Threads.
    Workers,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionRow {
    /// Where it stands.
    pub scope: Scope,
    /// Its name; written in any case.
    pub name: &'static str,
    /// What becomes of it.
    pub fate: Fate,
    /// What Tidegate has for it, or why it has nothing; for people.
    pub ours: &'static str,
    /// The test that shows it.
    pub test: &'static str,
}

const fn row(scope: Scope, name: &'static str, fate: Fate, ours: &'static str, test: &'static str) -> OptionRow {
    OptionRow {
        scope,
        name,
        fate,
        ours,
        test,
    }
}

/// The option with this name in any case.
pub fn option(scopes: &[Scope], name: &str) -> Option<&'static OptionRow> {
    OPTIONS
        .iter()
        .find(|row| scopes.contains(&row.scope) && row.name.eq_ignore_ascii_case(name))
}

use Fate::{Key, LostUnless, Needless};
use Form::{Flag, Map, Millis, Number, Seconds, Size, Text};
use Scope::{Core, Extension, Haproxy, Nginx};

/// Every option, in the order of Interlock's documentation.
#[rustfmt::skip]
pub const OPTIONS: &[OptionRow] = &[
    row(Core, "ListenAddr", Needless, "nothing of Interlock's connects to Tidegate; proxies connect to `controller.listen`", "option_listen_addr_is_not_needed"),
    row(Core, "DockerURL", Fate::Special(Special::Docker), "`controller.docker`", "option_docker_url_is_where_docker_answers"),
    row(Core, "TLSCACert", LostUnless(&[]), "none: controllers run on managers and speak to Docker's socket there", "option_tls_ca_cert_is_reported"),
    row(Core, "TLSCert", LostUnless(&[]), "none, as `TLSCACert`", "option_tls_cert_is_reported"),
    row(Core, "TLSKey", LostUnless(&[]), "none, as `TLSCACert`", "option_tls_key_is_reported"),
    row(Core, "AllowInsecure", LostUnless(&["false"]), "none, as `TLSCACert`", "option_allow_insecure_is_reported_where_it_is_on"),
    row(Core, "PollInterval", Fate::Special(Special::Poll), "`controller.poll_tasks_ms`: events come first, polling is the safety net; empty = events alone", "option_poll_interval_is_the_safety_net"),
    row(Core, "EndpointOverride", Needless, "proxies find controllers by the name of their service", "option_endpoint_override_is_not_needed"),
    row(Core, "Extensions", Fate::Special(Special::Extensions), "`[clusters.NAME]`, named by `ServiceCluster`", "option_extensions_are_service_clusters"),

    row(Extension, "Image", Needless, "there is no extension service: controllers make tables themselves", "option_image_is_not_needed"),
    row(Extension, "Args", Needless, "as `Image`; for `-D` there is `log = \"debug\"`", "option_args_is_not_needed"),
    row(Extension, "Labels", Needless, "as `Image`", "option_labels_is_not_needed"),
    row(Extension, "ContainerLabels", Needless, "as `Image`", "option_container_labels_is_not_needed"),
    row(Extension, "Constraints", Needless, "as `Image`", "option_constraints_is_not_needed"),
    row(Extension, "PlacementPreferences", Needless, "as `Image`", "option_placement_preferences_is_not_needed"),
    row(Extension, "ServiceName", Needless, "as `Image`", "option_service_name_is_not_needed"),
    row(Extension, "Networks", Fate::Special(Special::Networks), "`networks`: unset = those of all routed services, empty = none (host mode alone)", "option_networks_are_the_only_ones_that_proxies_use"),
    row(Extension, "ProxyImage", Needless, "proxies run Tidegate's own image (`image`)", "option_proxy_image_is_not_needed"),
    row(Extension, "ProxyArgs", LostUnless(&[]), "none: they are arguments of NGINX", "option_proxy_args_are_reported"),
    row(Extension, "ProxyLabels", Key("labels", Map), "`labels`", "option_proxy_labels_are_on_the_proxy_service"),
    row(Extension, "ProxyContainerLabels", Key("container_labels", Map), "`container_labels`", "option_proxy_container_labels_are_on_its_containers"),
    row(Extension, "ProxyServiceName", Fate::Special(Special::ServiceName), "`service_name`", "option_proxy_service_name_names_the_proxy_service"),
    row(Extension, "ProxyConfigPath", Needless, "proxies have no file; tables reach them live", "option_proxy_config_path_is_not_needed"),
    row(Extension, "ProxyReplicas", Key("replicas", Number), "`replicas`, 2 without it", "option_proxy_replicas_is_the_number_of_proxies"),
    row(Extension, "ProxyStopSignal", Key("stop_signal", Text), "`stop_signal`; SIGTERM, SIGQUIT and SIGINT all drain", "option_proxy_stop_signal_tells_proxies_to_drain"),
    row(Extension, "ProxyStopGracePeriod", Fate::Special(Special::StopGrace), "`stop_grace_ms`, and `proxy.drain_ms` below it", "option_proxy_stop_grace_period_is_kept_with_a_drain_below_it"),
    row(Extension, "ProxyConstraints", Fate::Special(Special::Constraints), "`constraints`; reach the live proxy service", "option_proxy_constraints_reach_the_live_service"),
    row(Extension, "ProxyPlacementPreferences", Fate::Special(Special::Preferences), "`spread`", "option_proxy_placement_preferences_spread_proxies"),
    row(Extension, "ProxyUpdateDelay", Key("update_delay_ms", Millis), "`update_delay_ms`; also `update_parallelism`, `update_start_first`, `update_failure_action`, `update_monitor_ms`", "option_proxy_update_delay_is_between_two_replacements"),
    row(Extension, "ServiceCluster", Fate::Special(Special::ServiceCluster), "the name of `[clusters.NAME]`; empty = `default`", "option_service_cluster_names_the_cluster"),
    row(Extension, "PublishMode", Fate::Special(Special::PublishMode), "`publish_mode`", "option_publish_mode_is_ingress_or_host"),
    row(Extension, "PublishedPort", Key("http_port", Number), "`http_port`", "option_published_port_is_where_users_reach_http"),
    row(Extension, "TargetPort", Needless, "inside its container a proxy listens on 8080", "option_target_port_is_not_needed"),
    row(Extension, "PublishedSSLPort", Key("https_port", Number), "`https_port`", "option_published_ssl_port_is_where_users_reach_https"),
    row(Extension, "TargetSSLPort", Needless, "inside its container a proxy listens on 8443", "option_target_ssl_port_is_not_needed"),
    row(Extension, "Template", LostUnless(&[]), "none: there is no NGINX file; most that templates were written for are labels", "option_template_is_reported"),
    row(Extension, "Config", Fate::Special(Special::Config), "see the next tables", "option_config_is_read_key_by_key"),
    row(Extension, "HitlessServiceUpdate", Needless, "always: no change of routes, certificates or endpoints replaces a proxy", "option_hitless_service_update_is_always_so"),
    row(Extension, "ConfigImage", Needless, "there is no config service", "option_config_image_is_not_needed"),
    row(Extension, "ConfigServiceName", Needless, "there is no config service", "option_config_service_name_is_not_needed"),

    row(Nginx, "Version", Needless, "`x-server-info` names Tidegate's version", "option_version_is_not_needed"),
    row(Nginx, "HTTPVersion", Fate::Special(Special::HttpVersion), "HTTP/1.1 with connections kept open; HTTP/2 by the label `backend_protocol`", "option_http_version_is_1_1_or_a_label"),
    row(Nginx, "User", Needless, "proxies run as nobody in particular (65532), without root", "option_user_is_not_needed"),
    row(Nginx, "PidPath", Needless, "there is no such file", "option_pid_path_is_not_needed"),
    row(Nginx, "WorkerProcesses", Fate::Special(Special::Workers), "`workers`: threads, one per core without it", "option_worker_processes_are_threads"),
    row(Nginx, "RLimitNoFile", Key("open_files_max", Number), "`open_files_max`; without it as many as the container may", "option_r_limit_no_file_is_the_limit_of_open_files"),
    row(Nginx, "MaxConnections", Key("proxy.connections_max", Number), "`proxy.connections_max`: client connections of each worker", "option_max_connections_is_per_worker"),
    row(Nginx, "ConnectTimeout", Key("proxy.connect_timeout_ms", Seconds), "`proxy.connect_timeout_ms`", "option_connect_timeout_is_kept"),
    row(Nginx, "SendTimeout", Fate::Special(Special::Silence), "`proxy.idle_timeout_ms`, which concerns both directions", "option_send_timeout_is_silence"),
    row(Nginx, "ReadTimeout", Fate::Special(Special::Silence), "`proxy.first_byte_timeout_ms` and `proxy.idle_timeout_ms`", "option_read_timeout_is_the_first_byte_and_silence"),
    row(Nginx, "IPHash", Key("ip_hash", Flag), "`ip_hash`: for services that say nothing else", "option_ip_hash_is_for_all_services"),
    row(Nginx, "SSLOpts", LostUnless(&[]), "none: they are lines of NGINX", "option_ssl_opts_are_reported"),
    row(Nginx, "SSLDefaultDHParam", Needless, "keys are exchanged over elliptic curves alone", "option_ssl_default_dh_param_is_not_needed"),
    row(Nginx, "SSLDefaultDHParamPath", Needless, "as `SSLDefaultDHParam`", "option_ssl_default_dh_param_path_is_not_needed"),
    row(Nginx, "SSLVerify", Needless, "clients are not asked for certificates, as Interlock's NGINX never did; `ssl_passthrough` lets the app ask", "option_ssl_verify_is_not_needed"),
    row(Nginx, "SSLCiphers", Fate::Special(Special::Ciphers), "`proxy.tls_ciphers`; without it all of TLS 1.3, and those of TLS 1.2 with forward secrecy", "option_ssl_ciphers_are_the_ones_that_are_spoken"),
    row(Nginx, "SSLProtocols", Fate::Special(Special::Protocols), "`proxy.tls_min_version`: `1.2` or `1.3`", "option_ssl_protocols_are_a_least_version"),
    row(Nginx, "HideInfoHeaders", Key("proxy.hide_info_headers", Flag), "`proxy.hide_info_headers`", "option_hide_info_headers_is_kept"),
    row(Nginx, "KeepaliveTimeout", Key("proxy.keepalive_timeout_ms", Millis), "`proxy.keepalive_timeout_ms`", "option_keepalive_timeout_is_kept"),
    row(Nginx, "ClientMaxBodySize", Key("proxy.body_bytes_max", Size), "`proxy.body_bytes_max`", "option_client_max_body_size_is_kept"),
    row(Nginx, "ClientBodyBufferSize", Needless, "bodies are passed on as they arrive", "option_client_body_buffer_size_is_not_needed"),
    row(Nginx, "ClientHeaderBufferSize", Needless, "grows as needed up to `proxy.header_bytes_max`", "option_client_header_buffer_size_is_not_needed"),
    row(Nginx, "LargeClientHeaderBuffers", Fate::Special(Special::HeaderBuffers), "`proxy.header_bytes_max`: all buffers together", "option_large_client_header_buffers_are_the_bytes_of_a_head"),
    row(Nginx, "ClientBodyTimeout", Key("proxy.body_timeout_ms", Millis), "`proxy.body_timeout_ms`", "option_client_body_timeout_is_kept"),
    row(Nginx, "UnderscoresInHeaders", Key("proxy.underscores_in_headers", Flag), "`proxy.underscores_in_headers`", "option_underscores_in_headers_is_kept"),
    row(Nginx, "ServerNamesHashBucketSize", Needless, "there is no such table", "option_server_names_hash_bucket_size_is_not_needed"),
    row(Nginx, "UpstreamZoneSize", Needless, "there is no such zone", "option_upstream_zone_size_is_not_needed"),
    row(Nginx, "GlobalOptions", Fate::Special(Special::Directives), "directives with a counterpart become settings, every other one is named", "option_global_options_are_read_line_by_line"),
    row(Nginx, "HTTPOptions", Fate::Special(Special::Directives), "as `GlobalOptions`", "option_http_options_are_read_line_by_line"),
    row(Nginx, "TCPOptions", Fate::Special(Special::Directives), "as `GlobalOptions`", "option_tcp_options_are_read_line_by_line"),
    row(Nginx, "AccessLogPath", Fate::Special(Special::AccessLogPath), "standard output, or `access_log = \"off\"`", "option_access_log_path_is_standard_output_or_off"),
    row(Nginx, "ErrorLogPath", Needless, "the log of the process is its standard error (`log`)", "option_error_log_path_is_not_needed"),
    row(Nginx, "MainLogFormat", Fate::Special(Special::LogFormat), "`access_log_format`, with NGINX's variables", "option_main_log_format_is_read_with_its_variables"),
    row(Nginx, "TraceLogFormat", Needless, "Interlock defines it and uses the main one", "option_trace_log_format_is_not_needed"),
    row(Nginx, "AdminUser", LostUnless(&[]), "none: the admin listener answers on loopback or the control network", "option_admin_user_is_reported"),
    row(Nginx, "AdminPass", LostUnless(&[]), "none, as `AdminUser`", "option_admin_pass_is_reported"),

    row(Haproxy, "ClientTimeout", Fate::Special(Special::Silence), "`proxy.idle_timeout_ms`", "option_client_timeout_is_silence"),
    row(Haproxy, "ServerTimeout", Fate::Special(Special::Silence), "`proxy.first_byte_timeout_ms` and `proxy.idle_timeout_ms`", "option_server_timeout_is_the_first_byte_and_silence"),
    row(Haproxy, "DefaultOptions", LostUnless(&[]), "none: they are lines of HAProxy", "option_default_options_are_reported"),
];
