//! What could not be removed.

use std::fs;

use super::{TestResult, chmod, place};
use crate::{Aside, remove, to_the_end};

#[test]
fn what_cannot_be_removed_is_out_of_the_way_and_named_and_tried_again() -> TestResult {
    let state = place()?;
    let aside = Aside::of(&state);
    assert_eq!(aside.retry(&to_the_end)?.removed, 0, "there is none yet");
    let stops = || true;
    for round in 0..2 {
        let tree = state.join("staging/task-1");
        for number in 0..1_000 {
            fs::create_dir_all(tree.join(number.to_string()))?;
        }
        chmod(&tree, 0o555)?;
        let left = aside.remove(&tree, &stops).err().ok_or("it was stopped")?;
        assert!(!tree.exists(), "its name is free");
        let now = left.now.clone().ok_or("it was moved")?;
        assert_eq!(now, state.join(format!("aside/task-1-{round}")));
        assert!(now.exists());
        let told = left.to_string();
        assert!(
            told.contains("staging/task-1") && told.contains("aside/task-1"),
            "{told}"
        );
    }
    let again = aside.retry(&stops)?;
    assert_eq!((again.removed, again.left.len()), (0, 2));
    let again = aside.retry(&to_the_end)?;
    assert_eq!((again.removed, again.left.len()), (2, 0));
    remove(&state, &to_the_end)?;
    Ok(())
}
