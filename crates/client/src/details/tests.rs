use barecount_model::evidence::{MAX_STATEMENT_BYTES, OMITTED, statement};
use serde_json::json;

use super::*;

/// An entry that shows so many flows, and so many accesses.
fn entry(shown: usize) -> Value {
    let padded = |number: usize| json!({ "number": number, "name": "x".repeat(100) });
    let records: Vec<Value> = (0..shown).map(padded).collect();
    json!({
        "run": { "id": RunId::from_bytes([1; 16]) },
        "task": { "id": TaskId::from_bytes([2; 16]), "stage": "poll", "partition": null },
        "attempt": 1,
        "detail": {
            "network": {
                "digest": Digest::of(b"flows"), "totals": {}, "left_out": 0, "records": records,
            },
            "secrets": { "digest": Digest::of(b"secrets"), "records": records },
            "identity": {
                "accesses": { "allowed": shown, "refused": 2, "left_out": 0, "records": records },
            },
        },
    })
}

fn parsed(predicate: Value) -> Result<AttemptEntry, Box<dyn std::error::Error>> {
    let statement = statement(EvidenceKind::Attempt, &[], predicate);
    assert!(statement.bytes.len() <= MAX_STATEMENT_BYTES);
    Ok(AttemptEntry::parse(3, &statement.bytes)?.ok_or("it is an attempt's")?)
}

#[test]
fn an_entry_too_long_to_show_its_records_still_names_them() -> Result<(), Box<dyn std::error::Error>>
{
    let entry = parsed(entry(2_000))?;
    let named: Vec<Digest> = entry.records().map(|named| named.digest).collect();
    assert_eq!(named, [Digest::of(b"flows"), Digest::of(b"secrets")]);
    let accesses = entry.accesses().ok_or("they are counted")?;
    assert!(accesses.records.records().is_empty());
    assert_eq!(accesses.unlisted(), 2_002);
    Ok(())
}

#[test]
fn an_entry_of_usual_length_shows_them() -> Result<(), Box<dyn std::error::Error>> {
    let entry = parsed(entry(2))?;
    let accesses = entry.accesses().ok_or("they are counted")?;
    assert_eq!(accesses.records.records().len(), 2);
    assert_eq!(accesses.unlisted(), 0);
    assert_eq!(entry.records().count(), 2);
    Ok(())
}

#[test]
fn an_entry_without_the_digest_of_its_record_is_not_taken_for_one_without_a_record() {
    let mut damaged = entry(1);
    damaged["detail"]["network"] = json!({ OMITTED: { "bytes": 9, "digest": "sha256:00" } });
    assert!(parsed(damaged).is_err());
}
