//! The control groups of a Swarm's nodes, on machines with version 1, hybrid or version 2: to freeze a node, and to leave
//! none behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const BASE: &str = "/sys/fs/cgroup";

/// Whether the machine has the single hierarchy of version 2.
fn is_unified() -> bool {
    Path::new(BASE).join("cgroup.controllers").exists()
}

/// The hierarchies that exist.
fn roots() -> Vec<PathBuf> {
    if is_unified() {
        return vec![BASE.into()];
    }
    let entries = fs::read_dir(BASE).into_iter().flatten().flatten();
    let mut roots: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect();
    roots.sort();
    roots
}

/// Makes the groups of a node and gives those that its processes have to move into.
pub(super) fn create(swarm: &str, node: &str) -> Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    for root in roots() {
        // A new cpuset of version 1 has no processor: Docker fills its own.
        if root.ends_with("cpuset") {
            continue;
        }
        // Version 2 has processes in leaves only, and dockerd puts containers beside itself.
        let leaf = if is_unified() { "node" } else { "" };
        let group = root.join(swarm).join(node).join(leaf);
        fs::create_dir_all(&group).with_context(|| format!("cannot make the cgroup {}", group.display()))?;
        groups.push(group);
    }
    Ok(groups)
}

/// Stops every process of a node where it is, or lets all go on.
pub(super) fn freeze(swarm: &str, node: &str, frozen: bool) -> Result<()> {
    let (file, value) = if is_unified() {
        (
            Path::new(BASE).join(swarm).join(node).join("cgroup.freeze"),
            if frozen { "1" } else { "0" },
        )
    } else {
        let group = Path::new(BASE).join("freezer").join(swarm).join(node);
        (group.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
    };
    fs::write(&file, value).with_context(|| format!("cannot write {value} to {}", file.display()))
}

/// Removes every group of a Swarm. True when none is left: a group can only go some time after its last process.
pub(super) fn remove(swarm: &str) -> bool {
    let mut gone = true;
    for root in roots() {
        let group = root.join(swarm);
        if group.exists() {
            remove_tree(&group);
            gone &= !group.exists();
        }
    }
    gone
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // Refused while a process is in it: the caller looks again.
    let _ = fs::remove_dir(group);
}
