//! What goes back to a client program: the plugin's answer as it comes, or one of ours.

use super::counters::CallGuard;
use crate::family::go_plugin::stdio::{Chunk, StdioChannel, Subscription};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use patchbay_protocol::go_plugin::StdioData;
use patchbay_protocol::go_plugin::stdio_data::Channel as WireChannel;
use prost::Message as _;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// gRPC status codes by their numbers on the wire.
pub(super) const OK: &str = "0";
pub(super) const INVALID_ARGUMENT: &str = "3";
pub(super) const RESOURCE_EXHAUSTED: &str = "8";
pub(super) const UNIMPLEMENTED: &str = "12";
pub(super) const INTERNAL: &str = "13";
pub(super) const UNAVAILABLE: &str = "14";

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// Longest message of ours in a status, in bytes before escaping.
const MAX_MESSAGE: usize = 1024;

/// Body of an answer.
pub(super) enum Reply {
    /// The plugin's body, untouched.
    Forwarded(Forwarded),
    /// The sidecar's copy of the plugin's output.
    Stdio(StdioBody),
    /// A body of ours: at most one message, at most one set of trailers.
    Own {
        /// To be sent first.
        data: Option<Bytes>,
        /// To be sent last.
        trailers: Option<HeaderMap>,
    },
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Reply::Forwarded(forwarded) => forwarded.poll_frame(cx),
            Reply::Stdio(stdio) => stdio.poll_frame(cx).map(|frame| frame.map(Ok)),
            Reply::Own { data, trailers } => {
                let frame = data.take().map(Frame::data);
                Poll::Ready(
                    frame
                        .or_else(|| trailers.take().map(Frame::trailers))
                        .map(Ok),
                )
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Forwarded(forwarded) => {
                forwarded.call.is_none() || forwarded.body.is_end_stream()
            }
            Reply::Stdio(_) => false,
            Reply::Own { data, trailers } => data.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Forwarded(forwarded) => forwarded.body.size_hint(),
            Reply::Stdio(_) | Reply::Own { .. } => SizeHint::default(),
        }
    }
}

/// The plugin's body, and what happens when the plugin is lost in its middle.
pub(super) struct Forwarded {
    body: Incoming,
    /// Gone when the body has ended.
    call: Option<CallGuard>,
}

impl Forwarded {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.call.is_none() {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.ended(says_ok(trailers));
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.ended(false);
                match Loss::of(&error) {
                    // The plugin's own reset goes on as it is.
                    Loss::ResetByPlugin => Some(Err(error)),
                    loss => Some(Ok(Frame::trailers(loss.trailers(&error)))),
                }
            }
            None => {
                self.ended(true);
                None
            }
        };
        Poll::Ready(frame)
    }

    fn ended(&mut self, well: bool) {
        if let Some(call) = self.call.take()
            && !well
        {
            call.failed();
        }
    }
}

/// Passes the plugin's answer on.
pub(super) fn forwarded(response: Response<Incoming>, call: CallGuard) -> Response<Reply> {
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() || !says_ok(&parts.headers) {
        call.failed();
    }
    Response::from_parts(
        parts,
        Reply::Forwarded(Forwarded {
            body,
            call: Some(call),
        }),
    )
}

/// Whether a status, if there is one, is OK.
fn says_ok(headers: &HeaderMap) -> bool {
    headers.get(STATUS).is_none_or(|status| status == OK)
}

/// What an error on the link to the plugin means for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The plugin reset this one call.
    ResetByPlugin,
    /// What the plugin sent broke a rule or a limit of HTTP/2.
    Refused,
    /// The connection is gone.
    Connection,
}

impl Loss {
    pub(super) fn of(error: &hyper::Error) -> Loss {
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(error) = inner.downcast_ref::<h2::Error>() {
                return match (error.is_reset(), error.is_remote()) {
                    (true, true) => Loss::ResetByPlugin,
                    (true, false) => Loss::Refused,
                    (false, _) => Loss::Connection,
                };
            }
            source = inner.source();
        }
        Loss::Connection
    }

    pub(super) fn trailers(self, error: &hyper::Error) -> HeaderMap {
        let why = match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        match self {
            Loss::Connection => trailers(
                UNAVAILABLE,
                &format!("patchbay: the plugin was lost during the call: {why}"),
            ),
            Loss::Refused | Loss::ResetByPlugin => trailers(
                INTERNAL,
                &format!("patchbay: the plugin's answer was refused: {why}"),
            ),
        }
    }
}

