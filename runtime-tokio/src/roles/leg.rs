//! `tidegate leg`.

use std::process::ExitCode;

use tidegate_core::id::NetworkId;
use tidegate_core::route::allow::IpRange;

use super::{Failure, entropy, stop_signal};
use crate::cli::LegArgs;
use crate::clock::Clock;
use crate::leg::own_networks;
use crate::leg::serve::{Leg, serve};

pub(super) async fn run(args: LegArgs) -> Result<ExitCode, Failure> {
    let wrong = |text: &str| Failure::usage(format!("error: --network {text:?}: write the id of a Docker network"));
    if args.network.is_empty() || !args.network.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(wrong(&args.network));
    }
    let inside = match args.inside.as_slice() {
        [] => own_networks(),
        given => given
            .iter()
            .map(|text| {
                text.trim()
                    .parse::<IpRange>()
                    .map_err(|why| Failure::usage(format!("error: --inside {text}: {why}; write 10.0.5.0/24")))
            })
            .collect::<Result<_, _>>()?,
    };
    if inside.is_empty() {
        return Err(Failure::fatal(
            "error: this process is on no network but the one that leads to the world outside, so there is nothing to dial",
        ));
    }
    let leg = Leg {
        network: NetworkId::from(args.network),
        inside,
        folder: args.legs_dir.clone(),
        nonce: entropy().next_u64(),
    };
    let stop = stop_signal()?;
    serve(leg, Clock::system(), stop).await.map_err(|error| {
        Failure::fatal(format!(
            "error: --legs-dir {}: no socket can be made there: {error}; it must be a volume that belongs to this user, and the \
             proxies' too",
            args.legs_dir.display()
        ))
    })?;
    Ok(ExitCode::SUCCESS)
}
