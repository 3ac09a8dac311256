//! What crosses a boundary: each dataset that a stage reads is held against the stage that writes
//! it, and what the manifest does not declare is refused.

use super::data::Writers;
use super::scope::Findings;
use super::{Boundary, Crossing, Stage};
use crate::boundary::Laxer;
use crate::codes;
use crate::manifest::{CrossingSpec, InputSpec, StageSpec};
use crate::text::DatasetName;

/// Gives each stage the crossings that its inputs declare. `stages` are in the order of the
/// manifest; of those that have errors nothing can be said.
pub(super) fn declare(
    findings: &mut Findings<'_>,
    specs: &[StageSpec],
    stages: &mut [Option<Stage>],
    writers: &Writers<'_>,
) {
    let boundaries: Vec<Option<Boundary>> = stages
        .iter()
        .map(|stage| stage.as_ref().map(Stage::boundary))
        .collect();
    for (index, spec) in specs.iter().enumerate() {
        let (Some(to), Some(stage)) = (&boundaries[index], &mut stages[index]) else {
            continue;
        };
        for (position, input) in spec.inputs.iter().enumerate() {
            let at = format!("/spec/stages/{index}/inputs/{position}");
            let Some(dataset) = &input.dataset else {
                continue;
            };
            let writer = writers.stage_of(dataset);
            let Some(from) = writer.and_then(|writer| boundaries[writer].as_ref()) else {
                continue;
            };
            stage
                .crossings
                .extend(crossing(findings, &at, input, dataset, from, to));
        }
    }
}

fn crossing(
    findings: &mut Findings<'_>,
    at: &str,
    input: &InputSpec,
    dataset: &DatasetName,
    from: &Boundary,
    to: &Boundary,
) -> Option<Crossing> {
    let laxer = from.laxer_parts(to);
    match &input.crossing {
        None if laxer.is_empty() => None,
        None => {
            let message = laxer
                .iter()
                .map(|part| difference(*part, dataset, from, to))
                .collect::<Vec<_>>()
                .join("; ");
            let help = "if that is meant, say so on the input: `crossing: { reason: \"why this \
                        data may leave its boundary\" }`; else keep the stage as strict as the \
                        data";
            let pointer = format!("{at}/dataset");
            findings.error_with_help(codes::CROSSING_UNDECLARED, &pointer, message, help);
            None
        }
        Some(_) if laxer.is_empty() => {
            let message = format!("`{dataset}` crosses no boundary on its way to this stage");
            let help = "leave `crossing` out, so that what is declared is what happens";
            let pointer = format!("{at}/crossing");
            findings.warning(codes::CROSSING_NEEDLESS, &pointer, message, help);
            None
        }
        Some(declared) => {
            hold_reason(findings, at, declared);
            Some(Crossing {
                dataset: dataset.clone(),
                from: from.clone(),
                to: to.clone(),
                reason: declared.reason.trim().to_owned(),
            })
        }
    }
}

/// Refuses a reason that says nothing.
pub(super) fn hold_reason(findings: &mut Findings<'_>, at: &str, declared: &CrossingSpec) {
    if declared.reason.trim().is_empty() {
        let message = "a crossing needs a reason";
        let pointer = format!("{at}/crossing/reason");
        findings.error(codes::INVALID_VALUE, &pointer, message);
    }
}

fn difference(part: Laxer, dataset: &DatasetName, from: &Boundary, to: &Boundary) -> String {
    match part {
        Laxer::Network => format!(
            "`{dataset}` is written within `{}`, and this stage reaches further with `{}`",
            from.network_profile, to.network_profile
        ),
        Laxer::Residency => {
            let place = |boundary: &Boundary| match &boundary.residency {
                Some(place) => format!("residency `{place}`"),
                None => "no residency".to_owned(),
            };
            format!(
                "`{dataset}` has {}, and this stage has {}",
                place(from),
                place(to)
            )
        }
        Laxer::Classification => format!(
            "`{dataset}` is {}, and this stage is for {} data",
            from.classification, to.classification
        ),
    }
}
