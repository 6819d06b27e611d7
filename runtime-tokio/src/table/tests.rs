use super::*;

fn compiled(files: &[(&str, &str)]) -> Result<Tables, String> {
    let files: Vec<(String, String)> = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    compile(&files, "shop", &|_| None)
}

const STACK: &str = "services:
  web:
    deploy:
      replicas: 2
      labels:
        com.docker.lb.hosts: shop.example.org
        com.docker.lb.port: 80
";

#[test]
fn an_interlock_file_beside_stacks_is_imported_and_what_it_loses_is_said() {
    let interlock = "PollInterval = \"3s\"\n[Extensions.default]\n[Extensions.default.Config]\nIPHash = true\n\
                     [Extensions.east]\nServiceCluster = \"east\"\nTemplate = \"mine\"\n";
    let tables = compiled(&[("config.toml", interlock), ("shop.yml", STACK)]).unwrap();
    let clusters: Vec<String> = tables.tables.keys().map(ToString::to_string).collect();
    assert_eq!(clusters, ["default", "east"]);
    let text = tables.to_text();
    assert!(text.contains("rule shop.example.org/ -> shop_web"), "{text}");
    let lost: Vec<&String> = tables.notes.iter().filter(|note| note.contains("LOST")).collect();
    assert!(
        lost.len() == 1 && lost[0].starts_with("config.toml:7: LOST: Extensions.east.Template"),
        "{lost:?}"
    );
    // A core option alone is enough to know it by.
    let bare = compiled(&[("config.toml", "PollInterval = \"3s\"\n"), ("shop.yml", STACK)]).unwrap();
    assert_eq!(bare.tables.len(), 1);
}

#[test]
fn a_file_of_routes_is_known_by_its_services_however_they_are_written() {
    for routes in [
        "[services.web]\nlabels = { \"tidegate.hosts\" = \"shop.example.org\" }\nendpoints = [\"127.0.0.1:1\"]\n",
        "services.web.labels = { \"tidegate.hosts\" = \"shop.example.org\" }\nservices.web.endpoints = [\"127.0.0.1:1\"]\n",
    ] {
        let text = compiled(&[("routes.toml", routes)]).unwrap().to_text();
        assert!(text.contains("rule shop.example.org/ -> web"), "{text}");
        let error = compiled(&[("routes.toml", routes), ("shop.yml", STACK)]).unwrap_err();
        assert!(
            error.starts_with("routes.toml: ") && error.contains("give it alone"),
            "{error}"
        );
    }
    // The word in a comment or a value makes no such file.
    let settings = "# [services.web], Extensions\n[clusters.default]\nip_hash = true\n";
    assert!(compiled(&[("tidegate.toml", settings), ("shop.yml", STACK)]).is_ok());
}

#[test]
fn advice_about_settings_is_kept_and_an_error_in_them_names_the_key() {
    let told = compiled(&[
        ("tidegate.toml", "[clusters.default]\nhttp_prot = 1\n"),
        ("shop.yml", STACK),
    ])
    .unwrap();
    assert!(
        told.notes[0].starts_with("warning: ") && told.notes[0].contains("did you mean http_port?"),
        "{:?}",
        told.notes
    );
    let wrong = "[clusters.default.proxy]\ntls_min_version = \"1.1\"\n";
    let error = compiled(&[("tidegate.toml", wrong), ("shop.yml", STACK)]).unwrap_err();
    assert!(error.contains("tls_min_version: write 1.2 or 1.3"), "{error}");
    let error = compiled(&[("tidegate.toml", "[clusters\n")]).unwrap_err();
    assert!(
        error.starts_with("tidegate.toml: ") && error.contains("line 1"),
        "{error}"
    );
}

fn text_of(service: &str) -> String {
    let stack = format!("services:\n  web:\n{service}");
    compiled(&[("shop.yml", &stack)]).unwrap().to_text()
}

#[test]
fn a_global_service_has_one_placeholder() {
    let text = text_of("    deploy: {mode: global, labels: {tidegate.hosts: shop.example.org, tidegate.port: 80}}\n");
    assert!(text.contains("rule shop.example.org/ -> shop_web"), "{text}");
    assert_eq!(text.matches("  shop_web.").count(), 1, "{text}");
}

#[test]
fn a_service_without_virtual_ip_cannot_be_reached_by_one() {
    let labels = "labels: {tidegate.hosts: shop.example.org, tidegate.port: 80, tidegate.backend_mode: vip}";
    let with = text_of(&format!("    deploy: {{replicas: 3, endpoint_mode: vip, {labels}}}\n"));
    assert_eq!(with.matches("  vip:shop_web:").count(), 1, "{with}");
    let without = text_of(&format!(
        "    deploy: {{replicas: 3, endpoint_mode: dnsrr, {labels}}}\n"
    ));
    assert!(without.contains("dnsrr"), "{without}");
}

#[test]
fn host_mode_ports_are_reached_by_their_nodes() {
    let settings = "[clusters.default]\npublish_mode = \"host\"\n";
    let stack = "services:
  web:
    ports: [{target: 80, published: 9000, mode: host}]
    deploy: {replicas: 2, labels: {tidegate.hosts: shop.example.org, tidegate.port: 80}}
";
    let text = compiled(&[("tidegate.toml", settings), ("shop.yml", stack)])
        .unwrap()
        .to_text();
    assert_eq!(text.matches(":9000").count(), 2, "{text}");
}
