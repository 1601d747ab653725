//! Throw-away.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]
use hyper_util::rt::TokioIo;
use patchbay_protocol::session::from_operator::Message as Down;
use patchbay_protocol::session::session_client::SessionClient;
use patchbay_protocol::session::{self, FromOperator, OperatorHello};
use rcgen::*;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

#[derive(Clone)]
struct F<X>(X);
impl<X, R, T, E> tower_service::Service<http::Uri> for F<X>
where X: FnMut(http::Uri) -> R, R: Future<Output = Result<T, E>> {
    type Response = T; type Error = E; type Future = R;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), E>> { std::task::Poll::Ready(Ok(())) }
    fn call(&mut self, uri: http::Uri) -> R { (self.0)(uri) }
}

fn leaf(issuer: &Issuer<'_, KeyPair>, uri: &str) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut p = CertificateParams::new(vec!["pod.test".into()]).unwrap();
    p.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    (p.signed_by(&key, issuer).unwrap(), key)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let root = Path::new(&args[2]);
    if args[1] == "setup" {
        let mut p = CertificateParams::new(vec![]).unwrap();
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = p.self_signed(&key).unwrap();
        std::fs::write(root.join("ca.key"), key.serialize_pem()).unwrap();
        std::fs::write(root.join("ca.crt"), ca.pem()).unwrap();
        let issuer = Issuer::new(p, key);
        let (c, k) = leaf(&issuer, "patchbay://inst/plugin/ns/uid");
        let id = root.join("identity");
        std::fs::create_dir_all(&id).unwrap();
        std::fs::write(id.join("tls.crt"), c.pem()).unwrap();
        std::fs::write(id.join("tls.key"), k.serialize_pem()).unwrap();
        std::fs::write(id.join("ca.crt"), ca.pem()).unwrap();
        return;
    }
    let seconds: u64 = args[3].parse().unwrap();
    let release = args.iter().any(|a| a == "--release");
    let until = args.iter().position(|a| a == "--until").map(|i| args[i + 1].clone());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let key = KeyPair::from_pem(&std::fs::read_to_string(root.join("ca.key")).unwrap()).unwrap();
        let mut p = CertificateParams::new(vec![]).unwrap();
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(p, key);
        let (c, k) = leaf(&issuer, "patchbay://inst/operator");
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(root.join("ca.crt")).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(patchbay_sidecar::go_plugin::tls::provider())
            .with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
            .with_client_auth_cert(vec![c.der().clone()], rustls::pki_types::PrivateKeyDer::try_from(k.serialize_der()).unwrap()).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        let address = loop {
            match std::fs::read_to_string(root.join("private/session-address")) { Ok(a) => break a, Err(_) => tokio::time::sleep(std::time::Duration::from_millis(2)).await }
        };
        let address: std::net::SocketAddr = address.parse().unwrap();
        let service = F(move |_| { let config = config.clone(); async move {
            let s = tokio::net::TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(TlsConnector::from(config).connect("pod.test".try_into().unwrap(), s).await?)) } });
        let channel = tonic::transport::Endpoint::from_static("http://pod.test").connect_with_connector(service).await.unwrap();
        let mut client = SessionClient::new(channel);
        let (tx, rx) = tokio::sync::mpsc::channel(8);
        let m = |m| FromOperator { message: Some(m) };
        tx.send(m(Down::Hello(OperatorHello { oldest: 1, newest: 1, epoch: 1, operator_version: "throwaway".into() }))).await.unwrap();
        if release { tx.send(m(Down::Release(session::Release {}))).await.unwrap(); }
        if let Some(i) = args.iter().position(|a| a == "--configure") {
            let json = std::fs::read_to_string(&args[i + 1]).unwrap();
            tx.send(m(Down::Configure(session::Configure { revision: 0, json }))).await.unwrap();
        }
        let mut up = client.attach(tokio_stream::wrappers::ReceiverStream::new(rx)).await.unwrap().into_inner();
        let began = std::time::Instant::now();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(seconds);
        loop {
            match tokio::time::timeout_at(deadline, up.message()).await {
                Err(_) => { println!("time is up"); std::process::exit(if until.is_some() { 1 } else { 0 }); }
                Ok(Ok(Some(message))) => {
                    let text = format!("{:?}", message.message.unwrap());
                    println!("{:>6} {text}", began.elapsed().as_millis());
                    if until.as_ref().is_some_and(|u| text.contains(u.as_str())) { break; }
                }
                Ok(other) => { println!("ended: {other:?}"); break; }
            }
        }
    });
}
