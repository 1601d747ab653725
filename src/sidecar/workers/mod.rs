//! External workers of a PCP controller plugin. Such a plugin listens on localhost, where no Service
//! leads; the sidecar listens at the pod's addresses and passes every connection on.
//!
//! A plugin asks for jobs by the address that `accept` gave it. So each client gets a source
//! address of its own in 127/8 for as long as the pod lives, and requests are translated back.
//! `address_map.rs` keeps those addresses, `sockets.rs` reads what the kernel knows, `listen.rs` takes the
//! pod's addresses once the plugin listens, `relay.rs` carries one connection.

mod address_map;
mod counters;
mod listen;
mod relay;
mod sockets;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::paths::Root;
pub use address_map::{AddressMap, AddressMapError};
pub use counters::{WorkerCounters, WorkersRead};

/// The environment variable that names the pod's addresses, separated by commas.
pub const POD_IPS: &str = "PATCHBAY_POD_IPS";
/// Most addresses of a pod. Kubernetes gives one of each family.
const MAX_POD_IPS: usize = 8;

/// Lets workers in.
#[derive(Debug)]
pub struct Workers {
    pod_ips: Vec<IpAddr>,
    address_map: Arc<AddressMap>,
    counters: Arc<WorkerCounters>,
}

impl Workers {
    /// Reads which clients were seen before in this pod.
    ///
    /// # Errors
    /// What was attempted. Without that knowledge no worker may be let in.
    pub fn open(
        root: &Root,
        pod_ips: Vec<IpAddr>,
        counters: Arc<WorkerCounters>,
    ) -> Result<Workers, AddressMapError> {
        Ok(Workers {
            pod_ips,
            address_map: Arc::new(AddressMap::open(&root.private().join("workers"))?),
            counters,
        })
    }

    /// Which client is behind which local address.
    pub fn address_map(&self) -> Arc<AddressMap> {
        self.address_map.clone()
    }

    /// Lets workers in to the plugin process that has just introduced itself. What its owner
    /// should know comes through `notes`. Within a runtime.
    pub fn serve(&self, port: u16, notes: mpsc::Sender<String>) -> Serving {
        let (end, ended) = watch::channel(false);
        let place = listen::Place {
            port,
            pod_ips: self.pod_ips.clone(),
            address_map: self.address_map.clone(),
            counters: self.counters.clone(),
            notes,
            ended,
        };
        Serving {
            end,
            listening: tokio::spawn(listen::run(place)),
        }
    }
}

/// Workers of one plugin process. Dropping it closes the listening sockets at once and the
/// connections a moment later, when what the process still had to say has been passed on.
#[derive(Debug)]
pub struct Serving {
    end: watch::Sender<bool>,
    listening: tokio::task::JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.listening.abort();
        self.end.send_replace(true);
    }
}

/// Reads the value of [`POD_IPS`]. An address that cannot be bound on its own, such as the
/// wildcard, does not belong to the pod.
///
/// # Errors
/// The word at fault.
pub fn parse_pod_ips(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut found: Vec<IpAddr> = Vec::new();
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let address: IpAddr = word
            .parse()
            .map_err(|error| format!("read {POD_IPS}: {word:?}: {error}"))?;
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() || found.len() == MAX_POD_IPS {
            return Err(format!("read {POD_IPS}: {word} is no address of a pod"));
        }
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}
