//! A fuzzer that finds nothing might be looking at nothing: it must find what is broken on purpose.

use std::{
    fs,
    process::{Command, Output},
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn fuzz(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_barecount-fuzz"))
        .args(["--seconds", "1", "--patience", "1", "--seed", "1"])
        .args(arguments)
        .output()
}

/// The fuzzer must fail, say this, keep the input, and name the command that shows it again.
fn finds(target: &str, expected: &str) -> TestResult {
    let folder = tempfile::tempdir()?;
    let found = folder.path().to_str().ok_or("the folder's name is text")?;
    let output = fuzz(&[target, "--found", found])?;
    let told = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(expected), "{told}");
    let kept = fs::read_dir(folder.path())?
        .next()
        .ok_or("an input is kept")??
        .path();
    assert_eq!(fs::read(&kept)?, b"input");
    assert!(
        told.contains(&format!("fuzz {target} --input {}", kept.display())),
        "{told}"
    );
    Ok(())
}

#[test]
fn a_panic_is_found_with_its_message() -> TestResult {
    finds("selftest-panic", "an input of 5 bytes made it panic")?;
    finds("selftest-panic", "as it is meant to")
}

#[test]
fn too_much_memory_is_found() -> TestResult {
    finds("selftest-memory", "ended it by signal 6")
}

#[test]
fn an_input_that_takes_for_ever_is_found() -> TestResult {
    finds("selftest-hang", "took more than 1 s")
}

#[test]
fn an_exhausted_stack_is_found() -> TestResult {
    finds("selftest-stack", "has overflowed its stack")
}

#[test]
fn a_misspelt_target_is_told_the_names() -> TestResult {
    let output = fuzz(&["manifst"])?;
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr)?;
    assert!(
        told.contains("there is no target `manifst`; there are manifest, "),
        "{told}"
    );
    Ok(())
}
