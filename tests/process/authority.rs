//! A throw-away certificate authority.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// One authority; it lives as long as its test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key.
pub struct Leaf {
    pub certificate: String,
    pub key: String,
    pub certificate_der: Vec<u8>,
    pub key_der: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate with a DNS name and, if given, a URI.
    pub fn leaf(&self, dns: &str, uri: Option<&str>) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        if let Some(uri) = uri {
            params
                .subject_alt_names
                .push(SanType::URI(uri.try_into().unwrap()));
        }
        leaf(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }
}

/// A certificate that is its own authority, for `localhost`, as go-plugin makes them.
pub fn self_signed() -> Leaf {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf(&params.self_signed(&key).unwrap(), &key)
}

fn leaf(certificate: &rcgen::Certificate, key: &KeyPair) -> Leaf {
    Leaf {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        certificate_der: certificate.der().to_vec(),
        key_der: key.serialize_der(),
    }
}
