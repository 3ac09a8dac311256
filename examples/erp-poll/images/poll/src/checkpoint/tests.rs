use std::error::Error;

use serde_json::json;

use super::*;

type Outcome = Result<(), Box<dyn Error>>;

/// The task whose attempts these are, and the one that polls next.
const TASK: &str = "task_1";
const NEXT: &str = "task_2";

fn page(number: u64) -> Taken {
    Taken {
        rows: vec![
            (0..COLUMNS.len())
                .map(|at| format!("{number}-{at}"))
                .collect(),
        ],
        letters: vec![DeadLetter::new(
            &json!({ "page": number }),
            "odd".to_owned(),
            "",
        )],
    }
}

fn row(number: u64) -> String {
    let fields: Vec<String> = (0..COLUMNS.len())
        .map(|at| format!("{number}-{at}"))
        .collect();
    fields.join(",")
}

#[test]
fn another_attempt_goes_on_behind_the_last_page_and_hands_everything_over_once() -> Outcome {
    let (saved, output) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut first = Checkpoint::open(saved.path(), TASK)?;
    assert_eq!(first.state().cursor, None);
    assert_eq!(first.state().spooled, Spooled::default());
    first.save(&page(1), "one".to_owned())?;
    drop(first);
    let mut second = Checkpoint::open(saved.path(), TASK)?;
    assert_eq!(second.state().cursor.as_deref(), Some("one"));
    second.save(&page(2), "two".to_owned())?;
    let handed = second.hand_over(output.path())?;
    assert_eq!((handed.pages, handed.rows, handed.letters), (2, 2, 2));
    let rows = fs::read_to_string(output.path().join("raw.erp_orders/part-0.csv"))?;
    assert_eq!(
        rows,
        format!("{}\n{}\n{}\n", COLUMNS.join(","), row(1), row(2))
    );
    let letters = fs::read_to_string(output.path().join("_dead_letters/raw.erp_orders.jsonl"))?;
    assert_eq!(letters.lines().count(), 2);
    // The next poll begins where this one ended, with nothing of it.
    let next = Checkpoint::open(saved.path(), NEXT)?;
    assert_eq!(next.state().cursor.as_deref(), Some("two"));
    assert_eq!(next.state().spooled, Spooled::default());
    Ok(())
}

#[test]
fn an_attempt_that_is_stopped_after_it_handed_over_and_before_its_answer_loses_nothing() -> Outcome
{
    let saved = tempfile::tempdir()?;
    let table = |output: &Path| fs::read_to_string(output.join("raw.erp_orders/part-0.csv"));
    let mut first = Checkpoint::open(saved.path(), TASK)?;
    first.save(&page(1), "one".to_owned())?;
    let swept = tempfile::tempdir()?;
    first.hand_over(swept.path())?;
    let handed = table(swept.path())?;
    drop(swept);
    // Its checkpoint is handed on; its outputs are gone.
    let output = tempfile::tempdir()?;
    let mut second = Checkpoint::open(saved.path(), TASK)?;
    assert_eq!(second.state().cursor.as_deref(), Some("one"));
    second.save(&page(2), "two".to_owned())?;
    second.hand_over(output.path())?;
    assert_eq!(table(output.path())?, format!("{handed}{}\n", row(2)));
    // That one was accepted. What comes after has nothing of it, whatever becomes of it.
    let mut third = Checkpoint::open(saved.path(), NEXT)?;
    third.save(&page(3), "three".to_owned())?;
    for _ in 0..2 {
        let output = tempfile::tempdir()?;
        let handed = Checkpoint::open(saved.path(), NEXT)?.hand_over(output.path())?;
        assert_eq!((handed.pages, handed.rows, handed.letters), (1, 1, 1));
        let expected = format!("{}\n{}\n", COLUMNS.join(","), row(3));
        assert_eq!(table(output.path())?, expected);
    }
    Ok(())
}

