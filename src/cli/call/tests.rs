//! Choosing methods, reading messages and showing shapes, on a small interface of all kinds.

use patchbay_protocol::reflect;
use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::CallError;
use super::message::{self, MessageError};
use super::method::{MethodError, MethodQuery};
use super::shape;

const PROTO: &str = r#"
syntax = "proto3";
package demo;
import "google/protobuf/timestamp.proto";

message Note {
  string title = 1;
  bytes body = 2;
  int64 size = 3;
  repeated string tags = 4;
  map<string, int32> counts = 5;
  enum Color { NONE = 0; RED = 1; }
  Color color = 6;
  oneof where { string url = 7; string path = 8; }
  google.protobuf.Timestamp at = 9;
  Note parent = 10;
}
message Empty {}
service Notes {
  rpc Get(Note) returns (Note);
  rpc Watch(Note) returns (stream Note);
  rpc Collect(stream Note) returns (Empty);
}
service Other { rpc Get(Empty) returns (Empty); }
"#;

struct Source;

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "demo.proto" {
            File::from_source(name, PROTO)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

pub(super) fn pool() -> DescriptorPool {
    let mut sources = ChainFileResolver::new();
    sources.add(Source);
    sources.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(sources);
    compiler.include_imports(true);
    compiler
        .open_file("demo.proto")
        .unwrap_or_else(|error| panic!("{error}"));
    compiler.descriptor_pool()
}

fn served() -> Vec<String> {
    [
        "demo.Notes",
        "demo.Other",
        "grpc.health.v1.Health",
        "plugin.GRPCController",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn chosen(text: &str) -> Result<String, MethodError> {
    let wanted = MethodQuery::parse(text)?;
    let served = served();
    let services = wanted.services(&served)?;
    wanted
        .choose(&pool(), &services)
        .map(|method| reflect::written(&method))
}

#[test]
fn method_is_found_by_every_unique_form() {
    for text in [
        "demo.Notes/Watch",
        "/demo.Notes/Watch",
        "demo.Notes.Watch",
        "Notes/Watch",
        "notes/watch",
        "Watch",
        "watch",
    ] {
        assert_eq!(chosen(text), Ok("demo.Notes/Watch".to_owned()), "{text}");
    }
}

#[test]
fn method_is_refused_with_all_candidates_when_ambiguous() {
    let found = vec!["demo.Notes/Get".to_owned(), "demo.Other/Get".to_owned()];
    assert_eq!(
        chosen("Get"),
        Err(MethodError::Ambiguous {
            wanted: "Get".to_owned(),
            found
        })
    );
    assert_eq!(chosen("Other/Get"), Ok("demo.Other/Get".to_owned()));
}

#[test]
fn method_is_refused_with_similar_names_when_unknown() {
    let said = |wanted: &str| {
        chosen(wanted)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert!(
        said("Wach").contains("there is no Wach; did you mean demo.Notes/Watch?"),
        "{}",
        said("Wach")
    );
    assert!(
        said("demo.Note/Get")
            .contains("no service demo.Note; did you mean demo.Notes or demo.Other?"),
        "{}",
        said("demo.Note/Get")
    );
    assert!(
        said("x.Y/Get").ends_with("It serves: demo.Notes, demo.Other"),
        "{}",
        said("x.Y/Get")
    );
    assert!(said("a b").contains("expected package.Service/Method"));
    for text in ["", "/", "demo.Notes/", "demo..Notes/Get", "demo.Notes/G-t"] {
        assert_eq!(
            MethodQuery::parse(text),
            Err(MethodError::Malformed(text.to_owned()))
        );
    }
}

fn messages(
    method: &prost_reflect::MethodDescriptor,
    text: Option<&str>,
) -> Result<Vec<DynamicMessage>, CallError> {
    Ok(reflect::messages(
        method,
        message::values(text.unwrap_or_default())?,
    )?)
}

fn method(name: &str) -> prost_reflect::MethodDescriptor {
    let wanted = MethodQuery::parse(name).unwrap_or_else(|error| panic!("{error}"));
    wanted
        .choose(&pool(), &["demo.Notes"])
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn message_converts_from_and_to_json() -> Result<(), CallError> {
    let text = r#"{"title":"a","body":"aGk=","size":"7","tags":["x"],"counts":{"y":1},"color":"RED","url":"u","at":"2026-01-02T03:04:05Z"}"#;
    let messages = messages(&method("Get"), Some(text))?;
    let [one] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    let back: serde_json::Value =
        serde_json::from_str(&reflect::json(one)?).map_err(MessageError::Json)?;
    let sent: serde_json::Value = serde_json::from_str(text).map_err(MessageError::Json)?;
    for (field, value) in sent.as_object().into_iter().flatten() {
        assert_eq!(back.get(field), Some(value), "{field}");
    }
    Ok(())
}

#[test]
fn empty_response_shows_its_fields() -> Result<(), CallError> {
    let line = reflect::json(&DynamicMessage::new(method("Get").output()))?;
    assert!(
        line.starts_with(r#"{"title":"","body":"","size":"0","tags":[]"#),
        "{line}"
    );
    Ok(())
}

#[test]
fn stream_takes_several_messages_and_unary_call_one() -> Result<(), CallError> {
    let three = Some("{\"title\":\"a\"} {\"title\":\"b\"}\n{}");
    assert_eq!(messages(&method("Collect"), three)?.len(), 3);
    assert_eq!(messages(&method("Collect"), None)?.len(), 0);
    assert_eq!(messages(&method("Get"), None)?.len(), 1);
    let refused = messages(&method("Watch"), three)
        .err()
        .map(|error| error.to_string());
    assert_eq!(
        refused.as_deref(),
        Some("preparing the call: demo.Notes/Watch takes one message, 3 were given")
    );
    Ok(())
}

#[test]
fn message_is_refused_with_its_fields_when_wrong() {
    let said = |text| {
        messages(&method("Get"), Some(text))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let unknown = said(r#"{"titel":"a"}"#);
    assert!(
        unknown.contains("titel") && unknown.contains(r#"{"title": string, "body": base64"#),
        "{unknown}"
    );
    assert!(
        said("{").starts_with("reading the message as JSON: EOF"),
        "{}",
        said("{")
    );
    assert!(said(r#"{"body":"%"}"#).starts_with("reading the message as demo.Note: "));
}

#[test]
fn list_shows_methods_with_the_fields_of_their_messages() {
    insta::assert_snapshot!(shape::list(&pool(), &served()));
}
