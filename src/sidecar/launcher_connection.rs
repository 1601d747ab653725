//! The connection to the launcher: found through its socket, made again whenever it breaks.
//!
//! Every byte and every descriptor from there is foreign.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::SystemError;
use patchbay_launcher::control::{self, Command, Event, Hello, Splitter};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType, recvmsg,
    sockopt,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

/// Limit of the launcher's first frame and of writing one frame.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between attempts while a socket is there that nobody answers.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// So much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;
/// Events that wait for the main loop. A line may have 64 KiB, so they are few.
const WAITING_EVENTS: usize = 8;
/// Orders that wait for the connection.
const WAITING_ORDERS: usize = 64;

/// What comes from the launcher.
#[derive(Debug)]
pub enum FromLauncher {
    /// A connection stands. The listening socket of the proxy port comes with it.
    Connected(Hello, Option<TcpListener>),
    Disconnected,
    Event(Event),
}

/// Why the launcher cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error("send to the launcher: {0}")]
    TooLong(#[from] control::TooLong),
    #[error("read from the launcher: {0}")]
    Malformed(#[from] control::Malformed),
    #[error("greet the launcher: it sends nothing")]
    Silent,
    #[error("greet the launcher: its first frame is no greeting")]
    NoGreeting,
    #[error(
        "greet the launcher: it speaks versions {oldest} to {newest}, this sidecar {} to {}",
        control::OLDEST,
        control::VERSION
    )]
    Version { oldest: u16, newest: u16 },
    #[error("send to the launcher: it does not read")]
    NotReading,
    #[error("send to the launcher: too many commands wait")]
    Full,
    #[error("read from the launcher: it closed the connection")]
    Closed,
    #[error("inspect the listening socket: it is not a listening TCP socket")]
    NotListening,
}

/// Sends to the launcher.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

#[derive(Debug)]
enum Order {
    Send(Vec<u8>),
    Reconnect,
}

impl Orders {
    /// Sends a command. One that is lost with the connection shows in the next Hello.
    ///
    /// # Errors
    /// It does not fit into a frame, or too many wait.
    pub fn send(&self, command: &Command) -> Result<(), LauncherError> {
        let frame = command.encode()?;
        self.0
            .try_send(Order::Send(frame))
            .map_err(|_| LauncherError::Full)
    }

    /// Breaks the connection and makes a new one.
    pub fn reconnect(&self) {
        let _ = self.0.try_send(Order::Reconnect);
    }
}

/// Starts the task that keeps the connection.
pub fn start(
    socket: PathBuf,
    changes: watch::Receiver<u64>,
) -> (Orders, mpsc::Receiver<FromLauncher>) {
    let (orders, waiting) = mpsc::channel(WAITING_ORDERS);
    let (events, receiver) = mpsc::channel(WAITING_EVENTS);
    tokio::spawn(keep(socket, changes, waiting, events));
    (Orders(orders), receiver)
}

async fn keep(
    socket: PathBuf,
    mut changes: watch::Receiver<u64>,
    mut orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<FromLauncher>,
) {
    let mut pause = PAUSE.0;
    while !events.is_closed() {
        changes.borrow_and_update();
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                let began = Instant::now();
                // What was meant for the last connection.
                while orders.try_recv().is_ok() {}
                let mut conversation = Conversation::new(stream);
                let ended = match timeout(PATIENCE, conversation.greet()).await {
                    Ok(Ok((hello, listener))) => {
                        if events
                            .send(FromLauncher::Connected(hello, listener))
                            .await
                            .is_err()
                        {
                            return;
                        }
                        let ended = conversation.go_on(&mut orders, &events).await;
                        if events.send(FromLauncher::Disconnected).await.is_err() {
                            return;
                        }
                        ended
                    }
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(LauncherError::Silent),
                };
                if let Err(error) = ended {
                    tracing::warn!(%error, "the connection to the launcher ended");
                }
                if began.elapsed() > PAUSE.1 {
                    pause = PAUSE.0;
                    continue;
                }
            }
            // The folder's watch tells when a launcher makes its socket.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if changes.changed().await.is_err() {
                    return;
                }
                pause = PAUSE.0;
                continue;
            }
            Err(error) => tracing::debug!(%error, "the launcher does not answer yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            changed = changes.changed() => match changed {
                // A first attempt may come between bind and listen.
                Ok(()) => {
                    tokio::time::sleep(PAUSE.0).await;
                    pause = PAUSE.0;
                }
                Err(_) => return,
            },
        }
    }
}

