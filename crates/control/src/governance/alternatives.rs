//! What would change an answer: found by asking the policies again with one attribute changed, so
//! that no rule is ever written twice.

use std::collections::BTreeSet;

use barecount_model::class::{NetworkProfile, RunnerClass, Size};
use cedar_policy::PolicyId;

use super::evaluation::{Answer, AskError, Case, Evaluator, StageCase};
use super::question::{ApprovalScope, EnvironmentKind, Isolation};
use super::verdict::{Attribute, Change};

/// One changed attribute, and what the policies say then. There are at most 22 a stage: one for
/// each other value of a closed vocabulary.
pub(super) struct Trial {
    attribute: Attribute,
    from: String,
    to: &'static str,
    answer: Answer,
}

impl Evaluator {
    /// Asks again with every single change.
    ///
    /// # Errors
    /// When a request does not fit the schema.
    pub(super) fn trials(&self, case: &Case<'_>) -> Result<Vec<Trial>, AskError> {
        let asked = |(attribute, from, to, case): Variant<'_>| {
            let (question, kind) = (case.question, case.environment_kind);
            let entities = self.entities(question, kind, &case.stage, &[])?;
            Ok(Trial {
                attribute,
                from,
                to,
                answer: self.ask(&case, &entities)?,
            })
        };
        variants(case).into_iter().map(asked).collect()
    }
}

/// Changes after which the whole case is permitted.
pub(super) fn permitting(trials: &[Trial]) -> Vec<Change> {
    collect(trials, |answer| answer.allowed)
}

/// Changes after which this policy no longer refuses, whatever the others say.
pub(super) fn meeting(trials: &[Trial], policy: &PolicyId) -> Vec<Change> {
    collect(trials, |answer| {
        !answer.determining.contains(policy)
            && answer.errors.iter().all(|(failed, _)| failed != policy)
    })
}

fn collect(trials: &[Trial], wanted: impl Fn(&Answer) -> bool) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for trial in trials.iter().filter(|trial| wanted(&trial.answer)) {
        match changes
            .iter_mut()
            .find(|change| change.attribute == trial.attribute)
        {
            Some(change) => change.to.push(trial.to.to_owned()),
            None => changes.push(Change {
                attribute: trial.attribute,
                from: trial.from.clone(),
                to: vec![trial.to.to_owned()],
            }),
        }
    }
    changes
}

type Variant<'q> = (Attribute, String, &'static str, Case<'q>);

fn variants<'q>(case: &Case<'q>) -> Vec<Variant<'q>> {
    let mut variants = Vec::new();
    if let Some(stage) = &case.stage {
        stage_variants(case, stage, &mut variants);
        let crossings = || stage.facts.crossings.iter().map(|c| c.dataset.as_str());
        let is_open = |scope: &ApprovalScope| match scope {
            // It may count already, and for other datasets.
            ApprovalScope::Crossing => crossings().any(|dataset| !case.lets_across(dataset)),
            scope => !case.approved.contains(scope),
        };
        for scope in ApprovalScope::ALL.into_iter().filter(is_open) {
            let mut changed = case.clone();
            changed.approved.insert(scope);
            if scope == ApprovalScope::Crossing {
                changed.crossings_approved.extend(crossings());
            }
            let from = "none".to_owned();
            variants.push((Attribute::Approval, from, scope.as_str(), changed));
        }
    }
    let kind = case.environment_kind;
    for other in EnvironmentKind::ALL
        .into_iter()
        .filter(|other| *other != kind)
    {
        let mut changed = case.clone();
        changed.environment_kind = other;
        let from = kind.as_str().to_owned();
        variants.push((Attribute::EnvironmentKind, from, other.as_str(), changed));
    }
    variants
}

fn stage_variants<'q>(case: &Case<'q>, stage: &StageCase<'q>, variants: &mut Vec<Variant<'q>>) {
    let mut add = |attribute, from: &str, to, changed: StageCase<'q>| {
        let changed = Case {
            stage: Some(changed),
            // They are of the stage as it was.
            approved: BTreeSet::new(),
            crossings_approved: BTreeSet::new(),
            ..case.clone()
        };
        variants.push((attribute, from.to_owned(), to, changed));
    };
    vocabulary_variants(stage, &mut add);
    declaration_variants(stage, &mut add);
}

/// Every other value of what the tenant matrix is about.
fn vocabulary_variants<'q>(
    stage: &StageCase<'q>,
    mut add: impl FnMut(Attribute, &str, &'static str, StageCase<'q>),
) {
    for &size in Size::ALL.iter().filter(|size| **size != stage.size) {
        let changed = StageCase {
            size,
            ..stage.clone()
        };
        add(Attribute::Size, stage.size.as_str(), size.as_str(), changed);
    }
    for &class in RunnerClass::ALL
        .iter()
        .filter(|class| **class != stage.class)
    {
        let changed = StageCase {
            class,
            ..stage.clone()
        };
        add(
            Attribute::Class,
            stage.class.as_str(),
            class.as_str(),
            changed,
        );
    }
    let profile = stage.network_profile;
    for &network_profile in NetworkProfile::ALL
        .iter()
        .filter(|other| **other != profile)
    {
        let changed = StageCase {
            network_profile,
            ..stage.clone()
        };
        add(
            Attribute::NetworkProfile,
            profile.as_str(),
            network_profile.as_str(),
            changed,
        );
    }
}

/// What the stage could declare otherwise.
fn declaration_variants<'q>(
    stage: &StageCase<'q>,
    mut add: impl FnMut(Attribute, &str, &'static str, StageCase<'q>),
) {
    for isolation in Isolation::ALL
        .into_iter()
        .filter(|other| *other != stage.isolation)
    {
        let changed = StageCase {
            isolation,
            ..stage.clone()
        };
        add(
            Attribute::Isolation,
            stage.isolation.as_str(),
            isolation.as_str(),
            changed,
        );
    }
    if stage.debug_logging {
        let changed = StageCase {
            debug_logging: false,
            ..stage.clone()
        };
        add(Attribute::DebugLogging, "on", "off", changed);
    }
    if stage
        .residency
        .is_none_or(|residency| residency.trim().is_empty())
    {
        let changed = StageCase {
            residency: Some("stated"),
            ..stage.clone()
        };
        add(Attribute::Residency, "none", "stated", changed);
    }
}
