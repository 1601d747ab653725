use super::*;
use crate::family::go_plugin::testing::{TestPlugin, soon};
use patchbay_protocol::go_plugin::StdioData;
use tokio::sync::mpsc;

fn assembled(chunks: &[(StdioChannel, &[u8])]) -> Vec<(StdioChannel, Vec<u8>, LineEnd)> {
    let mut lines = Vec::new();
    let mut assembler = Assembler::default();
    let mut on_line = |line: Line| lines.push((line.channel, line.bytes, line.end));
    for (channel, data) in chunks {
        assembler.add(*channel, data, &mut on_line);
    }
    assembler.flush(&mut on_line);
    lines
}

const OUT: StdioChannel = StdioChannel::Stdout;
const ERR: StdioChannel = StdioChannel::Stderr;

#[tokio::test]
async fn lines_are_put_together_for_each_channel_apart() {
    let lines = assembled(&[
        (OUT, b"ab"),
        (ERR, b"x\r\ny"),
        (OUT, b"c\n\nd"),
        (ERR, b"z\n"),
    ]);
    assert_eq!(
        lines,
        [
            (ERR, b"x".to_vec(), LineEnd::Newline),
            (OUT, b"abc".to_vec(), LineEnd::Newline),
            (OUT, b"".to_vec(), LineEnd::Newline),
            (ERR, b"yz".to_vec(), LineEnd::Newline),
            (OUT, b"d".to_vec(), LineEnd::Flushed),
        ]
    );
}

#[tokio::test]
async fn an_endless_line_is_cut_once_and_the_next_one_is_whole() {
    let chunk = vec![b'x'; 1024];
    let mut chunks: Vec<(StdioChannel, &[u8])> = vec![(OUT, &chunk); 1024];
    chunks.push((OUT, b"tail\nnext\n"));
    let lines = assembled(&chunks);
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[0].1.len(), lines[0].2), (MAX_LINE, LineEnd::Cut));
    assert_eq!(lines[1], (OUT, b"next".to_vec(), LineEnd::Newline));
    let exact = vec![b'x'; MAX_LINE];
    assert_eq!(
        assembled(&[(OUT, &exact), (OUT, b"\n")]),
        [(OUT, exact, LineEnd::Newline)]
    );
}

#[tokio::test]
async fn an_unfinished_line_is_waited_for_only_so_long() {
    let mut assembler = Assembler::default();
    let mut lines = Vec::new();
    assembler.add(OUT, b"a\n", &mut |line| lines.push(line));
    assert!(assembler.flush_at.is_none());
    assembler.add(OUT, b"b", &mut |line| lines.push(line));
    let at = assembler.flush_at;
    assert!(at.is_some());
    assembler.add(ERR, b"c", &mut |line| lines.push(line));
    assert_eq!(
        assembler.flush_at, at,
        "a later chunk must not put off the flush"
    );
}

#[tokio::test]
async fn readers_of_the_fan_out_get_copies_and_slow_ones_lose_the_oldest() {
    let fanout = Fanout::new();
    fanout.publish(OUT, Bytes::from_static(b"nobody reads"));
    let mut first = fanout.subscribe();
    let mut second = fanout.subscribe();
    assert_eq!(fanout.readers(), 2);
    fanout.publish(OUT, Bytes::from(vec![b'x'; MAX_CHUNK + 1]));
    for reader in [&mut first, &mut second] {
        assert_eq!(reader.next().await.unwrap().data.len(), MAX_CHUNK);
        assert_eq!(reader.next().await.unwrap().data.len(), 1);
    }
    for n in 0..(KEPT_CHUNKS as u64 + 10) {
        fanout.publish(ERR, Bytes::from(n.to_string()));
        second.next().await.unwrap();
    }
    assert_eq!(first.next().await.unwrap().data, "10");
    assert_eq!(fanout.dropped(), 10);
    drop(fanout);
    assert!(soon(second.next()).await.is_none());
}

fn data(channel: WireChannel, text: &str) -> StdioData {
    StdioData {
        channel: channel as i32,
        data: text.as_bytes().to_vec(),
    }
}

#[tokio::test]
async fn the_stream_is_followed_opened_again_and_left_when_unsupported() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = TestPlugin::unix(&folder.path().join("p"));
    let (first, first_stream) = mpsc::channel(10);
    let (second, second_stream) = mpsc::channel(10);
    // The plugin takes the last one first; without a third one it says Unimplemented.
    *plugin.stage.stdio.lock().unwrap() = vec![second_stream, first_stream];
    let channel = plugin.endpoint().channel().await.unwrap();
    let fanout = Fanout::new();
    let mut reader = fanout.subscribe();
    let (seen, mut lines) = mpsc::unbounded_channel();
    let following = tokio::spawn(follow(channel, fanout, move |line| {
        seen.send(line).unwrap()
    }));

    first
        .send(data(WireChannel::Stdout, "one\ntw"))
        .await
        .unwrap();
    first
        .send(data(WireChannel::Invalid, "dropped"))
        .await
        .unwrap();
    first.send(data(WireChannel::Stdout, "o\n")).await.unwrap();
    let text = |line: Line| String::from_utf8(line.bytes).unwrap();
    assert_eq!(text(soon(lines.recv()).await.unwrap()), "one");
    assert_eq!(text(soon(lines.recv()).await.unwrap()), "two");
    assert_eq!(soon(reader.next()).await.unwrap().data, "one\ntw");
    assert_eq!(soon(reader.next()).await.unwrap().data, "o\n");

    first
        .send(data(WireChannel::Stderr, "no end"))
        .await
        .unwrap();
    let line = soon(lines.recv()).await.unwrap();
    assert_eq!((line.channel, line.end), (ERR, LineEnd::Flushed));

    drop(first);
    second
        .send(data(WireChannel::Stdout, "again\n"))
        .await
        .unwrap();
    assert_eq!(text(soon(lines.recv()).await.unwrap()), "again");
    drop(second);
    soon(following).await.unwrap();
}
