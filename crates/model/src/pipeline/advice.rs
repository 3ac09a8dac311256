//! Warnings: what can run, but is probably not as meant.

use super::Stage;
use super::resolve::SERVERLESS_MAX;
use super::scope::Findings;
use crate::class::{Phase, RunnerClass, Size};
use crate::codes;
use crate::manifest::{Format, StageSpec};
use crate::text::Duration;

/// Warns about the stage at a JSON pointer.
pub(super) fn warn(findings: &mut Findings<'_>, at: &str, spec: &StageSpec, stage: &Stage) {
    secrets(findings, at, spec);
    let own = |key: &str, findings: &Findings<'_>| {
        let place = format!("{at}/{key}");
        if findings.has(&place) {
            place
        } else {
            format!("{at}/name")
        }
    };
    if stage.size == Size::XLarge || stage.custom.is_some() {
        let message = format!("size {} is for exceptional work", stage.size);
        let help = "it needs an approval; right-size from the peaks that past runs recorded";
        let place = own("runner/size", findings);
        findings.warning(codes::OVERSIZED, &place, message, help);
    }
    let long = Duration::from_secs(600)..=SERVERLESS_MAX;
    if stage.class == RunnerClass::Serverless && long.contains(&stage.timeout) {
        let message = format!(
            "stage `{}` is serverless and may run for {}",
            stage.name, stage.timeout
        );
        let help = "beyond ten minutes a container is cheaper and has no limit so near";
        let place = own("timeout", findings);
        findings.warning(codes::LONG_SERVERLESS, &place, message, help);
    }
    let short = stage.timeout <= Duration::from_secs(60);
    let kept = matches!(
        stage.class,
        RunnerClass::Container | RunnerClass::DedicatedCompute
    );
    if kept && short && stage.phase == Phase::Utility && stage.size == Size::Small {
        let message = format!(
            "a {} for a control task of at most {}",
            stage.class, stage.timeout
        );
        let help = "serverless runs small control tasks at a fraction of the cost";
        let place = own("runner/class", findings);
        findings.warning(codes::TINY_CONTAINER, &place, message, help);
    }
    for (index, output) in stage.outputs.iter().enumerate() {
        let rows = output.format != Format::Files;
        if stage.phase == Phase::Kpi && rows && output.tests.is_empty() {
            let message = format!("nothing but its schema gates `{}`", output.dataset);
            let help = "add `tests`: a row count, a range, uniqueness, or a query";
            let place = format!("{at}/outputs/{index}/dataset");
            findings.warning(codes::UNTESTED_OUTPUT, &place, message, help);
        }
    }
}

fn secrets(findings: &mut Findings<'_>, at: &str, spec: &StageSpec) {
    for (name, value) in &spec.env {
        let pointer = format!("{at}/env/{}", crate::document::token(name));
        variable(findings, &pointer, name, value);
    }
    let lists = [("command", &spec.command), ("args", &spec.args)];
    for (key, list) in lists {
        for (index, value) in list.iter().enumerate() {
            if is_secret_value(value) {
                warn_secret(findings, &format!("{at}/{key}/{index}"), "this argument");
            }
        }
    }
}

/// Warns if an environment variable looks as if it held a secret.
pub(super) fn variable(findings: &mut Findings<'_>, pointer: &str, name: &str, value: &str) {
    if is_secret_name(name) && !value.is_empty() || is_secret_value(value) {
        warn_secret(findings, pointer, &crate::diagnostic::quoted(name));
    }
}

fn warn_secret(findings: &mut Findings<'_>, pointer: &str, what: &str) {
    let message = format!("{what} looks like a secret, and a manifest is kept for ever");
    let help = "declare it under `secrets`; the attempt finds its value as a file";
    findings.warning(codes::SECRET_IN_MANIFEST, pointer, message, help);
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let place = [
        "_FILE",
        "_PATH",
        "_DIR",
        "_NAME",
        "_REF",
        "_URL",
        "_TTL",
        "_LIFETIME",
    ];
    let marks = [
        "PASSWORD",
        "PASSWD",
        "SECRET",
        "TOKEN",
        "API_KEY",
        "APIKEY",
        "ACCESS_KEY",
        "PRIVATE_KEY",
        "CREDENTIAL",
    ];
    marks.iter().any(|mark| name.contains(mark)) && !place.iter().any(|end| name.ends_with(end))
}

/// Forms that well-known issuers give to keys and tokens, and addresses with a password inside.
fn is_secret_value(value: &str) -> bool {
    let issued = [
        ("AKIA", 20),
        ("ASIA", 20),
        ("ghp_", 40),
        ("github_pat_", 40),
        ("xoxb-", 30),
        ("sk_live_", 24),
    ];
    let password_in_address = value.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split('/').next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| {
            user.split_once(':')
                .is_some_and(|(_, password)| !password.is_empty())
        })
    });
    let jwt = value.starts_with("eyJ") && value.matches('.').count() == 2;
    value.contains("-----BEGIN ")
        || jwt
        || password_in_address
        || issued
            .iter()
            .any(|(start, length)| value.starts_with(start) && value.len() >= *length)
}
