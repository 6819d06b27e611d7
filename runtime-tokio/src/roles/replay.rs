//! `tidegate replay`: what a recorded controller was told, for a controller of this program, and what both decide.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tidegate_core::calendar::utc;
use tidegate_core::recording::{Recording, Replay, Step};
use tidegate_core::time::Instant;

use super::Failure;
use crate::cli::{EXIT_FINDING, ReplayArgs, version};

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let place = args.file.display();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::usage(format!("error: {place}: cannot be read: {error}")))?;
    let recording = read(&text, &place.to_string())?;
    let wall_at_start = recording.header.me.wall_at_start;
    let moment = |when: Option<tidegate_core::recording::When>| when.map(|when| when.instant(wall_at_start));
    let begin = recording.lines.first().map_or(Instant::START, |line| line.at);
    let end = recording.lines.last().map_or(Instant::START, |line| line.at);
    let since = moment(args.since).unwrap_or(Instant::START);
    let until = moment(args.until).unwrap_or(Instant::at(Duration::MAX));
    for (flag, is_outside) in [
        ("--since", since > end),
        ("--until", until < begin),
        ("--until", until < since),
    ] {
        if is_outside {
            return Err(Failure::usage(format!(
                "error: {flag}: the recording goes from {begin} ({}) to {end} ({}), and nothing in it is between the moments \
                 that you gave",
                utc(wall_at_start + begin.since_start()),
                utc(wall_at_start + end.since_start()),
            )));
        }
    }
    let mut out = Out::new(args);
    out.begin(&recording, begin, end);
    let mut replay = Replay::new(recording);
    if args.save_test.is_some() {
        replay.save_from(since);
    }
    while let Some(step) = replay.step(until) {
        // A difference is told wherever it is, since everything after it may be its consequence.
        if step.at >= since || step.recorded.is_some() {
            out.step(&step)?;
        }
    }
    out.end(&replay);
    if let Some(path) = &args.save_test {
        save_test(&replay, path)?;
    }
    Ok(if replay.differs() {
        ExitCode::from(EXIT_FINDING)
    } else {
        ExitCode::SUCCESS
    })
}

fn read(text: &str, place: &str) -> Result<Recording, Failure> {
    Recording::read(text).map_err(|error| Failure::usage(format!("error: {place}: {error}")))
}

/// What is printed, and how much of it there was.
struct Out<'a> {
    args: &'a ReplayArgs,
    steps: usize,
    decisions: usize,
    differing: usize,
}

impl<'a> Out<'a> {
    fn new(args: &'a ReplayArgs) -> Self {
        Out {
            args,
            steps: 0,
            decisions: 0,
            differing: 0,
        }
    }

    fn begin(&self, recording: &Recording, begin: Instant, end: Instant) {
        if self.args.json {
            return;
        }
        let header = &recording.header;
        let wall = header.me.wall_at_start;
        let state = match recording.checkpoint {
            Some(_) => "the state that it was in",
            None => "its start",
        };
        print(&format!(
            "# {} of version {} from {} to {} ({begin} to {end} since it started), from {state} on\n",
            header.me.task,
            header.version,
            utc(wall + begin.since_start()),
            utc(wall + end.since_start()),
        ));
        if header.version != version() {
            print(&format!("# replayed by version {}\n", version()));
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        self.steps += 1;
        self.decisions += step.decided.len();
        self.differing += usize::from(step.recorded.is_some());
        if step.is_silent() && !self.args.all {
            return Ok(());
        }
        if self.args.json {
            let line = serde_json::to_string(step).map_err(|error| Failure::usage(format!("error: {error}")))?;
            print(&(line + "\n"));
        } else {
            print(&step.to_string());
        }
        Ok(())
    }

    fn end(&self, replay: &Replay) {
        if self.args.json {
            return;
        }
        let differing = match (self.differing, replay.differs()) {
            (0, _) => "all as recorded".to_owned(),
            (1, _) => "1 step differs from the recording; it is marked with !".to_owned(),
            (many, _) => format!("{many} steps differ from the recording; they are marked with !"),
        };
        print(&format!(
            "# {} steps, {} decisions: {differing}\n",
            self.steps, self.decisions
        ));
    }
}

/// Standard output may be closed by whoever read enough.
fn print(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}

/// Writes the recording that was replayed, and what this program decides by it.
fn save_test(replay: &Replay, path: &Path) -> Result<(), Failure> {
    let path = match path.extension() {
        Some(extension) if extension == "jsonl" || extension == "expected" => path.with_extension(""),
        Some(_) | None => path.to_path_buf(),
    };
    if path.file_name().is_none() || path.is_dir() {
        return Err(Failure::usage(format!(
            "error: --save-test {}: write a folder and a name, e.g. core/tests/incidents/lost-host",
            path.display()
        )));
    }
    let saved = replay
        .saved()
        .ok_or_else(|| Failure::usage("error: --save-test: nothing happened between --since and --until"))?;
    let story = Replay::story(read(&saved, "the recording that was to be saved")?);
    let named = |ending: &str| {
        let mut name = path.clone().into_os_string();
        name.push(ending);
        std::path::PathBuf::from(name)
    };
    if let Some(folder) = path.parent() {
        write_failed(folder, std::fs::create_dir_all(folder))?;
    }
    let (recording, expected) = (named(".jsonl"), named(".expected"));
    write_failed(&recording, std::fs::write(&recording, saved))?;
    write_failed(&expected, std::fs::write(&expected, story))?;
    eprintln!("wrote {} and {}", recording.display(), expected.display());
    Ok(())
}

fn write_failed(path: &Path, result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::usage(format!("error: --save-test: {}: {error}", path.display())))
}
