//! A plugin for tests: a gRPC server on a socket, which knows a service `test.Echo` and, as far as
//! it was told, go-plugin's own ones. It can be killed the way a process dies.

#![allow(clippy::unwrap_used)]

use super::endpoint::Endpoint;
use super::tls;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{HeaderMap, Request};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use patchbay_protocol::go_plugin::{Empty, StdioData};
use patchbay_protocol::handshake::Address;
use prost::Message as _;
use rustls::ServerConfig;
use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckResponse;

/// No condition of a test takes longer, unless it never comes true.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Waits for a future that must end.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("a condition did not come true within {SOON:?}"),
    }
}

/// What the plugin's handlers tell and are told.
pub(crate) struct Stage {
    /// Calls that a handler has begun to serve.
    pub(crate) entered: watch::Sender<u64>,
    /// Handlers of `Hang` and `HangStream` that were dropped.
    pub(crate) dropped: watch::Sender<u64>,
    /// Connections that were accepted.
    pub(crate) accepted: watch::Sender<u64>,
    /// `Gate` answers when this is true.
    pub(crate) gate: watch::Sender<bool>,
    /// Calls of the controller's Shutdown.
    pub(crate) shutdowns: watch::Sender<u64>,
    /// Answer of the health service; none means that there is no such service.
    pub(crate) health: Mutex<Option<i32>>,
    /// What reflection v1alpha lists; none means that there is no reflection. There is never v1.
    pub(crate) reflected: Mutex<Option<Vec<String>>>,
    /// Whether every call waits for ever.
    pub(crate) hangs: AtomicBool,
    /// Streams of output: each call of StreamStdio takes the next one.
    pub(crate) stdio: Mutex<Vec<mpsc::Receiver<StdioData>>>,
}

impl Default for Stage {
    fn default() -> Self {
        Stage {
            entered: watch::Sender::new(0),
            dropped: watch::Sender::new(0),
            accepted: watch::Sender::new(0),
            gate: watch::Sender::new(false),
            shutdowns: watch::Sender::new(0),
            health: Mutex::new(None),
            reflected: Mutex::new(None),
            hangs: AtomicBool::new(false),
            stdio: Mutex::default(),
        }
    }
}

/// Waits until a counter has reached `least`.
pub(crate) async fn reached(counter: &watch::Sender<u64>, least: u64) {
    soon(counter.subscribe().wait_for(|now| *now >= least))
        .await
        .unwrap();
}

/// A running plugin. Dropping it is like killing it.
pub(crate) struct TestPlugin {
    pub(crate) address: Address,
    pub(crate) stage: Arc<Stage>,
    task: JoinHandle<()>,
}

impl Drop for TestPlugin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestPlugin {
    /// Listens on a unix socket.
    pub(crate) fn unix(path: &Path) -> TestPlugin {
        let listener = UnixListener::bind(path).unwrap();
        let address = Address::Unix(path.to_owned());
        TestPlugin::start(address, None, Listener::Unix(listener))
    }