struct Conversation {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    splitter: Splitter,
    descriptors: Vec<OwnedFd>,
}

impl Conversation {
    fn new(stream: UnixStream) -> Conversation {
        let (reader, writer) = stream.into_split();
        Conversation {
            reader,
            writer,
            splitter: Splitter::new(),
            descriptors: Vec::new(),
        }
    }

    /// Both first frames.
    async fn greet(&mut self) -> Result<(Hello, Option<TcpListener>), LauncherError> {
        let hello = Command::Hello {
            oldest: control::OLDEST,
            newest: control::VERSION,
        };
        let frame = hello.encode()?;
        self.writer
            .write_all(&frame)
            .await
            .map_err(|error| SystemError::new("greet the launcher", error))?;
        let hello = loop {
            match self.next_event().await? {
                Some(Event::Hello(hello)) => break hello,
                Some(_) => {
                    return Err(LauncherError::NoGreeting);
                }
                None => {}
            }
        };
        if hello.newest < control::OLDEST || hello.oldest > control::VERSION {
            return Err(LauncherError::Version {
                oldest: hello.oldest,
                newest: hello.newest,
            });
        }
        let listener = self.descriptors.drain(..).find_map(|descriptor| match listener(descriptor) {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::warn!(%error, "the launcher sent something else than the listening socket");
                None
            }
        });
        if listener.is_none() {
            tracing::error!(
                "the launcher sent no listening socket: clients cannot reach the plugin"
            );
        }
        Ok((hello, listener))
    }

    async fn go_on(
        &mut self,
        orders: &mut mpsc::Receiver<Order>,
        events: &mpsc::Sender<FromLauncher>,
    ) -> Result<(), LauncherError> {
        loop {
            tokio::select! {
                event = self.next_event() => match event {
                    // A second greeting is noise.
                    Ok(Some(Event::Hello(_)) | None) => {}
                    Ok(Some(event)) => {
                        if events.send(FromLauncher::Event(event)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(error),
                },
                order = orders.recv() => match order {
                    Some(Order::Send(frame)) => match timeout(PATIENCE, self.writer.write_all(&frame)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Err(SystemError::new("send to the launcher", error).into()),
                        Err(_) => return Err(LauncherError::NotReading),
                    },
                    Some(Order::Reconnect) | None => return Ok(()),
                },
            }
        }
    }

    /// The next frame; `None` for a kind that this build does not know. May be dropped and called
    /// again: bytes are taken from the socket only when they can be kept.
    async fn next_event(&mut self) -> Result<Option<Event>, LauncherError> {
        loop {
            if let Some(frame) = self.splitter.next_frame()? {
                return Ok(Event::decode(frame)?);
            }
            // Descriptors mean something only beside the first frame.
            self.descriptors.truncate(4);
            let mut chunk = [0_u8; CHUNK];
            let descriptors = &mut self.descriptors;
            let stream: &UnixStream = self.reader.as_ref();
            let length = stream
                .async_io(Interest::READABLE, || {
                    receive(stream, &mut chunk, descriptors)
                })
                .await
                .map_err(|error| SystemError::new("read from the launcher", error))?;
            if length == 0 {
                return Err(LauncherError::Closed);
            }
            self.splitter.push(&chunk[..length]);
        }
    }
}

fn receive(
    stream: &UnixStream,
    chunk: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(chunk)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            // Those that are not kept are closed here.
            descriptors.extend(sent);
        }
    }
    Ok(received.bytes)
}

