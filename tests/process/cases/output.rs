//! Case 26: what a plugin prints after its handshake.

use crate::calls::{Payload, print, proxy, unary};
use crate::pod::{Pod, memory_kib};
use crate::setup::Setup;
use patchbay_protocol::go_plugin::StdioData;
use patchbay_protocol::go_plugin::grpc_stdio_client::GrpcStdioClient;
use std::time::{Duration, Instant};
use tonic::Streaming;

/// `STDOUT` and `STDERR` of the fixture's PrintRequest; the stdio stream counts from one.
const OUTPUTS: [i32; 2] = [0, 1];
/// Bytes that one call prints.
const PIECE: usize = 64 * 1024;
/// Calls for each output: 10 MiB.
const PIECES: usize = 160;

pub async fn case_26_output_arrives_whole_and_never_blocks_the_plugin() {
    let mut pod = Pod::start(Setup::echo()).await;
    pod.ready().await;
    let channel = proxy(pod.proxy()).await;

    let mut reader = GrpcStdioClient::new(proxy(pod.proxy()).await);
    let open = tokio::spawn(async move { reader.stream_stdio(()).await });
    // The stream's headers come with its first message: something has to be printed meanwhile.
    let mut stream = first_message(&channel, open).await;
    let mut expected = [0_u64, 0];
    for piece in 0..PIECES {
        for output in OUTPUTS {
            let text = numbered(output, piece);
            let mut left = &text[..];
            let printing = print(&channel, output, text.clone(), 1);
            let reading = async {
                while !left.is_empty() {
                    let data = next(&mut stream).await;
                    if data.channel - 1 != output {
                        continue; // What was printed to open the stream.
                    }
                    let (head, tail) = left.split_at(data.data.len().min(left.len()));
                    assert!(
                        data.data == head,
                        "piece {piece} of output {output} is damaged"
                    );
                    left = tail;
                }
            };
            tokio::join!(printing, reading);
            expected[output as usize] += text.len() as u64;
        }
    }
    assert_eq!(expected, [10 << 20; 2]);

    // From here on that reader stands still, and the log cannot follow either.
    let before = memory_kib(pod.sidecar(), "Rss");
    let line = [&[b'x'; 63][..], b"\n"].concat();
    let begin = Instant::now();
    for output in OUTPUTS {
        let flood = print(&channel, output, line.clone(), (10 << 20) / 64);
        let calls = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..50 {
                let begin = Instant::now();
                let _: Payload =
                    unary(&channel, "/patchbay.test.v1.Echo/Unary", Payload::default())
                        .await
                        .unwrap();
                slowest = slowest.max(begin.elapsed());
            }
            slowest
        };
        let ((), slowest) = tokio::join!(flood, calls);
        assert!(
            slowest < Duration::from_secs(2),
            "a call took {slowest:?} during the flood"
        );
    }
    assert!(
        begin.elapsed() < Duration::from_secs(40),
        "the plugin was held up"
    );
    let counters = pod
        .counters("dropped lines", |counters| counters.log_lines_dropped > 0)
        .await;
    let after = memory_kib(pod.sidecar(), "Rss");
    assert!(
        after < 32 * 1024,
        "the sidecar's memory went from {before} to {after} KiB"
    );
    assert!(counters.log_lines > 0);
    drop(stream);
}

/// Lines with numbers, so that a gap or a swap shows.
fn numbered(output: i32, piece: usize) -> Vec<u8> {
    let lines = (0..PIECE / 32).map(|line| format!("{output} {piece:08} {line:020}\n"));
    lines.collect::<String>().into_bytes()
}

type Opening =
    tokio::task::JoinHandle<Result<tonic::Response<Streaming<StdioData>>, tonic::Status>>;

/// Prints to both outputs until the stream is open, and reads until both words were seen, so that
/// nothing of it is left.
async fn first_message(channel: &tonic::transport::Channel, open: Opening) -> Streaming<StdioData> {
    let mut printed = 0;
    while !open.is_finished() {
        print(channel, 0, b"open?\n".to_vec(), 1).await;
        printed += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(printed > 0);
    let mut stream = open
        .await
        .unwrap()
        .expect("the stream of stdio")
        .into_inner();
    print(channel, 0, b"opened\n".to_vec(), 1).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"opened\n") {
        seen.extend(next(&mut stream).await.data);
    }
    stream
}

async fn next(stream: &mut Streaming<StdioData>) -> StdioData {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message());
    message
        .await
        .expect("output in time")
        .unwrap()
        .expect("the stream goes on")
}
