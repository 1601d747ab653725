use super::*;
use crate::family::go_plugin::health;
use crate::family::go_plugin::testing::{SOON, TestPlugin, soon};
use rcgen::{BasicConstraints, Issuer, SignatureAlgorithm};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

/// A certificate as plugins in Go make it: its own authority, for `localhost`.
struct PluginCertificate {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn plugin_certificate(
    algorithm: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> PluginCertificate {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::new(vec![LOCALHOST.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    PluginCertificate {
        der: certificate.der().clone(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    }
}

fn go_like() -> PluginCertificate {
    plugin_certificate(&rcgen::PKCS_ECDSA_P521_SHA512, |_| {})
}

/// A server that demands exactly the host's certificate, as a plugin does.
fn server(
    own: &PluginCertificate,
    host: &HostCertificate,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    // As a trust anchor under its own key: what Go's verifier does with a pool member.
    roots.add(host.certificate.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.der.clone()], own.key.clone_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

const BOTH: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

#[test]
fn the_provider_verifies_what_plugins_in_go_sign_with() {
    let schemes = provider()
        .signature_verification_algorithms
        .supported_schemes();
    assert!(schemes.contains(&SignatureScheme::ECDSA_NISTP521_SHA512));
    assert!(schemes.contains(&SignatureScheme::ECDSA_NISTP256_SHA256));
    let groups: Vec<_> = provider()
        .kx_groups
        .iter()
        .map(|group| group.name())
        .collect();
    assert!(!groups.contains(&rustls::NamedGroup::X25519MLKEM768));
    assert_eq!(groups[0], rustls::NamedGroup::X25519);
}

#[test]
fn http2_is_offered_always() {
    let host = HostCertificate::generate().unwrap();
    let client = Client::pinned(&go_like().der, &host).unwrap();
    assert_eq!(client.config().alpn_protocols, [b"h2"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), host.pem()).unwrap();
    let client = Client::explicit(folder.path(), "kv.example").unwrap();
    assert_eq!(client.config().alpn_protocols, [b"h2"]);
}

#[test]
fn the_host_certificate_is_what_every_plugin_accepts() {
    let host = HostCertificate::generate().unwrap();
    let (_, parsed) = X509Certificate::from_der(host.certificate_der()).unwrap();
    assert!(!parsed.is_ca());
    let curve = parsed
        .public_key()
        .algorithm
        .parameters
        .as_ref()
        .unwrap()
        .as_oid()
        .unwrap();
    assert_eq!(curve.to_id_string(), "1.2.840.10045.3.1.7");
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth);
    let names = &parsed
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    assert_eq!(format!("{names:?}"), r#"[DNSName("localhost")]"#);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let begins = now - parsed.validity().not_before.timestamp();
    assert!((3600..3700).contains(&begins), "{begins}");
    assert!(parsed.validity().not_after.timestamp() > now + 29 * 365 * 86_400);

    let pem = host.pem();
    assert!(pem.lines().all(|line| line.len() <= 64));
    assert_eq!(
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(),
        host.certificate
    );
    let again =
        HostCertificate::from_parts(host.certificate_der().to_vec(), host.key_der().to_vec());
    assert!(Client::pinned(&go_like().der, &again).is_ok());
    assert!(!format!("{host:?}").contains("key"));
}

#[tokio::test]
async fn a_plugin_with_p521_is_reached_over_both_versions() {
    for versions in [BOTH, &[&rustls::version::TLS12]] {
        let (own, host) = (go_like(), HostCertificate::generate().unwrap());
        let plugin = TestPlugin::tcp(Some(server(&own, &host, versions))).await;
        let endpoint = plugin.endpoint_with(Some(Client::pinned(&own.der, &host).unwrap()));
        let channel = soon(endpoint.channel()).await.unwrap();
        assert_eq!(
            health::check(channel, SOON).await,
            health::Health::Unsupported
        );
        assert_eq!(endpoint.failure(), None);
    }
}

async fn refused(shown: &PluginCertificate, pinned: &PluginCertificate) -> String {
    let host = HostCertificate::generate().unwrap();
    let plugin = TestPlugin::tcp(Some(server(shown, &host, BOTH))).await;
    let endpoint = plugin.endpoint_with(Some(Client::pinned(&pinned.der, &host).unwrap()));
    let error = soon(endpoint.connect()).await.unwrap_err();
    assert_eq!(error.reason, Reason::TlsFailed);
    let error = soon(endpoint.channel()).await.unwrap_err();
    assert_eq!(error.reason, Reason::TlsFailed);
    error.message
}

#[tokio::test]
async fn any_other_certificate_is_refused() {
    let message = refused(&go_like(), &go_like()).await;
    assert!(message.contains("another certificate"), "{message}");
}

#[tokio::test]
async fn certificate_dates_are_checked_with_slack() {
    let hours = |from: i64, to: i64| {
        plugin_certificate(&rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            let shift = |seconds: i64| {
                let now = SystemTime::now();
                match u64::try_from(seconds) {
                    Ok(later) => now + Duration::from_secs(later),
                    Err(_) => now - Duration::from_secs(seconds.unsigned_abs()),
                }
            };
            params.not_before = shift(from).into();
            params.not_after = shift(to).into();
        })
    };
    let expired = hours(-7200, -3600);
    let message = refused(&expired, &expired).await;
    assert!(message.contains("expired"), "{message}");
    let future = hours(3600, 7200);
    let message = refused(&future, &future).await;
    assert!(message.contains("not valid yet"), "{message}");
    let other_name = plugin_certificate(&rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("elsewhere".try_into().unwrap())];
    });
    let message = refused(&other_name, &other_name).await;
    assert!(message.contains("`localhost`"), "{message}");

    let nearly = hours(60, 3600);
    let host = HostCertificate::generate().unwrap();
    let plugin = TestPlugin::tcp(Some(server(&nearly, &host, BOTH))).await;
    let endpoint = plugin.endpoint_with(Some(Client::pinned(&nearly.der, &host).unwrap()));
    assert!(soon(endpoint.connect()).await.is_ok());
}

#[tokio::test]
async fn a_host_certificate_that_the_plugin_refuses_shows_after_the_handshake() {
    let (own, host) = (go_like(), HostCertificate::generate().unwrap());
    let plugin = TestPlugin::tcp(Some(server(&own, &host, BOTH))).await;
    let stranger = HostCertificate::generate().unwrap();
    let endpoint = plugin.endpoint_with(Some(Client::pinned(&own.der, &stranger).unwrap()));
    // With TLS 1.3 the connection seems to stand; the first call tells.
    if let Ok(channel) = soon(endpoint.channel()).await {
        let health = health::check(channel, SOON).await;
        assert!(matches!(health, health::Health::Failed(_)), "{health}");
    }
    let failure = endpoint.failure().unwrap();
    assert_eq!(failure.reason, Reason::TlsFailed);
    assert!(
        failure.message.contains("refused the host's certificate"),
        "{failure}"
    );
}

#[tokio::test]
async fn plugin_without_tls_is_reported() {
    let own = go_like();
    let plugin = TestPlugin::tcp(None).await;
    let host = HostCertificate::generate().unwrap();
    let endpoint = plugin.endpoint_with(Some(Client::pinned(&own.der, &host).unwrap()));
    assert_eq!(
        soon(endpoint.connect()).await.unwrap_err().reason,
        Reason::TlsFailed
    );
}

#[test]
fn junk_is_no_plugin_certificate() {
    let host = HostCertificate::generate().unwrap();
    let mut trailing = go_like().der.to_vec();
    trailing.push(0);
    for junk in [
        &b""[..],
        b"junk",
        &[0x30, 0x03, 1, 2, 3],
        &[0x30; 200],
        &trailing,
    ] {
        let error = Client::pinned(junk, &host).unwrap_err();
        assert_eq!(error.reason(), Reason::BadCertificate);
    }
}

/// A certificate authority and what it issued for `name`.
fn issued(name: &str) -> (String, String, String, ServerConfig) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (certificate, key) = leaf(name);
    let (client, client_key) = leaf("client");
    let mut roots = RootCertStore::empty();
    roots.add(ca_certificate.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (
        ca_certificate.pem(),
        client.pem(),
        client_key.serialize_pem(),
        config,
    )
}

#[tokio::test]
async fn explicit_certificates_work_and_their_troubles_name_name_and_file() {
    let (ca, certificate, key, config) = issued("kv.example");
    let plugin = TestPlugin::tcp(Some(config)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let missing = Client::explicit(folder.path(), "kv.example").unwrap_err();
    assert!(missing.to_string().contains("ca.crt"), "{missing}");
    assert_eq!(missing.reason(), Reason::TlsFailed);

    std::fs::write(file("ca.crt"), &ca).unwrap();
    std::fs::write(file("tls.crt"), &certificate).unwrap();
    let missing = Client::explicit(folder.path(), "kv.example").unwrap_err();
    assert!(missing.to_string().contains("tls.key"), "{missing}");
    std::fs::write(file("tls.key"), &key).unwrap();

    let right = plugin.endpoint_with(Some(Client::explicit(folder.path(), "kv.example").unwrap()));
    let channel = soon(right.channel()).await.unwrap();
    assert_eq!(
        health::check(channel, SOON).await,
        health::Health::Unsupported
    );

    let wrong = plugin.endpoint_with(Some(
        Client::explicit(folder.path(), "other.example").unwrap(),
    ));
    let error = soon(wrong.connect()).await.unwrap_err();
    assert_eq!(error.reason, Reason::TlsFailed);
    assert!(error.message.contains("`other.example`"), "{error}");

    let (foreign, ..) = issued("kv.example");
    std::fs::write(file("ca.crt"), foreign).unwrap();
    let wrong = plugin.endpoint_with(Some(Client::explicit(folder.path(), "kv.example").unwrap()));
    let error = soon(wrong.connect()).await.unwrap_err();
    assert!(
        error.message.contains("ca.crt") && error.message.contains("`kv.example`"),
        "{error}"
    );

    std::fs::write(file("ca.crt"), "nothing").unwrap();
    assert!(Client::explicit(folder.path(), "kv.example").is_err());
    std::fs::write(file("ca.crt"), &ca).unwrap();
    assert!(matches!(
        Client::explicit(folder.path(), "not a name"),
        Err(TlsError::ServerName(_))
    ));
}
