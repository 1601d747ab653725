//! A go-plugin plugin in Rust: the key-value example on tonic.
//!
//! What a plugin owes its host, in order: check the cookie, choose a version, listen on a
//! socket in the directory that the host names, announce it in one line on standard output,
//! serve until Shutdown is called. Everything that it has to say goes to standard error.
//!
//! Not offered: AutoMTLS and the broker. A host that insists on them gets a clear answer,
//! because the certificate field of the announced line stays empty.

mod handshake;
mod kv;
mod log;

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;

use wire::plugin::grpc_controller_server::{GrpcController, GrpcControllerServer};

/// Messages and services generated from `examples/proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod wire {
    pub(crate) mod proto {
        tonic::include_proto!("proto");
    }
    pub(crate) mod plugin {
        tonic::include_proto!("plugin");
    }
    /// The descriptors that reflection answers from.
    pub(crate) const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

/// After Shutdown, calls in flight get this long before the process ends anyway.
const LAST_CALLS: Duration = Duration::from_millis(500);

/// The service by which the host asks the plugin to end.
struct Controller {
    asked: watch::Sender<bool>,
}

#[tonic::async_trait]
impl GrpcController for Controller {
    async fn shutdown(
        &self,
        _: Request<wire::plugin::Empty>,
    ) -> Result<Response<wire::plugin::Empty>, Status> {
        self.asked.send_replace(true);
        Ok(Response::new(wire::plugin::Empty {}))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let version = match handshake::accept() {
        Ok(version) => version,
        Err(refusal) => {
            log::plain(&refusal);
            return ExitCode::FAILURE;
        }
    };
    match serve(version).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error("cannot serve", &error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn serve(version: u32) -> Result<(), Box<dyn Error>> {
    let path = handshake::socket_path();
    let listener = UnixListener::bind(&path)?;
    let (asked, mut shutdown) = watch::channel(false);

    let (health, health_service) = tonic_health::server::health_reporter();
    // The service name that go-plugin hosts ask about.
    health
        .set_service_status("plugin", ServingStatus::Serving)
        .await;

    let mut drain = shutdown.clone();
    let server = Server::builder()
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(GrpcControllerServer::new(Controller { asked }))
        .add_service(kv::service())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
            // An error means that the controller is gone, and nobody can ask any more.
            let _ = drain.wait_for(|asked| *asked).await;
        });
    let server = tokio::spawn(server);

    handshake::announce(version, &path)?;
    log::info("serving", &path.to_string_lossy());

    shutdown.wait_for(|asked| *asked).await?;
    if let Ok(ended) = tokio::time::timeout(LAST_CALLS, server).await {
        ended??;
    }
    fs::remove_file(&path)?;
    Ok(())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
