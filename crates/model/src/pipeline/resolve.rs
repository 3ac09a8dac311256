//! From a manifest as it is written to a pipeline as it runs.

use std::collections::BTreeMap;

use super::data::Writers;
use super::scope::Findings;
use super::{Pipeline, Retries, Stage, advice, crossing, data, graph, runner};
use crate::class::RunnerClass;
use crate::codes;
use crate::diagnostic::{Diagnostic, quoted};
use crate::document::{Document, token};
use crate::manifest::{
    Classification, Defaults, Egress, Manifest, RESERVED_TENANT, RetriesSpec, Spec, StageSpec,
};
use crate::text::{Duration, Name};

/// The longest that a serverless attempt may take, as on AWS Lambda.
pub(super) const SERVERLESS_MAX: Duration = Duration::from_secs(15 * 60);
/// The longest value of an environment variable, and of an argument, in bytes.
const MAX_ARGUMENT_BYTES: usize = 32 * 1024;

/// Resolves a manifest. Without errors among the diagnostics there is a pipeline.
pub(super) fn resolve(
    document: &Document,
    manifest: &Manifest,
) -> (Option<Pipeline>, Vec<Diagnostic>) {
    let mut findings = Findings::new(document);
    let spec = &manifest.spec;
    refuse_duplicate_stages(&mut findings, manifest);
    check_variables(&mut findings, "/spec/defaults/env", &spec.defaults.env);
    for (name, value) in &spec.defaults.env {
        let pointer = format!("/spec/defaults/env/{}", token(name));
        advice::variable(&mut findings, &pointer, name, value);
    }
    let writers = Writers::collect(&mut findings, manifest);
    let names: Vec<&Name> = spec.stages.iter().map(|stage| &stage.name).collect();
    let mut stages = Vec::new();
    let mut depends_on = Vec::new();
    for (index, spec_stage) in spec.stages.iter().enumerate() {
        let at = format!("/spec/stages/{index}");
        let on = data::dependencies(&mut findings, &at, spec_stage, &writers, &names);
        stages.push(
            stage(&mut findings, &at, spec_stage, spec, &writers).map(|stage| Stage {
                depends_on: sorted_names(&on, &names),
                ..stage
            }),
        );
        depends_on.push(on);
    }
    refuse_reserved_tenant(&mut findings, manifest);
    crossing::declare(&mut findings, &spec.stages, &mut stages, &writers);
    let ordered = order(&mut findings, &depends_on, &names);
    let stages: Option<Vec<Stage>> = ordered
        .into_iter()
        .map(|index| stages[index].take())
        .collect();
    let pipeline = stages.map(|stages| Pipeline {
        name: manifest.metadata.name.clone(),
        tenant: manifest.metadata.tenant.clone(),
        owner: manifest.metadata.owner.clone(),
        labels: manifest.metadata.labels.clone(),
        description: spec.description.clone(),
        classification: classification(None, spec),
        schedule: spec.schedule.clone(),
        completes_within: spec.slo.as_ref().map(|slo| slo.completes_within),
        stages,
        imports: BTreeMap::new(),
    });
    (pipeline, findings.into_diagnostics())
}

/// A stage's own classification, or the pipeline's; data is internal unless the manifest says.
fn classification(own: Option<Classification>, pipeline: &Spec) -> Classification {
    own.or(pipeline.classification)
        .unwrap_or(Classification::Internal)
}

fn refuse_reserved_tenant(findings: &mut Findings<'_>, manifest: &Manifest) {
    if manifest.metadata.tenant.as_str() == RESERVED_TENANT {
        let message =
            format!("the tenant `{RESERVED_TENANT}` has what environments themselves need");
        let help = "choose another name";
        findings.error_with_help(codes::INVALID_NAME, "/metadata/tenant", message, help);
    }
}

fn refuse_duplicate_stages(findings: &mut Findings<'_>, manifest: &Manifest) {
    let stages = &manifest.spec.stages;
    for (index, stage) in stages.iter().enumerate() {
        let Some(first) = stages[..index]
            .iter()
            .position(|other| other.name == stage.name)
        else {
            continue;
        };
        let line = findings.line(&format!("/spec/stages/{first}/name"));
        let message = format!(
            "the stage `{}` is already declared on line {line}",
            stage.name
        );
        findings.error(
            codes::DUPLICATE_STAGE,
            &format!("/spec/stages/{index}/name"),
            message,
        );
    }
}

fn sorted_names(indices: &[usize], names: &[&Name]) -> Vec<Name> {
    let mut sorted: Vec<Name> = indices.iter().map(|&index| names[index].clone()).collect();
    sorted.sort();
    sorted
}

