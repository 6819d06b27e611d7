//! TLS that ends at the proxies, and TLS that is passed through to the application.

use std::fs;
use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::clock::now;
use e2e::command::command;
use e2e::scene::effect;

use crate::stacks::Stacks;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A certificate that is its own authority, so a client that trusts one of them alone knows who ended TLS.
fn certificate(host: &str) -> Result<[String; 2]> {
    let signed = rcgen::generate_simple_self_signed([host.to_string()])?;
    Ok([signed.cert.pem(), signed.signing_key.serialize_pem()])
}

pub(crate) fn ends_at_the_proxies_or_in_the_application(stacks: &mut Stacks<'_>) -> Result<()> {
    let scene = stacks.scene;
    for (host, files) in [
        ("shop.example.org", ["fullchain.pem", "privkey.pem"]),
        ("vault.example.org", ["vault.pem", "vault.key"]),
    ] {
        let parts = ["cert", "key"].into_iter().zip(files);
        for ((part, file), text) in parts.zip(certificate(host)?) {
            let file = stacks.folder().join(file);
            fs::write(&file, text)?;
            let path = file.to_string_lossy();
            scene.docker(&["secret", "create", &format!("{host}.{part}"), &path])?;
        }
    }
    let start = now();
    stacks.deploy("tls", "tls", &[])?;
    stacks.try_all()?;
    effect(
        "docker stack deploy of two TLS applications, to every answer of their header by every proxy",
        start,
    );
    for entrance in scene.entrances_at(443) {
        protocols(stacks, entrance)?;
        names(stacks, entrance)?;
    }
    Ok(())
}

/// curl at an entrance, which trusts the authority of a file.
fn curl(stacks: &Stacks<'_>, entrance: SocketAddr, host: &str, authority: &str, more: &[&str]) -> Result<Output> {
    let mut curl = command("curl");
    curl.current_dir(stacks.folder())
        .args(["-sS", "--max-time", "10", "--cacert", authority])
        .args(["--resolve", &format!("{host}:443:{}", entrance.ip())])
        .args(more)
        .arg(format!("https://{host}/path?q=1"));
    curl.output().context("cannot run curl")
}

fn protocols(stacks: &Stacks<'_>, entrance: SocketAddr) -> Result<()> {
    for (host, authority) in [
        ("shop.example.org", "fullchain.pem"),
        ("vault.example.org", "vault.pem"),
    ] {
        for (flags, version) in [
            (["--http1.1", "--tls-max", "1.2"].as_slice(), "1.1"),
            (&["--http1.1", "--tlsv1.3"], "1.1"),
            (&["--http2"], "2"),
        ] {
            let tell = ["--write-out", "\nversion %{http_version}"];
            let output = curl(stacks, entrance, host, authority, &[flags, &tell].concat())?;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                text.ends_with(&format!("version {version}")),
                "{host} {flags:?}: {output:?}"
            );
            assert!(text.contains("/path?q=1"), "{host} {flags:?}: {text}");
            let by_proxy = text.contains("header x-forwarded-proto: https");
            assert_eq!(by_proxy, host == "shop.example.org", "who ended TLS of {host}? {text}");
        }
    }
    Ok(())
}

fn names(stacks: &Stacks<'_>, entrance: SocketAddr) -> Result<()> {
    // Each host has its own certificate alone, and who claims no TLS has none.
    for (host, authority) in [
        ("shop.example.org", "vault.pem"),
        ("vault.example.org", "fullchain.pem"),
        ("nobody.example.org", "fullchain.pem"),
    ] {
        let output = curl(stacks, entrance, host, authority, &["--include"])?;
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{host}, trusting {authority}: {output:?}"
        );
    }
    Ok(())
}
