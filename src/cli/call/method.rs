//! Chooses the method that the user means.

use patchbay_protocol::reflect::{is_machinery, written};
use patchbay_reconcile::suggest::{did_you_mean, similar};
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

/// A method as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MethodQuery {
    /// The part before the method: a full service name, or the end of one.
    pub(crate) service: Option<String>,
    pub(crate) method: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MethodError {
    #[error("reading the method {0:?}: expected package.Service/Method or Method")]
    Malformed(String),
    #[error("choosing a method: the plugin serves no {wanted}{hint}\nIt serves: {served}")]
    NoService {
        wanted: String,
        hint: String,
        served: String,
    },
    #[error("choosing a method: there is no {wanted}{hint}\n`--list` shows all methods")]
    NoMethod { wanted: String, hint: String },
    #[error("choosing a method: {wanted} is ambiguous; use one of\n  {}", found.join("\n  "))]
    Ambiguous { wanted: String, found: Vec<String> },
}

impl MethodQuery {
    /// Reads `pkg.Service/Method`, `pkg.Service.Method`, `/pkg.Service/Method` or `Method`.
    pub(crate) fn parse(text: &str) -> Result<Self, MethodError> {
        let trimmed = text.strip_prefix('/').unwrap_or(text);
        let (service, method) = match trimmed
            .rsplit_once('/')
            .or_else(|| trimmed.rsplit_once('.'))
        {
            Some((service, method)) => (Some(service), method),
            None => (None, trimmed),
        };
        let identifier = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let whole =
            identifier(method) && service.is_none_or(|name| name.split('.').all(identifier));
        if whole {
            Ok(Self {
                service: service.map(str::to_owned),
                method: method.to_owned(),
            })
        } else {
            Err(MethodError::Malformed(text.to_owned()))
        }
    }

    /// The services among `served` that match; without a service part all of the plugin's own.
    pub(crate) fn services<'a>(&self, served: &'a [String]) -> Result<Vec<&'a str>, MethodError> {
        let all = || served.iter().map(String::as_str);
        let Some(part) = &self.service else {
            return Ok(all().filter(|name| !is_machinery(name)).collect());
        };
        let exact: Vec<&str> = all().filter(|name| *name == part).collect();
        if !exact.is_empty() {
            return Ok(exact);
        }
        let ends: Vec<&str> = all().filter(|name| ends_with_part(name, part)).collect();
        if !ends.is_empty() {
            return Ok(ends);
        }
        Err(MethodError::NoService {
            wanted: format!("service {part}"),
            hint: did_you_mean(&similar(part, all())),
            served: none_or(&all().filter(|name| !is_machinery(name)).collect::<Vec<_>>()),
        })
    }

    /// The one method of `services` that matches.
    pub(crate) fn choose(
        &self,
        pool: &DescriptorPool,
        services: &[&str],
    ) -> Result<MethodDescriptor, MethodError> {
        let methods: Vec<MethodDescriptor> = services
            .iter()
            .filter_map(|name| pool.get_service_by_name(name))
            .flat_map(|service: ServiceDescriptor| service.methods().collect::<Vec<_>>())
            .collect();
        let exact = methods.iter().filter(|method| method.name() == self.method);
        let mut found: Vec<&MethodDescriptor> = exact.collect();
        if found.is_empty() {
            found = methods
                .iter()
                .filter(|method| method.name().eq_ignore_ascii_case(&self.method))
                .collect();
        }
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let names: Vec<String> = methods.iter().map(written).collect();
                let close = similar(&self.method, methods.iter().map(MethodDescriptor::name));
                let close: Vec<&str> = names
                    .iter()
                    .map(String::as_str)
                    .filter(|name| {
                        name.rsplit_once('/')
                            .is_some_and(|(_, method)| close.contains(&method))
                    })
                    .collect();
                Err(MethodError::NoMethod {
                    wanted: self.to_string(),
                    hint: did_you_mean(&close),
                })
            }
            several => Err(MethodError::Ambiguous {
                wanted: self.to_string(),
                found: several.iter().map(|method| written(method)).collect(),
            }),
        }
    }
}

impl std::fmt::Display for MethodQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}/{}", self.method),
            None => f.write_str(&self.method),
        }
    }
}

fn ends_with_part(name: &str, part: &str) -> bool {
    let (name, part) = (name.to_lowercase(), part.to_lowercase());
    name == part
        || name
            .strip_suffix(&part)
            .is_some_and(|front| front.ends_with('.'))
}

pub(crate) fn none_or(names: &[&str]) -> String {
    if names.is_empty() {
        "no services of its own".to_owned()
    } else {
        names.join(", ")
    }
}
