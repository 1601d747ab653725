//! What client programs do: gRPC calls, through the proxy port or past it, and the Go client.

use crate::programs;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Nothing.
#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

/// `patchbay.test.v1.Payload`.
#[derive(Clone, PartialEq, Message)]
pub struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// `patchbay.test.v1.SetHealthRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct SetHealth {
    #[prost(int32, tag = "1")]
    pub state: i32,
}

/// `NOT_SERVING` of that message.
pub const NOT_SERVING: i32 = 1;

/// `patchbay.test.v1.PrintRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Print {
    #[prost(int32, tag = "1")]
    pub output: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub times: u32,
}

/// `patchbay.test.v1.Identity`.
#[derive(Clone, PartialEq, Message)]
pub struct Identity {
    #[prost(int32, tag = "1")]
    pub pid: i32,
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(uint64, tag = "3")]
    pub calls: u64,
}

/// `proto.PutRequest` of go-plugin's key-value example.
#[derive(Clone, PartialEq, Message)]
pub struct Put {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `proto.GetRequest` of that example.
#[derive(Clone, PartialEq, Message)]
pub struct Get {
    #[prost(string, tag = "1")]
    pub key: String,
}

/// A channel over one connection that is there already. It does not connect again.
pub async fn channel<S>(stream: S) -> Channel
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut once = Some(TokioIo::new(stream));
    let connect = tower::service_fn(move |_: http::Uri| {
        let stream = once.take();
        async move { stream.ok_or_else(|| io::Error::other("there was one connection")) }
    });
    Endpoint::from_static("http://pod.test")
        .connect_with_connector(connect)
        .await
        .expect("a channel")
}

/// A channel to a proxy port.
pub async fn proxy(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .expect("the proxy port")
}

/// One unary call.
pub async fn unary<Q, A>(channel: &Channel, method: &'static str, request: Q) -> Result<A, Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = client
        .unary(
            Request::new(request),
            PathAndQuery::from_static(method),
            codec,
        )
        .await?;
    Ok(answer.into_inner())
}

pub async fn who_am_i(channel: &Channel) -> Identity {
    unary(channel, "/patchbay.test.v1.Control/WhoAmI", Nothing {})
        .await
        .expect("WhoAmI")
}

pub async fn print(channel: &Channel, output: i32, data: Vec<u8>, times: u32) {
    let request = Print {
        output,
        data,
        times,
    };
    let method = "/patchbay.test.v1.Control/Print";
    let _: Nothing = unary(channel, method, request).await.expect("Print");
}

/// Puts a value into the key-value example and gets it again.
pub async fn put_and_get(channel: &Channel) {
    let put = Put {
        key: "key".into(),
        value: b"value".to_vec(),
    };
    let _: Nothing = unary(channel, "/proto.KV/Put", put).await.expect("Put");
    let got: Payload = unary(channel, "/proto.KV/Get", Get { key: "key".into() })
        .await
        .expect("Get");
    assert!(got.data.starts_with(b"value"), "{got:?}");
}

/// What one run of a Go program printed.
pub struct Printed {
    pub is_success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Starts a fixture program.
pub fn start(name: &str, arguments: &[&str]) -> Child {
    Command::new(programs::fixture(name))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a fixture program")
}

/// Waits for its end.
pub async fn finish(child: Child) -> Printed {
    let output = child.wait_with_output().await.expect("a fixture program");
    Printed {
        is_success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs the Go client's checks whose names contain `only`.
pub async fn check(address: SocketAddr, only: &str) -> Printed {
    let target = address.to_string();
    finish(start(
        "echo-client",
        &["check", "-target", &target, "-sidecar", "-only", only],
    ))
    .await
}
