//! Builds the images that a Swarm runs: the product's from `deploy/Dockerfile`, as a user does, and the test
//! application's. A real engine builds them, offline, since both are `FROM scratch`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command::{command, is_installed, run};
use crate::swarm::Swarm;
use crate::tidy;

/// Image of the product in tests.
pub const PRODUCT: &str = "tidegate:e2e";
/// Images of the test application, see `bin/app.rs`: the same program under two versions.
pub const APP: &str = "app:1";
/// The other version.
pub const APP_2: &str = "app:2";

/// Builds the product's program with cargo in a profile, and gives its path.
///
/// # Errors
/// If it does not compile.
pub fn product_program(profile: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = command(cargo);
    build.current_dir(tidy::root());
    build.args([
        "build",
        "--package",
        "tidegate",
        "--profile",
        profile,
        "--message-format",
        "json-render-diagnostics",
    ]);
    let messages = run(&mut build)?;
    executable(&messages, "tidegate").context("cargo built no program called tidegate")
}

/// The path of a program in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let paths = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    let mut named = paths.filter(|path| path.file_name().is_some_and(|file| file == name));
    named.next_back()
}

/// The test application's program: cargo builds it with every test program, beside their folder.
///
/// # Errors
/// If it is not there.
pub fn app_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("a running program has a path")?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("app")).find(|path| path.is_file());
    found.context("the program app is not built: run `cargo build -p e2e` first")
}

/// Puts [`PRODUCT`] and [`APP`] on every node. `TIDEGATE_E2E_PROFILE` names the product's profile; without it, the one
/// of `cargo build`.
///
/// # Errors
/// If building or loading fails.
pub fn load_both(swarm: &Swarm) -> Result<()> {
    let recipe = fs::read_to_string(tidy::root().join("deploy/Dockerfile")).context("cannot read deploy/Dockerfile")?;
    let profile = std::env::var("TIDEGATE_E2E_PROFILE").unwrap_or_else(|_| "dev".into());
    load(swarm, PRODUCT, &product_program(&profile)?, "tidegate", &recipe)?;
    load_app(swarm)
}

/// Puts [`APP`] and [`APP_2`] on every node.
///
/// # Errors
/// If building or loading fails.
pub fn load_app(swarm: &Swarm) -> Result<()> {
    for image in [APP, APP_2] {
        let version = image.trim_start_matches("app:");
        let recipe =
            format!("FROM scratch\nCOPY app /app\nENV VERSION=v{version}\nUSER 65532:65532\nENTRYPOINT [\"/app\"]\n");
        load(swarm, image, &app_program()?, "app", &recipe)?;
    }
    Ok(())
}

fn load(swarm: &Swarm, image: &str, program: &Path, name: &str, recipe: &str) -> Result<()> {
    let context = swarm.folder().join(format!("build-{name}"));
    fs::create_dir_all(context.join("state"))?;
    fs::write(context.join("state/.keep"), "")?;
    fs::write(context.join("Dockerfile"), recipe)?;
    copy_stripped(program, &context.join(name))?;
    let folder = context.to_string_lossy();
    let node = swarm.node(1);
    node.docker(&["build", "--quiet", "--tag", image, &folder])?;
    let archive = context.join("image.tar");
    node.docker(&["save", "--output", &archive.to_string_lossy(), image])?;
    swarm.load(&archive)?;
    fs::remove_dir_all(&context)?;
    Ok(())
}

/// Debug builds carry symbols that no container needs, four times the size of the rest.
fn copy_stripped(program: &Path, to: &Path) -> Result<()> {
    if is_installed("strip") {
        run(command("strip").arg("-o").arg(to).arg(program))?;
    } else {
        fs::copy(program, to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_other_messages() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
            warning: not JSON
            {"reason":"compiler-artifact","executable":"/t/debug/other"}
            {"reason":"compiler-artifact","executable":"/t/debug/tidegate"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "tidegate"),
            Some(PathBuf::from("/t/debug/tidegate"))
        );
        assert_eq!(executable("", "tidegate"), None);
    }
}
