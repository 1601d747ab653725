use super::*;
use crate::family::go_plugin::controller::{self, ShutdownAnswer};
use crate::family::go_plugin::health::{self, Health};
use crate::family::go_plugin::reflection::{self, ReflectionError};
use crate::family::go_plugin::testing::{SOON, TestPlugin, soon};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::Ordering;

/// A limit that is meant to be hit.
const SHORT: Duration = Duration::from_millis(20);

fn unix(path: &Path, run: &Path) -> Result<Endpoint, Rejected> {
    Endpoint::new(&Address::Unix(path.to_owned()), run, None)
}

async fn failure(path: &Path, run: &Path) -> DialError {
    let endpoint = unix(path, run).unwrap();
    let error = soon(endpoint.connect()).await.unwrap_err();
    assert_eq!(endpoint.failure(), Some(error.clone()));
    error
}

#[test]
fn addresses_outside_and_ports_of_ours_are_refused() {
    let run = Path::new("/patchbay/run");
    for path in [
        "/tmp/s",
        "/patchbay/run",
        "/patchbay/running/s",
        "/patchbay/private/s",
    ] {
        let rejected = unix(Path::new(path), run).unwrap_err();
        assert_eq!(rejected.reason, Reason::BadAddress, "{path}");
        assert!(rejected.message.contains(path), "{}", rejected.message);
    }
    for port in [7443, 7444, 7445] {
        let address = Address::Tcp(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        let rejected = Endpoint::new(&address, run, None).unwrap_err();
        assert_eq!(rejected.reason, Reason::BadAddress);
        assert!(rejected.message.contains(&port.to_string()));
    }
    assert!(unix(Path::new("/patchbay/run/00/p"), run).is_ok());
}

#[tokio::test]
async fn a_socket_beneath_the_folder_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("start")).unwrap();
    let path = folder.path().join("start/p");
    let _plugin = TestPlugin::unix(&path);
    let endpoint = unix(&path, folder.path()).unwrap();
    assert!(soon(endpoint.connect()).await.is_ok());
    assert_eq!(endpoint.failure(), None);
}

#[tokio::test]
async fn links_other_files_and_the_control_socket_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (run, other) = (folder.path(), outside.path());
    let _elsewhere = StdListener::bind(other.join("s")).unwrap();
    let _control = StdListener::bind(run.join(layout::CONTROL_SOCKET)).unwrap();
    std::os::unix::fs::symlink(other, run.join("folder")).unwrap();
    std::os::unix::fs::symlink(other.join("s"), run.join("link")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", run.join("magic")).unwrap();
    std::fs::hard_link(run.join(layout::CONTROL_SOCKET), run.join("alias")).unwrap();
    std::fs::write(run.join("file"), "").unwrap();
    for (name, word) in [
        ("folder/s", "link"),
        ("link", "link"),
        ("magic/etc/passwd", "link"),
        ("file", "not a socket"),
        (layout::CONTROL_SOCKET, "control socket"),
        ("alias", "control socket"),
    ] {
        let error = failure(&run.join(name), run).await;
        assert_eq!(error.reason, Reason::BadAddress, "{name}: {error}");
        assert!(error.message.contains(word), "{name}: {error}");
    }
}

#[tokio::test]
async fn absent_and_dead_sockets_are_connect_failures() {
    let folder = tempfile::tempdir().unwrap();
    let error = failure(&folder.path().join("absent"), folder.path()).await;
    assert_eq!(error.reason, Reason::ConnectFailed);
    assert!(error.message.contains("no such socket"), "{error}");
    drop(StdListener::bind(folder.path().join("dead")).unwrap());
    let error = failure(&folder.path().join("dead"), folder.path()).await;
    assert_eq!(error.reason, Reason::ConnectFailed);
    assert!(error.message.contains("nobody listens"), "{error}");
    let endpoint = unix(&folder.path().join("dead"), folder.path()).unwrap();
    assert_eq!(
        endpoint.channel().await.unwrap_err().reason,
        Reason::ConnectFailed
    );
}

