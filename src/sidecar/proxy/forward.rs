//! One call on its way to the plugin.

use super::connection::Client;
use super::counters::CallGuard;
use super::intercept::{self, Verdict};
use super::reply::{self, Loss, Reply};
use super::settings;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use std::sync::Arc;

/// Serves one call of a client connection. An error resets the client's stream with the code that
/// the plugin used for its own reset.
pub(super) async fn serve(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, hyper::Error> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("", PathAndQuery::as_str);
    match intercept::judge(request.method(), path) {
        Verdict::Forward => forward(&client, request).await,
        Verdict::Shutdown => {
            client.counters.shutdown_answered();
            Ok(intercept::answer_shutdown(request).await)
        }
        Verdict::Stdio => {
            let mut draining = client.draining.clone();
            let until = async move {
                // An error means that the proxy itself has gone.
                let _ = draining.wait_for(|draining| *draining).await;
            };
            Ok(reply::stdio(client.stdio.subscribe(), until))
        }
        Verdict::Refuse(why) => Ok(reply::status(reply::UNIMPLEMENTED, why)),
    }
}

async fn forward(
    client: &Client,
    request: Request<Incoming>,
) -> Result<Response<Reply>, hyper::Error> {
    if client.counters.in_flight() >= settings::MAX_CALLS {
        let call = client.counters.call();
        call.failed();
        tracing::debug!("a call is refused: too many at the same time");
        return Ok(reply::status(
            reply::RESOURCE_EXHAUSTED,
            "patchbay: too many calls at the same time in this pod",
        ));
    }
    let call = client.counters.call();
    let mut request = outbound(request);
    let mut again = true;
    loop {
        let mut sender = match client.link.sender().await {
            Ok(sender) => sender,
            Err(failure) => {
                call.failed();
                tracing::debug!(%failure, "a call cannot reach the plugin");
                return Ok(reply::status(reply::UNAVAILABLE, &failure.to_string()));
            }
        };
        let mut error = match sender.try_send_request(request).await {
            Ok(response) => return Ok(reply::forwarded(response, call)),
            Err(error) => error,
        };
        match error.take_message() {
            // Handed back: nothing of it was sent, so that sending it is no repetition.
            Some(unsent) if again => {
                request = unsent;
                again = false;
            }
            _ => return lost(error.into_error(), call),
        }
    }
}

fn lost(error: hyper::Error, call: CallGuard) -> Result<Response<Reply>, hyper::Error> {
    call.failed();
    tracing::debug!(%error, "a call was lost");
    match Loss::of(&error) {
        Loss::ResetByPlugin => Err(error),
        loss => Ok(reply::status_of(loss.trailers(&error))),
    }
}

/// The request as it goes to the plugin: the same, with a scheme and an authority, which the
/// protocol demands and clients may leave out, and without what hyper attached to it here.
fn outbound(mut request: Request<Incoming>) -> Request<Incoming> {
    request.extensions_mut().clear();
    let uri = request.uri();
    if uri.scheme() == Some(&Scheme::HTTP) && uri.authority().is_some() {
        return request;
    }
    let host = request.headers().get(http::header::HOST);
    let authority = uri
        .authority()
        .cloned()
        .or_else(|| Authority::try_from(host?.as_bytes()).ok())
        .unwrap_or_else(|| Authority::from_static("localhost"));
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = uri.path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
