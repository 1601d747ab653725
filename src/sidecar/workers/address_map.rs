//! Which client has which address in 127/8. Written down before an address is used for the first
//! time, and never given to another client while the pod's private volume lives: a plugin may hold
//! an address for days before it asks with it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use patchbay_protocol::location;

use crate::jobs::Translate;

/// Most clients of one pod. An address of IPv6 takes 60 bytes of the private volume, and a client that
/// has a whole network of them shall not fill it.
const MAX_CLIENTS: u32 = 65_536;
/// Largest file in bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// Why the addresses are not known, or a client gets none.
#[derive(Debug, thiserror::Error)]
pub enum AddressMapError {
    /// The file cannot be read or written.
    #[error("{attempt} the workers' addresses: {error}")]
    File {
        /// Read or write.
        attempt: &'static str,
        error: std::io::Error,
    },
    /// The file holds something that we never write.
    #[error("read the workers' addresses: line {line} is damaged")]
    Damaged {
        /// Counted from 1.
        line: usize,
    },
    /// There were too many different clients.
    #[error("give a worker an address: {MAX_CLIENTS} different clients came before")]
    Full,
}

/// See the module.
#[derive(Debug)]
pub struct AddressMap(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    file: File,
    /// Bytes of the file that are whole lines.
    length: u64,
    /// Of the next new client.
    next: u32,
    by_client: HashMap<IpAddr, Ipv4Addr>,
    by_local: HashMap<Ipv4Addr, IpAddr>,
}

impl AddressMap {
    /// Reads the file, or begins it.
    ///
    /// # Errors
    /// See [`AddressMapError`].
    pub fn open(path: &Path) -> Result<AddressMap, AddressMapError> {
        let failed = |error| AddressMapError::File {
            attempt: "read",
            error,
        };
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut text = String::new();
        (&file)
            .take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(failed)?;
        // A line without its end was never used: the process ended while it wrote.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut entries = Entries {
            file,
            length: whole as u64,
            next: 0,
            by_client: HashMap::new(),
            by_local: HashMap::new(),
        };
        for (index, line) in text[..whole].lines().enumerate() {
            entries
                .remember(line)
                .ok_or(AddressMapError::Damaged { line: index + 1 })?;
        }
        entries.file.set_len(entries.length).map_err(failed)?;
        Ok(AddressMap(Mutex::new(entries)))
    }

    /// The address under which the plugin sees this client.
    ///
    /// # Errors
    /// The client is new and its address could not be written down.
    pub fn local(&self, client: IpAddr) -> Result<Ipv4Addr, AddressMapError> {
        let client = client.to_canonical();
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.by_client.get(&client) {
            Some(local) => Ok(*local),
            None => entries.admit(client),
        }
    }
}

impl Translate for AddressMap {
    fn real(&self, local: &str) -> Option<String> {
        let IpAddr::V4(local) = location::address(local)? else {
            return None;
        };
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_local.get(&local).map(IpAddr::to_string)
    }
}

impl Entries {
    fn admit(&mut self, client: IpAddr) -> Result<Ipv4Addr, AddressMapError> {
        let local = nth(self.next).ok_or(AddressMapError::Full)?;
        let line = format!("{local} {client}\n");
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Half a line in front of a later one would damage that.
            let _ = self.file.set_len(self.length);
            let attempt = "write";
            return Err(AddressMapError::File { attempt, error });
        }
        self.length += line.len() as u64;
        self.next += 1;
        self.by_client.insert(client, local);
        self.by_local.insert(local, client);
        Ok(local)
    }

    fn remember(&mut self, line: &str) -> Option<()> {
        let (local, client) = line.split_once(' ')?;
        let local: Ipv4Addr = local.parse().ok()?;
        let client: IpAddr = client.parse().ok()?;
        let is_next = nth(self.next) == Some(local);
        if !is_next || self.by_client.insert(client, local).is_some() {
            return None;
        }
        self.by_local.insert(local, client);
        self.next += 1;
        Some(())
    }
}

