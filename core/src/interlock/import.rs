//! Interlock's file to ours, with a line about every option that it has. Pure: text in, text and report out.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;
use toml::de::{DeString, DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::directives;
use super::options::{Fate, Form, OPTIONS, OptionRow, Scope, option};
use super::special;
use crate::labels::value::{duration_ms, size};
use crate::text::nearest;

/// What becomes of one option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It says the same in our settings.
    Kept,
    /// It is carried, and means something a little different.
    Changed,
    /// There is nothing to carry.
    Needless,
    /// It is lost: somebody should look.
    Lost,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// Line of Interlock's file.
    pub line: usize,
    /// The option, as `Extensions.default.ProxyReplicas`.
    pub option: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// To what, or why.
    pub said: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Kept => "kept",
            Verdict::Changed => "changed",
            Verdict::Needless => "not needed",
            Verdict::Lost => "LOST",
        };
        write!(f, "{}: {verdict}: {}: {}", self.line, self.option, self.said)
    }
}

/// Our file, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// A settings file.
    pub settings: String,
    /// A line for each option, in the order of Interlock's file.
    pub report: Vec<Line>,
}

impl Imported {
    /// Whether something could not be carried.
    pub fn loses(&self) -> bool {
        self.report.iter().any(|line| line.verdict == Verdict::Lost)
    }
}

/// Reads Interlock's file.
///
/// # Errors
/// Where the text is no TOML: line and what was expected.
pub fn import(text: &str) -> Result<Imported, String> {
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })?;
    let mut import = Import {
        text,
        settings: Table::new(),
        report: Vec::new(),
        cluster: String::new(),
    };
    import.core(document.get_ref());
    let Import {
        settings, mut report, ..
    } = import;
    report.sort();
    let settings = format!(
        "# Made by `tidegate import interlock`. docs/settings.md explains every key.\n{}{settings}",
        if settings.is_empty() { "" } else { "\n" }
    );
    Ok(Imported { settings, report })
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

pub(super) struct Import<'a> {
    text: &'a str,
    settings: Table,
    report: Vec<Line>,
    /// The service cluster whose options are read now.
    cluster: String,
}

/// An option of the file.
pub(super) struct Given<'a> {
    pub(super) row: &'static OptionRow,
    pub(super) value: &'a Value,
    path: String,
    line: usize,
}

