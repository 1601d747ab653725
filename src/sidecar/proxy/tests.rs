//! The proxy between a real gRPC client and a real gRPC server, on loopback and unix sockets.

use super::*;
use crate::family::go_plugin::stdio::{Fanout, StdioChannel};
use crate::family::go_plugin::testing::{RawCodec, Stage, TestPlugin, failure, reached, soon};
use bytes::Bytes;
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use patchbay_protocol::go_plugin::grpc_broker_client::GrpcBrokerClient;
use patchbay_protocol::go_plugin::grpc_controller_client::GrpcControllerClient;
use patchbay_protocol::go_plugin::grpc_stdio_client::GrpcStdioClient;
use patchbay_protocol::go_plugin::stdio_data::Channel as WireChannel;
use patchbay_protocol::go_plugin::{ConnInfo, Empty};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Endpoint as Origin};
use tonic::{Code, Request, Response, Status, Streaming};

/// Long enough for every drain here to end by itself.
const LONG: Duration = Duration::from_secs(60);

struct Bench {
    folder: tempfile::TempDir,
    plugin: TestPlugin,
    upstream: watch::Sender<Upstream>,
    stdio: Fanout,
    counters: Arc<ProxyCounters>,
    listener: TcpListener,
    proxy: ProxyHandle,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let plugin = TestPlugin::unix(&folder.path().join("p"));
        Bench::with(folder, plugin)
    }

    fn with(folder: tempfile::TempDir, plugin: TestPlugin) -> Bench {
        let upstream = watch::Sender::new(Upstream::Present(plugin.endpoint()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (stdio, counters) = (Fanout::new(), Arc::new(ProxyCounters::default()));
        let proxy = Proxy::start(
            listener.try_clone().unwrap(),
            upstream.subscribe(),
            stdio.clone(),
            counters.clone(),
        )
        .unwrap();
        Bench {
            folder,
            plugin,
            upstream,
            stdio,
            counters,
            listener,
            proxy,
        }
    }

    fn stage(&self) -> Arc<Stage> {
        self.plugin.stage.clone()
    }

    async fn client(&self) -> Channel {
        client(self.proxy.address()).await
    }

    /// Waits until the proxy's numbers are as wanted. There is nothing to wait on in them, so
    /// other tasks run in between.
    async fn numbers(&self, wanted: impl Fn(&ProxyNumbers) -> bool) -> ProxyNumbers {
        soon(async {
            loop {
                let numbers = self.counters.read();
                if wanted(&numbers) {
                    return numbers;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

fn origin(address: SocketAddr) -> Origin {
    Origin::from_shared(format!("http://{address}"))
        .unwrap()
        .http2_max_header_list_size(16 * 1024 * 1024)
}

async fn client(address: SocketAddr) -> Channel {
    soon(origin(address).connect()).await.unwrap()
}

fn grpc(channel: &Channel) -> tonic::client::Grpc<Channel> {
    tonic::client::Grpc::new(channel.clone())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

async fn unary(
    channel: &Channel,
    method: &'static str,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Status> {
    let mut grpc = grpc(channel);
    grpc.ready().await.unwrap();
    grpc.unary(request, PathAndQuery::from_static(method), RawCodec)
        .await
}

async fn echo(channel: &Channel, text: &'static str) -> Result<Bytes, Status> {
    let request = Request::new(Bytes::from_static(text.as_bytes()));
    unary(channel, "/test.Echo/Echo", request)
        .await
        .map(Response::into_inner)
}

async fn stream(
    channel: &Channel,
    method: &'static str,
    messages: impl futures::Stream<Item = Bytes> + Send + 'static,
) -> Result<Response<Streaming<Bytes>>, Status> {
    let mut grpc = grpc(channel);
    grpc.ready().await.unwrap();
    grpc.streaming(
        Request::new(messages),
        PathAndQuery::from_static(method),
        RawCodec,
    )
    .await
}

async fn count(channel: &Channel, text: &'static str) -> Streaming<Bytes> {
    let request = futures::stream::iter([Bytes::from_static(text.as_bytes())]);
    soon(stream(channel, "/test.Echo/Count", request))
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn a_unary_call_passes_and_is_counted() {
    let bench = Bench::new();
    let channel = bench.client().await;
    assert_eq!(soon(echo(&channel, "hello")).await.unwrap(), "hello");
    let numbers = bench.numbers(|numbers| numbers.in_flight == 0).await;
    assert_eq!(
        (numbers.calls, numbers.failed, numbers.connections),
        (1, 0, 1)
    );
}

#[tokio::test]
async fn loopback_and_tls_upstreams_work_too() {
    let plugin = TestPlugin::tcp(None).await;
    let bench = Bench::with(tempfile::tempdir().unwrap(), plugin);
    let channel = bench.client().await;
    assert_eq!(soon(echo(&channel, "tcp")).await.unwrap(), "tcp");
}

#[tokio::test]
async fn metadata_and_the_deadline_pass_both_ways() {
    let bench = Bench::new();
    let channel = bench.client().await;
    let mut request = Request::new(Bytes::new());
    request.set_timeout(Duration::from_secs(77));
    let metadata = request.metadata_mut();
    metadata.insert("x-text", "value".parse().unwrap());
    metadata.append("x-twice", "a".parse().unwrap());
    metadata.append("x-twice", "b".parse().unwrap());
    let binary = tonic::metadata::BinaryMetadataValue::from_bytes(&[0, 255, 7]);
    metadata.insert_bin("x-data-bin", binary.clone());
    let long = "y".repeat(200 * 1024);
    metadata.insert("x-long", long.parse().unwrap());
    let response = soon(unary(&channel, "/test.Echo/Echo", request))
        .await
        .unwrap();
    let metadata = response.metadata();
    assert_eq!(metadata.get("x-text").unwrap(), "value");
    assert_eq!(metadata.get_all("x-twice").iter().count(), 2);
    assert_eq!(metadata.get_bin("x-data-bin").unwrap(), binary);
    assert_eq!(metadata.get("x-long").unwrap(), long.as_str());
    assert_eq!(metadata.get("x-saw-timeout").unwrap(), "77000000u");
    assert!(
        metadata.get("date").is_none(),
        "the proxy added a header of its own"
    );
}

#[tokio::test]
async fn statuses_pass_with_details_and_metadata_early_and_late() {
    let bench = Bench::new();
    let channel = bench.client().await;
    for method in ["/test.Echo/Fail", "/test.Echo/FailLate"] {
        let request = futures::stream::iter([Bytes::from_static(b"first")]);
        let answer = soon(stream(&channel, method, request)).await;
        let status = match answer {
            Err(status) => status,
            Ok(response) => {
                let mut messages = response.into_inner();
                assert_eq!(soon(messages.message()).await.unwrap().unwrap(), "first");
                soon(messages.message()).await.unwrap_err()
            }
        };
        let expected = failure();
        assert_eq!(status.code(), expected.code(), "{method}: {status:?}");
        assert_eq!(status.message(), expected.message());
        assert_eq!(status.details(), expected.details());
        assert_eq!(status.metadata().get("x-trailer").unwrap(), "kept");
    }
    let numbers = bench.numbers(|numbers| numbers.in_flight == 0).await;
    assert_eq!((numbers.calls, numbers.failed), (2, 2));
}

#[tokio::test]
async fn all_kinds_of_streams_pass() {
    let bench = Bench::new();
    let channel = bench.client().await;

    let mut answers = count(&channel, "1000 10").await;
    let mut received = 0;
    while soon(answers.message()).await.unwrap().is_some() {
        received += 1;
    }
    assert_eq!(received, 1000);

    let upload = futures::stream::iter((0..1000).map(|_| Bytes::from_static(b"0123456789")));
    let mut answer = soon(stream(&channel, "/test.Echo/Sink", upload))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(soon(answer.message()).await.unwrap().unwrap(), "10000");

    // Ping-pong: every message is answered before the next one is sent.
    let (send, messages) = mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    send.send(Bytes::from_static(b"0")).await.unwrap();
    let mut answers = soon(stream(&channel, "/test.Echo/Echo", messages))
        .await
        .unwrap()
        .into_inner();
    for n in 1..100 {
        soon(answers.message()).await.unwrap().unwrap();
        send.send(Bytes::from(n.to_string())).await.unwrap();
    }
    assert_eq!(soon(answers.message()).await.unwrap().unwrap(), "99");
    drop(send);
    assert!(soon(answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_message_of_20_mib_passes_both_ways() {
    let bench = Bench::new();
    let channel = bench.client().await;
    let message = Bytes::from(vec![7; 20 * 1024 * 1024]);
    let answer = soon(unary(
        &channel,
        "/test.Echo/Echo",
        Request::new(message.clone()),
    ))
    .await;
    assert!(answer.unwrap().into_inner() == message);
}

#[tokio::test]
async fn a_thousand_calls_at_once_pass_and_end_when_the_gate_opens() {
    let bench = Bench::new();
    let channel = bench.client().await;
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                unary(
                    &channel,
                    "/test.Echo/Gate",
                    Request::new(Bytes::from_static(b"x")),
                )
                .await
            })
        })
        .collect();
    reached(&bench.stage().entered, 1000).await;
    assert_eq!(bench.counters.read().in_flight, 1000);
    bench.stage().gate.send_replace(true);
    for call in calls {
        assert_eq!(soon(call).await.unwrap().unwrap().into_inner(), "x");
    }
    bench
        .numbers(|numbers| numbers.in_flight == 0 && numbers.failed == 0)
        .await;
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_plugin() {
    let bench = Bench::new();
    let (channel, stage) = (bench.client().await, bench.stage());
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { unary(&channel, "/test.Echo/Hang", Request::new(Bytes::new())).await }
    });
    reached(&stage.entered, 1).await;
    call.abort();
    reached(&stage.dropped, 1).await;

    let (send, messages) = mpsc::channel::<Bytes>(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut answers = soon(stream(&channel, "/test.Echo/HangStream", messages))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap(), "first");
    // This client resets the stream when both directions are dropped.
    drop((answers, send));
    reached(&stage.dropped, 2).await;
    let numbers = bench.numbers(|numbers| numbers.in_flight == 0).await;
    assert_eq!(
        (numbers.calls, numbers.failed),
        (2, 0),
        "a cancel is no failure"
    );
    assert_eq!(
        soon(echo(&channel, "still there")).await.unwrap(),
        "still there"
    );
}

#[tokio::test]
async fn thousands_of_cancels_leave_the_connection_whole() {
    let bench = Bench::new();
    let (channel, stage) = (bench.client().await, bench.stage());
    // More than the thousand that the library allows by itself over a connection's life.
    for round in 0..15 {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    unary(&channel, "/test.Echo/Hang", Request::new(Bytes::new())).await
                })
            })
            .collect();
        reached(&stage.entered, (round + 1) * 100).await;
        calls.iter().for_each(|call| call.abort());
        reached(&stage.dropped, (round + 1) * 100).await;
    }
    assert_eq!(soon(echo(&channel, "whole")).await.unwrap(), "whole");
    assert_eq!(bench.counters.read().connections, 1);
    assert_eq!(
        *stage.accepted.borrow(),
        1,
        "the upstream connection was opened again"
    );
}

/// A client whose own windows do not get in the way of what is measured.
async fn patient(bench: &Bench) -> Channel {
    let origin = origin(bench.proxy.address())
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1 << 30);
    soon(origin.connect()).await.unwrap()
}

#[tokio::test]
async fn streams_that_nobody_reads_block_neither_the_same_client_nor_another() {
    let bench = Bench::new();
    let (reader, other) = (patient(&bench).await, bench.client().await);
    let mut unread = Vec::new();
    for _ in 0..40 {
        unread.push(count(&reader, "16 1048576").await);
        assert_eq!(soon(echo(&reader, "same")).await.unwrap(), "same");
        assert_eq!(soon(echo(&other, "other")).await.unwrap(), "other");
    }
    // And each of them is still there to be read.
    let mut bytes = 0;
    let first = &mut unread[0];
    while let Some(message) = soon(first.message()).await.unwrap() {
        bytes += message.len();
    }
    assert_eq!(bytes, 16 * 1024 * 1024);
}

#[tokio::test]
async fn client_with_full_windows_blocks_only_itself() {
    let bench = Bench::new();
    // Its own connection window is used up by three streams.
    let small = origin(bench.proxy.address())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20);
    let greedy = soon(small.connect()).await.unwrap();
    let mut unread = Vec::new();
    for _ in 0..3 {
        unread.push(count(&greedy, "64 1048576").await);
    }
    let other = bench.client().await;
    for _ in 0..100 {
        assert_eq!(soon(echo(&other, "other")).await.unwrap(), "other");
    }
}

#[tokio::test]
async fn a_lost_plugin_is_unavailable_before_and_after_the_headers() {
    let bench = Bench::new();
    let (channel, stage) = (bench.client().await, bench.stage());
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { unary(&channel, "/test.Echo/Hang", Request::new(Bytes::new())).await }
    });
    let mut answers = soon(stream(
        &channel,
        "/test.Echo/HangStream",
        futures::stream::empty(),
    ))
    .await
    .unwrap();
    assert_eq!(
        soon(answers.get_mut().message()).await.unwrap().unwrap(),
        "first"
    );
    reached(&stage.entered, 2).await;
    bench.plugin.kill().await;

    for status in [
        soon(waiting).await.unwrap().unwrap_err(),
        soon(answers.get_mut().message()).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(
            status.message().contains("the plugin was lost"),
            "{status:?}"
        );
    }
    // The socket file is still there, and nobody listens.
    let status = soon(echo(&channel, "x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("nobody listens"), "{status:?}");
    assert_eq!(bench.counters.read().failed, 3);
}

#[tokio::test]
async fn an_absent_plugin_is_named_and_its_successor_found_without_reconnecting() {
    let bench = Bench::new();
    let channel = bench.client().await;
    assert_eq!(soon(echo(&channel, "first")).await.unwrap(), "first");
    bench
        .upstream
        .send_replace(Upstream::Absent(Reason::Crashed));
    let status = soon(echo(&channel, "x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("Crashed"), "{status:?}");

    let successor = TestPlugin::unix(&bench.folder.path().join("q"));
    bench
        .upstream
        .send_replace(Upstream::Present(successor.endpoint()));
    assert_eq!(soon(echo(&channel, "second")).await.unwrap(), "second");
    assert_eq!(*successor.stage.entered.borrow(), 1);
    assert_eq!(*bench.stage().entered.borrow(), 1);
    assert_eq!(bench.counters.read().connections, 1);
}

#[tokio::test]
async fn calls_in_flight_stay_with_the_plugin_that_has_them() {
    let bench = Bench::new();
    let (channel, stage) = (bench.client().await, bench.stage());
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move {
            unary(
                &channel,
                "/test.Echo/Gate",
                Request::new(Bytes::from_static(b"x")),
            )
            .await
        }
    });
    reached(&stage.entered, 1).await;
    let successor = TestPlugin::unix(&bench.folder.path().join("q"));
    bench
        .upstream
        .send_replace(Upstream::Present(successor.endpoint()));
    assert_eq!(soon(echo(&channel, "new")).await.unwrap(), "new");
    assert_eq!(*successor.stage.entered.borrow(), 1);
    stage.gate.send_replace(true);
    assert_eq!(soon(waiting).await.unwrap().unwrap().into_inner(), "x");
}

#[tokio::test]
async fn every_client_connection_has_an_upstream_of_its_own_opened_by_its_first_call() {
    let bench = Bench::new();
    let clients = [
        bench.client().await,
        bench.client().await,
        bench.client().await,
    ];
    // Hosts probe an address by connecting and closing.
    drop(
        tokio::net::TcpStream::connect(bench.proxy.address())
            .await
            .unwrap(),
    );
    bench.numbers(|numbers| numbers.connections == 3).await;
    assert_eq!(*bench.stage().accepted.borrow(), 0);
    for channel in &clients {
        soon(echo(channel, "x")).await.unwrap();
        soon(echo(channel, "x")).await.unwrap();
    }
    assert_eq!(*bench.stage().accepted.borrow(), 3);
    drop(clients);
    bench.numbers(|numbers| numbers.connections == 0).await;
}

#[tokio::test]
async fn shutdown_is_answered_here_and_never_reaches_the_plugin() {
    let bench = Bench::new();
    let channel = bench.client().await;
    for n in 1..=3 {
        soon(GrpcControllerClient::new(channel.clone()).shutdown(Empty {}))
            .await
            .unwrap();
        assert_eq!(bench.counters.read().shutdowns_answered, n);
    }
    for path in [
        "/plugin.GRPCController/Shutdown/",
        "//plugin.GRPCController/Shutdown",
    ] {
        let status = soon(unary(&channel, path, Request::new(Bytes::new())))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    assert_eq!(soon(echo(&channel, "alive")).await.unwrap(), "alive");
    assert_eq!(*bench.stage().shutdowns.borrow(), 0);
    assert_eq!(*bench.stage().entered.borrow(), 1);
}

#[tokio::test]
async fn output_is_served_from_the_copy_and_ends_with_the_drain() {
    let bench = Bench::new();
    let channel = bench.client().await;
    let open = || async {
        let mut client = GrpcStdioClient::new(channel.clone());
        soon(client.stream_stdio(())).await.unwrap().into_inner()
    };
    let (mut first, mut second) = (open().await, open().await);
    bench
        .stdio
        .publish(StdioChannel::Stderr, Bytes::from_static(b"boom"));
    for reader in [&mut first, &mut second] {
        let data = soon(reader.message()).await.unwrap().unwrap();
        assert_eq!(
            (data.channel(), data.data.as_slice()),
            (WireChannel::Stderr, &b"boom"[..])
        );
    }
    drop(second);
    soon(async {
        while bench.stdio.readers() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*bench.stage().entered.borrow(), 0);
    let counters = bench.counters.read();
    assert_eq!((counters.calls, counters.in_flight), (0, 0));

    let drained = tokio::spawn(bench.proxy.drain(LONG));
    assert_eq!(
        soon(first.message()).await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(soon(drained).await.unwrap(), Drained::default());
}

#[tokio::test]
async fn the_broker_and_other_calls_of_the_package_are_unimplemented() {
    let bench = Bench::new();
    let channel = bench.client().await;
    let infos = futures::stream::pending::<ConnInfo>();
    let status = soon(GrpcBrokerClient::new(channel.clone()).start_stream(infos))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("broker"), "{status:?}");
    let status = soon(unary(
        &channel,
        "/plugin.KV/Get",
        Request::new(Bytes::new()),
    ))
    .await;
    assert_eq!(status.unwrap_err().code(), Code::Unimplemented);
    let status = soon(unary(
        &channel,
        "/test.Echo/Nothing",
        Request::new(Bytes::new()),
    ))
    .await;
    assert_eq!(
        status.unwrap_err().message(),
        "unknown method",
        "this one is the plugin's answer"
    );
}

#[tokio::test]
async fn a_drain_loses_no_call_and_the_next_proxy_takes_over_the_queue() {
    let bench = Bench::new();
    let (stage, address) = (bench.stage(), bench.proxy.address());
    let mut calls = Vec::new();
    for _ in 0..4 {
        let channel = bench.client().await;
        for _ in 0..25 {
            let channel = channel.clone();
            calls.push(tokio::spawn(async move {
                unary(
                    &channel,
                    "/test.Echo/Gate",
                    Request::new(Bytes::from_static(b"x")),
                )
                .await
            }));
        }
    }
    reached(&stage.entered, 100).await;
    let drained = tokio::spawn(bench.proxy.drain(LONG));
    // A client that comes now waits in the queue of the socket, which is held elsewhere too.
    let queued = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut late = tokio::spawn(async move {
        let channel = client(address).await;
        echo(&channel, "late").await
    });
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut late)
            .await
            .is_err()
    );
    assert!(!drained.is_finished());
    stage.gate.send_replace(true);
    for call in calls {
        assert_eq!(soon(call).await.unwrap().unwrap().into_inner(), "x");
    }
    assert_eq!(soon(drained).await.unwrap(), Drained::default());
    assert_eq!(bench.counters.read().failed, 0);

    let _next = Proxy::start(
        bench.listener,
        bench.upstream.subscribe(),
        bench.stdio.clone(),
        bench.counters.clone(),
    )
    .unwrap();
    assert_eq!(soon(late).await.unwrap().unwrap(), "late");
    drop(queued);
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_and_counts_what_it_cut() {
    let bench = Bench::new();
    let (channel, stage) = (bench.client().await, bench.stage());
    let call = tokio::spawn(async move {
        unary(&channel, "/test.Echo/Hang", Request::new(Bytes::new())).await
    });
    reached(&stage.entered, 1).await;
    let drained = soon(bench.proxy.drain(Duration::from_millis(50))).await;
    assert_eq!(
        drained,
        Drained {
            calls_cut: 1,
            connections_cut: 1
        }
    );
    assert!(soon(call).await.unwrap().is_err());
    reached(&stage.dropped, 1).await;
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once_and_counted() {
    let bench = Bench::new();
    let mut taken: Vec<_> = (0..settings::MAX_CONNECTIONS)
        .map(|_| bench.counters.connection())
        .collect();
    let refused = origin(bench.proxy.address()).connect().await;
    if let Ok(channel) = refused {
        assert!(soon(echo(&channel, "x")).await.is_err());
    }
    bench
        .numbers(|numbers| numbers.connections_refused > 0)
        .await;
    taken.pop();
    let channel = bench.client().await;
    assert_eq!(soon(echo(&channel, "x")).await.unwrap(), "x");
}

#[tokio::test]
async fn too_many_calls_are_refused_with_a_message() {
    let bench = Bench::new();
    let channel = bench.client().await;
    let taken: Vec<_> = (0..settings::MAX_CALLS)
        .map(|_| bench.counters.call())
        .collect();
    let status = soon(echo(&channel, "x")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(taken);
    assert_eq!(soon(echo(&channel, "x")).await.unwrap(), "x");
}

#[tokio::test]
async fn a_plugin_that_speaks_something_else_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd");
    let odd = tokio::net::UnixListener::bind(&path).unwrap();
    let answering = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut stream, _)) = odd.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        }
    });
    let bench = Bench::new();
    let address = patchbay_protocol::handshake::Address::Unix(path);
    let endpoint = Endpoint::new(&address, folder.path(), None).unwrap();
    bench.upstream.send_replace(Upstream::Present(endpoint));
    let channel = bench.client().await;
    let status = soon(echo(&channel, "x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    answering.abort();
}

#[tokio::test]
async fn garbage_from_a_client_harms_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let bench = Bench::new();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01",
        &[0xff; 4096],
    ] {
        let mut stream = tokio::net::TcpStream::connect(bench.proxy.address())
            .await
            .unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed with or without a GOAWAY; a reset is an end as well.
        let _ = soon(stream.read_to_end(&mut answer)).await;
    }
    bench.numbers(|numbers| numbers.connections == 0).await;
    let channel = bench.client().await;
    assert_eq!(soon(echo(&channel, "x")).await.unwrap(), "x");
}

