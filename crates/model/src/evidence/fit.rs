//! Keeping a statement within what an entry of the ledger may have.
//!
//! A run may have a thousand tasks, a stage hundreds of destinations and an attempt tried each of
//! them: facts without a bound, in an entry that has one. An entry that does not fit would stop
//! the log for everything behind it. So what is largest makes way for its digest, and whoever
//! holds the run's own record can show that it is the one that is meant.

use serde::Serialize;
use serde_json::{Value, json};

use super::{canonical, canonical_json};
use crate::digest::Digest;

/// The most bytes that a statement has: what a C2SP entry bundle can hold, whose entries are
/// prefixed with their length as 16 bits.
pub const MAX_STATEMENT_BYTES: usize = u16::MAX as usize;

/// The one member of the object that stands in the place of what did not fit: an object with
/// `digest` and `bytes` of its canonical JSON.
pub const OMITTED: &str = "omitted";

/// Members smaller than this do not make an entry long: they go with what they are in.
const SMALL: usize = 1 << 10;

/// The canonical JSON of a statement, within `limit` bytes whatever its predicate and subjects
/// hold. The same facts give the same bytes here as well.
pub(super) fn fitting(document: &impl Serialize, limit: usize) -> String {
    let mut text = canonical::text(document);
    if text.len() <= limit {
        return text;
    }
    let mut document = canonical::value(document);
    while text.len() > limit && shorten(&mut document) {
        text = canonical::text(&document);
    }
    text
}

/// Makes one thing in the document shorter; `false` if nothing is left that can be.
fn shorten(document: &mut Value) -> bool {
    let subjects = size_of(document.get("subject"));
    let predicate = size_of(document.get("predicate"));
    let order = if subjects > predicate {
        [shorten_subjects, shorten_predicate]
    } else {
        [shorten_predicate, shorten_subjects]
    };
    order.into_iter().any(|shorten| shorten(document))
}

fn shorten_predicate(document: &mut Value) -> bool {
    let Some(predicate) = document.get_mut("predicate") else {
        return false;
    };
    match largest(predicate) {
        Some((key, _)) => omit_within(&mut predicate[key.as_str()]),
        None => false,
    }
}

/// Descends to what makes it long, so that what stands beside that stays, above all the digests of
/// records that lie outside the ledger.
fn omit_within(mut value: &mut Value) -> bool {
    while let Some((key, size)) = largest(value)
        && size >= SMALL
    {
        value = &mut value[key.as_str()];
    }
    omit(value)
}

fn omit(value: &mut Value) -> bool {
    let text = canonical_json(value);
    let stand_in = stand_in(&text);
    if canonical_json(&stand_in).len() >= text.len() {
        return false;
    }
    *value = stand_in;
    true
}

fn stand_in(text: &str) -> Value {
    json!({ OMITTED: { "bytes": text.len(), "digest": Digest::of(text.as_bytes()) } })
}

fn is_stand_in(value: &Value) -> bool {
    let only = value.as_object().filter(|members| members.len() == 1);
    only.is_some_and(|members| members.contains_key(OMITTED))
}

/// Subjects have a form of their own, so the last half of them makes way for one that has the
/// digest of what it stands for.
fn shorten_subjects(document: &mut Value) -> bool {
    let Some(subjects) = document.get_mut("subject").and_then(Value::as_array_mut) else {
        return false;
    };
    if subjects.len() < 3 {
        return false;
    }
    let rest = subjects.split_off(subjects.len() / 2);
    let digest = Digest::of(canonical_json(&Value::Array(rest)).as_bytes());
    subjects.push(json!({ "name": OMITTED, "digest": { "sha256": digest.hex() } }));
    true
}

/// The member of an object that takes the most bytes, unless it stands for something already. The
/// first of equals, in the order of keys.
fn largest(value: &Value) -> Option<(String, usize)> {
    let members = value.as_object()?;
    let mut sizes: Vec<(&String, usize)> = members
        .iter()
        .filter(|(_, member)| !is_stand_in(member))
        .map(|(key, member)| (key, size_of(Some(member))))
        .collect();
    sizes.sort_by(|(a, a_size), (b, b_size)| b_size.cmp(a_size).then_with(|| a.cmp(b)));
    sizes.first().map(|(key, size)| ((*key).clone(), *size))
}

