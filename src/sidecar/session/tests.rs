use super::*;
use crate::session::accept::Port;
use hyper_util::rt::TokioIo;
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::from_sidecar::Message as Up;
use patchbay_protocol::session::session_client::SessionClient;
use patchbay_protocol::session::{
    FromOperator as DownMessage, FromSidecar, OperatorHello, Phase, Ping,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{Status, Streaming};

/// An authority that gives out leaves with one URI each.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn leaf(&self, uri: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["pod.test".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// The three files of an identity.
    pub(crate) fn write(&self, folder: &Path, uri: &str) {
        let (certificate, key) = self.leaf(uri);
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("ca.crt"), self.0.pem()).unwrap();
    }

    async fn dial(
        &self,
        address: SocketAddr,
        uri: &str,
    ) -> Result<SessionClient<tonic::transport::Channel>, String> {
        let (certificate, key) = self.leaf(uri);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config =
            rustls::ClientConfig::builder_with_provider(crate::family::go_plugin::tls::provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let service = tower_service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("pod.test").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        let origin = tonic::transport::Endpoint::from_static("http://pod.test");
        let channel = origin
            .connect_with_connector(service)
            .await
            .map_err(|error| error.to_string())?;
        Ok(SessionClient::new(channel))
    }
}

/// `tower::service_fn` without tower.
#[derive(Clone)]
pub(crate) struct ServiceFn<F>(F);

pub(crate) fn tower_service_fn<F>(function: F) -> ServiceFn<F> {
    ServiceFn(function)
}

impl<F, R, T, E> tower_service::Service<http::Uri> for ServiceFn<F>
where
    F: FnMut(http::Uri) -> R,
    R: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = R;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), E>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> R {
        (self.0)(uri)
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    root: Root,
    authority: Authority,
    address: SocketAddr,
    instance: watch::Sender<session::Instance>,
    changes: watch::Sender<u64>,
    operator_messages: mpsc::Receiver<FromOperator>,
    jobs: Jobs,
}

const OPERATOR: &str = "patchbay://inst/operator";
const SELF: &str = "patchbay://inst/plugin/ns/uid-1";

async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new(folder.path().into());
    std::fs::create_dir(root.private()).unwrap();
    std::fs::create_dir(root.run()).unwrap();
    std::fs::create_dir(root.identity()).unwrap();
    let authority = Authority::new();
    authority.write(&root.identity(), SELF);
    let (instance, seen) = watch::channel(session::Instance {
        revision: 4,
        ..Default::default()
    });
    let (wishing, operator_messages) = mpsc::channel(8);
    let (changes, changed) = watch::channel(0);
    let (port, mut ports) = watch::channel(Port::Unknown);
    let jobs = Jobs::start(&root).unwrap();
    let hub = Hub {
        root: root.clone(),
        instance: seen,
        counters: Arc::new(Counters::default()),
        released: Arc::new(AtomicBool::new(true)),
        jobs: jobs.clone(),
        operator_messages: wishing,
    };
    tokio::spawn(serve("127.0.0.1:0".parse().unwrap(), hub, changed, port));
    let port = *ports
        .wait_for(|port| matches!(port, Port::Ours(_)))
        .await
        .unwrap();
    let Port::Ours(address) = port else {
        unreachable!()
    };
    Bench {
        _folder: folder,
        root,
        authority,
        address,
        instance,
        changes,
        operator_messages,
        jobs,
    }
}

fn hello(epoch: u64) -> DownMessage {
    let hello = OperatorHello {
        oldest: 1,
        newest: 9,
        epoch,
        operator_version: "test".into(),
    };
    DownMessage {
        message: Some(Down::Hello(hello)),
    }
}

struct Attached {
    down: mpsc::Sender<DownMessage>,
    up: Streaming<FromSidecar>,
}

impl Attached {
    async fn next(&mut self) -> Result<Up, Status> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.up.message())
                .await
                .unwrap()?;
            match next.expect("the stream goes on").message.unwrap() {
                Up::Counters(_) => {}
                other => return Ok(other),
            }
        }
    }
}

async fn attach(bench: &Bench, first: DownMessage) -> Result<Attached, Status> {
    let mut client = bench.authority.dial(bench.address, OPERATOR).await.unwrap();
    let (down, messages) = mpsc::channel(8);
    down.send(first).await.unwrap();
    let up = client
        .attach(tokio_stream::wrappers::ReceiverStream::new(messages))
        .await?
        .into_inner();
    Ok(Attached { down, up })
}