/// An answer that consists of a status only.
pub(super) fn status(code: &'static str, message: &str) -> Response<Reply> {
    status_of(trailers(code, message))
}

/// The same from ready trailers; they travel as the headers.
pub(super) fn status_of(mut headers: HeaderMap) -> Response<Reply> {
    headers.insert(http::header::CONTENT_TYPE, GRPC);
    let mut response = Response::new(Reply::Own {
        data: None,
        trailers: None,
    });
    *response.headers_mut() = headers;
    response
}

/// An answer with one message without fields, and status OK.
pub(super) fn empty_message() -> Response<Reply> {
    let data = Some(Bytes::from_static(&[0; 5]));
    with_body(Reply::Own {
        data,
        trailers: Some(trailers(OK, "")),
    })
}

/// An answer that streams the plugin's output until `until` resolves.
pub(super) fn stdio(
    subscription: Subscription,
    until: impl Future<Output = ()> + Send + 'static,
) -> Response<Reply> {
    let chunks = futures::stream::unfold(subscription, |mut subscription| async move {
        subscription.next().await.map(|chunk| (chunk, subscription))
    });
    with_body(Reply::Stdio(StdioBody {
        chunks: Some(Box::pin(chunks.take_until(until))),
    }))
}

fn with_body(body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, GRPC);
    response
}

fn trailers(code: &'static str, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert(STATUS, HeaderValue::from_static(code));
    let message = escaped(message);
    if !message.is_empty()
        && let Ok(message) = HeaderValue::from_str(&message)
    {
        trailers.insert(MESSAGE, message);
    }
    trailers
}

/// Percent escapes, as gRPC wants them for what is not printable ASCII.
fn escaped(message: &str) -> String {
    let end = message.floor_char_boundary(MAX_MESSAGE);
    let mut out = String::with_capacity(end);
    for byte in message[..end].bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A stream of `plugin.StdioData` messages. Its end is Unavailable: there may be more elsewhere.
pub(super) struct StdioBody {
    chunks: Option<Pin<Box<dyn Stream<Item = Chunk> + Send>>>,
}

impl StdioBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some(chunks) = &mut self.chunks else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match ready!(chunks.poll_next_unpin(cx)) {
            Some(chunk) => Frame::data(stdio_message(chunk)),
            None => {
                self.chunks = None;
                Frame::trailers(trailers(UNAVAILABLE, "patchbay: the stream ends here"))
            }
        }))
    }
}

fn stdio_message(chunk: Chunk) -> Bytes {
    let channel = match chunk.channel {
        StdioChannel::Stdout => WireChannel::Stdout,
        StdioChannel::Stderr => WireChannel::Stderr,
    };
    let message = StdioData {
        channel: channel as i32,
        data: chunk.data.into(),
    };
    let mut framed = BytesMut::with_capacity(5 + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode_raw(&mut framed);
    framed.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_status_are_escaped_and_bounded() {
        assert_eq!(escaped("plain text"), "plain text");
        assert_eq!(escaped("100 %\né"), "100 %25%0A%C3%A9");
        assert_eq!(escaped(&"x".repeat(5000)).len(), MAX_MESSAGE);
        assert!(trailers(OK, "").get(MESSAGE).is_none());
        assert_eq!(trailers(UNAVAILABLE, "é").get(MESSAGE).unwrap(), "%C3%A9");
    }

    #[test]
    fn output_is_framed_as_grpc_messages() {
        let chunk = Chunk {
            channel: StdioChannel::Stderr,
            data: Bytes::from_static(b"boom"),
        };
        let framed = stdio_message(chunk);
        assert_eq!(framed[..5], [0, 0, 0, 0, 8]);
        let message = StdioData::decode(&framed[5..]).unwrap();
        assert_eq!(message.channel(), WireChannel::Stderr);
        assert_eq!(message.data, b"boom");
    }
}