fn size_of(value: Option<&Value>) -> usize {
    value.map_or(0, |value| canonical_json(value).len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{EvidenceKind, Subject, statement};

    fn within(document: &Value) -> bool {
        canonical_json(document).len() <= MAX_STATEMENT_BYTES
    }

    fn read(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).expect("a statement is JSON")
    }

    fn digest_of(value: &Value) -> Value {
        let text = canonical_json(value);
        json!({ "bytes": text.len(), "digest": Digest::of(text.as_bytes()) })
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let document = json!({ "predicate": { "a": "b".repeat(100) }, "subject": [] });
        let text = fitting(&document, MAX_STATEMENT_BYTES);
        assert_eq!(text, canonical_json(&document));
        assert_eq!(fitting(&document, text.len()), text);
    }

    #[test]
    fn the_tasks_of_a_run_of_many_make_way_for_their_digest_and_the_rest_stays() {
        let tasks: Value = (0..1_200)
            .map(|number| json!({ "id": format!("task_{number:026}"), "state": "succeeded" }))
            .collect();
        let predicate = json!({ "run": { "id": "run_1" }, "state": "succeeded", "tasks": tasks });
        let statement = statement(EvidenceKind::Run, &[], predicate);
        let found = read(&statement.bytes);
        assert!(within(&found));
        assert_eq!(found["predicate"]["run"]["id"], "run_1");
        assert_eq!(found["predicate"]["state"], "succeeded");
        assert_eq!(found["predicate"]["tasks"][OMITTED], digest_of(&tasks));
    }

    #[test]
    fn of_a_long_detail_only_what_is_long_goes() {
        let path: Value = (0..8_000)
            .map(|number| json!({ "address": number }))
            .collect();
        let network = json!({ "left_out": 3, "digest": "sha256:00", "records": path });
        let detail = json!({ "network": network, "access": { "reads": 3 } });
        let predicate = json!({ "detail": detail, "attempt": 1 });
        let found = read(&statement(EvidenceKind::Attempt, &[], predicate).bytes);
        let found = &found["predicate"]["detail"];
        assert_eq!(found["access"]["reads"], 3);
        assert_eq!(found["network"]["digest"], "sha256:00");
        assert_eq!(found["network"]["left_out"], 3);
        assert_eq!(found["network"]["records"][OMITTED], digest_of(&path));
    }

    #[test]
    fn many_things_of_middling_size_make_way_until_the_entry_fits() {
        let members: serde_json::Map<String, Value> = (0..64)
            .map(|number| (format!("m{number:02}"), "x".repeat(2_000).into()))
            .collect();
        let found = read(&statement(EvidenceKind::Build, &[], Value::Object(members)).bytes);
        assert!(within(&found));
        let left: Vec<&Value> = found["predicate"]
            .as_object()
            .into_iter()
            .flat_map(|members| members.values())
            .filter(|member| member.is_string())
            .collect();
        assert!(left.len() > 20, "{} are left", left.len());
    }

    #[test]
    fn subjects_without_end_make_way_for_one_that_has_their_digest() {
        let subjects: Vec<Subject> = (0..5_000)
            .map(|number| Subject::new(format!("dataset_{number}"), &"0".repeat(64)))
            .collect();
        let predicate = json!({ "outputs": vec!["y"; 50_000] });
        let first = statement(EvidenceKind::Commit, &subjects, predicate.clone());
        let found = read(&first.bytes);
        assert!(within(&found));
        let kept = found["subject"].as_array().map_or(0, Vec::len);
        assert!(kept > 2, "{kept} are left");
        assert_eq!(found["subject"][kept - 1]["name"], OMITTED);
        assert_eq!(found["subject"][0]["name"], "dataset_0");
        assert_eq!(first, statement(EvidenceKind::Commit, &subjects, predicate));
    }

    #[test]
    fn text_and_keys_that_grow_when_they_are_written_count_as_they_are_written() {
        let predicate = json!({ "detail": { "\u{1}".repeat(9_000): "\u{1}".repeat(20_000) } });
        assert!(within(&read(
            &statement(EvidenceKind::Attempt, &[], predicate).bytes
        )));
    }
}
