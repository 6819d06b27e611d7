//! A test for each option of Interlock, named after it.

use tidegate_core::interlock::{Imported, Verdict, import};

/// What becomes of one line: at the top, in an extension, or in its `Config`.
fn imported(place: &str, line: &str) -> Imported {
    let file = match place {
        "Core" => format!("{line}\n[Extensions.default]\n"),
        "Extension" => format!("[Extensions.default]\n{line}\n"),
        _ => format!("[Extensions.default.Config]\n{line}\n"),
    };
    import(&file).expect("it is TOML")
}

/// `setting` is a line of our file.
#[track_caller]
fn expect(verdict: Verdict, place: &str, line: &str, setting: &str) {
    let imported = imported(place, line);
    let name = line.split(' ').next().expect("a name");
    let suffix = format!(".{name}");
    let found = imported
        .report
        .iter()
        .find(|found| found.option == name || found.option.ends_with(&suffix));
    let found = found.unwrap_or_else(|| panic!("{name} is not answered: {:?}", imported.report));
    assert_eq!(found.verdict, verdict, "{found}");
    assert!(
        imported.settings.contains(setting),
        "{setting:?} is not in:\n{}",
        imported.settings
    );
    assert_eq!(imported.loses(), verdict == Verdict::Lost);
}

#[test]
fn option_listen_addr_is_not_needed() {
    expect(Verdict::Needless, "Core", r#"ListenAddr = ":8080""#, "");
}

#[test]
fn option_docker_url_is_where_docker_answers() {
    expect(
        Verdict::Kept,
        "Core",
        r#"DockerURL = "tcp://10.0.0.1:2375""#,
        r#"docker = "tcp://10.0.0.1:2375""#,
    );
}

#[test]
fn option_tls_ca_cert_is_reported() {
    expect(Verdict::Lost, "Core", r#"TLSCACert = "/certs/ca.pem""#, "");
}

#[test]
fn option_tls_cert_is_reported() {
    expect(Verdict::Lost, "Core", r#"TLSCert = "/certs/cert.pem""#, "");
}

#[test]
fn option_tls_key_is_reported() {
    expect(Verdict::Lost, "Core", r#"TLSKey = "/certs/key.pem""#, "");
}

#[test]
fn option_allow_insecure_is_reported_where_it_is_on() {
    expect(Verdict::Lost, "Core", "AllowInsecure = true", "");
    expect(Verdict::Needless, "Core", "AllowInsecure = false", "");
}

#[test]
fn option_poll_interval_is_the_safety_net() {
    expect(Verdict::Kept, "Core", r#"PollInterval = "3s""#, "poll_tasks_ms = 3000");
    expect(Verdict::Changed, "Core", r#"PollInterval = """#, "poll_tasks_ms = 0");
    expect(
        Verdict::Changed,
        "Core",
        r#"PollInterval = "50ms""#,
        "poll_tasks_ms = 200",
    );
}

#[test]
fn option_endpoint_override_is_not_needed() {
    expect(Verdict::Needless, "Core", r#"EndpointOverride = "10.0.0.1:8080""#, "");
}

#[test]
fn option_extensions_are_service_clusters() {
    let imported = import("[Extensions.a]\nServiceCluster = \"east\"\n[Extensions.b]\n").unwrap();
    assert!(imported.settings.contains("[clusters.east]") && imported.settings.contains("[clusters.default]"));
    assert!(
        import("ListenAddr = \":8080\"\n").unwrap().loses(),
        "a file without extensions serves nothing"
    );
}

#[test]
fn option_image_is_not_needed() {
    expect(
        Verdict::Needless,
        "Extension",
        r#"Image = "docker/ucp-interlock-extension:3.1.6""#,
        "",
    );
}

#[test]
fn option_args_is_not_needed() {
    expect(Verdict::Needless, "Extension", r#"Args = ["-D"]"#, "");
}

#[test]
fn option_labels_is_not_needed() {
    expect(Verdict::Needless, "Extension", r#"Labels = { a = "b" }"#, "");
}

#[test]
fn option_container_labels_is_not_needed() {
    expect(Verdict::Needless, "Extension", r#"ContainerLabels = { a = "b" }"#, "");
}

#[test]
fn option_constraints_is_not_needed() {
    expect(
        Verdict::Needless,
        "Extension",
        r#"Constraints = ["node.role==manager"]"#,
        "",
    );
}

#[test]
fn option_placement_preferences_is_not_needed() {
    expect(
        Verdict::Needless,
        "Extension",
        r#"PlacementPreferences = ["spread=node.id"]"#,
        "",
    );
}

#[test]
fn option_service_name_is_not_needed() {
    expect(Verdict::Needless, "Extension", r#"ServiceName = "ext""#, "");
}

#[test]
fn option_networks_are_the_only_ones_that_proxies_use() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"Networks = ["edge"]"#,
        r#"networks = ["edge"]"#,
    );
    expect(Verdict::Kept, "Extension", "Networks = []", "networks = []");
}

#[test]
fn option_proxy_image_is_not_needed() {
    expect(Verdict::Needless, "Extension", r#"ProxyImage = "nginx:alpine""#, "");
}

#[test]
fn option_proxy_args_are_reported() {
    expect(Verdict::Lost, "Extension", r#"ProxyArgs = ["-g"]"#, "");
}

#[test]
fn option_proxy_labels_are_on_the_proxy_service() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyLabels = { team = "edge" }"#,
        r#"team = "edge""#,
    );
}

#[test]
fn option_proxy_container_labels_are_on_its_containers() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyContainerLabels = { team = "edge" }"#,
        "[clusters.default.container_labels]",
    );
}

#[test]
fn option_proxy_service_name_names_the_proxy_service() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyServiceName = "edge""#,
        r#"service_name = "edge""#,
    );
}

#[test]
fn option_proxy_config_path_is_not_needed() {
    expect(
        Verdict::Needless,
        "Extension",
        r#"ProxyConfigPath = "/etc/nginx/nginx.conf""#,
        "",
    );
}

#[test]
fn option_proxy_replicas_is_the_number_of_proxies() {
    expect(Verdict::Kept, "Extension", "ProxyReplicas = 3", "replicas = 3");
}

#[test]
fn option_proxy_stop_signal_tells_proxies_to_drain() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyStopSignal = "SIGQUIT""#,
        r#"stop_signal = "SIGQUIT""#,
    );
}

#[test]
fn option_proxy_stop_grace_period_is_kept_with_a_drain_below_it() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyStopGracePeriod = "60s""#,
        "stop_grace_ms = 60000",
    );
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyStopGracePeriod = "5s""#,
        "drain_ms = 4000",
    );
}

