//! What one line of a plugin's stderr means: level, message, fields.
//!
//! The shapes, tried in this order: a JSON object with hclog's keys (`@level`, `@message`), a JSON
//! object with the keys of other loggers (`level`, `msg`), a level tag in brackets (also behind a
//! date), Python's `LEVEL:name:message`, the first line of a Go panic and what follows it, and
//! anything else as plain text. No line is lost and none fails; the sizes are bounded.

use serde_json::{Map, Value};
use std::borrow::Cow;

/// Longest message of a record in bytes; longer ones are cut and marked.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most fields of a record; the rest is counted in a field of its own.
pub const MAX_FIELDS: usize = 64;
/// Longest value of a field in bytes; longer ones are cut and marked.
pub const MAX_VALUE: usize = 8 * 1024;
/// Stands at the end of what was cut.
const CUT: &str = "…[cut]";
/// The field that counts fields left out.
const OMITTED: &str = "fields_omitted";

/// How grave a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Finest.
    Trace,
    /// Also what an unlabelled line has.
    Debug,
    /// Normal events.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// The lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    fn named(word: &str) -> Option<Level> {
        const LEVELS: &[(&str, Level)] = &[
            ("trace", Level::Trace),
            ("debug", Level::Debug),
            ("info", Level::Info),
            ("notice", Level::Info),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("err", Level::Error),
            ("error", Level::Error),
            ("critical", Level::Error),
            ("dpanic", Level::Error),
            ("panic", Level::Error),
            ("fatal", Level::Error),
        ];
        LEVELS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, level)| *level)
    }
}

/// What has to be remembered from line to line of one process. New for every start.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// A panic was seen: unlabelled lines belong to its stack.
    panicked: bool,
}

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How grave.
    pub level: Level,
    /// The text; for plain lines the whole line.
    pub message: String,
    /// Further keys of a JSON line, in the order of their names; values that are no strings are
    /// compact JSON.
    pub fields: Vec<(String, String)>,
    /// When, in the writer's own words; only if it has the shape that its logger uses.
    pub timestamp: Option<String>,
    /// The logger's name (hclog's `@module`, Python's logger).
    pub module: Option<String>,
}

impl Record {
    fn plain(level: Level, text: &str) -> Record {
        Record {
            level,
            message: bounded(text, MAX_MESSAGE).into_owned(),
            fields: Vec::new(),
            timestamp: None,
            module: None,
        }
    }
}

/// Understands `line`, given without its line end; a carriage return at the end is dropped.
/// Invalid UTF-8 comes out as replacement characters.
pub fn parse(line: &[u8], state: &mut State) -> Record {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    if line.len() < MAX_MESSAGE
        && let Some(record) = json(&text)
    {
        return record;
    }
    if let Some(level) = tagged(&text) {
        return Record::plain(level, &text);
    }
    if let Some((level, module)) = python(&text) {
        return Record {
            module: Some(module.to_owned()),
            ..Record::plain(level, &text)
        };
    }
    if text.starts_with("panic: ") || text.starts_with("fatal error: ") {
        state.panicked = true;
    }
    let level = if state.panicked {
        Level::Error
    } else {
        Level::Debug
    };
    Record::plain(level, &text)
}

/// A JSON object whose level is known. One without falls back to plain text, so that nothing of
/// it is lost.
fn json(text: &str) -> Option<Record> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    // The parser itself bounds the depth (128) and refuses beyond it.
    let Ok(Value::Object(map)) = serde_json::from_str::<Value>(text) else {
        return None;
    };
    if map.keys().any(|key| key.starts_with('@')) {
        hclog(map)
    } else {
        other_loggers(map)
    }
}

fn hclog(mut map: Map<String, Value>) -> Option<Record> {
    // hclog's own writer prints "off" for records above every level; it has no level of ours.
    let level = match map.get("@level")? {
        Value::String(word) if word.eq_ignore_ascii_case("off") => Level::Debug,
        Value::String(word) => hclog_level(word)?,
        _ => return None,
    };
    let timestamp = match map.get("@timestamp") {
        None => None,
        Some(Value::String(when)) if is_hclog_time(when) => Some(when.clone()),
        Some(_) => return None,
    };
    map.remove("@level");
    map.remove("@timestamp");
    let message = map.remove("@message").map(shown).unwrap_or_default();
    let module = map.remove("@module").map(shown);
    Some(Record {
        timestamp,
        module,
        ..assembled(level, message, map)
    })
}

