//! `tidegate run --source file:…`: the whole product on any machine, without Docker, through its sockets and its command
//! line.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use e2e::product::{App, Product, invoke};
use e2e::web::Upgraded;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

fn service(name: &str, host: &str, apps: &[&App]) -> String {
    let endpoints: Vec<&str> = apps.iter().map(|app| app.address.as_str()).collect();
    format!("[services.{name}]\nlabels = {{ \"tidegate.hosts\" = \"{host}\" }}\nendpoints = {endpoints:?}\n")
}

#[test]
fn edits_of_the_file_are_followed_and_a_broken_edit_keeps_the_last_good_table() {
    let (one, two) = (App::start("one").unwrap(), App::start("two").unwrap());
    let product = Product::start(&service("shop", "shop.example", &[&one])).unwrap();
    let is = |version: &'static str| move |answer: &e2e::web::Answer| answer.says("version") == Some(version);
    product.until("the first version", "shop.example", is("one")).unwrap();
    assert_eq!(product.get("nobody.example", "/").unwrap().status, 503);

    product.edit(&service("shop", "shop.example", &[&two])).unwrap();
    product.until("the second version", "shop.example", is("two")).unwrap();

    product
        .edit("[services.shop]\nlabels = { \"tidegate.hosts\" = \n")
        .unwrap();
    e2e::clock::wait_for("the log says where the file is broken", Duration::from_secs(20), || {
        let log = product.log();
        let found = log.lines().any(|line| line.contains("routes.toml")) && log.contains("line 2");
        if found {
            e2e::clock::Look::Holds(())
        } else {
            e2e::clock::Look::NotYet(log)
        }
    })
    .unwrap();
    assert_eq!(product.get("shop.example", "/").unwrap().says("version"), Some("two"));

    product.edit(&service("store", "store.example", &[&one])).unwrap();
    product.until("the file is mended", "store.example", is("one")).unwrap();
    product
        .until("the old host is gone", "shop.example", |answer| answer.status == 503)
        .unwrap();
}

#[test]
fn an_upgraded_connection_outlives_a_change_that_does_not_concern_it() {
    let app = App::start("ws").unwrap();
    let product = Product::start(&service("shop", "shop.example", &[&app])).unwrap();
    let mut socket = Upgraded::open(product.http(), "shop.example").unwrap();
    socket.echo("before").unwrap();
    let both = service("shop", "shop.example", &[&app]) + &service("other", "other.example", &[&app]);
    product.edit(&both).unwrap();
    product
        .until("the other service", "other.example", |answer| answer.status == 200)
        .unwrap();
    socket.echo("after").unwrap();
}

#[test]
fn a_body_streams_both_ways_at_once() {
    let app = App::start("echo").unwrap();
    let product = Product::start(&service("shop", "shop.example", &[&app])).unwrap();
    let mut connection = TcpStream::connect(product.http()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    connection
        .write_all(b"POST /echo HTTP/1.1\r\nhost: shop.example\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .unwrap();
    // The first piece comes back before the second is sent: nothing in between waits for the whole.
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"first") {
        connection.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    connection.write_all(b"6\r\nsecond\r\n0\r\n\r\n").unwrap();
    while !seen.ends_with(b"second") {
        connection.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
}

#[test]
fn http_2_with_prior_knowledge_is_answered() {
    let app = App::start("h2").unwrap();
    let product = Product::start(&service("shop", "shop.example", &[&app])).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (status, body) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(product.http()).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let driver = tokio::spawn(connection);
        let request = http::Request::get("http://shop.example/over/h2")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        driver.abort();
        (status, String::from_utf8_lossy(&body).into_owned())
    });
    assert_eq!(status, 200);
    assert!(body.contains("version: h2") && body.contains("/over/h2"), "{body}");
}

#[test]
fn a_process_is_asked_from_the_command_line() {
    let app = App::start("cli").unwrap();
    let wrong = "[services.wrong]\nlabels = { \"tidegate.hosts\" = \"not a host\" }\nendpoints = [\"127.0.0.1:1\"]\n";
    let product = Product::start(&(service("shop", "shop.example", &[&app]) + wrong)).unwrap();
    product
        .until("the route", "shop.example", |answer| answer.status == 200)
        .unwrap();
    let say = |role: &str, arguments: &[&str]| {
        let output = product.ask(role, arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, explained) = say("explain", &["http://shop.example/cart"]);
    assert_eq!(code, Some(0), "{explained}");
    for word in ["shop", "tidegate.hosts", app.address.as_str()] {
        assert!(explained.contains(word), "explain does not name {word}:\n{explained}");
    }
    let (_, unknown) = say("explain", &["http://shopp.example/"]);
    assert!(
        unknown.contains("shop.example"),
        "the nearest host is not named:\n{unknown}"
    );
    let (_, routes) = say("routes", &[]);
    assert!(routes.contains("shop.example"), "{routes}");
    assert!(
        routes.contains("wrong") && routes.contains("not a host"),
        "the refused service is not named:\n{routes}"
    );
    assert_eq!(say("healthcheck", &[]).0, Some(0));
    assert_eq!(say("status", &[]).0, Some(0));
}

#[test]
fn exit_codes_tell_usage_from_what_cannot_be_reached() {
    let code = |arguments: &[&str]| invoke(arguments).unwrap().status.code();
    assert_eq!(code(&["--no-such-flag"]), Some(2));
    assert_eq!(code(&["run", "--source", "carrier-pigeon"]), Some(2));
    let nobody = format!("127.0.0.1:{}", e2e::bench::peer::free_port().unwrap());
    assert_eq!(code(&["status", "--admin", &nobody]), Some(3));
    assert_eq!(code(&["--help"]), Some(0));
}

#[test]
fn a_request_under_way_ends_before_the_process_does() {
    let app = App::start("slow").unwrap();
    let mut product = Product::start(&service("shop", "shop.example", &[&app])).unwrap();
    product
        .until("the route", "shop.example", |answer| answer.status == 200)
        .unwrap();
    let http = product.http();
    let mut connection = TcpStream::connect(http).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Its first piece shows that the request is under way at the application.
    connection
        .write_all(b"POST /echo HTTP/1.1\r\nhost: shop.example\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"first") {
        connection.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    product.terminate().unwrap();
    connection.write_all(b"4\r\nlast\r\n0\r\n\r\n").unwrap();
    while !seen.ends_with(b"0\r\n\r\n") {
        connection.read_exact(&mut byte).expect("the rest of the answer comes");
        seen.push(byte[0]);
    }
    assert!(String::from_utf8_lossy(&seen).contains("last"));
    drop(connection);
    assert_eq!(product.exit_code().unwrap(), 0, "{}", product.log());
}
