//! A test for each option of Interlock at the top of its file and in an extension, named after it.

use tidegate_core::interlock::{Imported, Verdict, import};

/// What becomes of one line: at the top, in an extension, or in its `Config`.
pub(crate) fn imported(place: &str, line: &str) -> Imported {
    let file = match place {
        "Core" => format!("{line}\n[Extensions.default]\n"),
        "Extension" => format!("[Extensions.default]\n{line}\n"),
        _ => format!("[Extensions.default.Config]\n{line}\n"),
    };
    import(&file).expect("it is TOML")
}

/// `setting` is a line of our file.
#[track_caller]
pub(crate) fn expect(verdict: Verdict, place: &str, line: &str, setting: &str) {
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