#[tokio::test]
async fn operator_gets_the_greeting_and_every_change() {
    let mut bench = bench().await;
    let mut attached = attach(&bench, hello(3)).await.unwrap();
    match attached.next().await.unwrap() {
        Up::Hello(hello) => assert_eq!(
            (hello.version, hello.revision, hello.start_allowed),
            (2, 4, true)
        ),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(attached.next().await.unwrap(), Up::Instance(instance) if instance.revision == 4)
    );
    bench
        .instance
        .send_modify(|instance| instance.phase = Phase::Ready.into());
    assert!(
        matches!(attached.next().await.unwrap(), Up::Instance(instance) if instance.phase() == Phase::Ready)
    );

    // A kind from the future is passed over.
    attached
        .down
        .send(DownMessage { message: None })
        .await
        .unwrap();
    attached
        .down
        .send(DownMessage {
            message: Some(Down::Ping(Ping { nonce: 77 })),
        })
        .await
        .unwrap();
    assert!(matches!(attached.next().await.unwrap(), Up::Pong(pong) if pong.nonce == 77));
    attached
        .down
        .send(DownMessage {
            message: Some(Down::AllowStart(session::AllowStart {})),
        })
        .await
        .unwrap();
    let configure = session::Configure {
        revision: 5,
        json: "{}".into(),
    };
    attached
        .down
        .send(DownMessage {
            message: Some(Down::Configure(configure)),
        })
        .await
        .unwrap();
    assert_eq!(
        bench.operator_messages.recv().await,
        Some(FromOperator::AllowStart)
    );
    assert_eq!(
        bench.operator_messages.recv().await,
        Some(FromOperator::Configure("{}".into()))
    );
    assert_eq!(
        std::fs::read_to_string(bench.root.private().join("session-address")).unwrap(),
        bench.address.to_string()
    );
}

#[tokio::test]
async fn only_the_operators_own_name_opens_the_session() {
    let bench = bench().await;
    let try_as = async |authority: &Authority, uri: &str| {
        let mut client = authority.dial(bench.address, uri).await?;
        // TLS 1.3 tells a refused certificate only with the first answer.
        let first = tokio_stream::once(hello(1));
        client
            .attach(first)
            .await
            .map(|_| ())
            .map_err(|status| status.to_string())
    };
    assert_eq!(try_as(&bench.authority, OPERATOR).await, Ok(()));
    for uri in [
        "patchbay://inst/plugin/ns/uid-1",
        "patchbay://inst/operator2",
        "patchbay://other/operator",
        "patchbay://inst/operator/x",
    ] {
        assert!(
            try_as(&bench.authority, uri).await.is_err(),
            "{uri} came in"
        );
    }
    // Another authority, ours as root for the client's side: the chain fails.
    let stranger = Authority::new();
    let (certificate, key) = stranger.leaf(OPERATOR);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(bench.authority.0.der().clone()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(crate::family::go_plugin::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
    let stream = TcpStream::connect(bench.address).await.unwrap();
    let name = ServerName::try_from("pod.test").unwrap();
    let refused = match TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
    {
        Err(_) => true,
        Ok(mut stream) => {
            use tokio::io::AsyncReadExt;
            stream.read_u8().await.is_err()
        }
    };
    assert!(refused);
}

#[tokio::test]
async fn old_epoch_is_refused_also_by_the_next_process() {
    let bench = bench().await;
    let mut first = attach(&bench, hello(5)).await.unwrap();
    first.next().await.unwrap();
    let refused = attach(&bench, hello(4)).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert_eq!(crate::sandbox::epoch(&bench.root), 5);

    // An equal epoch takes over, and the first one is told.
    let mut second = attach(&bench, hello(5)).await.unwrap();
    assert!(matches!(second.next().await.unwrap(), Up::Hello(_)));
    let ended = loop {
        match first.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), tonic::Code::Aborted);
}

#[tokio::test]
async fn no_common_version_and_no_greeting_are_refused() {
    let bench = bench().await;
    let future = OperatorHello {
        oldest: 90,
        newest: 99,
        epoch: 1,
        operator_version: String::new(),
    };
    let refused = attach(
        &bench,
        DownMessage {
            message: Some(Down::Hello(future)),
        },
    )
    .await
    .err()
    .unwrap();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("90 to 99"));
    let refused = attach(
        &bench,
        DownMessage {
            message: Some(Down::AllowStart(session::AllowStart {})),
        },
    )
    .await
    .err()
    .unwrap();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn certificates_are_taken_over_without_a_restart() {
    let mut bench = bench().await;
    let renewed = Authority::new();
    assert!(renewed.dial(bench.address, OPERATOR).await.is_err());
    renewed.write(&bench.root.identity(), SELF);
    bench.changes.send_modify(|count| *count += 1);
    let began = std::time::Instant::now();
    // The reload has no sign of its own but that it works.
    while renewed.dial(bench.address, OPERATOR).await.is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the new certificates are not used"
        );
        tokio::task::yield_now().await;
    }
    bench.authority = renewed;
    attach(&bench, hello(1)).await.unwrap();

    // Files that do not fit together leave the old ones in force.
    std::fs::write(bench.root.identity().join("tls.key"), "nonsense").unwrap();
    bench.changes.send_modify(|count| *count += 1);
    tokio::task::yield_now().await;
    attach(&bench, hello(1)).await.unwrap();
}

