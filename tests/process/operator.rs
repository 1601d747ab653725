//! The operator's end of the session.

use crate::authority::Authority;
use crate::calls::channel;
use crate::pod::PATIENCE;
use crate::queue::Queue;
use patchbay_protocol::pod_config::PodConfig;
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::session_client::SessionClient;
use patchbay_protocol::session::{
    AllowStart, Configure, Counters, FromOperator, FromSidecar, Instance, OperatorHello,
};
use patchbay_sidecar::family::go_plugin::tls::provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

pub struct Session {
    down: mpsc::Sender<FromOperator>,
    pictures: mpsc::UnboundedReceiver<(Option<Instance>, Option<Counters>)>,
    reader: JoinHandle<()>,
    answers: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
        self.answers.abort();
    }
}

impl Session {
    /// Dials the sidecar of a pod as soon as it listens, says hello and, if wanted, releases the
    /// plugin.
    pub async fn attach(root: &Path, authority: &Authority, release: bool, queue: &Queue) -> Self {
        let connector = TlsConnector::from(Arc::new(client_config(authority)));
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match dial(root, &connector).await {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "dialling the sidecar: {error}"),
            }
            sleep(std::time::Duration::from_millis(10)).await;
        };
        let mut client = SessionClient::new(channel(stream).await);
        let (down, messages) = mpsc::channel(8);
        let hello = OperatorHello {
            oldest: patchbay_protocol::session::OLDEST,
            newest: patchbay_protocol::session::NEWEST,
            epoch: 1,
            operator_version: "test".into(),
        };
        send(&down, Down::Hello(hello)).await;
        if release {
            send(&down, Down::AllowStart(AllowStart {})).await;
        }
        let up = client
            .attach(ReceiverStream::new(messages))
            .await
            .expect("a session")
            .into_inner();
        let (answer, answers) = mpsc::unbounded_channel();
        queue.open(answer);
        let (tell, pictures) = mpsc::unbounded_channel();
        Self {
            reader: tokio::spawn(read(up, queue.clone(), tell)),
            answers: tokio::spawn(pass_on(answers, down.clone())),
            down,
            pictures,
        }
    }

    pub async fn configure(&self, config: &PodConfig) {
        let json = serde_json::to_string(config).unwrap();
        send(
            &self.down,
            Down::Configure(Configure {
                revision: config.revision,
                json,
            }),
        )
        .await;
    }

    /// The next message that tells of the instance; `None` when the session has ended.
    pub async fn next(&mut self) -> Option<(Option<Instance>, Option<Counters>)> {
        self.pictures.recv().await
    }
}

/// Hears the sidecar, also while the test waits for something else.
async fn read(
    mut up: Streaming<FromSidecar>,
    queue: Queue,
    tell: mpsc::UnboundedSender<(Option<Instance>, Option<Counters>)>,
) {
    while let Ok(Some(FromSidecar { message })) = up.message().await {
        let told = match message {
            Some(Up::Instance(instance)) => tell.send((Some(instance), None)),
            Some(Up::Counters(counters)) => tell.send((None, Some(counters))),
            Some(message) => {
                queue.hear(message);
                Ok(())
            }
            None => Ok(()),
        };
        if told.is_err() {
            return;
        }
    }
}

async fn pass_on(mut answers: mpsc::UnboundedReceiver<Down>, down: mpsc::Sender<FromOperator>) {
    while let Some(message) = answers.recv().await {
        let message = Some(message);
        if down.send(FromOperator { message }).await.is_err() {
            return;
        }
    }
}

async fn send(down: &mpsc::Sender<FromOperator>, message: Down) {
    down.send(FromOperator {
        message: Some(message),
    })
    .await
    .expect("the session is open");
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn dial(root: &Path, connector: &TlsConnector) -> Result<TlsStream, String> {
    let address = fs::read_to_string(root.join("private/session-address"))
        .map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(address.trim())
        .await
        .map_err(|error| error.to_string())?;
    let name = "pod.test".try_into().map_err(|_| "a bad name".to_owned())?;
    connector
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())
}

fn client_config(authority: &Authority) -> ClientConfig {
    let leaf = authority.leaf("operator.test", Some("patchbay://installation/operator"));
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let key = PrivateKeyDer::try_from(leaf.key_der).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![leaf.certificate_der.into()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
