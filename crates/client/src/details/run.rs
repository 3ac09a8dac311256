//! A run as the store has it, held against what was signed of it.

use barecount_api::run::Difference;
use barecount_model::{
    evidence::{self, Shown},
    plan::Plan,
    run::{Run, outcome::CommittedDataset},
};

use crate::{
    embedded::runs::Found,
    failure::Failure,
    log::{Log, damaged},
};

/// Where a run is not what its entries in the ledger say, as far as they are signed.
///
/// # Errors
/// If an entry is not the one that was signed, or cannot be read.
pub(crate) fn hold(
    log: &Log,
    (run, plan): (&Run, &Plan),
    found: &Found<'_>,
) -> Result<Vec<Difference>, Failure> {
    let mut statements = Vec::new();
    for entry in found.evidence {
        if let Some(bytes) = log.entry(entry.index)? {
            statements.push((entry.index, bytes));
        }
    }
    let outputs: Vec<_> = found
        .outputs
        .iter()
        .map(|output| {
            let committed = CommittedDataset {
                dataset: output.dataset.clone(),
                uri: output.uri.clone(),
                version: output.version,
                rows: output.rows,
                bytes: output.bytes,
                digest: output.digest.clone(),
            };
            (output.partition.clone(), committed)
        })
        .collect();
    let shown = Shown {
        run,
        plan,
        outputs: &outputs,
    };
    // What is not signed yet is still to come.
    let all = statements.len() == found.evidence.len();
    let signed = statements.iter().map(|(index, bytes)| (*index, &**bytes));
    let differences = evidence::differences(shown, signed, all);
    let differences = differences.map_err(|error| damaged(&error))?;
    Ok(differences.into_iter().map(told).collect())
}

fn told(difference: evidence::Difference) -> Difference {
    Difference {
        entry: difference.entry,
        what: difference.what.into(),
        signed: difference.signed.map(Into::into),
        stored: difference.stored.map(Into::into),
    }
}