#[tokio::test]
async fn back_pressure_reaches_the_plugin_and_the_client() {
    let bench = Bench::new();
    let channel = patient(&bench).await;
    // The plugin's handler is asked for 16 MiB; unread, it may get rid of the windows only.
    let mut unread = count(&channel, "16 1048576").await;
    assert_eq!(soon(echo(&channel, "between")).await.unwrap(), "between");
    let mut read = 0;
    while let Some(message) = soon(unread.next()).await {
        read += message.unwrap().len();
    }
    assert_eq!(read, 16 * 1024 * 1024);
    // The other way: Gate reads one message and then no more; the client is stopped.
    let (sent, counted) = (
        Arc::new(std::sync::atomic::AtomicU64::new(0)),
        bench.stage(),
    );
    let upload = futures::stream::iter(0..256u64).map({
        let sent = sent.clone();
        move |_| {
            sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Bytes::from(vec![0; 1 << 20])
        }
    });
    let entered = *counted.entered.borrow();
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { stream(&channel, "/test.Echo/Gate", upload).await }
    });
    reached(&counted.entered, entered + 1).await;
    for _ in 0..20 {
        assert_eq!(soon(echo(&channel, "between")).await.unwrap(), "between");
    }
    let stuck = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(
        stuck < 32,
        "{stuck} MiB were taken from the client though nobody reads them"
    );
    counted.gate.send_replace(true);
    assert!(soon(call).await.unwrap().is_ok());
}
