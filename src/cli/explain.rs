//! `explain`: one reason of the catalogue, or all of them.

use patchbay_api::Reason;
use patchbay_reconcile::suggest::{did_you_mean, similar};
use serde::Serialize;

use crate::args::{ExplainArgs, OutputFormat};
use crate::stdio::{self, StdoutError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    #[error(
        "explaining {reason:?}: there is no such reason{hint}\n`kubectl patchbay explain` shows all reasons"
    )]
    Unknown { reason: String, hint: String },
    #[error(transparent)]
    Output(#[from] StdoutError),
    #[error("writing JSON: {0}")]
    Json(serde_json::Error),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    reason: &'static str,
    meaning: &'static str,
    next_move: &'static str,
}

impl From<Reason> for Explanation {
    fn from(reason: Reason) -> Self {
        Self {
            reason: reason.as_str(),
            meaning: reason.sentence(),
            next_move: reason.mover().as_str(),
        }
    }
}

pub(crate) fn run(arguments: &ExplainArgs) -> Result<(), ExplainError> {
    let json = |text: serde_json::Result<String>| text.map_err(ExplainError::Json);
    let text = match (&arguments.reason, arguments.output) {
        (Some(name), OutputFormat::Text) => text(&find(name)?.into()),
        (Some(name), OutputFormat::Json) => json(serde_json::to_string_pretty(
            &Explanation::from(find(name)?),
        ))?,
        (None, OutputFormat::Text) => {
            let all = Reason::ALL.iter().map(|reason| text(&(*reason).into()));
            all.collect::<Vec<_>>().join("\n\n")
        }
        (None, OutputFormat::Json) => {
            let all = Reason::ALL.iter().map(|reason| Explanation::from(*reason));
            json(serde_json::to_string_pretty(&all.collect::<Vec<_>>()))?
        }
    };
    Ok(stdio::line(&text)?)
}

fn find(name: &str) -> Result<Reason, ExplainError> {
    let all = || Reason::ALL.iter();
    all()
        .find(|reason| reason.as_str().eq_ignore_ascii_case(name))
        .copied()
        .ok_or_else(|| ExplainError::Unknown {
            reason: name.to_owned(),
            hint: did_you_mean(&similar(name, all().map(|reason| reason.as_str()))),
        })
}

fn text(explanation: &Explanation) -> String {
    format!(
        "{}\n  {}\n  Next move: {}.",
        explanation.reason, explanation.meaning, explanation.next_move
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explain_finds_a_reason_in_any_case() {
        let found = find("pluginlost").map(|reason| text(&reason.into()));
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert!(found.starts_with("PluginLost\n  "), "{found}");
        assert!(found.contains("\n  Next move: "), "{found}");
    }

    #[test]
    fn explain_suggests_a_reason_when_there_is_none() {
        let error = find("PluginLosed").err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains("did you mean PluginLost"), "{error}");
    }
}
