//! Which calls are not forwarded: everything in the protobuf package `plugin`, which is between a
//! go-plugin host and its plugin, and the sidecar is the host.
//!
//! Servers differ in how they read a path, so a call is forwarded only if no reading of its path
//! leads into that package: percent escapes decoded, empty and dotted segments removed, letters of
//! either case.

use super::reply;
use super::reply::Reply;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode;

/// Most bytes of a Shutdown request that are read; the message has no fields.
const MAX_SHUTDOWN_REQUEST: usize = 64 * 1024;

/// What is done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to the plugin.
    Forward,
    /// `plugin.GRPCController/Shutdown`: answered OK and counted. A stock host calls it when it
    /// closes, and must not end a plugin that others use.
    Shutdown,
    /// `plugin.GRPCStdio/StreamStdio`: served from the sidecar's copy. The plugin's own stream can
    /// be read by one reader only.
    Stdio,
    /// Unimplemented, with this explanation.
    Refuse(&'static str),
}

const NO_BROKER: &str = "patchbay: go-plugin's broker is not offered on this port";
const NO_PACKAGE: &str = "patchbay: the package `plugin` is not forwarded";
const BAD_PATH: &str = "patchbay: not the path of a gRPC method";
const BAD_METHOD: &str = "patchbay: CONNECT is not forwarded";

/// Judges one call by its HTTP method and path.
pub(super) fn judge(method: &Method, path_and_query: &str) -> Verdict {
    if method == Method::CONNECT {
        return Verdict::Refuse(BAD_METHOD);
    }
    match path_and_query {
        "/plugin.GRPCController/Shutdown" => return Verdict::Shutdown,
        "/plugin.GRPCStdio/StreamStdio" => return Verdict::Stdio,
        _ => {}
    }
    if !path_and_query.starts_with('/') {
        return Verdict::Refuse(BAD_PATH);
    }
    if path_and_query.starts_with("/plugin.GRPCBroker/") {
        return Verdict::Refuse(NO_BROKER);
    }
    if is_plain(path_and_query) {
        // The way of nearly every call: no allocation.
        let service = &path_and_query[1..];
        return if is_ours(service) {
            Verdict::Refuse(NO_PACKAGE)
        } else {
            Verdict::Forward
        };
    }
    if any_reading_is_ours(path_and_query) {
        Verdict::Refuse(NO_PACKAGE)
    } else {
        Verdict::Forward
    }
}

/// Whether the path has only one reading: letters, digits, `_`, `.`, `-` and single slashes.
fn is_plain(path: &str) -> bool {
    let mut previous = b' ';
    path.bytes().all(|byte| {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-')
            || (byte == b'.' && previous != b'/')
            || (byte == b'/' && previous != b'/');
        previous = byte;
        plain
    })
}

/// The whole package as it is written; the three services of the library also in other letters,
/// because some servers do not tell them apart. (A package `Plugin` of somebody's own is theirs.)
fn is_ours(service: &str) -> bool {
    const SERVICES: [&str; 3] = [
        "plugin.grpccontroller",
        "plugin.grpcstdio",
        "plugin.grpcbroker",
    ];
    service.starts_with("plugin.")
        || SERVICES.iter().any(|ours| {
            service
                .get(..ours.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(ours))
        })
}

fn any_reading_is_ours(path_and_query: &str) -> bool {
    let mut reading = path_and_query.as_bytes().to_vec();
    // Some servers sit behind another that decodes too; more than three levels decode nowhere.
    for _ in 0..4 {
        let path = reading
            .split(|byte| matches!(byte, b'?' | b'#' | b';'))
            .next()
            .unwrap_or(&[]);
        let text = String::from_utf8_lossy(path);
        let mut segments: Vec<&str> = Vec::new();
        for segment in text.split(['/', '\\']) {
            match segment.trim_matches(|c: char| c.is_whitespace() || c.is_control()) {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                other => segments.push(other),
            }
        }
        if segments.iter().any(|segment| is_ours(segment)) {
            return true;
        }
        let decoded: Vec<u8> = percent_decode(&reading).collect();
        if decoded == reading {
            return false;
        }
        reading = decoded;
    }
    // Still escaped after that: nothing that a gRPC client sends.
    true
}

