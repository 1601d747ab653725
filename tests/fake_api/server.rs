//! The objects, and what each request does to them. No time and no task of its own.

use http::Method;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request, as far as the server looks at it.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    pub method: Method,
    /// Without the query.
    pub path: String,
    /// Null when there is no body.
    pub body: Value,
}

/// What is answered: an object, a list, or a Status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Arc<Value>,
}

/// What a request has changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// Of the object.
    pub path: String,
    /// The resource version of the change; that of a deletion is in no object.
    pub version: u64,
    /// Nothing when the object was created.
    pub before: Option<Arc<Value>>,
    /// Nothing when it was deleted.
    pub after: Option<Arc<Value>>,
}

/// The server.
#[derive(Clone, Debug)]
pub struct ApiServer {
    version: u64,
    uids: u64,
    objects: BTreeMap<String, Arc<Value>>,
    /// The time of day that new objects get; whole seconds, as RFC 3339.
    pub now: String,
}

/// Why a request is refused: code and reason, as in a Status.
struct Refusal(u16, &'static str, String);

impl Default for ApiServer {
    fn default() -> Self {
        Self {
            version: 0,
            uids: 0,
            objects: BTreeMap::new(),
            now: "2026-11-22T12:00:00Z".to_owned(),
        }
    }
}

impl Answer {
    /// A Status with this code, as the API server, or something before it, answers.
    pub fn status(code: u16, reason: &str, message: &str) -> Self {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        Self {
            code,
            body: Arc::new(body),
        }
    }
}

/// The path of the object that a path leads to.
pub(crate) fn object_path(path: &str) -> &str {
    path.strip_suffix("/status").unwrap_or(path)
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or_default()
}

impl ApiServer {
    /// The newest resource version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The object at this path.
    pub fn get(&self, path: &str) -> Option<&Arc<Value>> {
        self.objects.get(path)
    }

    /// Every object whose path begins with this, in the order of their paths.
    pub fn list(&self, prefix: &str) -> impl Iterator<Item = (&String, &Arc<Value>)> {
        self.objects
            .range(prefix.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(prefix))
    }

    /// Creates or replaces an object as somebody else; what its metadata lack is added.
    pub fn put(&mut self, path: &str, mut object: Value) -> Change {
        self.version += 1;
        let before = self.objects.get(path).cloned();
        let mut names = path.rsplit('/');
        let name = names.next().unwrap_or_default();
        let namespace = names.nth(1).unwrap_or_default();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.insert("name".to_owned(), name.into());
            metadata.insert("namespace".to_owned(), namespace.into());
            metadata.insert(
                "resourceVersion".to_owned(),
                self.version.to_string().into(),
            );
            if !metadata.contains_key("uid") {
                self.uids += 1;
                metadata.insert("uid".to_owned(), format!("uid-{}", self.uids).into());
            }
            metadata
                .entry("creationTimestamp")
                .or_insert_with(|| self.now.clone().into());
            metadata.entry("generation").or_insert(1.into());
        }
        let after = Arc::new(object);
        self.objects.insert(path.to_owned(), Arc::clone(&after));
        Change {
            path: path.to_owned(),
            version: self.version,
            before,
            after: Some(after),
        }
    }

    /// Deletes an object as somebody else.
    pub fn remove(&mut self, path: &str) -> Option<Change> {
        let before = self.objects.remove(path)?;
        self.version += 1;
        Some(Change {
            path: path.to_owned(),
            version: self.version,
            before: Some(before),
            after: None,
        })
    }

    /// Carries out a request.
    pub fn handle(&mut self, request: ApiRequest) -> (Answer, Option<Change>) {
        match self.carry_out(request) {
            Ok((code, body, change)) => (Answer { code, body }, change),
            Err(Refusal(code, reason, message)) => (Answer::status(code, reason, &message), None),
        }
    }

    fn carry_out(
        &mut self,
        request: ApiRequest,
    ) -> Result<(u16, Arc<Value>, Option<Change>), Refusal> {
        let ApiRequest { method, path, body } = request;
        match method {
            Method::GET if is_collection(&path) => Ok((200, self.items(&path), None)),
            Method::GET => Ok((200, Arc::clone(self.find(&path)?), None)),
            Method::POST => self.create(&path, body),
            Method::DELETE => self.delete(&path, &body),
            Method::PUT => {
                if text(&body, "resourceVersion").is_empty() {
                    let message = "metadata.resourceVersion: must be specified for an update";
                    return Err(Refusal(422, "Invalid", message.to_owned()));
                }
                let found = Arc::clone(self.find(object_path(&path))?);
                check_precondition(&found, &body, "uid")?;
                self.change(&path, found, body)
            }
            Method::PATCH => {
                let found = Arc::clone(self.find(object_path(&path))?);
                let mut merged = (*found).clone();
                merge(&mut merged, body);
                self.change(&path, found, merged)
            }
            _ => Err(Refusal(405, "MethodNotAllowed", "no such verb".to_owned())),
        }
    }

    fn find(&self, path: &str) -> Result<&Arc<Value>, Refusal> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let missing = || Refusal(404, "NotFound", format!("{name:?} not found"));
        self.objects.get(path).ok_or_else(missing)
    }

    fn items(&self, path: &str) -> Arc<Value> {
        let items: Vec<Value> = self
            .list(&format!("{path}/"))
            .map(|(_, object)| (**object).clone())
            .collect();
        Arc::new(json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items,
        }))
    }

    fn create(
        &mut self,
        path: &str,
        mut body: Value,
    ) -> Result<(u16, Arc<Value>, Option<Change>), Refusal> {
        let path = match text(&body, "name") {
            "" => {
                let message = "metadata.name: name or generateName is required".to_owned();
                return Err(Refusal(422, "Invalid", message));
            }
            name => format!("{path}/{name}"),
        };
        if let Some(found) = self.objects.get(&path) {
            let message = format!("{:?} already exists", text(found, "name"));
            return Err(Refusal(409, "AlreadyExists", message));
        }
        if let Some(object) = body.as_object_mut() {
            object.remove("status");
        }
        if let Some(metadata) = body["metadata"].as_object_mut() {
            // Set by the server alone.
            for key in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
                metadata.remove(key);
            }
        }
        let change = self.put(&path, body);
        let created = change.after.clone().unwrap_or_default();
        Ok((201, created, Some(change)))
    }

    fn delete(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<(u16, Arc<Value>, Option<Change>), Refusal> {
        let found = self.find(path)?;
        let wanted = json!({ "metadata": body["preconditions"] });
        check_precondition(found, &wanted, "uid")?;
        check_precondition(found, &wanted, "resourceVersion")?;
        let done =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        let change = self.remove(path);
        Ok((200, Arc::new(done), change))
    }

    /// Writes `wanted` over `found`: the status alone, or everything but the status.
    fn change(
        &mut self,
        path: &str,
        found: Arc<Value>,
        mut wanted: Value,
    ) -> Result<(u16, Arc<Value>, Option<Change>), Refusal> {
        check_precondition(&found, &wanted, "resourceVersion")?;
        let of_status = path.ends_with("/status");
        // A simulation does this a million times: what is replaced is not copied.
        let replaced = if of_status { "status" } else { "spec" };
        let kept = found.as_object().into_iter().flatten();
        let kept = kept.filter(|(key, _)| *key != replaced);
        let mut object: Value = kept
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        object[replaced] = wanted[replaced].take();
        if !of_status {
            let generation = found["metadata"]["generation"].as_i64().unwrap_or(1);
            let changed = object["spec"] != found["spec"];
            for key in ["annotations", "labels", "ownerReferences", "finalizers"] {
                object["metadata"][key] = wanted["metadata"][key].take();
            }
            object["metadata"]["generation"] = (generation + i64::from(changed)).into();
        }
        drop_nulls(&mut object);
        // What changes nothing is no write.
        if object == *found {
            return Ok((200, found, None));
        }
        let change = self.put(object_path(path), object);
        let written = change.after.clone().unwrap_or_default();
        Ok((200, written, Some(change)))
    }
}

/// Whether a path names all objects of a kind: the one before the last part is "namespaces" or a
/// namespace.
fn is_collection(path: &str) -> bool {
    path.rsplit('/').nth(2) == Some("namespaces")
}

/// A field of the metadata that is given has to be as in the object.
fn check_precondition(found: &Value, wanted: &Value, key: &str) -> Result<(), Refusal> {
    let (is, wanted) = (text(found, key), text(wanted, key));
    if wanted.is_empty() || is == wanted {
        return Ok(());
    }
    let name = text(found, "name");
    let message = format!("operation cannot be fulfilled on {name:?}: {key} is {is}, not {wanted}");
    Err(Refusal(409, "Conflict", message))
}

/// The two levels at which a change can leave a null.
fn drop_nulls(object: &mut Value) {
    let drop = |fields: &mut Map<String, Value>| fields.retain(|_, value| !value.is_null());
    object.as_object_mut().map(drop);
    object["metadata"].as_object_mut().map(drop);
}

/// RFC 7386.
fn merge(object: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(&key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}
