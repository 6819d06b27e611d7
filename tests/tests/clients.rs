//! Clients that others wrote, against the program as it is: curl, openssl, h2load, and libraries for WebSockets and gRPC.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

use e2e::command::{command, is_installed, run, shell};
use e2e::gate;
use e2e::https::Authority;
use e2e::product::{App, Product};
use e2e::python::{self, Server};
use e2e::report::say;

const HOST: &str = "shop.example.org";

/// The program with HTTP and HTTPS, a certificate for `*.example.org` and one for `other.example.net`.
struct Set {
    product: Product,
    folder: tempfile::TempDir,
    _app: App,
}

impl Set {
    fn up(more: &str) -> Set {
        let app = App::start("v1").expect("an app");
        let (wild, other) = (
            Authority::new("*.example.org").expect("an authority"),
            Authority::new("other.example.net").expect("an authority"),
        );
        let service = |name: &str, host: &str, secret: &str| {
            let labels = format!("\"tidegate.hosts\" = \"{host}\", \"tidegate.ssl_cert\" = \"{secret}\"");
            format!(
                "[services.{name}]\nlabels = {{ {labels} }}\nendpoints = [{:?}]\n",
                app.address
            )
        };
        let routes = service("shop", HOST, "wild") + &service("other", "other.example.net", "other") + more;
        let secrets = [
            ("wild", wild.issue().expect("a certificate").pem),
            ("other", other.issue().expect("a certificate").pem),
        ];
        let secrets: Vec<(&str, &str)> = secrets.iter().map(|(name, pem)| (*name, pem.as_str())).collect();
        let product = Product::start_tls(&routes, &secrets).expect("it gets ready");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), wild.pem().to_string() + other.pem()).expect("it works");
        Set {
            product,
            folder,
            _app: app,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn http(&self) -> u16 {
        self.product.http().port()
    }

    fn https(&self) -> u16 {
        self.product.https().port()
    }

    /// curl, which trusts both authorities and finds both hosts here; what it prints, bodies and `-v` alike.
    fn curl(&self, arguments: &[&str]) -> String {
        let mut curl = command("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--cacert",
            &self.path("ca.pem"),
        ]);
        for host in [HOST, "other.example.net"] {
            for port in [self.http(), self.https()] {
                curl.args(["--resolve", &format!("{host}:{port}:127.0.0.1")]);
            }
        }
        let output = curl.args(arguments).output().expect("curl");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "curl {arguments:?}: {printed}\n{}",
            self.product.log()
        );
        printed
    }

    fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.https())
    }

    /// openssl s_client, which asks for one page.
    fn s_client(&self, host: &str, arguments: &str) -> String {
        let script = "printf 'GET / HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' \"$1\" | \
                      timeout 20 openssl s_client -connect 127.0.0.1:\"$2\" -servername \"$1\" -CAfile \"$3\" \
                      -verify_return_error -verify_hostname \"$1\" -ign_eof $4 2>&1";
        shell(
            script,
            &[host, &self.https().to_string(), &self.path("ca.pem"), arguments],
        )
        .expect("it works")
    }
}

fn missing(program: &str, package: &str) -> Option<String> {
    (!is_installed(program)).then(|| format!("{program} is not installed (apt-get install {package})"))
}

fn version(program: &str, flag: &str) -> String {
    let printed = run(command(program).arg(flag)).expect("a version");
    printed.lines().next().unwrap_or_default().to_string()
}

#[test]
fn curl_speaks_each_version_of_http_and_tls() {
    if !gate::may_run("clients: curl", missing("curl", "curl")) {
        return;
    }
    let set = Set::up("");
    for (tls, name) in [
        (&["--tlsv1.2", "--tls-max", "1.2"][..], "TLSv1.2"),
        (&["--tlsv1.3"][..], "TLSv1.3"),
    ] {
        for (http, status) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
            let seen = set.curl(&[tls, &["-v", http, &set.url("/page")]].concat());
            assert!(seen.contains(&format!("SSL connection using {name}")), "{seen}");
            assert!(seen.contains(status) && seen.contains("version: v1"), "{seen}");
        }
    }
    for (http, status) in [
        ("--http1.0", "HTTP/1.0 200"),
        ("--http1.1", "HTTP/1.1 200"),
        ("--http2-prior-knowledge", "HTTP/2 200"),
    ] {
        let seen = set.curl(&["-v", http, &format!("http://{HOST}:{}/", set.http())]);
        assert!(
            seen.contains(status) || http == "--http1.0" && seen.contains(" 200 OK"),
            "{seen}"
        );
    }
    // One connection, several requests, both versions.
    for http in ["--http1.1", "--http2"] {
        let (one, two) = (set.url("/1"), set.url("/2"));
        let seen = set.curl(&["-v", http, &one, &two]);
        assert!(seen.contains("Re-using existing connection"), "{seen}");
    }
    // A body of 3 MB there and back, and one that waits for `100 Continue`.
    let (sent, back) = (set.path("sent"), set.path("back"));
    std::fs::write(&sent, (0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>()).unwrap();
    let data = format!("@{sent}");
    for http in ["--http1.1", "--http2"] {
        let seen = set.curl(&["-v", http, "--data-binary", &data, "-o", &back, &set.url("/echo")]);
        assert!(std::fs::read(&sent).unwrap() == std::fs::read(&back).unwrap(), "{seen}");
        let seen = set.curl(&[
            "-v",
            http,
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            &data,
            &set.url("/length"),
        ]);
        assert!(seen.contains("length: 3000000") && seen.contains(" 100"), "{seen}");
    }
    // Requests go by the host that they name, whatever name the connection was made for.
    let named = set.curl(&["-v", "--http2", "-H", "Host: other.example.net", &set.url("/")]);
    assert!(named.contains("header host: other.example.net"), "{named}");
    let other = set.curl(&[&format!("https://other.example.net:{}/", set.https())]);
    assert!(other.contains("version: v1"), "{other}");
    say(format_args!(
        "{}: HTTP/1.0, 1.1, 2; TLS 1.2, 1.3",
        version("curl", "--version")
    ));
}