fn order(findings: &mut Findings<'_>, depends_on: &[Vec<usize>], names: &[&Name]) -> Vec<usize> {
    match graph::order(depends_on) {
        Ok(ordered) => ordered,
        Err(circle) => {
            let path: Vec<&str> = circle
                .iter()
                .chain(circle.first())
                .map(|&index| names[index].as_str())
                .collect();
            let message = format!("stages wait for each other: {}", path.join(" → "));
            let help = "each arrow is a dataset that is read, or a `needs`; take one of them out";
            let first = circle.first().copied().unwrap_or_default();
            let pointer = format!("/spec/stages/{first}/name");
            findings.error_with_help(codes::CYCLE, &pointer, message, help);
            (0..depends_on.len()).collect()
        }
    }
}

fn stage(
    findings: &mut Findings<'_>,
    at: &str,
    spec: &StageSpec,
    pipeline: &Spec,
    writers: &Writers<'_>,
) -> Option<Stage> {
    let defaults = &pipeline.defaults;
    refuse_egress_twice(findings, at, spec);
    refuse_many_ports(findings, at, spec);
    check_variables(findings, &format!("{at}/env"), &spec.env);
    check_arguments(findings, at, spec);
    check_secret_variables(findings, at, spec, defaults);
    let runner = runner::resolve(findings, at, spec, defaults);
    let class = runner.as_ref().map(|runner| runner.class);
    let timeout = timeout(findings, at, spec, defaults, class);
    let retries = retries(findings, at, &spec.retries, &defaults.retries);
    let partitions = match &spec.partitions {
        Some(spec) => data::partitions(findings, &format!("{at}/partitions"), spec),
        None => None,
    };
    let inputs = data::inputs(findings, at, spec, writers);
    let outputs = data::outputs(findings, at, spec);
    let runner = runner?;
    let mut env = defaults.env.clone();
    env.extend(spec.env.clone());
    let stage = Stage {
        name: spec.name.clone(),
        phase: spec.phase,
        description: spec.description.clone(),
        classification: classification(spec.classification, pipeline),
        residency: spec
            .residency
            .as_ref()
            .or(pipeline.residency.as_ref())
            .cloned(),
        class: runner.class,
        size: runner.size,
        custom: runner.custom,
        network_profile: runner.network_profile,
        egress: spec.egress.clone(),
        egress_mode: spec.egress_mode.unwrap_or_default(),
        work: runner.work,
        drivers: runner.drivers,
        concurrency_limit: runner.concurrency_limit,
        shuffle_partition_hint: runner.shuffle_partition_hint,
        env,
        partitions,
        inputs,
        crossings: Vec::new(),
        outputs,
        isolation: spec.isolation.or(defaults.isolation).unwrap_or_default(),
        retries,
        timeout,
        grace_period: spec.grace_period.or(defaults.grace_period),
        secrets: spec.secrets.clone(),
        depends_on: Vec::new(),
    };
    advice::warn(findings, at, spec, &stage);
    Some(stage)
}

/// One name and port are one destination: what is spoken there cannot be two things.
fn refuse_egress_twice(findings: &mut Findings<'_>, at: &str, spec: &StageSpec) {
    for (index, egress) in spec.egress.iter().enumerate() {
        let same = |other: &&Egress| other.host == egress.host && other.port == egress.port;
        if spec.egress[..index].iter().any(|other| same(&other)) {
            let message = format!("`{}:{}` is declared twice", egress.host, egress.port);
            findings.error(
                codes::INVALID_EGRESS,
                &format!("{at}/egress/{index}"),
                message,
            );
        }
    }
}

/// A sandbox listens on each declared port where its kernel cannot redirect.
fn refuse_many_ports(findings: &mut Findings<'_>, at: &str, spec: &StageSpec) {
    const MOST: usize = 48;
    let ports: std::collections::BTreeSet<u16> =
        spec.egress.iter().map(|egress| egress.port).collect();
    if ports.len() > MOST {
        let message = format!(
            "{} different ports are declared, and a stage has {MOST} at most",
            ports.len()
        );
        findings.error(codes::INVALID_EGRESS, &format!("{at}/egress"), message);
    }
}

fn timeout(
    findings: &mut Findings<'_>,
    at: &str,
    spec: &StageSpec,
    defaults: &Defaults,
    class: Option<RunnerClass>,
) -> Duration {
    let fallback = match class {
        Some(RunnerClass::Serverless) => Duration::from_secs(5 * 60),
        _ => Duration::from_secs(60 * 60),
    };
    let timeout = spec.timeout.or(defaults.timeout).unwrap_or(fallback);
    let own = format!("{at}/timeout");
    let pointer = if spec.timeout.is_some() {
        own.as_str()
    } else {
        "/spec/defaults/timeout"
    };
    if timeout.as_millis() == 0 {
        findings.error(codes::OUT_OF_RANGE, pointer, "an attempt needs some time");
    }
    if class == Some(RunnerClass::Serverless) && timeout > SERVERLESS_MAX {
        let message = format!(
            "stage `{}` may take {timeout}, and a serverless attempt ends after {SERVERLESS_MAX}",
            spec.name
        );
        let help = "set a shorter `timeout` on the stage, or choose the class container";
        findings.error_with_help(codes::TIMEOUT_ABOVE_CLASS, pointer, message, help);
    }
    timeout
}

