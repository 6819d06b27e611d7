//! `docs/labels.md`, written from the table of labels.

use alloc::string::String;
use core::fmt::Write as _;

use super::keys::{INTERLOCK_PREFIX, LABELS, Label, PREFIX};

/// The reference table of `docs/labels.md`, from [`LABELS`].
pub fn reference_markdown() -> String {
    let mut out = String::new();
    for label in LABELS {
        write_label(&mut out, label).expect("writing to a String cannot fail");
    }
    out
}

fn write_label(out: &mut String, label: &Label) -> core::fmt::Result {
    writeln!(out, "### `{}`\n", label.name)?;
    writeln!(out, "{}\n", label.meaning)?;
    writeln!(out, "| | |\n|---|---|")?;
    match label.interlock {
        true => writeln!(out, "| keys | `{PREFIX}{0}`, `{INTERLOCK_PREFIX}{0}` |", label.name)?,
        false => writeln!(out, "| key | `{PREFIX}{}` |", label.name)?,
    }
    writeln!(out, "| value | {} |", label.syntax)?;
    writeln!(out, "| default | {} |", label.default)?;
    if !label.example.is_empty() {
        writeln!(out, "| example | `{PREFIX}{}={}` |", label.name, label.example)?;
    }
    writeln!(out, "| when wrong | {} |", label.when_wrong)?;
    writeln!(out, "| shown by | `{}` |\n", label.test)
}
