//! The proxy alone in front of one plugin, for measurements and for clients of other languages.
//!
//! ```text
//! bare_proxy [--mtls] <plugin> [argument …]
//! ```
//!
//! Starts the plugin with the environment of go-plugin's own example, prints one line with where
//! the plugin and the proxy listen, and ends with its standard input. Each line there swaps the
//! proxy for a new one on the same listening socket, as a replaced sidecar does, and prints how
//! the drain of the old one ended.

use patchbay_protocol::handshake::{self, Asked, Expect};
use patchbay_sidecar::family::go_plugin::endpoint::Endpoint;
use patchbay_sidecar::family::go_plugin::stdio::{self, Fanout};
use patchbay_sidecar::family::go_plugin::tls::{Client, HostCertificate};
use patchbay_sidecar::proxy::{Proxy, ProxyCounters, Upstream};
use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const DRAIN: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run())
}

/// Ends with this program, also when that fails.
struct Plugin(Child);

impl Drop for Plugin {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let mtls = arguments.next_if(|argument| argument == "--mtls").is_some();
    let program = arguments
        .next()
        .ok_or("usage: bare_proxy [--mtls] <plugin> [argument …]")?;

    let folder = std::env::temp_dir().join(format!("bare-proxy-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let certificate = HostCertificate::generate()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("BASIC_PLUGIN", "hello")
        .env("PLUGIN_PROTOCOL_VERSIONS", "1,3,5")
        .env("PLUGIN_UNIX_SOCKET_DIR", &folder)
        .env("TMPDIR", &folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if mtls {
        command.env("PLUGIN_CLIENT_CERT", certificate.pem());
    }
    let mut plugin = Plugin(command.spawn()?);
    let mut output = BufReader::new(plugin.0.stdout.take().ok_or("the plugin has no output")?);
    let mut line = Vec::new();
    output.read_until(b'\n', &mut line)?;
    let tls = if mtls { Asked::AutoMTLS } else { Asked::None };
    let found = handshake::parse(
        &line,
        &Expect {
            versions: &[1, 3, 5],
            tls,
        },
    )?;
    let client = match &found.certificate {
        Some(theirs) => Some(Client::pinned(theirs, &certificate)?),
        None => None,
    };
    let endpoint = Endpoint::new(&found.address, &folder, client)?;

    let (upstream, fanout) = (
        watch::Sender::new(Upstream::Present(endpoint.clone())),
        Fanout::new(),
    );
    let counters = Arc::new(ProxyCounters::default());
    tokio::spawn(stdio::follow(
        endpoint.channel().await?,
        fanout.clone(),
        |_| {},
    ));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let start = || {
        Proxy::start(
            listener.try_clone()?,
            upstream.subscribe(),
            fanout.clone(),
            counters.clone(),
        )
    };
    let mut proxy = start()?;
    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        r#"{{"plugin":"{}","proxy":"{}","pid":{}}}"#,
        found.address,
        proxy.address(),
        std::process::id()
    )?;
    let (order, mut orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_err() || order.send(()).is_err() {
                break;
            }
        }
    });
    while orders.recv().await.is_some() {
        let draining = tokio::spawn(proxy.drain(DRAIN));
        proxy = start()?;
        writeln!(stdout, "{:?} {:?}", draining.await?, counters.read())?;
    }
    writeln!(
        stdout,
        "{:?} {:?}",
        proxy.drain(DRAIN).await,
        counters.read()
    )?;
    drop(plugin);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