/// The addresses in their order. 127.0.0.0/24 belongs to the machine and to other programs, and an
/// address that ends in 0 or 255 may be taken for a whole network.
fn nth(index: u32) -> Option<Ipv4Addr> {
    if index >= MAX_CLIENTS {
        return None;
    }
    let [_, _, high, low] = (index / 254 + 1).to_be_bytes();
    let last = u8::try_from(index % 254 + 1).ok()?;
    Some(Ipv4Addr::new(127, high, low, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn path() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("workers");
        (folder, path)
    }

    #[test]
    fn worker_addresses_are_unique_and_never_the_nodes() {
        let all: HashSet<Ipv4Addr> = (0..MAX_CLIENTS).map(|index| nth(index).unwrap()).collect();
        assert_eq!(all.len() as u32, MAX_CLIENTS);
        for address in all {
            let [first, second, third, last] = address.octets();
            assert!(first == 127 && (second, third) != (0, 0) && last != 0 && last != 255);
        }
        assert_eq!(nth(0), Some(Ipv4Addr::new(127, 0, 1, 1)));
        assert_eq!(nth(MAX_CLIENTS), None);
    }

    #[test]
    fn client_address_is_the_same_in_every_spelling() {
        let (_folder, path) = path();
        let address_map = AddressMap::open(&path).unwrap();
        let local = address_map
            .local("::ffff:10.1.2.3".parse().unwrap())
            .unwrap();
        assert_eq!(
            address_map.local("10.1.2.3".parse().unwrap()).unwrap(),
            local
        );
        assert_eq!(address_map.real(&local.to_string()).unwrap(), "10.1.2.3");
        assert_eq!(
            address_map.real(&format!("::ffff:{local}")).unwrap(),
            "10.1.2.3",
            "a plugin may listen with a socket of both families"
        );
        for unknown in ["127.0.0.1", "10.1.2.3", "localhost", "::1", ""] {
            assert_eq!(address_map.real(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn half_a_line_was_never_used_and_a_damaged_one_ends_it() {
        let (_folder, path) = path();
        std::fs::write(&path, "127.0.1.1 10.0.0.1\n127.0.1.2 10.0").unwrap();
        let address_map = AddressMap::open(&path).unwrap();
        let second = address_map.local("10.0.0.9".parse().unwrap()).unwrap();
        assert_eq!(second, Ipv4Addr::new(127, 0, 1, 2));
        drop(address_map);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "127.0.1.1 10.0.0.1\n127.0.1.2 10.0.0.9\n");
        for damaged in [
            "127.0.1.1 x\n",
            "\n",
            "127.0.1.2 10.0.0.1\n",
            "127.0.1.1 10.0.0.1\n127.0.1.2 10.0.0.1\n",
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(
                AddressMap::open(&path),
                Err(AddressMapError::Damaged { .. })
            ));
        }
    }

    proptest::proptest! {
        /// Whatever clients come, in any order and with restarts between them: two never share an
        /// address, one always keeps its own, and every address leads back.
        #[test]
        fn two_clients_never_share_an_address(
            visits in proptest::collection::vec((0_u8..40, proptest::bool::ANY, 0_u8..10), 1..150),
        ) {
            let (_folder, path) = path();
            let mut address_map = AddressMap::open(&path).unwrap();
            let mut known: HashMap<IpAddr, Ipv4Addr> = HashMap::new();
            for (number, v6, restart) in visits {
                if restart == 0 {
                    address_map = AddressMap::open(&path).unwrap();
                }
                let client: IpAddr = if v6 {
                    format!("2001:db8::{number:x}").parse().unwrap()
                } else {
                    Ipv4Addr::new(10, 0, 0, number).into()
                };
                let local = address_map.local(client).unwrap();
                proptest::prop_assert_eq!(*known.entry(client).or_insert(local), local);
                proptest::prop_assert_eq!(address_map.real(&local.to_string()), Some(client.to_string()));
            }
            let different: HashSet<&Ipv4Addr> = known.values().collect();
            proptest::prop_assert_eq!(different.len(), known.len());
        }
    }
}
