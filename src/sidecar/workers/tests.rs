use super::*;
use crate::jobs::Translate;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
/// Stands for an address of the pod.
const POD: &str = "127.9.9.9";

struct Bench {
    _folder: tempfile::TempDir,
    root: Root,
    workers: Workers,
    port: u16,
    notes: mpsc::Receiver<String>,
    serving: Option<Serving>,
}

impl Bench {
    /// With a port that nobody uses at any of these addresses.
    fn new(pod_ips: &[&str]) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().into());
        std::fs::create_dir(root.private()).unwrap();
        let pod_ips: Vec<IpAddr> = pod_ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let workers = Workers::open(&root, pod_ips, Default::default()).unwrap();
        let port = free_port();
        Bench {
            _folder: folder,
            root,
            workers,
            port,
            notes: mpsc::channel(8).1,
            serving: None,
        }
    }

    fn serve(&mut self) {
        let (tell, notes) = mpsc::channel(8);
        self.notes = notes;
        self.serving = Some(self.workers.serve(self.port, tell));
    }

    /// A plugin's listener, as the sample makes it: without SO_REUSEADDR.
    fn plugin(&self, ip: &str) -> TcpListener {
        let ip: IpAddr = ip.parse().unwrap();
        let socket = match ip {
            IpAddr::V4(_) => TcpSocket::new_v4().unwrap(),
            IpAddr::V6(_) => TcpSocket::new_v6().unwrap(),
        };
        socket
            .bind((ip, self.port).into())
            .expect("the plugin takes its port");
        socket.listen(1).unwrap()
    }

    /// A worker at this address, as soon as it is let in.
    async fn worker(&self, from: &str, to: &str) -> TcpStream {
        let from: IpAddr = from.parse().unwrap();
        let to: IpAddr = to.parse().unwrap();
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let socket = match to {
                IpAddr::V4(_) => TcpSocket::new_v4().unwrap(),
                IpAddr::V6(_) => TcpSocket::new_v6().unwrap(),
            };
            socket.bind((from, 0).into()).unwrap();
            match socket.connect((to, self.port).into()).await {
                Ok(stream) => return stream,
                Err(error) => assert!(tokio::time::Instant::now() < until, "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn real(&self, peer: SocketAddr) -> String {
        self.workers
            .address_map()
            .real(&peer.ip().to_string())
            .unwrap()
    }
}

/// One that the kernel does not give to connections by itself, and that nobody has at any address.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id() as u16).wrapping_add(number) % 20_000;
        if std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    timeout(PATIENCE, listener.accept()).await.unwrap().unwrap()
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("an end in time")?;
    Ok(bytes)
}

