//! Commands that ask a process beside this one, or a file.

use std::path::Path;
use std::process::ExitCode;

use http::StatusCode;
use tidegate_core::route::RouteTable;
use tidegate_core::route::explain::{Claim, Surroundings, explain as explain_url};
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::source_file::SourceFile;

use super::Failure;
use crate::admin::Routes;
use crate::app::file;
use crate::ask::{ask, query_value};
use crate::cli::{AskArgs, EXIT_FINDING, ExplainArgs, RoutesArgs, Source};

pub(super) async fn healthcheck(args: AskArgs) -> Result<ExitCode, Failure> {
    let (status, body) = get(&args, "/readyz").await?;
    print!("{body}");
    Ok(if status == StatusCode::OK {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FINDING)
    })
}

pub(super) async fn status(args: AskArgs) -> Result<ExitCode, Failure> {
    print!("{}", get(&args, "/status").await?.1);
    Ok(ExitCode::SUCCESS)
}

/// Exit code 1 where nothing is recorded.
pub(super) async fn recording(args: AskArgs) -> Result<ExitCode, Failure> {
    let (status, body) = get(&args, "/recording").await?;
    if status != StatusCode::OK {
        return Err(Failure::fatal(format!("error: {}", body.trim_end())));
    }
    print!("{body}");
    Ok(ExitCode::SUCCESS)
}

/// Exit code 1 where a label is refused.
pub(super) async fn routes(args: RoutesArgs) -> Result<ExitCode, Failure> {
    let Some(source) = args.source else {
        let path = if args.json { "/routes?format=json" } else { "/routes" };
        print!("{}", get(&args.ask, path).await?.1);
        return Ok(ExitCode::SUCCESS);
    };
    let (file, table) = read(&source)?;
    let refused = file
        .diagnostics
        .iter()
        .any(|d| d.severity == tidegate_core::labels::Severity::Error);
    let routes = Routes {
        tables: vec![("default".to_owned(), table.canonical_text())],
        diagnostics: file.diagnostics,
    };
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&routes).map_err(|error| Failure::usage(error.to_string()))?
        );
    } else {
        print!("{}", routes.to_text());
    }
    Ok(if refused {
        ExitCode::from(EXIT_FINDING)
    } else {
        ExitCode::SUCCESS
    })
}

pub(super) async fn explain(args: ExplainArgs) -> Result<ExitCode, Failure> {
    let Some(source) = args.source else {
        let format = if args.json { "&format=json" } else { "" };
        let (status, body) = get(&args.ask, &format!("/explain?url={}{format}", query_value(&args.url))).await?;
        print!("{body}");
        return Ok(if status == StatusCode::OK {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(EXIT_FINDING)
        });
    };
    let (file, table) = read(&source)?;
    let claims = file.claims();
    let claims: Vec<Claim<'_>> = claims.iter().map(|claim| claim.as_claim()).collect();
    let explanation = explain_url(
        &table,
        &args.url,
        &Surroundings {
            claims: &claims,
            ..Surroundings::NONE
        },
    );
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&explanation).map_err(|error| Failure::usage(error.to_string()))?
        );
    } else {
        println!("{explanation}");
    }
    Ok(ExitCode::SUCCESS)
}

fn read(source: &Source) -> Result<(SourceFile, RouteTable), Failure> {
    let Source::File(path) = source else {
        return Err(Failure::usage(
            "error: --source: only file:PATH can be read here; leave it out to ask a running process",
        ));
    };
    let file = load(path)?;
    // Names are not resolved here: their endpoints are what the file says, whatever this machine's DNS thinks.
    let snapshot = file::snapshot(&file, &ProxySettings::default(), &std::collections::BTreeMap::new());
    Ok((file, RouteTable::compile(&snapshot)))
}

fn load(path: &Path) -> Result<SourceFile, Failure> {
    file::load(path).map_err(|error| Failure::usage(format!("error: {error}")))
}

async fn get(args: &AskArgs, path: &str) -> Result<(StatusCode, String), Failure> {
    ask(args.admin, path)
        .await
        .map_err(|error| Failure::unreachable(format!("error: {error:#}")))
}