#[test]
fn openssl_is_served_by_name_and_resumes_its_sessions() {
    if !gate::may_run("clients: openssl", missing("openssl", "openssl")) {
        return;
    }
    let set = Set::up("");
    for (host, name) in [(HOST, "*.example.org"), ("other.example.net", "other.example.net")] {
        let subject = format!(
            "{}; openssl x509 -in {} -noout -ext subjectAltName",
            "set -e",
            set.path("served.pem")
        );
        let seen = set.s_client(host, "");
        assert!(
            seen.contains("Verify return code: 0 (ok)") && seen.contains("HTTP/1.1 200"),
            "{seen}"
        );
        let pem = &seen[seen.find("-----BEGIN CERTIFICATE-----").unwrap()..];
        std::fs::write(set.path("served.pem"), pem).unwrap();
        let names = shell(&subject, &[]).unwrap();
        assert!(names.contains(&format!("DNS:{name}")), "{names}");
    }
    for (flag, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let session = set.path(name);
        let first = set.s_client(HOST, &format!("{flag} -sess_out {session}"));
        assert!(first.contains(&format!("New, {name}")), "{first}");
        let second = set.s_client(HOST, &format!("{flag} -sess_in {session}"));
        assert!(second.contains(&format!("Reused, {name}")), "{second}");
        assert!(second.contains("HTTP/1.1 200"), "{second}");
    }
    for (alpn, chosen) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")] {
        let script = "timeout 20 openssl s_client -connect 127.0.0.1:\"$1\" -servername \"$2\" -alpn \"$3\" 2>&1";
        let mut asked = command("sh");
        asked
            .args(["-c", script, "sh", &set.https().to_string(), HOST, alpn])
            .stdin(Stdio::null());
        let seen = run(&mut asked).unwrap();
        assert!(seen.contains(&format!("ALPN protocol: {chosen}")), "{seen}");
    }
    say(format_args!(
        "{}: names, resumption, ALPN",
        version("openssl", "version")
    ));
}

#[test]
fn h2load_has_every_request_answered() {
    if !gate::may_run("clients: h2load", missing("h2load", "nghttp2-client")) {
        return;
    }
    let set = Set::up("");
    let connect_to = format!("--connect-to=127.0.0.1:{}", set.https());
    for (protocol, requests) in [("h2", "3000"), ("http/1.1", "1000")] {
        let mut load = command("timeout");
        load.args(["60", "h2load", "-c", "10", "-m", "20", &connect_to, "-n", requests]);
        if protocol == "http/1.1" {
            load.arg("--h1");
        }
        let seen = run(load.arg(set.url("/"))).unwrap();
        let whole =
            format!("{requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored");
        assert!(
            seen.contains(&whole) && seen.contains(&format!("Application protocol: {protocol}")),
            "{seen}"
        );
        say(format_args!("{}, {protocol}: {whole}", version("h2load", "--version")));
    }
}

fn python(test: &str) -> bool {
    static OBSTACLE: OnceLock<Option<String>> = OnceLock::new();
    gate::may_run(test, OBSTACLE.get_or_init(python::obstacle).clone())
}

#[test]
fn a_websocket_library_talks_through_it() {
    if !python("clients: websockets") {
        return;
    }
    let server = Server::start("websocket.py").unwrap();
    let labels = "\"tidegate.hosts\" = \"ws.example.org\", \"tidegate.ssl_cert\" = \"wild\"";
    let set = Set::up(&format!(
        "[services.talk]\nlabels = {{ {labels} }}\nendpoints = [{:?}]\n",
        server.address
    ));
    let (http, https) = (set.http().to_string(), set.https().to_string());
    for arguments in [
        &[&http, "ws.example.org"][..],
        &[&https, "ws.example.org", &set.path("ca.pem")],
    ] {
        say(format_args!("{}", python::client("websocket.py", arguments).unwrap()));
    }
}

#[test]
fn a_grpc_library_calls_through_it() {
    if !python("clients: grpcio") {
        return;
    }
    let server = Server::start("grpc_calls.py").unwrap();
    let labels = "\"tidegate.hosts\" = \"grpc.example.org\", \"tidegate.ssl_cert\" = \"wild\", \
                  \"tidegate.backend_protocol\" = \"h2c\"";
    let set = Set::up(&format!(
        "[services.calls]\nlabels = {{ {labels} }}\nendpoints = [{:?}]\n",
        server.address
    ));
    let (http, https) = (set.http().to_string(), set.https().to_string());
    for arguments in [
        &[&http, "grpc.example.org"][..],
        &[&https, "grpc.example.org", &set.path("ca.pem")],
    ] {
        say(format_args!("{}", python::client("grpc_calls.py", arguments).unwrap()));
    }
}

/// The folder of the scripts holds nothing that no test runs.
#[test]
fn every_script_has_its_test() {
    let own = include_str!("clients.rs");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut scripts = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".py") {
            assert!(own.contains(&format!("\"{name}\"")), "{name}");
            scripts += 1;
        }
    }
    assert_eq!(scripts, 2);
}