#[test]
fn a_spool_from_before_tasks_were_noted_is_that_of_the_task_that_finds_it() -> Outcome {
    let (saved, output) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut first = Checkpoint::open(saved.path(), TASK)?;
    first.save(&page(1), "one".to_owned())?;
    let state = fs::read_to_string(saved.path().join(STATE))?;
    let older = state.replace(r#""task":"task_1","#, "");
    assert_ne!(older, state);
    fs::write(saved.path().join(STATE), older)?;
    let handed = Checkpoint::open(saved.path(), NEXT)?.hand_over(output.path())?;
    assert_eq!(handed.rows, 1);
    Ok(())
}

#[test]
fn bytes_that_no_state_covers_are_cut_off() -> Outcome {
    let (saved, output) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut checkpoint = Checkpoint::open(saved.path(), TASK)?;
    checkpoint.save(&page(1), "one".to_owned())?;
    // It died between the rows of the second page and the state that covers them.
    let mut rows = OpenOptions::new()
        .append(true)
        .open(saved.path().join(ROWS))?;
    rows.write_all(b"2-0,2-1,half a ro")?;
    let handed = Checkpoint::open(saved.path(), TASK)?.hand_over(output.path())?;
    assert_eq!(handed.rows, 1);
    let rows = fs::read_to_string(output.path().join("raw.erp_orders/part-0.csv"))?;
    assert_eq!(rows, format!("{}\n{}\n", COLUMNS.join(","), row(1)));
    Ok(())
}

#[test]
fn a_state_that_is_not_ours_or_covers_more_than_there_is_is_refused() -> Outcome {
    let saved = tempfile::tempdir()?;
    let mut checkpoint = Checkpoint::open(saved.path(), TASK)?;
    checkpoint.save(&page(1), "one".to_owned())?;
    fs::write(saved.path().join(ROWS), "1")?;
    let refused = Checkpoint::open(saved.path(), TASK)
        .err()
        .map(|error| error.status());
    assert_eq!(refused, Some(Status::DataErr));
    fs::write(saved.path().join(STATE), "{\"page\":1}")?;
    let refused = Checkpoint::open(saved.path(), TASK)
        .err()
        .map(|error| error.status());
    assert_eq!(refused, Some(Status::DataErr));
    Ok(())
}

#[test]
fn a_poll_without_orders_hands_over_an_empty_table() -> Outcome {
    let (saved, output) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let mut checkpoint = Checkpoint::open(saved.path(), TASK)?;
    checkpoint.save(&Taken::default(), "none".to_owned())?;
    checkpoint.hand_over(output.path())?;
    let rows = fs::read_to_string(output.path().join("raw.erp_orders/part-0.csv"))?;
    assert_eq!(rows, format!("{}\n", COLUMNS.join(",")));
    assert!(!output.path().join("_dead_letters").exists());
    Ok(())
}

#[test]
fn a_poll_is_enough_before_its_checkpoint_is_more_than_the_platform_takes() -> Outcome {
    const PLATFORM_TAKES: u64 = 16 << 20;
    let saved = tempfile::tempdir()?;
    let mut checkpoint = Checkpoint::open(saved.path(), TASK)?;
    // As much as a page can have: every record wrong, and of characters that JSON writes longest.
    let record = json!("\u{1}".repeat(MOST_RECORD));
    let letters = || {
        let letter = |_| DeadLetter::new(&record, "\u{1}".repeat(1_100), &"x".repeat(71));
        (0..500).map(letter).collect()
    };
    while !checkpoint.is_full() {
        let taken = Taken {
            rows: Vec::new(),
            letters: letters(),
        };
        checkpoint.save(&taken, "next".to_owned())?;
    }
    let bytes = fs::metadata(saved.path().join(LETTERS))?.len();
    assert!(bytes < PLATFORM_TAKES, "{bytes}");
    Ok(())
}