#[test]
fn option_proxy_constraints_reach_the_live_service() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyConstraints = ["node.labels.nodetype==loadbalancer"]"#,
        r#"constraints = ["node.labels.nodetype==loadbalancer"]"#,
    );
    let stock = r#"ProxyConstraints = ["node.labels.com.docker.ucp.orchestrator.swarm==true"]"#;
    expect(Verdict::Changed, "Extension", stock, "");
}

#[test]
fn option_proxy_placement_preferences_spread_proxies() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyPlacementPreferences = ["spread=node.labels.zone"]"#,
        r#"spread = ["node.labels.zone"]"#,
    );
}

#[test]
fn option_proxy_update_delay_is_between_two_replacements() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ProxyUpdateDelay = "30s""#,
        "update_delay_ms = 30000",
    );
}

#[test]
fn option_service_cluster_names_the_cluster() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"ServiceCluster = "us-east""#,
        "[clusters.us-east]",
    );
}

#[test]
fn option_publish_mode_is_ingress_or_host() {
    expect(
        Verdict::Kept,
        "Extension",
        r#"PublishMode = "host""#,
        r#"publish_mode = "host""#,
    );
    expect(Verdict::Lost, "Extension", r#"PublishMode = "anycast""#, "");
}

#[test]
fn option_published_port_is_where_users_reach_http() {
    expect(Verdict::Kept, "Extension", "PublishedPort = 8080", "http_port = 8080");
}

#[test]
fn option_target_port_is_not_needed() {
    expect(Verdict::Needless, "Extension", "TargetPort = 80", "");
}

#[test]
fn option_published_ssl_port_is_where_users_reach_https() {
    expect(
        Verdict::Kept,
        "Extension",
        "PublishedSSLPort = 8443",
        "https_port = 8443",
    );
}

#[test]
fn option_target_ssl_port_is_not_needed() {
    expect(Verdict::Needless, "Extension", "TargetSSLPort = 443", "");
}

#[test]
fn option_template_is_reported() {
    expect(Verdict::Lost, "Extension", r#"Template = "my-template""#, "");
}

#[test]
fn option_config_is_read_key_by_key() {
    let imported = imported("Config", "HideInfoHeaders = true\nNonsense = 1");
    assert!(imported.settings.contains("hide_info_headers = true"));
    assert!(
        imported
            .report
            .iter()
            .any(|line| line.verdict == Verdict::Lost && line.option.ends_with("Nonsense"))
    );
}

#[test]
fn option_hitless_service_update_is_always_so() {
    expect(Verdict::Needless, "Extension", "HitlessServiceUpdate = true", "");
}

#[test]
fn option_config_image_is_not_needed() {
    expect(
        Verdict::Needless,
        "Extension",
        r#"ConfigImage = "docker/ucp-interlock-config:3.2.3""#,
        "",
    );
}

#[test]
fn option_config_service_name_is_not_needed() {
    expect(
        Verdict::Needless,
        "Extension",
        r#"ConfigServiceName = "ucp-interlock-config""#,
        "",
    );
}

#[test]
fn option_version_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"Version = "3""#, "");
}

#[test]
fn option_http_version_is_1_1_or_a_label() {
    expect(Verdict::Needless, "Config", r#"HTTPVersion = "1.1""#, "");
    expect(Verdict::Lost, "Config", r#"HTTPVersion = "2""#, "");
}

#[test]
fn option_user_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"User = "nginx""#, "");
}

#[test]
fn option_pid_path_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"PidPath = "/run/x.pid""#, "");
}

#[test]
fn option_worker_processes_are_threads() {
    expect(Verdict::Kept, "Config", "WorkerProcesses = 4", "workers = 4");
    expect(Verdict::Needless, "Config", r#"WorkerProcesses = "auto""#, "");
    expect(Verdict::Changed, "Config", "WorkerProcesses = 1", "");
}

#[test]
fn option_r_limit_no_file_is_the_limit_of_open_files() {
    expect(
        Verdict::Kept,
        "Config",
        "RLimitNoFile = 65535",
        "open_files_max = 65535",
    );
    let said = imported("Config", "RlimitNoFile = 1000").settings;
    assert!(said.contains("open_files_max = 1000"), "both spellings of its vendor");
}

#[test]
fn option_max_connections_is_per_worker() {
    expect(
        Verdict::Kept,
        "Config",
        "MaxConnections = 2048",
        "connections_max = 2048",
    );
}

#[test]
fn option_connect_timeout_is_kept() {
    expect(
        Verdict::Kept,
        "Config",
        "ConnectTimeout = 5",
        "connect_timeout_ms = 5000",
    );
    expect(
        Verdict::Changed,
        "Config",
        "ConnectTimeout = 600",
        "connect_timeout_ms = 600000",
    );
}

#[test]
fn option_send_timeout_is_silence() {
    expect(Verdict::Kept, "Config", "SendTimeout = 600", "idle_timeout_ms = 600000");
}

#[test]
fn option_read_timeout_is_the_first_byte_and_silence() {
    expect(
        Verdict::Kept,
        "Config",
        "ReadTimeout = 120",
        "first_byte_timeout_ms = 120000",
    );
    let both = "ReadTimeout = 120\nSendTimeout = 60";
    expect(Verdict::Kept, "Config", both, "idle_timeout_ms = 120000");
}

#[test]
fn option_ip_hash_is_for_all_services() {
    expect(Verdict::Kept, "Config", "IPHash = true", "ip_hash = true");
}

#[test]
fn option_ssl_opts_are_reported() {
    expect(Verdict::Lost, "Config", r#"SSLOpts = "ssl_stapling on;""#, "");
}

#[test]
fn option_ssl_default_dh_param_is_not_needed() {
    expect(Verdict::Needless, "Config", "SSLDefaultDHParam = 1024", "");
}

#[test]
fn option_ssl_default_dh_param_path_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"SSLDefaultDHParamPath = "/dh.pem""#, "");
}

#[test]
fn option_ssl_verify_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"SSLVerify = "required""#, "");
}

#[test]
fn option_ssl_ciphers_are_the_ones_that_are_spoken() {
    expect(
        Verdict::Kept,
        "Config",
        r#"SSLCiphers = "ECDHE-RSA-AES256-GCM-SHA384""#,
        r#"tls_ciphers = ["ECDHE-RSA-AES256-GCM-SHA384"]"#,
    );
    expect(Verdict::Needless, "Config", r#"SSLCiphers = "HIGH:!aNULL:!MD5""#, "");
    expect(Verdict::Lost, "Config", r#"SSLCiphers = "RC4-SHA""#, "");
}

#[test]
fn option_ssl_protocols_are_a_least_version() {
    expect(
        Verdict::Kept,
        "Config",
        r#"SSLProtocols = "TLSv1.3""#,
        r#"tls_min_version = "1.3""#,
    );
    expect(
        Verdict::Changed,
        "Config",
        r#"SSLProtocols = "TLSv1.1 TLSv1.2""#,
        "tls_min_version = \"1.2\"",
    );
}

#[test]
fn option_hide_info_headers_is_kept() {
    expect(
        Verdict::Kept,
        "Config",
        "HideInfoHeaders = true",
        "hide_info_headers = true",
    );
}

#[test]
fn option_keepalive_timeout_is_kept() {
    expect(
        Verdict::Kept,
        "Config",
        r#"KeepaliveTimeout = "75s""#,
        "keepalive_timeout_ms = 75000",
    );
}

#[test]
fn option_client_max_body_size_is_kept() {
    expect(
        Verdict::Kept,
        "Config",
        r#"ClientMaxBodySize = "32m""#,
        "body_bytes_max = 33554432",
    );
}

#[test]
fn option_client_body_buffer_size_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"ClientBodyBufferSize = "8k""#, "");
}

#[test]
fn option_client_header_buffer_size_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"ClientHeaderBufferSize = "1k""#, "");
}

#[test]
fn option_large_client_header_buffers_are_the_bytes_of_a_head() {
    expect(
        Verdict::Kept,
        "Config",
        r#"LargeClientHeaderBuffers = "4 8k""#,
        "header_bytes_max = 32768",
    );
}

#[test]
fn option_client_body_timeout_is_kept() {
    expect(
        Verdict::Kept,
        "Config",
        r#"ClientBodyTimeout = "60s""#,
        "body_timeout_ms = 60000",
    );
}

#[test]
fn option_underscores_in_headers_is_kept() {
    expect(
        Verdict::Kept,
        "Config",
        "UnderscoresInHeaders = true",
        "underscores_in_headers = true",
    );
}

#[test]
fn option_server_names_hash_bucket_size_is_not_needed() {
    expect(Verdict::Needless, "Config", "ServerNamesHashBucketSize = 128", "");
}

#[test]
fn option_upstream_zone_size_is_not_needed() {
    expect(Verdict::Needless, "Config", "UpstreamZoneSize = 64", "");
}

#[test]
fn option_global_options_are_read_line_by_line() {
    expect(
        Verdict::Kept,
        "Config",
        r#"GlobalOptions = ["worker_rlimit_nofile 1000;"]"#,
        "open_files_max = 1000",
    );
}

#[test]
fn option_http_options_are_read_line_by_line() {
    expect(
        Verdict::Kept,
        "Config",
        r#"HTTPOptions = ["keepalive_timeout 10s;"]"#,
        "keepalive_timeout_ms = 10000",
    );
    expect(Verdict::Lost, "Config", r#"HTTPOptions = ["gzip on;"]"#, "");
}

#[test]
fn option_tcp_options_are_read_line_by_line() {
    expect(
        Verdict::Kept,
        "Config",
        r#"TCPOptions = ["proxy_timeout 1h;"]"#,
        "idle_timeout_ms = 3600000",
    );
}

#[test]
fn option_access_log_path_is_standard_output_or_off() {
    expect(
        Verdict::Kept,
        "Config",
        r#"AccessLogPath = "off""#,
        r#"access_log = "off""#,
    );
    expect(Verdict::Needless, "Config", r#"AccessLogPath = "/dev/stdout""#, "");
    expect(Verdict::Lost, "Config", r#"AccessLogPath = "/logs/a""#, "");
}

#[test]
fn option_error_log_path_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"ErrorLogPath = "/dev/stdout""#, "");
}

#[test]
fn option_main_log_format_is_read_with_its_variables() {
    expect(
        Verdict::Kept,
        "Config",
        r#"MainLogFormat = "'$remote_addr $status';""#,
        r#"access_log_format = "$remote_addr $status""#,
    );
}

#[test]
fn option_trace_log_format_is_not_needed() {
    expect(Verdict::Needless, "Config", r#"TraceLogFormat = "'$msec';""#, "");
}

#[test]
fn option_admin_user_is_reported() {
    expect(Verdict::Lost, "Config", r#"AdminUser = "admin""#, "");
}

#[test]
fn option_admin_pass_is_reported() {
    expect(Verdict::Lost, "Config", r#"AdminPass = "secret""#, "");
}

#[test]
fn option_client_timeout_is_silence() {
    expect(Verdict::Kept, "Config", "ClientTimeout = 50", "idle_timeout_ms = 50000");
}

#[test]
fn option_server_timeout_is_the_first_byte_and_silence() {
    expect(
        Verdict::Kept,
        "Config",
        "ServerTimeout = 50",
        "first_byte_timeout_ms = 50000",
    );
}

#[test]
fn option_default_options_are_reported() {
    expect(Verdict::Lost, "Config", r#"DefaultOptions = ["option redispatch"]"#, "");
}