impl Import<'_> {
    fn core(&mut self, table: &DeTable<'_>) {
        let mut has_extension = false;
        for (key, value) in in_order(table) {
            let (name, line) = (key.get_ref().as_ref(), self.line(key));
            let Some(row) = option(&[Scope::Core], name) else {
                self.unknown(name, "", line, &[Scope::Core]);
                continue;
            };
            if row.name != "Extensions" {
                let value = plain(value.get_ref());
                self.take(&Given {
                    row,
                    value: &value,
                    path: row.name.to_owned(),
                    line,
                });
                continue;
            }
            for (name, value) in value.get_ref().as_table().into_iter().flat_map(in_order) {
                has_extension = true;
                self.extension(name, value.get_ref());
            }
        }
        if !has_extension {
            self.say(
                1,
                "Extensions",
                Verdict::Lost,
                "the file has none, so nothing is served; is it Interlock's?",
            );
        }
    }

    fn extension(&mut self, name: &Spanned<DeString<'_>>, value: &DeValue<'_>) {
        let (path, line) = (format!("Extensions.{}", name.get_ref()), self.line(name));
        let Some(table) = value.as_table() else {
            self.say(line, &path, Verdict::Lost, "is no table, and is left out");
            return;
        };
        let named = find(table, "ServiceCluster").and_then(|value| value.as_str().map(str::trim));
        let wanted = named.filter(|name| !name.is_empty()).unwrap_or("default");
        self.cluster = cluster_name(wanted);
        if self.cluster != wanted {
            let said = format!(
                "the service cluster {wanted:?} becomes {:?}, because its name becomes part of service names; change the labels \
                 com.docker.lb.service_cluster too",
                self.cluster
            );
            self.say(line, &path, Verdict::Lost, &said);
        }
        if self.has_cluster() {
            let said = format!(
                "the service cluster {:?} has an extension already, and this one changes it",
                self.cluster
            );
            self.say(line, &path, Verdict::Lost, &said);
        }
        self.open_cluster();
        if find(table, "ProxyReplicas").is_none() {
            self.say(
                line,
                &format!("{path}.ProxyReplicas"),
                Verdict::Kept,
                "absent: 2 proxies",
            );
        }
        for (key, value) in in_order(table) {
            let (name, line) = (key.get_ref().as_ref(), self.line(key));
            let Some(row) = option(&[Scope::Extension], name) else {
                self.unknown(name, &path, line, &[Scope::Extension]);
                continue;
            };
            let path = format!("{path}.{}", row.name);
            match (row.name, value.get_ref()) {
                ("Config", DeValue::Table(config)) => self.config(&path, config),
                ("Config", _) => self.say(line, &path, Verdict::Lost, "is no table, and is left out"),
                (_, value) => {
                    let value = plain(value);
                    self.take(&Given {
                        row,
                        value: &value,
                        path,
                        line,
                    });
                }
            }
        }
    }

    fn config(&mut self, path: &str, table: &DeTable<'_>) {
        let scopes = [Scope::Nginx, Scope::Haproxy];
        for (key, value) in in_order(table) {
            let (name, line) = (key.get_ref().as_ref(), self.line(key));
            match option(&scopes, name) {
                Some(row) => {
                    let value = plain(value.get_ref());
                    let path = format!("{path}.{}", row.name);
                    self.take(&Given {
                        row,
                        value: &value,
                        path,
                        line,
                    });
                }
                None => self.unknown(name, path, line, &scopes),
            }
        }
    }

    fn unknown(&mut self, name: &str, path: &str, line: usize, scopes: &[Scope]) {
        let known = OPTIONS
            .iter()
            .filter(|row| scopes.contains(&row.scope))
            .map(|row| row.name);
        let near = nearest(name, known).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        self.say(line, &path, Verdict::Lost, &format!("is no option of Interlock{near}"));
    }

    fn take(&mut self, given: &Given<'_>) {
        match given.row.fate {
            Fate::Needless => self.answer(given, Verdict::Needless, given.row.ours),
            Fate::LostUnless(harmless) => {
                let text = as_text(given.value);
                if is_empty(given.value) || harmless.contains(&text.as_str()) {
                    self.answer(given, Verdict::Needless, "says nothing");
                } else {
                    self.answer(given, Verdict::Lost, given.row.ours);
                }
            }
            Fate::Key(key, form) => match value_of(given.value, form) {
                Ok(None) => self.answer(given, Verdict::Needless, "says nothing"),
                Ok(Some(value)) if key == "proxy.connect_timeout_ms" && special::is_patient(&value) => {
                    let why = "a dead address costs a request that long, 400 is Tidegate's own";
                    self.change(given, key, value, why);
                }
                Ok(Some(value)) => self.keep(given, key, value),
                Err(problem) => self.answer(given, Verdict::Lost, &format!("{} {problem}", shown(given.value))),
            },
            Fate::Special(special) => special::take(self, special, given),
        }
    }

    /// Sets a key and says so.
    pub(super) fn keep(&mut self, given: &Given<'_>, key: &str, value: Value) {
        let said = self.set(key, value);
        self.answer(given, Verdict::Kept, &said);
    }

    /// Sets a key and says so, and what is different.
    pub(super) fn change(&mut self, given: &Given<'_>, key: &str, value: Value, why: &str) {
        let said = self.set(key, value);
        self.answer(given, Verdict::Changed, &format!("{said}; {why}"));
    }

    /// Sets a key, of the present cluster unless it says `controller.`; the key with its value, for the report.
    pub(super) fn set(&mut self, key: &str, value: Value) -> String {
        let whole = match key.strip_prefix("controller.") {
            Some(_) => key.to_owned(),
            None => format!("clusters.{}.{key}", self.cluster),
        };
        let said = format!("{whole} = {value}");
        let (parents, last) = whole.rsplit_once('.').unwrap_or(("", &whole));
        let mut table = &mut self.settings;
        for part in parents.split('.') {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else { return said };
            table = inner;
        }
        table.insert(last.to_owned(), value);
        said
    }

    /// The value of a key of the present cluster, where it is set.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let cluster = self.settings.get("clusters")?.get(&self.cluster)?;
        key.split('.').try_fold(cluster, |value, part| value.get(part))
    }

    fn has_cluster(&self) -> bool {
        self.settings
            .get("clusters")
            .is_some_and(|clusters| clusters.get(&self.cluster).is_some())
    }

    /// A cluster without a key is one all the same.
    fn open_cluster(&mut self) {
        let clusters = self
            .settings
            .entry("clusters")
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(clusters) = clusters {
            clusters
                .entry(self.cluster.clone())
                .or_insert_with(|| Value::Table(Table::new()));
        }
    }

    pub(super) fn answer(&mut self, given: &Given<'_>, verdict: Verdict, said: &str) {
        self.say(given.line, &given.path, verdict, said);
    }

    fn say(&mut self, line: usize, option: &str, verdict: Verdict, said: &str) {
        self.report.push(Line {
            line,
            option: option.to_owned(),
            verdict,
            said: said.to_owned(),
        });
    }

    fn line<T>(&self, at: &Spanned<T>) -> usize {
        line_of(self.text, at.span().start)
    }
}