#[tokio::test]
async fn taken_port_is_reported_and_bound_later() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new(folder.path().into());
    std::fs::create_dir(root.private()).unwrap();
    let (_instance, seen) = watch::channel(session::Instance::default());
    let (operator_messages, _wishes) = mpsc::channel(8);
    let (_changes, changed) = watch::channel(0);
    let (port, mut ports) = watch::channel(Port::Unknown);
    let hub = Hub {
        jobs: Jobs::start(&root).unwrap(),
        root,
        instance: seen,
        counters: Arc::default(),
        released: Arc::default(),
        operator_messages,
    };
    tokio::spawn(serve(address, hub, changed, port));
    ports
        .wait_for(|port| *port == Port::Taken(address.port()))
        .await
        .unwrap();
    drop(other);
    ports
        .wait_for(|port| *port == Port::Ours(address))
        .await
        .unwrap();
}

/// A claim that the operator gave and the plugin has.
async fn hand_over(bench: &Bench, attached: &mut Attached, uid: &str) -> session::ClaimName {
    let asked = tokio::spawn(crate::family::pcp::jobs_api_tests::request(
        bench.root.jobs_socket(),
        uid.len() as u128,
    ));
    let ask = loop {
        if let Up::WorkRequest(ask) = attached.next().await.unwrap() {
            break ask;
        }
    };
    let claim = session::ClaimName {
        claim_id: ask.claim_id,
        job_uid: uid.to_owned(),
    };
    let grant = crate::family::pcp::jobs_api_tests::grant(&claim, 16 * 1024 * 1024);
    attached
        .down
        .send(DownMessage {
            message: Some(Down::Grant(grant)),
        })
        .await
        .unwrap();
    let job = asked.await.unwrap().unwrap();
    assert_eq!(job["id"], uid);
    claim
}

async fn controller(bench: &Bench) {
    bench
        .jobs
        .configure(&crate::family::pcp::jobs_api_tests::config());
    bench
        .jobs
        .plugin_started(patchbay_launcher::control::StartId(5));
    crate::family::pcp::jobs_api_tests::introduce(bench.root.jobs_socket()).await;
}

fn ours(up: &Up) -> bool {
    !matches!(up, Up::Instance(_) | Up::Counters(_) | Up::Hello(_))
}

async fn next_of_ours(attached: &mut Attached) -> Up {
    loop {
        let up = attached.next().await.unwrap();
        if ours(&up) {
            return up;
        }
    }
}

