//! Names of API servers, resolved without the C library.
//!
//! This program is static. A static GNU program that asks the C library for an address loads the
//! machine's name service modules, and those fit only the C library they were built with: with
//! another one it may end by a signal. So names are looked up here, from /etc/hosts and by DNS as
//! /etc/resolv.conf says. Addresses never come here, and nothing is read before the first name.

use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hyper_util::client::legacy::connect::dns::Name;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OnceCell;
use tower::Service;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("reading the resolver's configuration: {0}")]
    Configuration(hickory_resolver::net::NetError),
    #[error("looking up {name}: {source}")]
    Lookup {
        name: String,
        source: hickory_resolver::net::NetError,
    },
}

/// Resolver for hyper's connector.
#[derive(Clone, Default)]
pub(crate) struct OwnResolver {
    inner: Arc<OnceCell<TokioResolver>>,
}

impl OwnResolver {
    async fn lookup(&self, name: &str) -> Result<std::vec::IntoIter<SocketAddr>, ResolveError> {
        let resolver = self
            .inner
            .get_or_try_init(|| async { TokioResolver::builder_tokio()?.build() })
            .await
            .map_err(ResolveError::Configuration)?;
        let found = resolver
            .lookup_ip(name)
            .await
            .map_err(|source| ResolveError::Lookup {
                name: name.to_owned(),
                source,
            })?;
        // The connector sets the port.
        let addresses: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
        Ok(addresses.into_iter())
    }
}

impl Service<Name> for OwnResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { resolver.lookup(name.as_str()).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_this_machine() -> Result<(), ResolveError> {
        let found: Vec<SocketAddr> = OwnResolver::default().lookup("localhost").await?.collect();
        assert!(
            !found.is_empty() && found.iter().all(|address| address.ip().is_loopback()),
            "{found:?}"
        );
        Ok(())
    }
}