    /// Listens on a loopback port.
    pub(crate) async fn tcp(tls: Option<ServerConfig>) -> TestPlugin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(vec![listener.local_addr().unwrap()]);
        TestPlugin::start(address, tls, Listener::Tcp(listener))
    }

    fn start(address: Address, tls: Option<ServerConfig>, listener: Listener) -> TestPlugin {
        let stage = Arc::new(Stage::default());
        let shared = stage.clone();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let stream = listener.accept().await;
                shared.accepted.send_modify(|count| *count += 1);
                connections.spawn(serve(stream, acceptor.clone(), shared.clone()));
            }
        });
        TestPlugin {
            address,
            stage,
            task,
        }
    }

    /// The endpoint of a plugin without TLS.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint_with(None)
    }

    pub(crate) fn endpoint_with(&self, tls: Option<tls::Client>) -> Endpoint {
        let run = match &self.address {
            Address::Unix(path) => path.parent().unwrap(),
            Address::Tcp(_) => Path::new("/nowhere"),
        };
        Endpoint::new(&self.address, run, tls).unwrap()
    }

    /// Ends it as a process ends: its connections close at once and its socket file stays.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    async fn accept(&self) -> Box<dyn Stream> {
        match self {
            Listener::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
            Listener::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn serve(stream: Box<dyn Stream>, tls: Option<TlsAcceptor>, stage: Arc<Stage>) {
    let stream: Box<dyn Stream> = match tls {
        None => stream,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => Box::new(stream),
            Err(_) => return,
        },
    };
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let stage = stage.clone();
        async move {
            let handler = Handler {
                stage,
                path: request.uri().path().to_owned(),
                headers: request.headers().clone(),
            };
            let mut grpc = tonic::server::Grpc::new(RawCodec)
                .apply_max_message_size_config(Some(usize::MAX), Some(usize::MAX));
            Ok::<_, Infallible>(grpc.streaming(handler, request).await)
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .auto_date_header(false)
        .max_concurrent_streams(10_000)
        .max_header_list_size(16 * 1024 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

struct Handler {
    stage: Arc<Stage>,
    path: String,
    headers: HeaderMap,
}

type Answer = Result<tonic::Response<BoxStream<'static, Result<Bytes, Status>>>, Status>;

impl tonic::server::StreamingService<Bytes> for Handler {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let stage = self.stage.clone();
        let (path, headers) = (self.path.clone(), self.headers.clone());
        Box::pin(async move {
            stage.entered.send_modify(|count| *count += 1);
            answer(&path, headers, request.into_inner(), stage).await
        })
    }
}

/// Counts the drop of a handler.
struct Dropped(Arc<Stage>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.send_modify(|count| *count += 1);
    }
}

async fn answer(
    path: &str,
    headers: HeaderMap,
    mut messages: Streaming<Bytes>,
    stage: Arc<Stage>,
) -> Answer {
    let one = |bytes: Bytes| futures::stream::once(async { Ok(bytes) }).boxed();
    if stage.hangs.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let stream: BoxStream<'static, Result<Bytes, Status>> = match path {
        // Every message back as it comes; headers x-* and grpc-timeout back as headers.
        "/test.Echo/Echo" => {
            let mut response = tonic::Response::new(messages.boxed());
            let mut back = HeaderMap::new();
            for (name, value) in &headers {
                if name.as_str().starts_with("x-") {
                    back.append(name, value.clone());
                }
                if name == "grpc-timeout" {
                    back.append("x-saw-timeout", value.clone());
                }
            }
            *response.metadata_mut() = tonic::metadata::MetadataMap::from_headers(back);
            return Ok(response);
        }
        "/test.Echo/Fail" => return Err(failure()),
        "/test.Echo/FailLate" => {
            let first = messages.message().await?.unwrap_or_default();
            futures::stream::iter([Ok(first), Err(failure())]).boxed()
        }
        // A request "<count> <bytes>" is answered by that number of messages of that size.
        "/test.Echo/Count" => {
            let text = messages.message().await?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let (count, size) = text.split_once(' ').unwrap();
            let message = Bytes::from(vec![b'x'; size.parse().unwrap()]);
            futures::stream::iter(0..count.parse::<u64>().unwrap())
                .map(move |_| Ok(message.clone()))
                .boxed()
        }
        "/test.Echo/Sink" => {
            let mut total = 0;
            while let Some(message) = messages.message().await? {
                total += message.len();
            }
            one(Bytes::from(total.to_string()))
        }
        "/test.Echo/Hang" => {
            let _dropped = Dropped(stage);
            std::future::pending().await
        }
        "/test.Echo/HangStream" => {
            let dropped = Dropped(stage);
            let first = one(Bytes::from_static(b"first"));
            let never = futures::stream::once(async move {
                let _dropped = dropped;
                std::future::pending().await
            });
            first.chain(never).boxed()
        }
        "/test.Echo/Gate" => {
            let first = messages.message().await?.unwrap_or_default();
            stage.gate.subscribe().wait_for(|open| *open).await.unwrap();
            one(first)
        }
        "/grpc.health.v1.Health/Check" => match *stage.health.lock().unwrap() {
            None => return Err(Status::unimplemented("no health")),
            Some(status) => one(HealthCheckResponse { status }.encode_to_vec().into()),
        },
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
            let names = stage.reflected.lock().unwrap().clone();
            let Some(names) = names else {
                return Err(Status::unimplemented("no reflection"));
            };
            use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::v1alpha::{
                ListServiceResponse, ServerReflectionResponse, ServiceResponse,
            };
            let service = names
                .into_iter()
                .map(|name| ServiceResponse { name })
                .collect();
            let list = MessageResponse::ListServicesResponse(ListServiceResponse { service });
            let answer = ServerReflectionResponse {
                message_response: Some(list),
                ..Default::default()
            };
            one(answer.encode_to_vec().into())
        }
        "/plugin.GRPCController/Shutdown" => {
            stage.shutdowns.send_modify(|count| *count += 1);
            one(Empty {}.encode_to_vec().into())
        }
        "/plugin.GRPCStdio/StreamStdio" => {
            let next = stage.stdio.lock().unwrap().pop();
            match next {
                None => return Err(Status::unimplemented("no stdio")),
                Some(chunks) => tokio_stream::StreamExt::map(
                    futures::stream::unfold(chunks, |mut chunks| async move {
                        chunks.recv().await.map(|chunk| (chunk, chunks))
                    }),
                    |chunk| Ok(chunk.encode_to_vec().into()),
                )
                .boxed(),
            }
        }
        _ => return Err(Status::unimplemented("unknown method")),
    };
    Ok(tonic::Response::new(stream))
}

/// A status with details and metadata.
pub(crate) fn failure() -> Status {
    let mut metadata = tonic::metadata::MetadataMap::new();
    metadata.insert("x-trailer", "kept".parse().unwrap());
    Status::with_details_and_metadata(
        Code::FailedPrecondition,
        "as asked",
        Bytes::from_static(b"\x01\x02"),
        metadata,
    )
}

/// Messages are bytes, so that no protocol file is needed.
#[derive(Clone, Copy)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
