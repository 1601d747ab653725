//! Metadata of a call from `NAME:VALUE`.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, MetadataMap,
};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("reading the header {0:?}: expected NAME:VALUE")]
    NoColon(String),
    #[error("reading the header {0:?}: the name may only contain letters, digits, - _ and .")]
    Name(String),
    #[error(
        "reading the header {0:?}: the value contains characters that a header cannot carry; use a name that ends in -bin and base64"
    )]
    Value(String),
    #[error("reading the header {0:?}: a name that ends in -bin needs its value in base64")]
    NotBase64(String),
    #[error(
        "reading the header {0:?}: names that begin with grpc- are reserved; for a deadline use --timeout"
    )]
    Reserved(String),
}

/// All headers of the command line.
pub(crate) fn metadata(headers: &[String]) -> Result<MetadataMap, MetadataError> {
    let mut map = MetadataMap::new();
    for header in headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| MetadataError::NoColon(header.clone()))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let name_error = || MetadataError::Name(header.clone());
        if name.starts_with("grpc-") {
            return Err(MetadataError::Reserved(header.clone()));
        }
        if name.ends_with("-bin") {
            let bytes = STANDARD
                .decode(value)
                .or_else(|_| STANDARD_NO_PAD.decode(value))
                .map_err(|_| MetadataError::NotBase64(header.clone()))?;
            let key = BinaryMetadataKey::from_bytes(name.as_bytes()).map_err(|_| name_error())?;
            map.append_bin(key, BinaryMetadataValue::from_bytes(&bytes));
        } else {
            let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| name_error())?;
            let value = AsciiMetadataValue::try_from(value)
                .map_err(|_| MetadataError::Value(header.clone()))?;
            map.append(key, value);
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_binary_when_the_name_ends_in_bin() -> Result<(), MetadataError> {
        let map = metadata(&[
            "X-Tenant: a:b".to_owned(),
            "trace-bin:aGk".to_owned(),
            "x-tenant:c".to_owned(),
        ])?;
        let tenants: Vec<_> = map
            .get_all("x-tenant")
            .iter()
            .map(|v| v.to_str().unwrap_or_default())
            .collect();
        assert_eq!(tenants, ["a:b", "c"]);
        let trace = map
            .get_bin("trace-bin")
            .and_then(|value| value.to_bytes().ok());
        assert_eq!(trace.as_deref(), Some(b"hi".as_slice()));
        Ok(())
    }

    #[test]
    fn metadata_is_refused_when_a_header_is_wrong() {
        let read = |header: &str| metadata(&[header.to_owned()]).err();
        assert_eq!(read("x"), Some(MetadataError::NoColon("x".to_owned())));
        assert_eq!(read("a b:c"), Some(MetadataError::Name("a b:c".to_owned())));
        assert_eq!(
            read("a:\u{1}"),
            Some(MetadataError::Value("a:\u{1}".to_owned()))
        );
        assert_eq!(
            read("a-bin:%"),
            Some(MetadataError::NotBase64("a-bin:%".to_owned()))
        );
        assert_eq!(
            read("grpc-timeout:1S"),
            Some(MetadataError::Reserved("grpc-timeout:1S".to_owned()))
        );
    }
}
