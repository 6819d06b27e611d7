//! The command line, as a person at a shell meets it: the real binary, its exit codes and what it says.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(feature = "docker")]

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use program::{output, tidegate};

const LIMIT: Duration = Duration::from_secs(30);
const ROUTES: &str =
    "[services.shop]\nlabels = { \"tidegate.hosts\" = \"shop.example.org\" }\nendpoints = [\"ENDPOINT\"]\n";

/// Two ports that were free a moment ago.
fn ports() -> (SocketAddr, SocketAddr) {
    let (a, b) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    (a.local_addr().unwrap(), b.local_addr().unwrap())
}

/// A server that answers every connection with the same words.
fn app(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(answer.as_bytes()))
                .ok();
        }
    });
    address
}

fn get(address: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A running `tidegate run`, ended when it is dropped.
struct Running {
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
    log: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn over(file: &Path) -> Running {
        Self::over_with(file, &[])
    }

    fn over_with(file: &Path, more: &[&str]) -> Running {
        let (http, admin) = ports();
        let source = format!("file:{}", file.display());
        let mut child = tidegate(&[
            "run",
            "--source",
            &source,
            "--http",
            &http.to_string(),
            "--admin",
            &admin.to_string(),
        ])
        .args(more)
        .stdout(std::fs::File::create(file.with_extension("access")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let (sender, log) = std::sync::mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let running = Running {
            child,
            http,
            admin,
            log,
        };
        running.wait_for("listening");
        running
    }

    /// Waits for a log line that has these words.
    fn wait_for(&self, words: &str) -> String {
        loop {
            let line = self
                .log
                .recv_timeout(LIMIT)
                .unwrap_or_else(|_| panic!("no log line with {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    fn ask(&self, args: &[&str]) -> (i32, String, String) {
        let admin = self.admin.to_string();
        output(&[args, &["--admin", &admin]].concat())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn routes_file(folder: &tempfile::TempDir, endpoint: SocketAddr) -> std::path::PathBuf {
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, ROUTES.replace("ENDPOINT", &endpoint.to_string())).unwrap();
    path
}

#[test]
fn explain_shows_what_workers_know_of_an_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (nobody, _) = ports();
    let path = folder.path().join("routes.toml");
    let there = app("hello");
    let endpoints = format!("{there}\", \"{nobody}");
    std::fs::write(&path, ROUTES.replace("ENDPOINT", &endpoints)).unwrap();
    let running = Running::over(&path);
    let is_said = |text: &str, endpoint: &str, state: &str| {
        let mut lines = text.lines().filter(|line| line.contains(endpoint));
        lines.any(|line| line.contains(state))
    };
    let mut text = String::new();
    for _ in 0..100 {
        // Whoever is sent to nobody first is sent on.
        assert!(get(running.http, "shop.example.org", "/").ends_with("hello"));
        text = running.ask(&["explain", "http://shop.example.org/"]).1;
        if is_said(&text, &nobody.to_string(), "probation") {
            break;
        }
    }
    assert!(is_said(&text, &nobody.to_string(), "probation"), "{text}");
    assert!(is_said(&text, &there.to_string(), "ready"), "{text}");
}

#[test]
fn a_file_is_served_explained_and_drained() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Running::over(&routes_file(&folder, app("hello")));
    assert!(get(running.http, "shop.example.org", "/").ends_with("hello"));
    assert!(get(running.http, "nobody.example.org", "/").starts_with("HTTP/1.1 503"));
    let (code, text, _) = running.ask(&["explain", "http://shop.example.org/cart"]);
    assert_eq!(code, 0);
    for word in ["shop.example.org/", "shop", "tidegate.hosts", "ready", "127.0.0.1"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let (_, text, _) = running.ask(&["explain", "http://shpo.example.org/"]);
    assert!(text.contains("near") && text.contains("shop.example.org"), "{text}");
    let (code, text, _) = running.ask(&["routes"]);
    assert!(code == 0 && text.contains("shop.example.org"), "{text}");
    let (code, text, _) = running.ask(&["status"]);
    assert!(code == 0 && text.contains("\"source\""), "{text}");
    assert_eq!(running.ask(&["healthcheck"]).0, 0);
    let metrics = get(running.admin, "x", "/metrics");
    assert!(
        metrics.contains("tidegate_requests_total{service=\"shop\",status=\"2xx\"} 1"),
        "{metrics}"
    );
    assert!(get(running.http, "shop.example.org", "/the-last-one").ends_with("hello"));
    let pid = running.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(
        running.child.wait().unwrap().success(),
        "a drained process exits with 0"
    );
    assert_eq!(running.ask(&["healthcheck"]).0, 3, "nobody is there any more");
    let access = std::fs::read_to_string(folder.path().join("routes.access")).unwrap();
    assert!(
        access.contains("GET /the-last-one"),
        "the last line is written before the end: {access}"
    );
}

/// One request over TLS, whoever signed the certificate: that certificate and the answer.
fn get_over_tls(address: SocketAddr, host: &str, trusted: &str) -> Result<String, String> {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let certificate = rustls_pki_types::CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from(host.to_owned()).unwrap();
    let mut session = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(answer).unwrap())
}

#[test]
fn https_is_served_with_certificates_from_a_folder_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let labels = |secret: &str| {
        format!(
            "{{ \"tidegate.hosts\" = \"shop.example.org\", \"tidegate.ssl_cert\" = \"{secret}\", \"tidegate.ssl_only\" = \"true\" }}"
        )
    };
    let app = app("hello");
    let write = |secret: &str| {
        let text = format!(
            "[services.shop]\nlabels = {}\nendpoints = [\"{app}\"]\n",
            labels(secret)
        );
        std::fs::write(&file, text).unwrap();
    };
    let own = rcgen::generate_simple_self_signed(["shop.example.org".to_owned()]).unwrap();
    let pem = format!("{}{}", own.cert.pem(), own.signing_key.serialize_pem());
    std::fs::write(folder.path().join("shop.pem"), pem).unwrap();
    write("shop.pem");
    let (https, _) = ports();
    let https_text = https.to_string();
    let secrets = folder.path().display().to_string();
    let running = Running::over_with(&file, &["--https", &https_text, "--certificates", &secrets]);
    let answer = get_over_tls(https, "shop.example.org", &own.cert.pem()).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    let answer = get(running.http, "shop.example.org", "/cart?x=1");
    assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
    assert!(
        answer.contains("location: https://shop.example.org/cart?x=1\r\n"),
        "{answer}"
    );
    let (code, text, _) = running.ask(&["explain", "https://shop.example.org/"]);
    assert!(code == 0 && text.contains("ends here, with shop.pem"), "{text}");
    let metrics = get(running.admin, "x", "/metrics");
    assert!(
        metrics.contains("tidegate_certificate_expires_in_seconds{certificate=\"shop.pem\"}"),
        "{metrics}"
    );
    // A label that names what is not there: said, and the last good certificate stays.
    write("gone.pem");
    running.wait_for("there is no secret gone.pem");
    let answer = get_over_tls(https, "shop.example.org", &own.cert.pem()).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(get_over_tls(https, "other.example.org", &own.cert.pem()).is_err());
}

#[test]
fn a_broken_edit_keeps_the_last_good_table_and_says_where_it_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = routes_file(&folder, app("hello"));
    let running = Running::over(&path);
    std::fs::write(&path, "[services.shop]\nlabels = 1 2\n").unwrap();
    let line = running.wait_for("routes.toml: ");
    assert!(line.contains("line 2") && line.contains("last good table"), "{line}");
    assert!(get(running.http, "shop.example.org", "/").ends_with("hello"));
}

#[test]
fn wrong_usage_says_what_to_write_and_exits_with_2() {
    for (args, words) in [
        (&["run", "--source", "routes.toml"][..], "file:routes.toml"),
        (
            &["run", "--source", "file:/nowhere/routes.toml"],
            "/nowhere/routes.toml",
        ),
        (
            &["run", "--set", "clusters.default.http_port=x", "--admin", "127.0.0.1:0"],
            "clusters.default.http_port",
        ),
        (
            &["controller", "--set", "clusters.default.publish_mode=hots"],
            "publish_mode",
        ),
        (
            &["controller", "--set", "controller.docker=/var/run/docker.sock"],
            "unix://",
        ),
        (
            &["controller", "--swarm-watch", "control.sock"],
            "/var/run/docker/swarm/control.sock",
        ),
        (
            &["controller", "--set", "controller.swarm_watch=control.sock"],
            "/var/run/docker/swarm/control.sock",
        ),
        (&["proxy", "--controller", "nowhere"], "HOST:PORT"),
        (
            &["proxy", "--controller", "a:1", "--identity", "/nowhere/identity"],
            "/nowhere/identity",
        ),
        (&["--log", "tidegate=loud", "status"], "--log"),
        (&["sail"], "unrecognized subcommand"),
    ] {
        let (code, _, said) = output(args);
        assert_eq!(code, 2, "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_the_flag_that_chooses_another() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let source = format!("file:{}", routes_file(&folder, taken.local_addr().unwrap()).display());
    let (code, _, said) = output(&["run", "--source", &source, "--http", &address]);
    assert!(
        code == 2 && said.contains(&address) && said.contains("--http"),
        "{said}"
    );
}

#[test]
fn asking_where_nobody_answers_exits_with_3() {
    let (code, _, said) = output(&["status", "--admin", &ports().0.to_string()]);
    assert!(code == 3 && said.contains("nobody answers"), "{said}");
}

#[test]
fn routes_of_a_file_are_printed_without_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let text = format!("{ROUTES}[services.wrong]\nlabels = {{ \"tidegate.hosts\" = \"a b\" }}\nendpoints = []\n");
    std::fs::write(&path, text.replace("ENDPOINT", "127.0.0.1:1")).unwrap();
    let source = format!("file:{}", path.display());
    let (code, text, _) = output(&["routes", "--source", &source]);
    assert_eq!(code, 1, "a label is refused");
    assert!(
        text.contains("rule shop.example.org/") && text.contains("error: service wrong"),
        "{text}"
    );
    let (code, text, _) = output(&["explain", "--source", &source, "http://shop.example.org/"]);
    assert!(code == 0 && text.contains("127.0.0.1:1"), "{text}");
}

#[test]
fn help_teaches() {
    let (code, text, _) = output(&["--help"]);
    assert_eq!(code, 0);
    for word in [
        "controller",
        "proxy",
        "run",
        "demo",
        "explain",
        "docker stack deploy",
        "Exit codes",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let (_, text, _) = output(&["run", "--help"]);
    assert!(text.contains("TIDEGATE_SOURCE") && text.contains("file:PATH"), "{text}");
}

#[test]
fn import_interlock_prints_settings_and_a_report_and_says_whether_something_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (config, ours) = (path("config.toml"), path("tidegate.toml"));
    std::fs::write(
        &config,
        "PollInterval = \"3s\"\n[Extensions.default]\nProxyReplicas = 3\n",
    )
    .unwrap();
    let (code, settings, report) = output(&["import", "interlock", &config]);
    assert!(code == 0 && settings.contains("replicas = 3"), "{code}: {settings}");
    assert!(
        report.contains("config.toml:3: kept: Extensions.default.ProxyReplicas"),
        "{report}"
    );

    std::fs::write(&config, "[Extensions.default]\nTemplate = \"mine\"\n").unwrap();
    let (code, settings, report) = output(&["import", "interlock", &config, "--output", &ours, "--report", "json"]);
    assert_eq!((code, settings.as_str()), (1, ""));
    assert!(report.contains("\"verdict\": \"lost\""), "{report}");
    assert!(std::fs::read_to_string(&ours).unwrap().contains("[clusters.default]"));

    std::fs::write(&config, "[Extensions\n").unwrap();
    let (code, _, error) = output(&["import", "interlock", &config]);
    assert!(code == 2 && error.contains("line 1"), "{error}");
}

#[test]
fn table_reads_stack_files_without_docker_and_checks_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (stack, snapshot) = (path("shop.yml"), path("routes.txt"));
    let text = |host: &str| {
        format!(
            "services:\n  web:\n    deploy:\n      replicas: 2\n      labels:\n        tidegate.hosts: {host}\n        tidegate.port: 80\n"
        )
    };
    std::fs::write(&stack, text("shop.example.org")).unwrap();
    let (code, table, error) = output(&["table", &stack, "--stack", "shop"]);
    assert!(code == 0 && error.is_empty(), "{code} {error}");
    assert!(
        table.contains("rule shop.example.org/") && table.contains("shop_web.2 10."),
        "{table}"
    );
    let (code, _, error) = output(&["table", &stack, "--check", &snapshot]);
    assert!(code == 1 && error.contains("--write"), "{error}");
    assert_eq!(output(&["table", &stack, "--write", &snapshot]).0, 0);
    assert_eq!(output(&["table", &stack, "--check", &snapshot]).0, 0);

    std::fs::write(&stack, text("other.example.org")).unwrap();
    let (code, diff, _) = output(&["table", &stack, "--check", &snapshot]);
    assert_eq!(code, 1);
    assert!(
        diff.contains("-rule shop.example.org/") && diff.contains("+rule other.example.org/"),
        "{diff}"
    );
    let (code, text_of, _) = output(&["table", &stack, "--explain", "http://other.example.org/x"]);
    assert!(
        code == 0 && text_of.contains("# http://other.example.org/x\n"),
        "{text_of}"
    );

    std::fs::write(&stack, text("'a b'")).unwrap();
    let (code, table, _) = output(&["table", &stack]);
    assert!(code == 1 && table.contains("error: service stack_web"), "{table}");
    std::fs::write(&stack, "services: [").unwrap();
    let (code, _, error) = output(&["table", &stack]);
    assert!(code == 2 && error.contains("shop.yml: "), "{error}");
}

#[test]
fn table_keeps_service_clusters_apart() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("tidegate.toml").display().to_string();
    std::fs::write(
        &settings,
        "[clusters.default]\n[clusters.east]\nhttp_port = 8081\n[clusters.west]\nhttp_port = 8082\n",
    )
    .unwrap();
    let apps = deploy.join("examples/service-clusters-apps.yml").display().to_string();
    let (code, text, _) = output(&["table", &apps, &settings]);
    assert!(
        code == 0 && text.contains("rule east.example.org/ -> stack_east") && text.contains("  stack_west.2 10."),
        "{text}"
    );
}
