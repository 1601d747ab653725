//! A record of every version of every Job of a namespace, as a watch delivers them. It outlives
//! the API server: the watch goes on from the last version that was seen, or says where it could
//! not.

use crate::sandbox::Sandbox;
use crate::world::{Outcome, Why, fail};
use kube::ResourceExt;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;

/// Between two attempts to open the watch.
const PAUSE: Duration = Duration::from_millis(100);

/// The record, and what it says last about each Job.
pub struct Chronicle {
    phases: Arc<Mutex<HashMap<String, String>>>,
    task: JoinHandle<Why>,
}

impl Chronicle {
    /// Begins to write; the namespace must not hold Jobs yet.
    pub async fn begin(sandbox: &Sandbox, file: &Path) -> Outcome<Chronicle> {
        let jobs = sandbox.jobs();
        let first = jobs.list(&Default::default()).await?;
        if !first.items.is_empty() {
            fail!("there are Jobs before the record begins");
        }
        let mut version = first.metadata.resource_version.unwrap_or_default();
        let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
        let phases = Arc::new(Mutex::new(HashMap::new()));
        let told = Arc::clone(&phases);
        let task = tokio::spawn(async move {
            loop {
                let mut forgotten = false;
                let params = WatchParams::default().timeout(290);
                if let Ok(stream) = jobs.watch(&params, &version).await {
                    let mut stream = Box::pin(stream);
                    while let Some(Ok(event)) = stream.next().await {
                        let (word, object) = match event {
                            WatchEvent::Added(object) => ("ADDED", object),
                            WatchEvent::Modified(object) => ("MODIFIED", object),
                            WatchEvent::Deleted(object) => ("DELETED", object),
                            WatchEvent::Bookmark(mark) => {
                                version = mark.metadata.resource_version;
                                continue;
                            }
                            WatchEvent::Error(error) => {
                                forgotten = error.code == 410;
                                break;
                            }
                        };
                        if let Some(seen) = object.resource_version() {
                            version = seen;
                        }
                        remember(&told, word, &object);
                        let line = json!({"type": word, "object": object});
                        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                            return Why(format!("writing the record: {error}"));
                        }
                    }
                }
                // An API server that was started again knows no older versions: what stands there
                // now is taken down, and that there is a gap.
                if forgotten && let Ok(all) = jobs.list(&Default::default()).await {
                    let now = all.metadata.resource_version.unwrap_or_default();
                    let gap = json!({"type": "GAP", "from": version, "to": now});
                    let mut lines = format!("{gap}\n");
                    for object in all.items {
                        remember(&told, "LISTED", &object);
                        lines.push_str(&json!({"type": "LISTED", "object": object}).to_string());
                        lines.push('\n');
                    }
                    if let Err(error) = out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
                        return Why(format!("writing the record: {error}"));
                    }
                    version = now;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Chronicle { phases, task })
    }

    /// How many Jobs have ended, and how many there are.
    pub fn ended(&self) -> Outcome<(usize, usize)> {
        if self.task.is_finished() {
            fail!("the record has ended");
        }
        let phases = lock(&self.phases);
        let ended = phases
            .values()
            .filter(|phase| ["Succeeded", "Failed", "Invalid"].contains(&phase.as_str()))
            .count();
        Ok((ended, phases.len()))
    }

    /// A few Jobs that have not ended, for messages.
    pub fn open(&self) -> Vec<String> {
        lock(&self.phases)
            .iter()
            .filter(|(_, phase)| !["Succeeded", "Failed", "Invalid"].contains(&phase.as_str()))
            .take(5)
            .map(|(name, phase)| format!("{name} is {phase}"))
            .collect()
    }

    /// Ends the record.
    pub fn end(self) {
        self.task.abort();
    }
}

fn remember(phases: &Mutex<HashMap<String, String>>, word: &str, object: &DynamicObject) {
    let phase = match word {
        "DELETED" => "Succeeded",
        _ => object.data["status"]["phase"].as_str().unwrap_or_default(),
    };
    lock(phases).insert(object.name_any(), phase.to_owned());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
