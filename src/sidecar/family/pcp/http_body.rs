//! Bodies that come in over the jobs socket, and answers that go out.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use crate::jobs::claims::event::RowAnswer;
use crate::jobs::rows::RowError;

/// Pauses within a body.
const SILENCE: Duration = Duration::from_secs(30);
/// A row is read to its end for its digest, but not for ever.
pub(crate) const MAX_ROW: u64 = 1024 * 1024 * 1024;

/// What a call is answered with.
pub(crate) type Said = Result<Response<Full<Bytes>>, Refusal>;

/// A call that is not done.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

pub(crate) fn refused(sentence: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, sentence.into())
}

pub(crate) fn not_now(sentence: impl Into<String>) -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, sentence.into())
}

impl From<RowError> for Refusal {
    fn from(error: RowError) -> Refusal {
        not_now(error.to_string())
    }
}

/// The next bytes of a body; `None` at its end.
pub(crate) async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame())
            .await
            .map_err(|_| {
                Refusal(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body does not go on".to_owned(),
                )
            })?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                // Trailers say nothing here.
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Err(error)) => return Err(refused(format!("the body broke off: {error}"))),
        }
    }
}

/// Reads the rest, so that the client gets to its answer.
pub(crate) async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Ok(Some(bytes)) = piece(&mut body).await {
        read += bytes.len() as u64;
        if read > MAX_ROW {
            return;
        }
    }
}

pub(crate) async fn whole(body: Incoming, most: usize) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(SILENCE, Limited::new(body, most).collect());
    match read.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {most} bytes"),
        )),
        Ok(Err(error)) => Err(refused(format!("the body broke off: {error}"))),
        Err(_) => Err(Refusal(
            StatusCode::REQUEST_TIMEOUT,
            "the body does not go on".to_owned(),
        )),
    }
}

pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(refused("the body is not a JSON object")),
        Err(error) => Err(refused(format!("the body is not JSON: {error}"))),
    }
}

pub(crate) fn row_response(answer: RowAnswer) -> Response<Full<Bytes>> {
    let document = match answer {
        RowAnswer::Kept { row, late } => json!({ "row": row, "late": late }),
        RowAnswer::Dropped => json!({ "dropped": true }),
        RowAnswer::TooLarge => json!({ "tooLarge": true }),
    };
    json_response(StatusCode::OK, &document)
}

pub(crate) fn status_response(word: Option<&'static str>) -> Said {
    match word {
        Some(word) => Ok(json_response(StatusCode::OK, &json!({ "status": word }))),
        None => Err(Refusal(
            StatusCode::NOT_FOUND,
            "the job is not known".to_owned(),
        )),
    }
}

pub(crate) fn json_response(status: StatusCode, document: &Value) -> Response<Full<Bytes>> {
    text(status, document.to_string())
}

pub(crate) fn text(status: StatusCode, document: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(document)));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}

pub(crate) fn empty() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
