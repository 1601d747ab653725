//! SidecarSessions against sidecars that are not what they should be.

use super::*;
use crate::certificates::authority::CertificateAuthority;
use crate::certificates::leaf::{Usage, verify};
use crate::jobs::harness::Harness;
use crate::jobs::messages::DispatchMessage;
use crate::jobs::session_registry::{Inbound, Inbox};
use futures::Stream;
use jiff::Timestamp;
use patchbay_protocol::session::session_server::{Session, SessionServer};
use patchbay_protocol::session::{
    Counters, FromOperator, FromSidecar, Phase, Pong, SidecarHello, from_operator, from_sidecar,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

/// What a fake sidecar heard.
#[derive(Debug, PartialEq)]
enum Received {
    Hello(u64),
    AllowStart,
    Configure(u64, String),
    Ping,
    LogLevel(String),
    /// A message about jobs.
    Jobs(from_operator::Message),
}

#[derive(Clone)]
struct FakeSidecar {
    heard: mpsc::UnboundedSender<Received>,
    hello: SidecarHello,
    answers_pings: bool,
    /// What it says of jobs after the greeting.
    of_jobs: Vec<from_sidecar::Message>,
}

#[tonic::async_trait]
impl Session for FakeSidecar {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<FromSidecar, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromOperator>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut from_operator = request.into_inner();
        let (sender, receiver) = mpsc::channel(8);
        let this = self.clone();
        tokio::spawn(async move {
            let say = |message| {
                Ok(FromSidecar {
                    message: Some(message),
                })
            };
            while let Some(Ok(message)) = from_operator.next().await {
                let (heard, answers) = match message.message {
                    Some(from_operator::Message::Hello(hello)) => (
                        Received::Hello(hello.epoch),
                        vec![
                            from_sidecar::Message::Hello(this.hello.clone()),
                            from_sidecar::Message::Instance(Instance {
                                phase: Phase::AwaitingPermission.into(),
                                message: "x".repeat(10_000),
                                ..Instance::default()
                            }),
                            from_sidecar::Message::Counters(Counters {
                                calls: 7,
                                ..Counters::default()
                            }),
                        ],
                    ),
                    Some(from_operator::Message::AllowStart(_)) => (Received::AllowStart, vec![]),
                    Some(from_operator::Message::Configure(c)) => {
                        (Received::Configure(c.revision, c.json), vec![])
                    }
                    Some(from_operator::Message::Ping(ping)) => (
                        Received::Ping,
                        if this.answers_pings {
                            vec![from_sidecar::Message::Pong(Pong { nonce: ping.nonce })]
                        } else {
                            vec![]
                        },
                    ),
                    Some(from_operator::Message::LogLevel(level)) => {
                        (Received::LogLevel(level.filter), vec![])
                    }
                    Some(other) => (Received::Jobs(other), vec![]),
                    None => continue,
                };
                let greeted = matches!(heard, Received::Hello(_));
                let _ = this.heard.send(heard);
                let of_jobs = this.of_jobs.iter().filter(|_| greeted).cloned();
                for answer in answers.into_iter().chain(of_jobs) {
                    if sender.send(say(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream)))
    }
}

fn plugin_key() -> PluginKey {
    PluginKey::new("shop", "kv")
}

fn plugin(uid: &str) -> CertificateIdentity {
    CertificateIdentity::Plugin {
        namespace: "shop".into(),
        uid: uid.into(),
    }
}

fn authority() -> Arc<CertificateAuthority> {
    let stored = CertificateAuthority::generate(Timestamp::now()).unwrap();
    Arc::new(CertificateAuthority::load(&stored).unwrap())
}

/// Serves `sidecar` with a leaf of `signer` for `identity`; takes only clients of `trusted`.
async fn serve(
    signer: &CertificateAuthority,
    trusted: &CertificateAuthority,
    identity: &CertificateIdentity,
    sidecar: FakeSidecar,
) -> SocketAddr {
    let leaf = signer.issue(identity, Timestamp::now()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let operator = CertificateIdentity::Operator.uri(trusted.installation());
    let trusted = trusted.certificate().clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let shown = tls.get_ref().1.peer_certificates().unwrap()[0].clone();
            let now = rustls::pki_types::UnixTime::now();
            verify(&shown, &[], &operator, &trusted, Usage::Client, now)
                .expect("the operator shows the operator's name");
            let server = SessionServer::new(sidecar.clone());
            let service = hyper::service::service_fn(move |request| {
                let mut server = server.clone();
                async move { tower::Service::call(&mut server, request).await }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(hyper_util::rt::TokioIo::new(tls), service),
            );
        }
    });
    address
}

fn sidecar() -> (FakeSidecar, mpsc::UnboundedReceiver<Received>) {
    let (heard, receiver) = mpsc::unbounded_channel();
    let sidecar = FakeSidecar {
        heard,
        hello: SidecarHello {
            version: 1,
            sidecar_version: "0.1.0".into(),
            process_id: "p1".into(),
            revision: 3,
            start_allowed: false,
            ..SidecarHello::default()
        },
        answers_pings: true,
        of_jobs: Vec::new(),
    };
    (sidecar, receiver)
}

struct Operator {
    sessions: SidecarSessions,
    woken: mpsc::UnboundedReceiver<PluginKey>,
    metrics: Arc<Metrics>,
    harness: Harness,
}

fn operator(authority: &CertificateAuthority) -> Operator {
    let harness = Harness::new();
    let totals = Arc::new(SidecarTotals::default());
    let metrics = Arc::new(Metrics::new(Arc::clone(&totals)));
    let leaf = authority
        .issue(&CertificateIdentity::Operator, Timestamp::now())
        .unwrap();
    let tls = OperatorTls::new(
        &leaf.certificate,
        &leaf.key,
        authority.certificate().clone(),
    )
    .unwrap();
    let (wake, woken) = mpsc::unbounded_channel();
    let changed = Box::new(move |key: &PluginKey| {
        let _ = wake.send(key.clone());
    });
    Operator {
        sessions: SidecarSessions::new(
            Arc::new(SessionContext {
                installation: authority.installation().clone(),
                epoch: 42,
                tls: RwLock::new(tls),
                changed,
                metrics: Arc::clone(&metrics),
                totals,
                jobs: Arc::clone(&harness.jobs),
                sidecar_log: SidecarLogFilter::new("info").unwrap(),
                snapshots: Mutex::default(),
            }),
            TaskTracker::new(),
        ),
        harness,
        woken,
        metrics,
    }
}

impl Operator {
    fn follow(&self, address: SocketAddr, revision: u64) {
        self.tell(address, revision, true);
    }

    fn tell(&self, address: SocketAddr, revision: u64, allow_start: bool) {
        let target = SessionPeer {
            pod_uid: "pod-uid".into(),
            pod: "kv-0-1".into(),
            plugin: plugin_key(),
            plugin_uid: "uid-1".into(),
            address,
        };
        let wanted = DesiredSidecarState {
            allow_start,
            revision,
            json: format!("{{\"revision\":{revision}}}"),
        };
        self.sessions.follow(&plugin_key(), vec![(target, wanted)]);
    }

    async fn until(&mut self, what: &str, check: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let wait = async {
            loop {
                if let Some(snapshot) = self.sessions.snapshot("pod-uid")
                    && check(&snapshot)
                {
                    return snapshot;
                }
                self.woken.recv().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"))
    }
}

/// The next message that is not a log level: every session gets one, at any time.
async fn received(receiver: &mut mpsc::UnboundedReceiver<Received>) -> Received {
    loop {
        match next(receiver).await {
            Received::LogLevel(_) => {}
            other => return other,
        }
    }
}

async fn next(receiver: &mut mpsc::UnboundedReceiver<Received>) -> Received {
    tokio::time::timeout(Duration::from_secs(20), receiver.recv())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn sidecar_gets_the_log_level_when_a_session_opens_and_when_it_changes() {
    let ca = authority();
    let (fake, mut messages) = sidecar();
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let operator = operator(&ca);
    operator.follow(address, 4);
    let mut levels = async || {
        loop {
            if let Received::LogLevel(filter) = next(&mut messages).await {
                return filter;
            }
        }
    };
    assert_eq!(levels().await, "info");
    let log = &operator.sessions.shared().sidecar_log;
    log.set("debug,h2=warn").unwrap();
    assert_eq!(levels().await, "debug,h2=warn");
    assert!(log.set("a=loud").is_err());
    assert_eq!(log.current(), "debug,h2=warn");
}

#[tokio::test]
async fn sidecar_receives_the_start_permission_and_newer_configurations() {
    let ca = authority();
    let (fake, mut messages) = sidecar();
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 4);
    assert_eq!(received(&mut messages).await, Received::Hello(42));
    assert_eq!(received(&mut messages).await, Received::AllowStart);
    assert_eq!(
        received(&mut messages).await,
        Received::Configure(4, "{\"revision\":4}".into())
    );
    let snapshot = operator
        .until("an instance", |s| s.attached && s.instance.is_some())
        .await;
    assert_eq!(snapshot.trouble, None);
    assert_eq!(snapshot.sidecar.unwrap().process_id, "p1");
    assert_eq!(snapshot.instance.unwrap().message.len(), 1024, "bounded");
    assert_eq!(operator.metrics.sessions.get(), 1);

    operator.follow(address, 5);
    assert!(matches!(
        received(&mut messages).await,
        Received::Configure(5, _)
    ));
    operator.follow(address, 4);
    operator.follow(address, 6);
    assert!(
        matches!(received(&mut messages).await, Received::Configure(6, _)),
        "an older revision is never sent"
    );

    operator.sessions.follow(&plugin_key(), vec![]);
    assert!(operator.sessions.snapshot("pod-uid").is_none());
}

#[tokio::test]
async fn configuration_is_not_sent_when_the_sidecar_has_it() {
    let ca = authority();
    let (mut fake, mut messages) = sidecar();
    fake.hello.start_allowed = true;
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 3);
    assert_eq!(received(&mut messages).await, Received::Hello(42));
    operator
        .until("an instance", |s| s.instance.is_some())
        .await;
    operator.follow(address, 9);
    assert!(
        matches!(received(&mut messages).await, Received::Configure(9, _)),
        "neither a release nor revision 3 came before"
    );
}

#[tokio::test]
async fn another_plugin_of_the_same_installation_is_not_believed() {
    let ca = authority();
    let (fake, mut messages) = sidecar();
    let address = serve(&ca, &ca, &plugin("uid-of-another"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 4);
    let snapshot = operator.until("trouble", |s| s.trouble.is_some()).await;
    assert!(!snapshot.attached);
    let trouble = snapshot.trouble.unwrap();
    assert!(trouble.contains("uid-of-another"), "{trouble}");
    assert!(!trouble.contains("OtherError"), "for people: {trouble}");
    assert!(messages.try_recv().is_err(), "nothing was said to it");
    assert!(operator.metrics.dial_failures.get() >= 1);
}

#[tokio::test]
async fn the_right_name_from_another_authority_is_not_believed() {
    let (ca, other) = (authority(), authority());
    let (fake, mut messages) = sidecar();
    let address = serve(&other, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 4);
    let snapshot = operator.until("trouble", |s| s.trouble.is_some()).await;
    assert!(!snapshot.attached);
    assert!(messages.try_recv().is_err(), "nothing was said to it");
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_until_the_sidecar_listens() {
    let ca = authority();
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut operator = operator(&ca);
    operator.follow(free, 4);
    let snapshot = operator.until("trouble", |s| s.trouble.is_some()).await;
    assert!(
        snapshot
            .trouble
            .unwrap()
            .contains("connecting to the sidecar")
    );
    let (fake, _messages) = sidecar();
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    // The listener of the fake is elsewhere; bring its bytes to the address that was dialled.
    let listener = TcpListener::bind(free).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = tokio::net::TcpStream::connect(address).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let snapshot = operator.until("attached", |s| s.attached).await;
    assert_eq!(snapshot.trouble, None);
}

#[tokio::test]
async fn an_unknown_session_version_is_refused() {
    let ca = authority();
    let (mut fake, _messages) = sidecar();
    fake.hello.version = 9;
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 4);
    let snapshot = operator.until("trouble", |s| s.trouble.is_some()).await;
    assert!(snapshot.trouble.unwrap().contains("version 9"));
    assert!(!snapshot.attached);
}

#[tokio::test]
async fn counters_reach_the_metrics_page() {
    let ca = authority();
    let (fake, _messages) = sidecar();
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 4);
    operator.until("attached", |s| s.instance.is_some()).await;
    let metrics = Arc::clone(&operator.metrics);
    let wait = async {
        while !metrics
            .render()
            .unwrap()
            .contains("patchbay_plugin_calls_total{namespace=\"shop\",plugin=\"kv\"} 7")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_sidecar_that_no_longer_answers_pings_is_dialled_again() {
    let ca = authority();
    let (mut fake, mut messages) = sidecar();
    fake.answers_pings = false;
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 3);
    operator.until("attached", |s| s.instance.is_some()).await;
    // From here time passes whenever nothing else happens.
    tokio::time::pause();
    while received(&mut messages).await != Received::Ping {
        operator.woken.try_recv().ok();
    }
    let snapshot = operator.until("trouble", |s| s.trouble.is_some()).await;
    assert!(!snapshot.attached);
    assert!(
        snapshot.instance.is_some(),
        "the last word about the plugin stays"
    );
    assert!(snapshot.trouble.unwrap().contains("no pong"));
}

#[tokio::test]
async fn plugin_may_not_start_before_the_operator_allows_it() {
    let ca = authority();
    let (fake, mut messages) = sidecar();
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.tell(address, 3, false);
    assert_eq!(received(&mut messages).await, Received::Hello(42));
    operator.until("attached", |s| s.instance.is_some()).await;
    operator.tell(address, 4, false);
    assert!(
        matches!(received(&mut messages).await, Received::Configure(4, _)),
        "no release came before"
    );
    operator.tell(address, 4, true);
    assert_eq!(received(&mut messages).await, Received::AllowStart);
}

const CLAIM: &str = "0123456789abcdef0123456789abcdef";

fn asks() -> from_sidecar::Message {
    from_sidecar::Message::WorkRequest(patchbay_protocol::session::WorkRequest {
        claim_id: CLAIM.into(),
        wait_ms: 1000,
        ..Default::default()
    })
}

async fn came(inbox: &mut Inbox) -> Inbound {
    tokio::time::timeout(Duration::from_secs(20), inbox.next())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_sidecar_of_version_2_is_attached_to_the_hand_out_until_its_session_ends() {
    let ca = authority();
    let (mut fake, mut messages) = sidecar();
    fake.hello.version = 2;
    fake.hello.ledger_epoch = "e".repeat(32);
    fake.of_jobs = vec![asks()];
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    let mut inbox = operator.harness.inbox.take().unwrap();
    operator.follow(address, 3);
    let Inbound::Message { session, message } = came(&mut inbox).await else {
        panic!("a message");
    };
    let DispatchMessage::Attached {
        holder,
        ledger_epoch,
        ledger,
    } = message
    else {
        panic!("the first message: {message:?}");
    };
    // The sidecar said nothing of its pod: it is the one that was dialled.
    assert_eq!(
        (holder.pod.as_str(), holder.uid.as_str()),
        ("kv-0-1", "pod-uid")
    );
    assert_eq!((ledger_epoch.len(), ledger.len()), (32, 0));
    let Inbound::Message {
        session: same,
        message,
    } = came(&mut inbox).await
    else {
        panic!("a message");
    };
    assert_eq!(same, session);
    assert!(matches!(message, DispatchMessage::WorkRequest { claim_id, .. } if claim_id == CLAIM));
    let nothing = from_operator::Message::NoWork(patchbay_protocol::session::NoWork {
        claim_id: CLAIM.into(),
    });
    operator.harness.sessions.say(session, nothing.clone());
    while received(&mut messages).await != Received::Jobs(nothing.clone()) {}
    operator.sessions.follow(&plugin_key(), Vec::new());
    assert_eq!(came(&mut inbox).await, Inbound::Closed { session });
}

#[tokio::test]
async fn a_sidecar_of_version_1_neither_hears_nor_says_anything_about_jobs() {
    let ca = authority();
    let (mut fake, mut messages) = sidecar();
    fake.of_jobs = vec![asks()];
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    let mut inbox = operator.harness.inbox.take().unwrap();
    operator.follow(address, 3);
    operator.until("attached", |s| s.instance.is_some()).await;
    let cancel = from_operator::Message::Cancel(Default::default());
    operator.harness.sessions.say_to_pod("pod-uid", cancel);
    // What comes after it shows that it was passed over.
    operator.tell(address, 9, true);
    while !matches!(received(&mut messages).await, Received::Configure(9, _)) {}
    let nothing = tokio::time::timeout(Duration::from_millis(50), inbox.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn a_sidecar_whose_ledger_is_none_is_not_attached() {
    let ca = authority();
    let (mut fake, _messages) = sidecar();
    fake.hello.version = 2;
    let address = serve(&ca, &ca, &plugin("uid-1"), fake).await;
    let mut operator = operator(&ca);
    operator.follow(address, 3);
    let snapshot = operator.until("trouble", |s| s.trouble.is_some()).await;
    assert!(snapshot.trouble.unwrap().contains("ledger"));
}
