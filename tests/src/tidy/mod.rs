//! Reads the repository's own source and manifests for the checks of `tests/tests/tidy.rs`.

pub mod licence;

use std::fs;
use std::path::{Path, PathBuf};

/// One text file of the repository.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path below the repository's root, with `/`.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

impl SourceFile {
    /// The text without what follows `//` at the start of a line: comments may speak of what code may not do.
    pub fn code(&self) -> String {
        let kept = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        kept.collect::<Vec<_>>().join("\n")
    }

    /// Numbers (from 1) and texts of the code lines that contain one of the words.
    pub fn lines_with(&self, words: &[&str]) -> Vec<(usize, String)> {
        let code = self.text.lines().enumerate();
        code.filter(|(_, line)| !line.trim_start().starts_with("//"))
            .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
            .map(|(index, line)| (index + 1, line.trim().to_string()))
            .collect()
    }
}

/// Root of the repository.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies one level below the root")
        .to_path_buf()
}

/// Every text file below the root but build output and what git hides, sorted by path.
pub fn files() -> Vec<SourceFile> {
    let mut found = Vec::new();
    collect(&root(), &root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// [`files`] that are Rust.
pub fn rust_files() -> Vec<SourceFile> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// Names of the functions of a file.
pub fn functions(file: &SourceFile) -> Vec<String> {
    let code = file.code();
    let names = code.split("fn ").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        rest[end..].starts_with(['(', '<']).then(|| rest[..end].to_string())
    });
    names.collect()
}

/// Rows of the tables of a page whose last column is `shown by`, with the tests that it names; and single lines
/// `| shown by | … |` with the heading above them.
pub fn shown_by(page: &str) -> Vec<(String, Vec<String>)> {
    let mut rows = Vec::new();
    let (mut heading, mut is_table) = ("", false);
    for line in page.lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_start_matches('#').trim();
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            is_table = is_table && line.starts_with("|--");
            continue;
        };
        let cells: Vec<&str> = cells.split(" | ").collect();
        let Some((last, first)) = cells.last().zip(cells.first()) else {
            continue;
        };
        let names = || last.split('`').skip(1).step_by(2).map(str::to_string).collect();
        if *first == "shown by" {
            rows.push((heading.to_string(), names()));
        } else if is_table {
            rows.push((first.to_string(), names()));
        } else {
            is_table = *last == "shown by";
        }
    }
    rows
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<SourceFile>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    for entry in entries.map(|entry| entry.expect("a listed entry can be read")) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type().expect("a listed entry has a type");
        if kind.is_dir() {
            if name != ".git" && name != "target" {
                collect(root, &path, found);
            }
        } else if kind.is_file()
            && name != ".git"
            && let Ok(text) = fs::read_to_string(&path)
        {
            let below = path.strip_prefix(root).expect("it was found below the root");
            found.push(SourceFile {
                path: below.to_string_lossy().replace('\\', "/"),
                text,
            });
        }
    }
}