/// The entries of a table as they were written.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn find<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<&'t DeValue<'i>> {
    let found = table.iter().find(|(key, _)| key.get_ref().eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.get_ref())
}

/// A name that a service cluster of ours may have.
fn cluster_name(text: &str) -> String {
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    text.chars().map(fit).take(40).collect()
}

/// Without spans.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Value::String(number.to_string()), Value::Float),
        DeValue::Boolean(is) => Value::Boolean(*is),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                (key.get_ref().to_string(), plain(value.get_ref()))
            };
            Value::Table(table.iter().map(entry).collect())
        }
    }
}

/// A scalar as text, also where it was written without quotation marks.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Float(_)
        | Value::Integer(_)
        | Value::Table(_) => value.to_string(),
    }
}

/// `[""]` and the like count as nothing: a file of Interlock has them.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Table(table) => table.is_empty(),
        Value::Boolean(_) | Value::Datetime(_) | Value::Float(_) | Value::Integer(_) => false,
    }
}

/// For messages, in short.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        text
    } else {
        format!("{}…", text.chars().take(80).collect::<String>())
    }
}

/// A list of texts, also where there is one alone.
pub(super) fn texts(value: &Value) -> Vec<String> {
    let one = core::slice::from_ref(value);
    let items = value.as_array().map_or(one, Vec::as_slice);
    items.iter().filter(|item| !is_empty(item)).map(as_text).collect()
}

/// A value in our form; `None` where it says nothing.
pub(super) fn value_of(value: &Value, form: Form) -> Result<Option<Value>, String> {
    if is_empty(value) {
        return Ok(None);
    }
    let text = as_text(value);
    let number = |number: u64| {
        i64::try_from(number)
            .map(Value::Integer)
            .map_err(|_| String::from("is too large"))
    };
    let found = match form {
        Form::Text => Value::String(text),
        Form::Flag => match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" | "yes" => Value::Boolean(true),
            "false" | "off" | "0" | "no" => Value::Boolean(false),
            _ => return Err("is neither true nor false".into()),
        },
        Form::Number => number(text.parse().map_err(|_| "is no number".to_string())?)?,
        Form::Seconds => number(
            text.parse::<u64>()
                .map_err(|_| "is no number of seconds".to_string())?
                .saturating_mul(1_000),
        )?,
        // NGINX takes a second value for some, which is a header's.
        Form::Millis => {
            let first = text.split_whitespace().next().unwrap_or_default();
            number(duration_ms(first).map_err(|_| "is no time".to_string())?)?
        }
        Form::Size => number(size(&text).map_err(|_| "is no size".to_string())?)?,
        Form::Map => {
            let Value::Table(table) = value else {
                return Err("is no table".into());
            };
            Value::Table(
                table
                    .iter()
                    .map(|(key, value)| (key.clone(), Value::String(as_text(value))))
                    .collect(),
            )
        }
    };
    Ok(Some(found))
}

/// Every directive of a list of raw lines: name, words, and the text.
pub(super) fn lines_of(value: &Value) -> Vec<directives::Directive> {
    texts(value).iter().flat_map(|text| directives::split(text)).collect()
}
