//! What a Swarm takes of the machine: a name, a subnet, a folder. A lock on a file says whose they are, and the machine
//! drops it with the last process that holds it, so what an earlier run left behind can be told from what still runs.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Swarms that can run side by side on one machine.
const SLOTS: u8 = 32;

/// A slot that is ours.
#[derive(Debug)]
pub(super) struct Slot {
    /// Of links and cgroups, e.g. `tg3`.
    pub(super) name: String,
    /// First three octets of the nodes' addresses.
    pub(super) net: String,
    /// Of everything that is written.
    pub(super) dir: PathBuf,
    /// Held until the clean-up is over; see `guard`.
    pub(super) lock: File,
}

impl Slot {
    /// Takes the first free one.
    pub(super) fn take() -> Result<Slot> {
        let base = base();
        fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
        for number in 0..SLOTS {
            let path = base.join(format!("{number}.lock"));
            let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
            if lock.try_lock().is_ok() && !routed_elsewhere(number) {
                return Ok(Slot {
                    name: format!("tg{number}"),
                    net: net(number),
                    dir: base.join(number.to_string()),
                    lock,
                });
            }
        }
        bail!("{SLOTS} Swarms run on this machine already (see {})", base.display())
    }
}

/// Parent of all slots' folders. Short, as paths of unix sockets have 108 bytes.
fn base() -> PathBuf {
    std::env::temp_dir().join("tidegate-e2e")
}

fn net(number: u8) -> String {
    format!("10.78.{number}")
}

/// Whether someone else has that subnet; our own link of an earlier run does not count.
fn routed_elsewhere(number: u8) -> bool {
    let routes = fs::read_to_string(Path::new("/proc/net/route")).unwrap_or_default();
    let own = format!("tg{number}-up");
    routes.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let (Some(link), Some(destination)) = (fields.next(), fields.next()) else {
            return false;
        };
        link != own && destination.eq_ignore_ascii_case(&format!("00{number:02X}4E0A"))
    })
}