/// Takes a descriptor for what it claims to be only after a look.
fn listener(descriptor: OwnedFd) -> Result<TcpListener, LauncherError> {
    let asked = |error: rustix::io::Errno| SystemError::new("inspect the listening socket", error);
    let family = sockopt::socket_domain(&descriptor).map_err(asked)?;
    let listens = sockopt::socket_acceptconn(&descriptor).map_err(asked)?;
    let stream = sockopt::socket_type(&descriptor).map_err(asked)? == SocketType::STREAM;
    if !(stream && listens && matches!(family, AddressFamily::INET | AddressFamily::INET6)) {
        return Err(LauncherError::NotListening);
    }
    let listener = TcpListener::from(descriptor);
    listener
        .set_nonblocking(true)
        .map_err(|error| SystemError::new("inspect the listening socket", error))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use patchbay_launcher::control::{Exit, StartId, State};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::{IoSlice, Read, Write};

    fn hello(launcher_id: u64) -> Event {
        Event::Hello(Hello {
            oldest: 1,
            newest: 1,
            launcher_id,
            state: State::Idle,
            head: vec![],
            terminating: false,
        })
    }

    /// A launcher on a thread: greets with a descriptor, then does what it is told.
    fn greet(stream: &std::os::unix::net::UnixStream, event: &Event, descriptor: &impl AsFd) {
        let frame = event.encode().unwrap();
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        // One byte alone, so that the frame arrives in pieces.
        sendmsg(
            stream,
            &[IoSlice::new(&frame[..1])],
            &mut ancillary,
            SendFlags::empty(),
        )
        .unwrap();
        let mut stream = stream;
        stream.write_all(&frame[1..]).unwrap();
    }

    #[tokio::test]
    async fn the_greeting_brings_the_listening_socket_and_a_lost_connection_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let changes = crate::directory_watch::watch(vec![folder.path().into()]);
        let (orders, mut events) = start(socket.clone(), changes);
        tokio::task::yield_now().await;

        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = proxy.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            let (first, _) = listener.accept().unwrap();
            greet(&first, &hello(1), &proxy);
            let exit = Event::Exited {
                start_id: StartId(3),
                exit: Exit::Code(7),
                at_ms: 9,
            };
            (&first).write_all(&exit.encode().unwrap()).unwrap();
            let mut read = [0_u8; 256];
            let mut splitter = Splitter::new();
            let mut heard = Vec::new();
            while heard.len() < 2 {
                let length = (&first).read(&mut read).unwrap();
                splitter.push(&read[..length]);
                while let Some(frame) = splitter.next_frame().unwrap() {
                    heard.extend(Command::decode(frame).unwrap());
                }
            }
            drop(first);
            let (second, _) = listener.accept().unwrap();
            // A descriptor that is not what it should be.
            greet(
                &second,
                &hello(2),
                &std::fs::File::open("/dev/null").unwrap(),
            );
            (heard, second)
        });

        match events.recv().await.unwrap() {
            FromLauncher::Connected(hello, Some(listener)) => {
                assert_eq!(hello.launcher_id, 1);
                assert_eq!(listener.local_addr().unwrap().port(), port);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            events.recv().await.unwrap(),
            FromLauncher::Event(Event::Exited {
                start_id: StartId(3),
                ..
            })
        ));
        orders
            .send(&Command::Announced {
                start_id: StartId(5),
            })
            .unwrap();
        assert!(matches!(
            events.recv().await.unwrap(),
            FromLauncher::Disconnected
        ));
        match events.recv().await.unwrap() {
            FromLauncher::Connected(hello, None) => assert_eq!(hello.launcher_id, 2),
            other => panic!("{other:?}"),
        }
        let (heard, _second) = server.join().unwrap();
        assert_eq!(
            heard,
            [
                Command::Hello {
                    oldest: 1,
                    newest: 1
                },
                Command::Announced {
                    start_id: StartId(5)
                }
            ]
        );
    }

    #[tokio::test]
    async fn connection_to_a_peer_that_sends_nonsense_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (_, changes) = watch::channel(0);
        let (_orders, mut events) = start(socket, changes);
        let server = std::thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            first.write_all(&[0xff; 64]).unwrap();
            let mut rest = Vec::new();
            // Ends when the sidecar hangs up.
            let _ = first.read_to_end(&mut rest);
        });
        tokio::task::spawn_blocking(|| server.join().unwrap())
            .await
            .unwrap();
        assert!(events.try_recv().is_err());
    }
}
