//! The server behind a client, with faults on demand.

use crate::client::client;
use crate::server::{Answer, ApiRequest, ApiServer, object_path};
use http::Method;
use kube::Client;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out and the answer is lost.
    Lost,
    /// It is not carried out, and nobody can tell.
    Never,
    /// It is not carried out now, but right before the next request.
    Later,
    /// Somebody else's write comes before.
    Raced,
    /// The object is deleted before.
    Deleted,
    /// The answer is this code, and nothing is carried out.
    Code(u16),
}

#[derive(Default)]
struct State {
    server: ApiServer,
    faults: VecDeque<Fault>,
    late: Option<ApiRequest>,
    log: Vec<String>,
}

/// The server. Clones are the same one.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    pub fn client(&self) -> Client {
        let this = self.clone();
        client(move |request| std::future::ready(this.serve(request)))
    }

    /// The next writes go wrong like this.
    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// Creates or replaces an object as somebody else.
    pub fn put(&self, path: &str, object: Value) -> Value {
        let change = self.lock().server.put(path, object);
        change.after.as_deref().cloned().unwrap_or_default()
    }

    /// Deletes an object as somebody else.
    pub fn remove(&self, path: &str) {
        self.lock().server.remove(path);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.lock()
            .server
            .get(path)
            .map(|object| (**object).clone())
    }

    /// Verb and path of every request since the last time.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    fn serve(&self, request: ApiRequest) -> Answer {
        let state = &mut *self.lock();
        let short = request.path.split("/namespaces/ns/").last();
        let short = short.unwrap_or_default();
        state.log.push(format!("{} {short}", request.method));
        if let Some(late) = state.late.take() {
            state.server.handle(late);
        }
        let fault = match request.method {
            Method::GET => None,
            _ => state.faults.pop_front(),
        };
        let status = |code| Answer::status(code, "", "as ordered");
        let object = object_path(&request.path).to_owned();
        match fault {
            None => {}
            Some(Fault::Lost) => {
                state.server.handle(request);
                return status(500);
            }
            Some(Fault::Never) => return status(504),
            Some(Fault::Later) => {
                state.late = Some(request);
                return status(500);
            }
            Some(Fault::Raced) => {
                if let Some(found) = state.server.get(&object).cloned() {
                    state.server.put(&object, (*found).clone());
                }
            }
            Some(Fault::Deleted) => {
                state.server.remove(&object);
            }
            Some(Fault::Code(code)) => return status(code),
        }
        state.server.handle(request).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
