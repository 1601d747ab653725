//! A client of the kind that the operator has, whose requests go to a function.

use crate::server::{Answer, ApiRequest};
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use std::future::Future;
use tower::BoxError;

/// A client; `serve` answers its requests. It spawns a task in the current runtime.
pub fn client<F>(serve: impl Fn(ApiRequest) -> F + Clone + Send + 'static) -> Client
where
    F: Future<Output = Answer> + Send + 'static,
{
    let service = tower::service_fn(move |request: Request<Body>| {
        let serve = serve.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = match body.is_empty() {
                true => Value::Null,
                false => serde_json::from_slice(&body)?,
            };
            let answer = serve(ApiRequest {
                method: head.method,
                path: head.uri.path().to_owned(),
                body,
            });
            let answer = answer.await;
            let body = serde_json::to_vec(&*answer.body)?;
            let response = Response::builder().status(answer.code);
            Ok::<_, BoxError>(response.body(Body::from(body))?)
        }
    });
    Client::new(service, "default")
}