#[tokio::test]
async fn every_worker_keeps_its_own_address() {
    let mut bench = Bench::new(&[POD, "::1"]);
    let listener = bench.plugin("127.0.0.1");
    bench.serve();
    let mut seen = std::collections::HashMap::new();
    let mut held = Vec::new();
    for (from, to) in [
        ("127.0.0.1", POD),
        ("127.5.0.1", POD),
        ("127.5.0.2", POD),
        ("::1", "::1"),
        ("127.5.0.1", POD),
    ] {
        held.push(bench.worker(from, to).await);
        let (stream, peer) = accept(&listener).await;
        held.push(stream);
        assert!(peer.ip().is_loopback() && peer.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(bench.real(peer), from);
        let known = seen.entry(from).or_insert(peer.ip());
        assert_eq!(*known, peer.ip(), "one client has one address");
    }
    let different: std::collections::HashSet<&IpAddr> = seen.values().collect();
    assert_eq!(different.len(), 4);
    assert_eq!(bench.workers.counters.read().open, 5);

    // A next sidecar knows them all, and a new client gets a new address.
    let next = Workers::open(&bench.root, vec![], Default::default()).unwrap();
    for (from, local) in &seen {
        assert_eq!(next.address_map().real(&local.to_string()).unwrap(), *from);
        assert_eq!(
            IpAddr::from(next.address_map().local(from.parse().unwrap()).unwrap()),
            *local
        );
    }
    let fresh = next
        .address_map()
        .local("10.9.9.9".parse().unwrap())
        .unwrap();
    assert!(!seen.values().any(|known| *known == IpAddr::from(fresh)));
}

#[tokio::test]
async fn each_side_ends_its_own_direction() {
    let mut bench = Bench::new(&[POD]);
    let listener = bench.plugin("127.0.0.1");
    bench.serve();

    // The worker says everything first.
    let mut worker = bench.worker("127.5.0.1", POD).await;
    let (mut plugin, _) = accept(&listener).await;
    let much = vec![b'q'; 1 << 20];
    let asking = async {
        worker.write_all(&much).await.unwrap();
        worker.shutdown().await.unwrap();
        read_all(&mut worker).await.unwrap()
    };
    let answering = async {
        assert_eq!(read_all(&mut plugin).await.unwrap().len(), much.len());
        plugin.write_all(b"answer").await.unwrap();
        drop(plugin);
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert_eq!(answer, b"answer");

    // The plugin does, and still hears.
    let mut worker = bench.worker("127.5.0.1", POD).await;
    let (mut plugin, _) = accept(&listener).await;
    plugin.write_all(b"task").await.unwrap();
    plugin.shutdown().await.unwrap();
    assert_eq!(read_all(&mut worker).await.unwrap(), b"task");
    // Longer than it takes to tell a close from the end of sending.
    sleep(Duration::from_secs(1)).await;
    worker.write_all(b"done").await.unwrap();
    worker.shutdown().await.unwrap();
    assert_eq!(read_all(&mut plugin).await.unwrap(), b"done");
}

#[tokio::test]
async fn a_plugin_that_closed_its_connections_gets_its_port_again_at_once() {
    let mut bench = Bench::new(&[POD]);
    for _ in 0..3 {
        let listener = bench.plugin("127.0.0.1");
        bench.serve();
        let mut worker = bench.worker("127.5.0.1", POD).await;
        let (mut plugin, _) = accept(&listener).await;
        plugin.write_all(b"bye").await.unwrap();
        drop(plugin);
        // The worker's own half stays open.
        assert_eq!(read_all(&mut worker).await.unwrap(), b"bye");
        let held = bench.worker("127.5.0.2", POD).await;
        let cut = accept(&listener).await;
        // The process ends with a connection open.
        drop((cut, listener));
        bench.serving = None;
        let counters = bench.workers.counters.clone();
        drop(held);
        drop(worker);
        timeout(PATIENCE, async {
            while counters.read().open > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_broken_side_breaks_the_other() {
    let mut bench = Bench::new(&[POD]);
    let listener = bench.plugin("127.0.0.1");
    bench.serve();
    for worker_breaks in [true, false] {
        let mut worker = bench.worker("127.5.0.1", POD).await;
        let (mut plugin, _) = accept(&listener).await;
        // Both halves stand before one of them breaks.
        plugin.write_all(b"x").await.unwrap();
        assert_eq!(worker.read_u8().await.unwrap(), b'x');
        let (breaks, mut hears) = if worker_breaks {
            (worker, plugin)
        } else {
            (plugin, worker)
        };
        breaks.set_zero_linger().unwrap();
        drop(breaks);
        assert!(read_all(&mut hears).await.is_err(), "a reset is passed on");
    }
}

#[tokio::test]
async fn a_worker_waits_for_a_plugin_that_opens_its_port_late() {
    let mut bench = Bench::new(&[POD]);
    let listener = bench.plugin("127.0.0.1");
    bench.serve();
    let first = bench.worker("127.5.0.1", POD).await;
    drop((accept(&listener).await, first));
    // Between two of its connections it does not listen.
    drop(listener);
    let mut worker = bench.worker("127.5.0.2", POD).await;
    worker.write_all(b"early").await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_reuseaddr(true).unwrap();
    listener
        .bind((Ipv4Addr::LOCALHOST, bench.port).into())
        .unwrap();
    let listener = listener.listen(1).unwrap();
    let (mut plugin, peer) = accept(&listener).await;
    assert_eq!(bench.real(peer), "127.5.0.2");
    let mut word = [0; 5];
    plugin.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"early");

    // The end of the process ends the wait.
    drop((plugin, listener));
    let mut waiting = bench.worker("127.5.0.3", POD).await;
    bench.serving = None;
    let _ = read_all(&mut waiting).await;
    assert!(bench.workers.counters.read().unanswered >= 1);
}

#[tokio::test]
async fn a_plugin_that_listens_everywhere_is_left_alone() {
    for ip in ["0.0.0.0", POD] {
        let mut bench = Bench::new(&[POD]);
        bench.serve();
        let listener = bench.plugin(ip);
        let note = timeout(PATIENCE, bench.notes.recv())
            .await
            .unwrap()
            .unwrap();
        assert!(note.contains("straight from the kernel"), "{note}");
        let _worker = bench.worker("127.5.0.1", POD).await;
        let (_stream, peer) = accept(&listener).await;
        assert_eq!(peer.ip().to_string(), "127.5.0.1");
    }
}

#[tokio::test]
async fn ipv6_only_listener_is_reached_and_reported() {
    let mut bench = Bench::new(&[POD]);
    let listener = bench.plugin("::1");
    bench.serve();
    let mut worker = bench.worker("127.5.0.1", POD).await;
    let (mut plugin, peer) = accept(&listener).await;
    assert_eq!(
        bench.workers.address_map().real(&peer.ip().to_string()),
        None
    );
    worker.write_all(b"x").await.unwrap();
    assert_eq!(plugin.read_u8().await.unwrap(), b'x');
    let note = timeout(PATIENCE, bench.notes.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(note.contains("::1"), "{note}");
}

#[tokio::test]
async fn a_port_that_another_program_holds_is_taken_later() {
    let mut bench = Bench::new(&[POD]);
    let foreign = std::net::TcpListener::bind(("127.9.9.9", bench.port)).unwrap();
    let listener = bench.plugin("127.0.0.1");
    bench.serve();
    sleep(Duration::from_millis(500)).await;
    drop(foreign);
    let _worker = bench.worker("127.5.0.1", POD).await;
    let (_stream, peer) = accept(&listener).await;
    assert_eq!(bench.real(peer), "127.5.0.1");
}

#[test]
fn the_pods_addresses_are_read_and_the_wildcard_is_none() {
    let ips = |text| parse_pod_ips(text);
    let both: Vec<IpAddr> = vec!["10.0.0.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    assert_eq!(ips("10.0.0.7,2001:db8::7"), Ok(both.clone()));
    assert_eq!(
        ips(" 2001:db8:0::7 , 10.0.0.7,, 10.0.0.7"),
        Ok(both.into_iter().rev().collect())
    );
    assert_eq!(ips(""), Ok(vec![]));
    for bad in ["0.0.0.0", "::", "224.0.0.1", "10.0.0", "localhost"] {
        assert!(ips(bad).unwrap_err().starts_with("read PATCHBAY_POD_IPS"));
    }
}