fn retries(
    findings: &mut Findings<'_>,
    at: &str,
    own: &RetriesSpec,
    inherited: &RetriesSpec,
) -> Retries {
    let initial = own.initial_backoff.or(inherited.initial_backoff);
    let max = own.max_backoff.or(inherited.max_backoff);
    let retries = Retries {
        application: own.application.or(inherited.application).unwrap_or(2),
        infrastructure: own.infrastructure.or(inherited.infrastructure).unwrap_or(3),
        initial_backoff: initial.unwrap_or(Duration::from_secs(1)),
        max_backoff: max
            .or(initial.filter(|i| *i > Duration::from_secs(60)))
            .unwrap_or(Duration::from_secs(60)),
    };
    if retries.initial_backoff > retries.max_backoff {
        let own_key = format!("{at}/retries");
        let pointer = if findings.has(&own_key) {
            &own_key
        } else {
            "/spec/defaults/retries"
        };
        let message = format!(
            "the first pause, {}, is longer than the longest, {}",
            retries.initial_backoff, retries.max_backoff
        );
        findings.error(codes::INVALID_RETRIES, pointer, message);
    }
    retries
}

fn check_variables(findings: &mut Findings<'_>, at: &str, env: &BTreeMap<String, String>) {
    for (name, value) in env {
        let pointer = format!("{at}/{}", token(name));
        if let Err((message, help)) = variable_name(name) {
            findings.key_error(codes::RESERVED_VARIABLE, &pointer, message, help);
        }
        check_argument(findings, &pointer, value);
    }
}

/// Whether a variable may have this name; if not, why, and what to do.
fn variable_name(name: &str) -> Result<(), (String, &'static str)> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let plain = first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let reserved = ["BARECOUNT_", "AWS_LAMBDA_", "OTEL_EXPORTER_"];
    if !plain {
        let message = format!("{} cannot name an environment variable", quoted(name));
        let help = "it has letters, digits and `_`, and no digit comes first";
        return Err((message, help));
    }
    if reserved.iter().any(|prefix| name.starts_with(prefix))
        || matches!(name, "TRACEPARENT" | "TMPDIR" | "_HANDLER")
    {
        let message = format!("{} is set by the platform", quoted(name));
        return Err((message, "choose another name"));
    }
    Ok(())
}

/// A variable that has a secret is that secret's alone.
fn check_secret_variables(
    findings: &mut Findings<'_>,
    at: &str,
    spec: &StageSpec,
    defaults: &Defaults,
) {
    let mut seen = std::collections::BTreeSet::new();
    for (file, secret) in &spec.secrets {
        let Some(name) = &secret.env else { continue };
        let pointer = format!("{at}/secrets/{}/env", token(file.as_str()));
        if let Err((message, help)) = variable_name(name) {
            findings.error_with_help(codes::RESERVED_VARIABLE, &pointer, message, help);
        }
        if spec.env.contains_key(name) || defaults.env.contains_key(name) || !seen.insert(name) {
            let message = format!("{} is set twice", quoted(name));
            let help = "give the variable that has a secret a name of its own";
            findings.error_with_help(codes::INVALID_VALUE, &pointer, message, help);
        }
    }
}

fn check_arguments(findings: &mut Findings<'_>, at: &str, spec: &StageSpec) {
    for (key, list) in [("command", &spec.command), ("args", &spec.args)] {
        for (index, value) in list.iter().enumerate() {
            check_argument(findings, &format!("{at}/{key}/{index}"), value);
        }
    }
    if spec.command.first().is_some_and(String::is_empty) {
        findings.error(
            codes::INVALID_VALUE,
            &format!("{at}/command"),
            "the program has no name",
        );
    }
}

fn check_argument(findings: &mut Findings<'_>, pointer: &str, value: &str) {
    if value.contains('\0') {
        let message = "a program cannot be given a text with the character NUL";
        findings.error(codes::INVALID_VALUE, pointer, message);
    }
    if value.len() > MAX_ARGUMENT_BYTES {
        let message = format!(
            "the text has {} bytes; at most {MAX_ARGUMENT_BYTES}",
            value.len()
        );
        findings.error(codes::OUT_OF_RANGE, pointer, message);
    }
}
