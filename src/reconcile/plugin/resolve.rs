//! Parses what was seen: names, family and ownership. Behind this step nobody asks
//! again whether a field is set or an object is ours.

use super::observe::{Identity, Observed};
use crate::family::{self, PluginFamily};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use patchbay_api::names::{FINALIZER, GROUP, PluginName, PodName, VERSION};
use patchbay_api::{Family, FamilySpec, PluginSpec, Reason};

/// Which Plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginId {
    pub name: PluginName,
    pub namespace: String,
    pub uid: String,
    /// Generation of the spec that was seen.
    pub generation: i64,
}

impl PluginId {
    /// The owner reference of every child.
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "Plugin".to_owned(),
            name: self.name.to_string(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// Whether an object is a child of this very Plugin.
    pub fn owns(&self, meta: &ObjectMeta) -> bool {
        meta.owner_references
            .iter()
            .flatten()
            .any(|owner| owner.uid == self.uid && owner.controller == Some(true))
    }
}

/// What is to be done about a Plugin.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// It shall run.
    Wanted(Box<Resolved>),
    /// Its author must change something first. What runs, stays.
    Refused(Refusal),
    /// It is being deleted.
    Deleting(Deleting),
}

/// A Plugin that can be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub id: PluginId,
    pub spec: PluginSpec,
    /// Its family, with the settings.
    pub family: FamilySpec,
    /// Whether the finalizer is in place.
    pub finalizer: bool,
}

impl Resolved {
    /// What depends on its family.
    pub fn family(&self) -> &dyn PluginFamily {
        family::of(&self.family)
    }
}

/// A Plugin that cannot be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one; `None` when its very name is unusable.
    pub id: Option<PluginId>,
    pub reason: Reason,
    /// What was found, what is expected, what to do.
    pub message: String,
}

/// A Plugin on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleting {
    pub id: PluginId,
    /// Whether our finalizer still holds it.
    pub finalizer: bool,
}

/// Parses what was seen.
pub fn resolve(observed: &Observed) -> Resolution {
    let plugin = &observed.plugin;
    let meta = &plugin.metadata;
    let refuse = |id: Option<&PluginId>, reason, message| {
        Resolution::Refused(Refusal {
            id: id.cloned(),
            reason,
            message,
        })
    };
    let name = match PluginName::parse(meta.name.as_deref().unwrap_or_default()) {
        Ok(name) => name,
        Err(error) => return refuse(None, Reason::InvalidSpec, error.to_string()),
    };
    let id = PluginId {
        name,
        namespace: meta.namespace.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
    };
    let finalizer = meta.finalizers.iter().flatten().any(|f| f == FINALIZER);
    if meta.deletion_timestamp.is_some() {
        return Resolution::Deleting(Deleting { id, finalizer });
    }
    let Some(family) = plugin.spec.protocol.family_spec() else {
        let families = Family::ALL.map(Family::as_str).join(" or ");
        let message =
            format!("spec.protocol has no key; expected exactly one family, {families}: add it");
        return refuse(Some(&id), Reason::InvalidSpec, message);
    };
    if let Some((reason, message)) = label_refusal(observed).or_else(|| taken(&id, observed)) {
        return refuse(Some(&id), reason, message);
    }
    Resolution::Wanted(Box::new(Resolved {
        id,
        spec: plugin.spec.clone(),
        family,
        finalizer,
    }))
}

fn label_refusal(observed: &Observed) -> Option<(Reason, String)> {
    let allowed = &observed.settings.label_prefixes;
    let label = observed.plugin.spec.pod.labels.keys().find(|key| {
        !allowed
            .iter()
            .any(|prefix| key.starts_with(prefix.as_str()))
    })?;
    let expected = if allowed.is_empty() {
        "the installation allows none".to_owned()
    } else {
        format!(
            "the installation allows those that begin with {}",
            allowed.join(", ")
        )
    };
    Some((
        Reason::LabelNotAllowed,
        format!(
            "spec.pod.labels holds {label}; {expected}: remove it, or have the administrator add its prefix to the installation"
        ),
    ))
}

/// An object with a name of ours that is not ours. It is never touched.
fn taken(id: &PluginId, observed: &Observed) -> Option<(Reason, String)> {
    let service = [id.name.service(), id.name.headless_service()];
    let policy = id.name.network_policy();
    let is_not_ours = |meta: &ObjectMeta| !id.owns(meta);
    let named = |meta: &ObjectMeta, name: &str| meta.name.as_deref() == Some(name);
    let found = observed
        .services
        .iter()
        .map(|s| &s.metadata)
        .find(|meta| is_not_ours(meta) && service.iter().any(|name| named(meta, name)))
        .map(|meta| ("Service", meta.name.clone().unwrap_or_default()))
        .or_else(|| {
            observed
                .network_policies
                .iter()
                .map(|p| &p.metadata)
                .find(|meta| is_not_ours(meta) && named(meta, &policy))
                .map(|_| ("NetworkPolicy", policy.clone()))
        })
        .or_else(|| {
            observed
                .pods
                .iter()
                .map(|p| &p.metadata)
                .filter(|meta| is_not_ours(meta))
                .filter_map(|meta| meta.name.clone())
                .find(|name| PodName::parse(&id.name, name).is_some())
                .map(|name| ("Pod", name))
        })
        .or_else(|| {
            (observed.identity == Identity::Taken).then(|| ("Secret", id.name.identity_secret()))
        })?;
    Some((Reason::NameTaken, name_taken(found.0, &found.1)))
}

/// The sentence for [`Reason::NameTaken`].
pub fn name_taken(kind: &str, name: &str) -> String {
    format!(
        "a {kind} {name} exists in this namespace and does not belong to this Plugin; expected that name to be free: delete or rename that {kind}, or choose another name for the Plugin"
    )
}