#[tokio::test]
async fn a_full_queue_of_connections_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = StdListener::from(socket);
    let endpoint = unix(&path, folder.path()).unwrap();
    let _first = soon(endpoint.connect()).await.unwrap();
    let mut second = Box::pin(endpoint.connect());
    // With a queue for one connection the second finds no place before one is accepted.
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut second)
            .await
            .is_err()
    );
    let _accepted = listener.accept().unwrap();
    assert!(soon(second).await.is_ok());
}

#[tokio::test]
async fn the_second_loopback_address_is_tried_too() {
    let plugin = TestPlugin::tcp(None).await;
    let Address::Tcp(mut all) = plugin.address.clone() else {
        unreachable!()
    };
    let mut dead = all[0];
    dead.set_ip("127.0.0.9".parse().unwrap());
    // The plugin listens on 127.0.0.1 only.
    all.insert(0, dead);
    let endpoint = Endpoint::new(&Address::Tcp(all), Path::new("/nowhere"), None).unwrap();
    assert!(soon(endpoint.connect()).await.is_ok());
}

#[tokio::test]
async fn health_check_reports_every_kind_of_answer() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = TestPlugin::unix(&folder.path().join("p"));
    let channel = plugin.endpoint().channel().await.unwrap();
    assert_eq!(
        health::check(channel.clone(), SOON).await,
        Health::Unsupported
    );
    for (status, expected) in [
        (1, Health::Serving),
        (2, Health::NotServing("NOT_SERVING".to_owned())),
        (0, Health::NotServing("UNKNOWN".to_owned())),
        (99, Health::NotServing("UNKNOWN".to_owned())),
    ] {
        *plugin.stage.health.lock().unwrap() = Some(status);
        assert_eq!(health::check(channel.clone(), SOON).await, expected);
    }
    plugin.stage.hangs.store(true, Ordering::Relaxed);
    assert_eq!(
        health::check(channel.clone(), SHORT).await,
        Health::TimedOut
    );
    plugin.kill().await;
    assert!(matches!(
        health::check(channel, SOON).await,
        Health::Failed(_)
    ));
}

#[tokio::test]
async fn shutdown_call_reports_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = TestPlugin::unix(&folder.path().join("p"));
    let channel = plugin.endpoint().channel().await.unwrap();
    assert_eq!(
        controller::shutdown(channel.clone(), SOON).await,
        ShutdownAnswer::Answered
    );
    assert_eq!(*plugin.stage.shutdowns.borrow(), 1);
    plugin.stage.hangs.store(true, Ordering::Relaxed);
    assert_eq!(
        controller::shutdown(channel.clone(), SHORT).await,
        ShutdownAnswer::TimedOut
    );
    plugin.kill().await;
    assert_eq!(
        controller::shutdown(channel, SOON).await,
        ShutdownAnswer::Cut
    );
}

#[tokio::test]
async fn a_plugin_without_reflection_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = TestPlugin::unix(&folder.path().join("p"));
    let channel = plugin.endpoint().channel().await.unwrap();
    let asked = reflection::services(channel.clone(), SOON).await;
    assert_eq!(asked, Err(ReflectionError::Unsupported));
    plugin.stage.hangs.store(true, Ordering::Relaxed);
    let asked = reflection::services(channel.clone(), SHORT).await;
    assert_eq!(asked, Err(ReflectionError::TimedOut));
    plugin.kill().await;
    let asked = reflection::services(channel, SOON).await;
    assert!(
        matches!(asked, Err(ReflectionError::Failed(_))),
        "{asked:?}"
    );
}

#[tokio::test]
async fn services_are_listed_with_the_old_version_of_reflection() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = TestPlugin::unix(&folder.path().join("p"));
    *plugin.stage.reflected.lock().unwrap() = Some(vec!["proto.KV".into(), "a.B".into()]);
    let channel = plugin.endpoint().channel().await.unwrap();
    let services = reflection::services(channel, SOON).await.unwrap();
    assert_eq!(services.names, ["a.B", "proto.KV"]);
    assert_eq!(services.omitted, 0);
}
