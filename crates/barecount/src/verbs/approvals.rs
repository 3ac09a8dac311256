//! `barecount approvals`.

mod acting;
mod asking;

use barecount_api::page::PageRequest;
use barecount_client::{client::Approvals as _, failure::Failure};
use barecount_model::approval::{Approval, Signed};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::{
    acting::{Deny, Grant, Revoke},
    asking::Request,
};
use crate::{
    global::Global,
    printer::{Printer, Table},
    tenant::{OfTenant, several},
};

/// Ask for exceptions from policy, and answer those who ask. Every act is a signed entry of evidence.
#[derive(Debug, Subcommand)]
pub(crate) enum Approvals {
    /// Ask for what a refused pipeline would need: for each stage that approvals would permit, or for
    /// the one that is named.
    ///
    /// An approval is of the stage as it is: of its class, size, network profile, drivers, secrets
    /// and crossings, and of the policies in force. Where one of them changes it counts no longer.
    Request(Request),
    /// List approvals, newest first.
    Ls {
        #[command(flatten)]
        of: OfTenant,
        /// Only those that are so now.
        #[arg(long, value_enum, value_name = "STATE")]
        only: Option<Standing>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show an approval: what it is asked of, who did what to it, and why.
    Show {
        /// The approval's identifier, or the beginning of it.
        approval: String,
    },
    /// Grant an approval that somebody else has asked for.
    Grant(Grant),
    /// Deny an approval that was asked for.
    Deny(Deny),
    /// Take an approval back: as an approver, or as whoever asked for it.
    Revoke(Revoke),
}

/// What has become of an approval, as the time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Nobody has answered.
    Requested,
    /// It counts.
    Granted,
    /// It was not given.
    Denied,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
    /// It was used as often as it was granted for.
    UsedUp,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::UsedUp => "used_up",
        }
    }
}

impl Approvals {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        match self {
            Self::Request(verb) => verb.execute(global, printer),
            Self::Ls { of, only, limit } => list(global, printer, &of, only, limit),
            Self::Show { approval } => print(printer, &global.client().approval(&approval)?),
            Self::Grant(verb) => verb.execute(global, printer),
            Self::Deny(verb) => verb.execute(global, printer),
            Self::Revoke(verb) => verb.execute(global, printer),
        }
    }
}

/// No reason is longer.
const MAX_REASON_BYTES: usize = 1_000;

fn reason(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.len() > MAX_REASON_BYTES {
        return Err(format!("a reason has 1 to {MAX_REASON_BYTES} bytes"));
    }
    Ok(trimmed.to_owned())
}

fn list(
    global: &Global,
    printer: &Printer,
    of: &OfTenant,
    standing: Option<Standing>,
    limit: u32,
) -> Result<(), Failure> {
    let now = Timestamp::now();
    let is = |approval: &Approval| {
        standing.is_none_or(|standing| approval.standing(now) == standing.as_str())
    };
    let wanted = limit as usize;
    let (mut found, mut page) = (Vec::new(), PageRequest::first(limit.max(1)));
    while found.len() < wanted {
        let one = global.client().approvals(of.name(), &page)?;
        found.extend(one.items.into_iter().filter(|one| is(one)));
        page.after = one.next;
        if page.after.is_none() {
            break;
        }
    }
    found.truncate(wanted);
    let items: Vec<Value> = found.iter().map(|one| facts(one, now)).collect();
    printer.list("approvals", &items, || {
        let mut table = Table::new(
            &[
                "approval",
                "tenant",
                "pipeline",
                "stage",
                "scopes",
                "state",
                "requester",
                "approver",
            ],
            "no approvals",
        );
        for approval in &found {
            let asked = &approval.asked;
            let approver = approval.granted.as_ref().or(approval.ended.as_ref());
            table.row([
                approval.id.to_string(),
                asked.tenant.clone(),
                asked.pipeline.clone(),
                asked.stage.clone(),
                scopes(approval),
                approval.standing(now).to_owned(),
                approval.requested.by.clone(),
                approver.map_or_else(|| "-".to_owned(), |signed| signed.by.clone()),
            ]);
        }
        match several(found.iter().map(|one| one.asked.tenant.as_str())) {
            true => table,
            false => table.without("tenant"),
        }
    })
}

fn scopes(approval: &Approval) -> String {
    let scopes = approval.asked.scopes.iter();
    scopes
        .map(|scope| scope.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// An approval, and what has become of it as the time is.
fn facts(approval: &Approval, now: Timestamp) -> Value {
    let mut value = json!(approval);
    value["standing"] = json!(approval.standing(now));
    value["runs_left"] = json!(approval.runs_left(None));
    value
}

/// `barecount/approval/v1`.
fn print(printer: &Printer, approval: &Approval) -> Result<(), Failure> {
    let now = Timestamp::now();
    let mut value = facts(approval, now);
    value["schema"] = json!("barecount/approval/v1");
    printer.data(&value, || text(approval, now))
}

fn text(approval: &Approval, now: Timestamp) -> String {
    let asked = &approval.asked;
    let mut text = String::new();
    let mut line = |label: &str, what: &str| text.push_str(&format!("{label:<14}{what}\n"));
    line("approval", &approval.id.printed());
    line("state", approval.standing(now));
    line("scopes", &scopes(approval));
    line("tenant", &asked.tenant);
    line("environment", &asked.environment);
    let stage = format!(
        "{} of pipeline {}: {}, {}, {}",
        asked.stage, asked.pipeline, asked.class, asked.size, asked.network_profile
    );
    line("stage", &stage);
    if !asked.datasets.is_empty() {
        let datasets: Vec<_> = asked.datasets.iter().map(String::as_str).collect();
        line("crossing", &datasets.join(", "));
    }
    line("question", &asked.question.to_string());
    let act = |signed: &Signed| {
        format!(
            "by {} at {} (entry {}): {}",
            signed.by, signed.at, signed.entry, signed.reason
        )
    };
    line("requested", &act(&approval.requested));
    if let Some(granted) = &approval.granted {
        line("granted", &act(granted));
    }
    if let Some(term) = approval.term {
        let runs = match (term.runs, approval.runs_left(None)) {
            (Some(runs), Some(left)) => format!("; {left} of {runs} runs are left"),
            _ => format!("; for any number of runs, {} so far", approval.used),
        };
        line("counts until", &format!("{}{runs}", term.until));
    }
    if let Some(ended) = &approval.ended {
        line(approval.state.as_str(), &act(ended));
    }
    text
}