/// The answer to Shutdown. The request is read to its end first: some clients take an answer that
/// overtakes their message for an error.
pub(super) async fn answer_shutdown(request: Request<Incoming>) -> Response<Reply> {
    let body = Limited::new(request.into_body(), MAX_SHUTDOWN_REQUEST);
    match body.collect().await {
        Ok(_) => reply::empty_message(),
        Err(_) => reply::status(
            reply::INVALID_ARGUMENT,
            "patchbay: the request cannot be read",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn post(path: &str) -> Verdict {
        judge(&Method::POST, path)
    }

    #[test]
    fn calls_of_the_plugin_itself_are_forwarded() {
        for path in [
            "/proto.KV/Get",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/plugins.KV/Get",
            "/pluginv2.Data/QueryData",
            "/my.plugin.KV/Get",
            "/Plugin.KV/Get",
            "/KV/plugin.Get",
            "/a/b/c",
            "/",
            "/odd%20name/x?y=1",
            "/.hidden/x",
            "/x/..",
        ] {
            assert_eq!(post(path), Verdict::Forward, "{path}");
        }
    }

    #[test]
    fn the_two_answered_calls_are_known_by_their_exact_path() {
        assert_eq!(post("/plugin.GRPCController/Shutdown"), Verdict::Shutdown);
        assert_eq!(post("/plugin.GRPCStdio/StreamStdio"), Verdict::Stdio);
        assert_eq!(
            post("/plugin.GRPCBroker/StartStream"),
            Verdict::Refuse(NO_BROKER)
        );
    }

    #[test]
    fn no_other_spelling_slips_through() {
        for path in [
            "/plugin.GRPCController/shutdown",
            "/plugin.GRPCController/Shutdown/",
            "/plugin.GRPCController/Shutdown?x",
            "/plugin.GRPCController/Shutdown#x",
            "/plugin.GRPCController//Shutdown",
            "//plugin.GRPCController/Shutdown",
            "///plugin.GRPCController/Shutdown",
            "/./plugin.GRPCController/Shutdown",
            "/x/../plugin.GRPCController/Shutdown",
            "/%2e/plugin.GRPCController/Shutdown",
            "/x/%2e%2E/plugin.GRPCController/Shutdown",
            "/%2Fplugin.GRPCController/Shutdown",
            "/plugin%2eGRPCController/Shutdown",
            "/plugin%252EGRPCController/Shutdown",
            "/%70lugin.GRPCController/Shutdown",
            "/\\plugin.GRPCController\\Shutdown",
            "/PLUGIN.GRPCController/Shutdown",
            "/Plugin.GrpcStdio/StreamStdio",
            "/plugin.Anything/Else",
            "/%20plugin.GRPCController/Shutdown",
            "/x/plugin.GRPCController/Shutdown%",
            "plugin.GRPCController/Shutdown",
            "*",
        ] {
            assert!(
                matches!(post(path), Verdict::Refuse(_)),
                "{path}: {:?}",
                post(path)
            );
        }
        assert!(matches!(
            judge(&Method::CONNECT, "/proto.KV/Get"),
            Verdict::Refuse(_)
        ));
    }

    /// Disguises a path step by step, each step undone by some server.
    fn disguise(path: String, step: u8, at: usize) -> String {
        let at = at % path.len();
        let mut bytes = path.clone().into_bytes();
        match step {
            0 => format!("/{path}"),
            1 => format!("/.{path}"),
            2 => format!("/x/..{path}"),
            3 => format!("{path}?q"),
            _ => {
                let escape = format!("%{:02x}", bytes[at]).into_bytes();
                bytes.splice(at..=at, escape);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if text.starts_with('/') {
                    text
                } else {
                    format!("/{text}")
                }
            }
        }
    }

    proptest! {
        #[test]
        fn paths_in_other_spellings_are_recognized(steps in proptest::collection::vec((0u8..6, 0usize..60), 1..4)) {
            let mut path = "/plugin.GRPCController/Shutdown".to_owned();
            for (step, at) in steps {
                path = disguise(path, step, at);
            }
            prop_assert!(post(&path) != Verdict::Forward, "{}", path);
        }

        #[test]
        fn any_path_is_judged_without_a_panic(path in "\\PC{0,80}") {
            post(&path);
        }
    }
}
