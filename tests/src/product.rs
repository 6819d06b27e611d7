//! The product as a process on this machine, with routes from a file or an engine, and applications for it to route to.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::bench::peer::free_port;
use crate::clock::{Look, wait_for};
use crate::command::{command, run};
use crate::image;
use crate::web::{self, Answer};

/// For anything that happens on one machine.
const LIMIT: Duration = Duration::from_secs(20);

/// `tidegate run`. Ends when dropped.
#[derive(Debug)]
pub struct Product {
    child: Child,
    http: SocketAddr,
    https: Option<SocketAddr>,
    admin: SocketAddr,
    folder: TempDir,
}

/// The program, built once for each test program.
///
/// # Errors
/// If it does not compile.
pub fn program() -> Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| image::product_program("dev").map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

/// Runs the program to its end, whatever its exit code is.
///
/// # Errors
/// If it cannot be started.
pub fn invoke(arguments: &[&str]) -> Result<Output> {
    command("timeout")
        .arg("30")
        .arg(program()?)
        .args(arguments)
        .output()
        .context("cannot run timeout")
}

impl Product {
    /// Starts it with these routes, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn start(routes: &str) -> Result<Product> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("routes.toml");
        fs::write(&file, routes)?;
        let source = format!("file:{}", file.display());
        Self::run(folder, &["--source", &source], None)
    }

    /// As [`start`](Self::start), with a listener for HTTPS and a folder of secrets by name.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn start_tls(routes: &str, secrets: &[(&str, &str)]) -> Result<Product> {
        let folder = tempfile::tempdir()?;
        let (file, certificates) = (folder.path().join("routes.toml"), folder.path().join("secrets"));
        fs::write(&file, routes)?;
        fs::create_dir(&certificates)?;
        for (name, content) in secrets {
            fs::write(certificates.join(name), content)?;
        }
        let source = format!("file:{}", file.display());
        let certificates = certificates.display().to_string();
        let https = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let flags = ["--source", &source, "--certificates", &certificates];
        Self::run(folder, &flags, Some(https))
    }

    /// Starts it over the Docker engine of this socket, and waits until it has seen the Swarm.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn over_docker(socket: &Path) -> Result<Product> {
        let engine = format!("controller.docker=unix://{}", socket.display());
        Self::run(tempfile::tempdir()?, &["--source", "docker", "--set", &engine], None)
    }

    fn run(folder: TempDir, flags: &[&str], https: Option<SocketAddr>) -> Result<Product> {
        let address = || Ok::<SocketAddr, anyhow::Error>(([127, 0, 0, 1], free_port()?).into());
        let (http, admin) = (address()?, address()?);
        let log = File::create(folder.path().join("log"))?;
        let https_flag = https.map(|https| ["--https".to_string(), https.to_string()]);
        let child = command(program()?)
            .arg("run")
            .args(flags)
            .args(["--http", &http.to_string(), "--admin", &admin.to_string()])
            .args(https_flag.iter().flatten())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let product = Product {
            child,
            http,
            https,
            admin,
            folder,
        };
        wait_for("tidegate run is ready", LIMIT, || {
            match product.ask("healthcheck", &[]) {
                Ok(output) if output.status.success() => Look::Holds(()),
                other => Look::NotYet(format!("{other:?}\n{}", product.log())),
            }
        })?;
        Ok(product)
    }

    /// Where it takes requests.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where it takes HTTPS.
    ///
    /// # Panics
    /// If it was started without.
    pub fn https(&self) -> SocketAddr {
        self.https.expect("it was started with TLS")
    }

    /// Where it answers about itself.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Replaces the file of its routes, as editors do: by a rename.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn edit(&self, routes: &str) -> Result<()> {
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("routes.toml"));
        fs::write(&new, routes)?;
        fs::rename(new, file).context("cannot rename")
    }

    /// One request.
    ///
    /// # Errors
    /// If no whole answer comes.
    pub fn get(&self, host: &str, path: &str) -> Result<Answer> {
        web::get(self.http, host, path, LIMIT)
    }

    /// Waits until the answer for a host pleases.
    ///
    /// # Errors
    /// If it never does, with its log.
    pub fn until(&self, what: &str, host: &str, mut pleases: impl FnMut(&Answer) -> bool) -> Result<Answer> {
        let looked = wait_for(what, LIMIT, || match self.get(host, "/") {
            Ok(answer) if pleases(&answer) => Look::Holds(answer),
            Ok(answer) => Look::NotYet(answer.summary()),
            Err(error) => Look::NotYet(format!("{error:#}")),
        });
        looked.map(|(answer, _)| answer).with_context(|| self.log())
    }

    /// Asks it with another process of the same program, e.g. `tidegate routes`.
    ///
    /// # Errors
    /// If that cannot be started.
    pub fn ask(&self, role: &str, arguments: &[&str]) -> Result<Output> {
        invoke(&[&[role, "--admin", &self.admin.to_string()], arguments].concat())
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// SIGTERM, and nothing else.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn terminate(&self) -> Result<()> {
        run(command("kill").args(["-TERM", &self.child.id().to_string()])).map(drop)
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Errors
    /// If it does not end, or by a signal.
    pub fn exit_code(&mut self) -> Result<i32> {
        let child = &mut self.child;
        let (status, _) = wait_for("tidegate ends", LIMIT, || match child.try_wait() {
            Ok(Some(status)) => Look::Holds(status),
            other => Look::NotYet(format!("{other:?}")),
        })?;
        status.code().with_context(|| format!("it ended by {status}"))
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The test application as a process. Ends when dropped.
#[derive(Debug)]
pub struct App {
    child: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
}

impl App {
    /// Starts one that calls itself by this version, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn start(version: &str) -> Result<App> {
        let port = free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let child = command(image::app_program()?)
            .env("PORT", port.to_string())
            .env("VERSION", version)
            .stdout(Stdio::null())
            .spawn()?;
        let app = App {
            child,
            address: address.to_string(),
        };
        let (answer, _) = wait_for("the app answers", LIMIT, || {
            match web::get(address, "app", "/", LIMIT) {
                Ok(answer) => Look::Holds(answer),
                Err(error) => Look::NotYet(error.to_string()),
            }
        })?;
        if answer.says("version") != Some(version) {
            bail!("someone else answers on {address}");
        }
        Ok(app)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
