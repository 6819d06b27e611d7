//! The proxies that are compared, set up to do the same work on one thread: choose by host, keep connections to the
//! backend, add `X-Forwarded-For`, write no access log.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::clock::{Look, wait_for};
use crate::command::command;
use crate::web;

/// Host that every peer routes.
pub const HOST: &str = "bench.example";

/// A proxy, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// No proxy: the load goes to the backend itself.
    Direct,
    /// haproxy
    Haproxy,
    /// nginx
    Nginx,
    /// The product.
    Tidegate,
}

/// A running process, ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Running {
    fn wait(&self, name: &str, folder: &Path) -> Result<()> {
        let address = ([127, 0, 0, 1], self.port).into();
        let answers = || match web::get(address, HOST, "/", Duration::from_secs(1)) {
            Ok(answer) if answer.status == 200 => Look::Holds(()),
            Ok(answer) => Look::NotYet(answer.summary()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        };
        let waited = wait_for(&format!("{name} answers"), Duration::from_secs(10), answers);
        waited
            .with_context(|| fs::read_to_string(folder.join("log")).unwrap_or_default())
            .map(drop)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Direct => "no proxy",
            Peer::Haproxy => "HAProxy",
            Peer::Nginx => "nginx",
            Peer::Tidegate => "Tidegate",
        }
    }

    /// Starts it on a processor, with so many routes, of which one leads to the backend. None for [`Peer::Direct`].
    ///
    /// # Errors
    /// If it does not answer within ten seconds.
    pub fn start(
        self,
        folder: &Path,
        program: &Path,
        cpu: usize,
        backend: u16,
        routes: usize,
    ) -> Result<Option<Running>> {
        let port = free_port()?;
        let file = folder.join(format!("{}.conf", self.name()));
        let path = file.to_string_lossy().into_owned();
        let (text, line): (String, Vec<String>) = match self {
            Peer::Direct => return Ok(None),
            Peer::Haproxy => (haproxy(port, backend), words(&["haproxy", "-db", "-f", &path])),
            Peer::Nginx => (
                nginx(folder, port, backend),
                words(&["nginx", "-e", "/dev/null", "-c", &path]),
            ),
            Peer::Tidegate => {
                let source = format!("file:{path}");
                let listen = format!("127.0.0.1:{port}");
                let program = program.to_string_lossy();
                let ways = [
                    "--http",
                    &listen,
                    "--admin",
                    "127.0.0.1:0",
                    "--access-log",
                    "off",
                    "--log",
                    "warn",
                ];
                (
                    tidegate(backend, routes),
                    words(&[&[&*program, "run", "--source", &source], &ways[..]].concat()),
                )
            }
        };
        fs::write(&file, text)?;
        let running = start(&line, cpu, port, folder)?;
        running.wait(self.name(), folder)?;
        Ok(Some(running))
    }
}

/// The backend: nginx with an answer of so many bytes from memory.
///
/// # Errors
/// If it cannot be started.
pub fn backend(folder: &Path, cpu: usize, bytes: usize) -> Result<Running> {
    let port = free_port()?;
    let file = folder.join("backend.conf");
    let server = format!(
        "keepalive_requests 1000000000;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{}'; }} }}",
        "x".repeat(bytes)
    );
    fs::write(&file, nginx_around(folder, "backend", &server))?;
    let line = words(&["nginx", "-e", "/dev/null", "-c", &file.to_string_lossy()]);
    let running = start(&line, cpu, port, folder)?;
    running.wait("the backend", folder)?;
    Ok(running)
}

fn start(line: &[String], cpu: usize, port: u16, folder: &Path) -> Result<Running> {
    let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
    let mut pinned = command("taskset");
    pinned.args(["-c", &cpu.to_string()]).args(line).current_dir(folder);
    pinned
        .env("TIDEGATE_ADMIN", "127.0.0.1:0")
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(log);
    Ok(Running {
        child: pinned.spawn().with_context(|| format!("cannot start {line:?}"))?,
        port,
    })
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| word.to_string()).collect()
}

/// A port of 127.0.0.1 that nobody has at this moment.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn nginx_around(folder: &Path, name: &str, http: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; worker_processes 1; error_log {folder}/{name}.log crit; pid {folder}/{name}.pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;\n\
         fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n{http}\n}}\n"
    )
}

fn nginx(folder: &Path, port: u16, backend: u16) -> String {
    let http = format!(
        "keepalive_requests 1000000000;\n\
         upstream bench {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; server_name {HOST}; location / {{\n\
         proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Request-Id $request_id; }} }}\n\
         server {{ listen 127.0.0.1:{port} default_server; return 503; }}"
    );
    nginx_around(folder, "nginx", &http)
}

fn haproxy(port: u16, backend: u16) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n  option forwardfor\n\
         \x20 http-reuse always\n  unique-id-format %[uuid()]\n  unique-id-header X-Request-Id\n\
         frontend in\n  bind 127.0.0.1:{port} backlog 4096\n  use_backend bench if {{ hdr(host) -i {HOST} }}\n\
         backend bench\n  server one 127.0.0.1:{backend}\n"
    )
}

/// See the file source of `tidegate run`.
fn tidegate(backend: u16, routes: usize) -> String {
    let service = |name: &str, host: &str| {
        format!(
            "[services.{name}]\nlabels = {{ \"tidegate.hosts\" = \"{host}\" }}\nendpoints = [\"127.0.0.1:{backend}\"]\n"
        )
    };
    let others = (1..routes).map(|number| service(&format!("s{number}"), &format!("s{number}.example")));
    service("bench", HOST) + &others.collect::<String>()
}
