//! Parses what was seen: names, family, ownership and references. Behind this step nobody asks
//! again whether a field is set or an object is ours.

use super::observe::{Identity, Observed, Presence, Reference, ReferenceKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use patchbay_api::names::{FINALIZER, GROUP, PROXY_PORT, PluginName, PodName, VERSION};
use patchbay_api::plugin::protocol::Family;
use patchbay_api::plugin::{GoPlugin, PcpController, TlsMode};
use patchbay_api::{PluginSpec, Reason};
use std::collections::BTreeMap;

/// Which Plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub name: PluginName,
    pub namespace: String,
    pub uid: String,
    /// Generation of the spec that was seen.
    pub generation: i64,
}

impl Who {
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
    Leaving(Leaving),
}

/// A Plugin that can be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub who: Who,
    pub spec: PluginSpec,
    /// Its family, with the settings.
    pub family: FamilySettings,
    /// Objects that it names and that do not exist. No pod is created while there are some.
    pub missing: Vec<Reference>,
    /// Whether the finalizer is in place.
    pub finalizer: bool,
}

/// The family of a Plugin, with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilySettings {
    /// HashiCorp go-plugin over gRPC.
    GoPlugin(GoPlugin),
    /// A controller plugin of the PCP job queue.
    PcpController(PcpController),
}

impl FamilySettings {
    /// Where the pods let in those who use the plugin: client programs at the proxy of a
    /// go-plugin, external workers at the port of a PCP controller plugin.
    pub fn client_port(&self) -> u16 {
        match self {
            FamilySettings::GoPlugin(_) => PROXY_PORT,
            // The schema lets no other number in.
            FamilySettings::PcpController(controller) => {
                u16::try_from(controller.port).unwrap_or(u16::MAX)
            }
        }
    }

    /// Secret with certificates for the connection to the plugin, if one is named.
    pub fn certificates(&self) -> Option<&str> {
        match self {
            FamilySettings::GoPlugin(GoPlugin { tls, .. }) if tls.mode == TlsMode::Explicit => {
                tls.secret_name.as_deref()
            }
            FamilySettings::GoPlugin(_) | FamilySettings::PcpController(_) => None,
        }
    }
}

impl From<Family<'_>> for FamilySettings {
    fn from(family: Family<'_>) -> Self {
        match family {
            Family::GoPlugin(settings) => FamilySettings::GoPlugin(settings.clone()),
            Family::PcpController(settings) => FamilySettings::PcpController(settings.clone()),
        }
    }
}

/// A Plugin that cannot be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one; `None` when its very name is unusable.
    pub who: Option<Who>,
    pub reason: Reason,
    /// What was found, what is expected, what to do.
    pub message: String,
}

/// A Plugin on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    pub who: Who,
    /// Whether our finalizer still holds it.
    pub finalizer: bool,
}

/// Parses what was seen.
pub fn resolve(observed: &Observed) -> Resolution {
    let plugin = &observed.plugin;
    let meta = &plugin.metadata;
    let refuse = |who: Option<&Who>, reason, message| {
        Resolution::Refused(Refusal {
            who: who.cloned(),
            reason,
            message,
        })
    };
    let name = match PluginName::parse(meta.name.as_deref().unwrap_or_default()) {
        Ok(name) => name,
        Err(error) => return refuse(None, Reason::InvalidSpec, error.to_string()),
    };
    let who = Who {
        name,
        namespace: meta.namespace.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
    };
    let finalizer = meta.finalizers.iter().flatten().any(|f| f == FINALIZER);
    if meta.deletion_timestamp.is_some() {
        return Resolution::Leaving(Leaving { who, finalizer });
    }
    let Some(family) = plugin.spec.protocol.family() else {
        let message = "spec.protocol has no key; expected exactly one family, goPlugin or pcpController: add it";
        return refuse(Some(&who), Reason::InvalidSpec, message.to_owned());
    };
    if let Some((reason, message)) = label_refusal(observed).or_else(|| taken(&who, observed)) {
        return refuse(Some(&who), reason, message);
    }
    let missing = references(&plugin.spec)
        .into_iter()
        .filter(|(_, optional)| !optional)
        .map(|(reference, _)| reference)
        .filter(|reference| observed.references.get(reference) == Some(&Presence::Missing))
        .collect();
    Resolution::Wanted(Box::new(Resolved {
        who,
        spec: plugin.spec.clone(),
        family: family.into(),
        missing,
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
fn taken(who: &Who, observed: &Observed) -> Option<(Reason, String)> {
    let service = [who.name.service(), who.name.headless_service()];
    let policy = who.name.network_policy();
    let is_not_ours = |meta: &ObjectMeta| !who.owns(meta);
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
                .find(|name| PodName::parse(&who.name, name).is_some())
                .map(|name| ("Pod", name))
        })
        .or_else(|| {
            (observed.identity == Identity::Taken).then(|| ("Secret", who.name.identity_secret()))
        })?;
    Some((Reason::NameTaken, name_taken(found.0, &found.1)))
}

/// The sentence for [`Reason::NameTaken`].
pub fn name_taken(kind: &str, name: &str) -> String {
    format!(
        "a {kind} {name} exists in this namespace and does not belong to this Plugin; expected that name to be free: delete or rename that {kind}, or choose another name for the Plugin"
    )
}

/// Every Secret and ConfigMap that a spec names, with whether it may be absent.
pub fn references(spec: &PluginSpec) -> BTreeMap<Reference, bool> {
    let mut found = BTreeMap::new();
    let mut add = |kind, name: &str, optional: Option<bool>| {
        let optional = optional.unwrap_or(false);
        // Needed once is needed.
        found
            .entry(Reference {
                kind,
                name: name.to_owned(),
            })
            .and_modify(|known| *known = *known && optional)
            .or_insert(optional);
    };
    use ReferenceKind::{ConfigMap, Secret};
    for source in spec.env.iter().filter_map(|e| e.value_from.as_ref()) {
        if let Some(s) = &source.secret_key_ref {
            add(Secret, &s.name, s.optional);
        }
        if let Some(s) = &source.config_map_key_ref {
            add(ConfigMap, &s.name, s.optional);
        }
    }
    for source in &spec.env_from {
        if let Some(s) = &source.secret_ref {
            add(Secret, &s.name, s.optional);
        }
        if let Some(s) = &source.config_map_ref {
            add(ConfigMap, &s.name, s.optional);
        }
    }
    for volume in &spec.pod.volumes {
        if let Some(s) = &volume.secret {
            add(
                Secret,
                s.secret_name.as_deref().unwrap_or_default(),
                s.optional,
            );
        }
        if let Some(s) = &volume.config_map {
            add(ConfigMap, &s.name, s.optional);
        }
    }
    if let Some(Family::GoPlugin(go_plugin)) = spec.protocol.family()
        && go_plugin.tls.mode == TlsMode::Explicit
    {
        add(
            Secret,
            go_plugin.tls.secret_name.as_deref().unwrap_or_default(),
            None,
        );
    }
    found
}
