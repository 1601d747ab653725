//! The shapes of case 31 of the go-plugin conformance list.

use super::*;
use proptest::prelude::*;

fn one(line: &str) -> Record {
    parse(line.as_bytes(), &mut State::default())
}

fn field<'a>(record: &'a Record, key: &str) -> Option<&'a str> {
    record
        .fields
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

#[test]
fn hclog_lines_give_level_message_module_time_and_fields() {
    for (word, level) in [
        ("trace", Level::Trace),
        ("DEBUG", Level::Debug),
        ("Info", Level::Info),
        ("warn", Level::Warn),
        ("error", Level::Error),
        ("off", Level::Debug),
    ] {
        let record = one(&format!(
            r#"{{"@level":"{word}","@message":"hello","@module":"kv","@timestamp":"2026-11-22T00:15:57.123456Z","n":3,"deep":{{"a":[1]}},"s":"t"}}"#
        ));
        assert_eq!(record.level, level, "{word}");
        assert_eq!(record.message, "hello");
        assert_eq!(record.module.as_deref(), Some("kv"));
        assert_eq!(
            record.timestamp.as_deref(),
            Some("2026-11-22T00:15:57.123456Z")
        );
        assert_eq!(field(&record, "n"), Some("3"));
        assert_eq!(field(&record, "deep"), Some(r#"{"a":[1]}"#));
        assert_eq!(field(&record, "s"), Some("t"));
        assert_eq!(record.fields.len(), 3);
    }
}

#[test]
fn an_offset_is_a_time_zone_too() {
    let record =
        one(r#"{"@level":"info","@message":"m","@timestamp":"2026-11-22T00:15:57.123456+01:00"}"#);
    assert_eq!(
        record.timestamp.as_deref(),
        Some("2026-11-22T00:15:57.123456+01:00")
    );
}

#[test]
fn hclog_lines_with_a_wrong_level_or_time_are_kept_whole() {
    for line in [
        r#"{"@message":"no level"}"#,
        r#"{"@level":"loud","@message":"unknown"}"#,
        r#"{"@level":5,"@message":"number"}"#,
        r#"{"@level":"info","@message":"m","@timestamp":"x"}"#,
        r#"{"@level":"info","@message":"m","@timestamp":7}"#,
        r#"{"@level":"info","@message":"m","@timestamp":"2026-11-22T00:15:57.123Z"}"#,
    ] {
        let record = one(line);
        assert_eq!(record.level, Level::Debug, "{line}");
        assert_eq!(record.message, line);
        assert!(record.fields.is_empty());
    }
}

#[test]
fn a_message_that_is_no_string_is_shown() {
    let record = one(r#"{"@level":"warn","@message":5}"#);
    assert_eq!((record.level, record.message.as_str()), (Level::Warn, "5"));
    let record = one(r#"{"@level":"warn","@module":{}}"#);
    assert_eq!(
        (record.message.as_str(), record.module.as_deref()),
        ("", Some("{}"))
    );
}

#[test]
fn json_that_is_no_object_is_plain_text() {
    for line in [
        r#"["@level","info"]"#,
        "5",
        "\"x\"",
        "null",
        "{",
        "{}",
        "{\"a\":1}",
    ] {
        let record = one(line);
        assert_eq!(
            (record.level, record.message.as_str()),
            (Level::Debug, line)
        );
    }
}

#[test]
fn deep_nesting_is_plain_text() {
    let line = format!(
        r#"{{"@level":"info","x":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    assert_eq!(one(&line).message, line);
    let line = "{\"a\":".repeat(10_000);
    assert_eq!(one(&line).message, line);
}

#[test]
fn other_loggers_are_understood() {
    let zap = one(r#"{"level":"info","ts":1700000000.5,"logger":"a.b","msg":"zap","k":true}"#);
    assert_eq!((zap.level, zap.message.as_str()), (Level::Info, "zap"));
    assert_eq!(zap.timestamp.as_deref(), Some("1700000000.5"));
    assert_eq!(zap.module.as_deref(), Some("a.b"));
    assert_eq!(field(&zap, "k"), Some("true"));
    let logrus = one(r#"{"level":"warning","msg":"logrus","time":"2026-11-22T00:15:57Z"}"#);
    assert_eq!(
        (logrus.level, logrus.message.as_str()),
        (Level::Warn, "logrus")
    );
    let python = one(r#"{"levelname":"CRITICAL","name":"root","message":"py","asctime":"now"}"#);
    assert_eq!(
        (python.level, python.message.as_str()),
        (Level::Error, "py")
    );
    let unknown = r#"{"level":30,"msg":"pino"}"#;
    assert_eq!(one(unknown).message, unknown);
    let no_message = r#"{"level":"info","x":1}"#;
    assert_eq!(one(no_message).message, no_message);
}

#[test]
fn level_tags_are_read_also_behind_a_date() {
    for (line, level) in [
        ("[TRACE] x", Level::Trace),
        ("[DEBUG] x", Level::Debug),
        ("[INFO]  x", Level::Info),
        ("[WARN] x", Level::Warn),
        ("[ERROR] x", Level::Error),
        ("[ERR] x", Level::Error),
        ("2026/11/22 00:15:57 [WARN] x", Level::Warn),
        ("2026-11-22T00:15:57.123+0100 [ERROR] kv: x", Level::Error),
        ("2026-11-22 00:15:57,123 [INFO] x", Level::Info),
    ] {
        let record = one(line);
        assert_eq!((record.level, record.message.as_str()), (level, line));
    }
    for line in [
        "x [WARN] y",
        "[warned] x",
        "[WARN",
        "[",
        "2026 [WARN] x",
        "1 2 3 [WARN] x",
        "",
    ] {
        assert_eq!(one(line).level, Level::Debug, "{line}");
    }
}

#[test]
fn python_logging_is_read() {
    let record = one("ERROR:root:x: y");
    assert_eq!(
        (record.level, record.message.as_str()),
        (Level::Error, "ERROR:root:x: y")
    );
    assert_eq!(record.module.as_deref(), Some("root"));
    assert_eq!(one("WARNING:a.b_c:x").level, Level::Warn);
    assert_eq!(one("ERROR: no logger: x").level, Level::Debug);
    assert_eq!(one("ERRORS:root:x").level, Level::Debug);
}

#[test]
fn a_panic_marks_what_follows_it() {
    let mut state = State::default();
    let mut level = |line: &str| parse(line.as_bytes(), &mut state).level;
    assert_eq!(level("before"), Level::Debug);
    assert_eq!(level("panic: boom"), Level::Error);
    assert_eq!(level("goroutine 1 [running]:"), Level::Error);
    assert_eq!(level("[INFO] labelled"), Level::Info);
    assert_eq!(level("\tmain.go:7"), Level::Error);
    assert_eq!(
        one("fatal error: all goroutines are asleep").level,
        Level::Error
    );
    assert_eq!(one("so I said panic: boom").level, Level::Debug);
}

#[test]
fn long_lines_and_many_fields_are_bounded() {
    let long = one(&"x".repeat(100 * 1024));
    assert_eq!(long.message.len(), MAX_MESSAGE);
    assert!(long.message.ends_with(CUT));
    let json = format!(
        r#"{{"@level":"info","@message":"{}"}}"#,
        "x".repeat(100 * 1024)
    );
    assert!(one(&json).message.len() <= MAX_MESSAGE);
    let fields: Vec<String> = (0..100).map(|n| format!(r#""k{n:03}":{n}"#)).collect();
    let many = one(&format!(
        r#"{{"@level":"info","@message":"m",{}}}"#,
        fields.join(",")
    ));
    assert_eq!(many.fields.len(), MAX_FIELDS + 1);
    assert_eq!(field(&many, OMITTED), Some("36"));
    let wide = one(&format!(
        r#"{{"@level":"info","v":"{}"}}"#,
        "é".repeat(20_000)
    ));
    assert!(
        field(&wide, "v").is_some_and(|value| value.len() <= MAX_VALUE && value.ends_with(CUT))
    );
}

#[test]
fn broken_utf8_and_carriage_returns_do_no_harm() {
    let record = parse(b"a\xffb\r", &mut State::default());
    assert_eq!(record.message, "a\u{fffd}b");
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "@level",
        "@message",
        "@timestamp",
        "\"info\"",
        "level",
        "msg",
        "[WARN] ",
        "2026/11/22 ",
        "ERROR:",
        "root:",
        "panic: ",
        "\\u0000",
        "1e999",
        "é",
    ];
    prop_oneof![
        proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    #[test]
    fn no_line_breaks_the_parser(lines in proptest::collection::vec(
        proptest::collection::vec(piece(), 0..20), 1..4,
    )) {
        let mut state = State::default();
        for pieces in lines {
            let record = parse(&pieces.concat(), &mut state);
            prop_assert!(record.message.len() <= MAX_MESSAGE);
            prop_assert!(record.fields.len() <= MAX_FIELDS + 1);
        }
    }

    #[test]
    fn plain_text_comes_back_as_it_was(text in "[a-z ]{0,80}") {
        prop_assume!(!text.starts_with("panic: ") && !text.starts_with("fatal error: "));
        let record = one(&text);
        prop_assert_eq!(record.level, Level::Debug);
        prop_assert_eq!(record.message, text);
    }
}
