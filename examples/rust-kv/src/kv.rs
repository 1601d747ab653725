//! The interface itself: keys and values, kept in memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tonic::{Request, Response, Status};

use crate::log;
use crate::wire::proto::kv_server::{Kv, KvServer};
use crate::wire::proto::{Empty, GetRequest, GetResponse, PutRequest};

/// More keys than this are refused, so that a client cannot fill the memory.
const MOST_KEYS: usize = 10_000;

#[derive(Default)]
struct Memory {
    values: Mutex<HashMap<String, Vec<u8>>>,
}

/// The service, with nothing stored yet.
pub(crate) fn service() -> KvServer<impl Kv> {
    KvServer::new(Memory::default())
}

#[tonic::async_trait]
impl Kv for Memory {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let key = request.into_inner().key;
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        match values.get(&key) {
            Some(value) => Ok(Response::new(GetResponse {
                value: value.clone(),
            })),
            None => Err(Status::not_found(format!("no value for key {key:?}"))),
        }
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<Empty>, Status> {
        let PutRequest { key, mut value } = request.into_inner();
        value.extend_from_slice(b"\n\nWritten from rust-kv");
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if values.len() >= MOST_KEYS && !values.contains_key(&key) {
            return Err(Status::resource_exhausted(format!(
                "{MOST_KEYS} keys are stored already"
            )));
        }
        log::info("put", &key);
        values.insert(key, value);
        Ok(Response::new(Empty {}))
    }
}