fn hclog_level(word: &str) -> Option<Level> {
    let known = ["trace", "debug", "info", "warn", "error"];
    known
        .iter()
        .any(|name| name.eq_ignore_ascii_case(word))
        .then(|| Level::named(word))
        .flatten()
}

fn other_loggers(mut map: Map<String, Value>) -> Option<Record> {
    let take = |map: &mut Map<String, Value>, keys: &[&str]| {
        keys.iter().find_map(|key| match map.get(*key) {
            Some(Value::String(_) | Value::Number(_)) => map.remove(*key),
            _ => None,
        })
    };
    let (key, level) = ["level", "lvl", "severity", "levelname"]
        .iter()
        .find_map(|key| {
            let word = map.get(*key)?.as_str()?;
            Some((*key, Level::named(word)?))
        })?;
    map.remove(key);
    let message = take(&mut map, &["msg", "message"]).map(shown)?;
    let timestamp = take(&mut map, &["time", "ts", "timestamp", "asctime"])
        .map(|when| bounded(&shown(when), 64).into_owned());
    let module = take(&mut map, &["logger", "name"]).map(shown);
    Some(Record {
        timestamp,
        module,
        ..assembled(level, message, map)
    })
}

fn assembled(level: Level, message: String, map: Map<String, Value>) -> Record {
    let mut record = Record::plain(level, &message);
    let omitted = map.len().saturating_sub(MAX_FIELDS);
    record.fields = map
        .into_iter()
        .take(MAX_FIELDS)
        .map(|(key, value)| {
            (
                bounded(&key, 256).into_owned(),
                bounded(&shown(value), MAX_VALUE).into_owned(),
            )
        })
        .collect();
    if omitted > 0 {
        record
            .fields
            .push((OMITTED.to_owned(), omitted.to_string()));
    }
    record
}

fn shown(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// `2026-11-22T00:15:57.123456Z` or with an offset: exactly six digits behind the point.
fn is_hclog_time(text: &str) -> bool {
    let shape = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(byte, want)| match want {
                    b'0' => byte.is_ascii_digit(),
                    b'+' => byte == b'+' || byte == b'-',
                    other => byte == other,
                })
    };
    shape(text, "0000-00-00T00:00:00.000000Z") || shape(text, "0000-00-00T00:00:00.000000+00:00")
}

/// `[WARN] …`, also behind a date and a time of digits.
fn tagged(text: &str) -> Option<Level> {
    let mut rest = text;
    for _ in 0..3 {
        if let Some(inside) = rest.strip_prefix('[') {
            let (word, _) = inside.split_once(']')?;
            let known = [
                "TRACE", "DEBUG", "INFO", "WARN", "WARNING", "ERR", "ERROR", "FATAL",
            ];
            return known
                .contains(&word.trim())
                .then(|| Level::named(word.trim()))
                .flatten();
        }
        let (token, behind) = rest.split_once([' ', '\t'])?;
        if !is_date_or_time(token) {
            return None;
        }
        rest = behind.trim_start();
    }
    None
}

fn is_date_or_time(token: &str) -> bool {
    token.len() <= 40
        && token.starts_with(|c: char| c.is_ascii_digit())
        && token
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"/-:.,TZ+".contains(&byte))
        && token.bytes().any(|byte| b"/-:".contains(&byte))
}

/// `ERROR:root:message` as Python's logging prints without configuration.
fn python(text: &str) -> Option<(Level, &str)> {
    let (word, rest) = text.split_once(':')?;
    let level = match word {
        "DEBUG" => Level::Debug,
        "INFO" => Level::Info,
        "WARNING" => Level::Warn,
        "ERROR" | "CRITICAL" => Level::Error,
        _ => return None,
    };
    let (name, _) = rest.split_once(':')?;
    let is_name = |c: char| c.is_alphanumeric() || "._-".contains(c);
    (!name.is_empty() && name.len() <= 256 && name.chars().all(is_name)).then_some((level, name))
}

fn bounded(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max.saturating_sub(CUT.len()));
    Cow::Owned(format!("{}{CUT}", &text[..end]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "log_line_tests.rs"]
mod tests;