#[tokio::test]
async fn pcp_27_output_travels_in_pieces_and_is_kept_until_it_is_stored() {
    let bench = bench().await;
    controller(&bench).await;
    let mut attached = attach(&bench, hello(1)).await.unwrap();
    let claim = hand_over(&bench, &mut attached, "uid-1").await;

    let output: Vec<u8> = (0..5 * 1024 * 1024_u32)
        .map(|n| n.to_le_bytes()[1])
        .collect();
    let answer = crate::family::pcp::jobs_api_tests::output(
        bench.root.jobs_socket(),
        "uid-1",
        1,
        true,
        output.clone(),
    );
    assert_eq!(answer.await, serde_json::json!({"row": 1, "late": false}));
    // It is in the ledger already: another session gets it from the beginning.
    drop(attached);
    let mut attached = attach(&bench, hello(1)).await.unwrap();
    match attached.next().await.unwrap() {
        Up::Hello(hello) => {
            assert_eq!(hello.ledger_epoch.len(), 32);
            assert_eq!(hello.ledger[0].claim.as_ref(), Some(&claim));
            assert!(hello.ledger[0].delivered);
        }
        other => panic!("{other:?}"),
    }
    let mut got = Vec::new();
    loop {
        let Up::Row(piece) = next_of_ours(&mut attached).await else {
            panic!()
        };
        assert!(piece.data.len() <= outbox::PIECE);
        assert_eq!((piece.offset, piece.row), (got.len() as u64, 1));
        got.extend(piece.data);
        if piece.last {
            assert_eq!(piece.outcome, i32::from(session::Outcome::Succeeded));
            break;
        }
        assert_eq!(piece.outcome, 0);
    }
    assert!(got == output);
    let stored = session::RowStored {
        claim: Some(claim),
        row: 1,
        settled: true,
        phase: "Succeeded".into(),
    };
    attached
        .down
        .send(DownMessage {
            message: Some(Down::RowStored(stored)),
        })
        .await
        .unwrap();
    // The ledger is empty for the next session.
    let rows = bench.root.jobs().join("rows");
    let began = std::time::Instant::now();
    while std::fs::read_dir(&rows).unwrap().count() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::task::yield_now().await;
    }
    let mut attached = attach(&bench, hello(1)).await.unwrap();
    assert!(matches!(attached.next().await.unwrap(), Up::Hello(hello) if hello.ledger.is_empty()));
}

#[tokio::test]
async fn grant_of_a_replaced_session_is_ignored() {
    let bench = bench().await;
    controller(&bench).await;
    let mut first = attach(&bench, hello(1)).await.unwrap();
    let asked = tokio::spawn(crate::family::pcp::jobs_api_tests::request(
        bench.root.jobs_socket(),
        1,
    ));
    let Up::WorkRequest(old) = next_of_ours(&mut first).await else {
        panic!()
    };
    let mut second = attach(&bench, hello(2)).await.unwrap();
    let Up::WorkRequest(new) = next_of_ours(&mut second).await else {
        panic!()
    };
    assert_ne!(old.claim_id, new.claim_id);
    let grant = |claim_id: &str, uid: &str| {
        let claim = session::ClaimName {
            claim_id: claim_id.to_owned(),
            job_uid: uid.to_owned(),
        };
        DownMessage {
            message: Some(Down::Grant(crate::family::pcp::jobs_api_tests::grant(
                &claim, 1,
            ))),
        }
    };
    // The first one does not know yet that it is over.
    let _ = first.down.send(grant(&old.claim_id, "uid-old")).await;
    second
        .down
        .send(grant(&new.claim_id, "uid-new"))
        .await
        .unwrap();
    assert_eq!(asked.await.unwrap().unwrap()["id"], "uid-new");
    // And what the old leader had claimed is given back when it comes by the new session.
    second
        .down
        .send(grant(&old.claim_id, "uid-old"))
        .await
        .unwrap();
    loop {
        if let Up::ClaimReturned(released) = next_of_ours(&mut second).await {
            assert_eq!(released.claim.unwrap().job_uid, "uid-old");
            break;
        }
    }
}

#[tokio::test]
async fn operator_of_version_one_gets_no_job_messages() {
    let bench = bench().await;
    controller(&bench).await;
    let old = OperatorHello {
        oldest: 1,
        newest: 1,
        epoch: 1,
        operator_version: "old".into(),
    };
    let first = DownMessage {
        message: Some(Down::Hello(old)),
    };
    let mut attached = attach(&bench, first).await.unwrap();
    match attached.next().await.unwrap() {
        Up::Hello(hello) => {
            assert_eq!(hello.version, 1);
            assert!(hello.ledger_epoch.is_empty() && hello.ledger.is_empty());
        }
        other => panic!("{other:?}"),
    }
    let job = crate::family::pcp::jobs_api_tests::request(bench.root.jobs_socket(), 1).await;
    assert_eq!(job, None);
    attached
        .down
        .send(DownMessage {
            message: Some(Down::Ping(Ping { nonce: 1 })),
        })
        .await
        .unwrap();
    assert!(matches!(next_of_ours(&mut attached).await, Up::Pong(_)));
}
