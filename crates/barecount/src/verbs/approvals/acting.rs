//! `barecount approvals grant`, `deny` and `revoke`: answers to what was asked for.

use barecount_client::{
    client::{Answering, Approvals as _, End},
    failure::{Failure, Status},
};
use barecount_model::{
    approval::MAX_RUNS,
    text::{Duration, Instant},
};
use clap::Args;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{print, reason};
use crate::{global::Global, printer::Printer};

/// How long an approval counts that is granted without an end.
const DEFAULT_HOURS: i64 = 24;

/// What is answered, and why.
#[derive(Debug, Args)]
struct Answer {
    /// The approval's identifier, or the beginning of it.
    approval: String,
    /// Why, for those who read the evidence.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
}

/// Grants an approval.
#[derive(Debug, Args)]
pub(crate) struct Grant {
    #[command(flatten)]
    answer: Answer,
    /// Let it count until this moment (RFC 3339), or to the end of this day (UTC). A day from now,
    /// unless an end is given.
    #[arg(long, value_name = "DATE", value_parser = moment, conflicts_with = "span")]
    until: Option<Timestamp>,
    /// Let it count for so long: `90m`, `12h`, `7d`.
    #[arg(long = "for", id = "span", value_name = "DURATION", value_parser = span)]
    span: Option<SignedDuration>,
    /// Let it count for so many runs; for any number, unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RUNS)))]
    runs: Option<u32>,
}

/// Denies an approval.
#[derive(Debug, Args)]
pub(crate) struct Deny {
    #[command(flatten)]
    answer: Answer,
}

/// Revokes an approval.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    answer: Answer,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(date) = text.parse::<Date>()
        && text.len() == 10
    {
        let next = date.tomorrow().map_err(|error| error.to_string())?;
        let end = next.to_zoned(TimeZone::UTC);
        return Ok(end.map_err(|error| error.to_string())?.timestamp());
    }
    let instant = text.parse::<Instant>();
    instant
        .map(Instant::timestamp)
        .map_err(|error| format!("{error}; or write a date, as in 2026-12-31"))
}

fn span(text: &str) -> Result<SignedDuration, String> {
    let duration = text
        .parse::<Duration>()
        .map_err(|error| error.to_string())?;
    i64::try_from(duration.as_millis())
        .map(SignedDuration::from_millis)
        .map_err(|error| error.to_string())
}

impl Grant {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        let now = Timestamp::now();
        let span = self
            .span
            .unwrap_or(SignedDuration::from_hours(DEFAULT_HOURS));
        let end = match self.until {
            Some(until) if until <= now => {
                let what = format!("{until} is over: it would count for no time");
                return Err(Failure::new(Status::Usage, what));
            }
            Some(until) => End::At(until),
            None => End::After(span),
        };
        let runs = self.runs;
        self.answer
            .give(global, printer, Answering::Grant { end, runs })
    }
}

impl Deny {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        self.answer.give(global, printer, Answering::Deny)
    }
}

impl Revoke {
    pub(crate) fn execute(self, global: &Global, printer: &Printer) -> Result<(), Failure> {
        self.answer.give(global, printer, Answering::Revoke)
    }
}

impl Answer {
    /// Puts the answer on record.
    fn give(self, global: &Global, printer: &Printer, verdict: Answering) -> Result<(), Failure> {
        let Self { approval, reason } = self;
        let client = global.client();
        let given = client.answer_approval(&approval, verdict, &reason, printer)?;
        print(printer, &given)
    }
}
