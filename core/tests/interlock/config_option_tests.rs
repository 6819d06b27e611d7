//! A test for each option in the `Config` of an extension of Interlock, named after it.

use tidegate_core::interlock::Verdict;

use super::option_tests::{expect, imported};

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
