//! Measures a policy decision a stage, against the budget of 50 µs at p99; prints JSON lines.
//!
//! `cargo run --release -p barecount-control --example policy_latency`
#![expect(
    clippy::print_stdout,
    reason = "a measurement is printed for whoever asked for it"
)]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use barecount_control::governance::{
    Action, Allowed, EnvironmentFacts, EnvironmentKind, Governance, Isolation, Matrix, MatrixRow,
    PipelineFacts, Question, StageFacts,
};
use barecount_model::class::{NetworkProfile, RunnerClass, Size};

const WARM_UP: usize = 500;
const ROUNDS: usize = 10_000;
const BUDGET_US: f64 = 50.0;

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let governance = Governance::load(&[])?;
    let load_ms = started.elapsed().as_secs_f64() * 1000.0;
    println!(
        "{}",
        serde_json::json!({"bench": "policy_load", "milliseconds": load_ms})
    );
    for stages in [1, 5, 50] {
        measure(&governance, "permitted", &question(stages, Size::Medium))?;
    }
    measure(&governance, "refused", &question(1, Size::XLarge))?;
    Ok(())
}

fn measure(governance: &Governance, case: &str, question: &Question) -> Result<(), Box<dyn Error>> {
    let stages = question.stages.len();
    let rounds = ROUNDS / stages;
    let mut micros = Vec::with_capacity(rounds);
    for round in 0..WARM_UP / stages + rounds {
        let started = Instant::now();
        let verdict = black_box(governance.decide(black_box(question)));
        let elapsed = started.elapsed().as_secs_f64() * 1e6;
        if verdict.is_permitted() != (case == "permitted") {
            return Err(format!("unexpected answer: {}", verdict.explanation().headline()).into());
        }
        if round >= WARM_UP / stages {
            micros.push(elapsed / stages as f64);
        }
    }
    micros.sort_by(f64::total_cmp);
    let at = |quantile: f64| micros[((micros.len() - 1) as f64 * quantile) as usize];
    let line = serde_json::json!({
        "bench": "policy_decision", "case": case, "stages": stages, "rounds": rounds,
        "per_stage_us": {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)},
        "budget_p99_us": (case == "permitted").then_some(BUDGET_US),
    });
    println!("{line}");
    Ok(())
}

fn question(stages: usize, size: Size) -> Question {
    let row = MatrixRow {
        name: "batch".to_owned(),
        classes: Allowed::ANY,
        sizes: Allowed::Only(vec![Size::Small, Size::Medium, Size::Large]),
        network_profiles: Allowed::ANY,
    };
    let stage = |position: usize| StageFacts {
        name: format!("stage-{position}"),
        class: RunnerClass::ManagedEtl,
        size,
        custom_size: None,
        network_profile: NetworkProfile::PrivateVpc,
        isolation: Isolation::Sandbox,
        classification: "internal".to_owned(),
        drivers: vec!["sqlite".to_owned()],
        has_secrets: false,
        has_secret_variables: false,
        debug_logging: false,
        residency: None,
        privately_reachable: Vec::new(),
        crossings: Vec::new(),
    };
    Question {
        action: Action::Run,
        tenant: "demo".to_owned(),
        environment: EnvironmentFacts {
            name: "live".to_owned(),
            kind: EnvironmentKind::Production,
        },
        requester: "data-engineer".to_owned(),
        pipeline: PipelineFacts {
            name: "fx-rates".to_owned(),
            version: "3".to_owned(),
            owner: "data-platform@example.com".to_owned(),
            classification: "internal".to_owned(),
        },
        stages: (0..stages).map(stage).collect(),
        matrix: Matrix {
            tenants: [("demo".to_owned(), vec![row])].into(),
            ..Matrix::default()
        },
        approvals: Vec::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
    }
}
