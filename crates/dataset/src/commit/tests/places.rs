//! A state folder may have any name that the file system takes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use proptest::prelude::*;

use super::*;

/// Commits a row, and another one beside it; reads both back from the latest version.
async fn commit_and_read(state: &Path, rates: [&str; 2]) -> TestResult<String> {
    let tables = tables_in(state);
    let schema = schema()?;
    let mut uri = String::new();
    for (number, rate) in (0..).zip(rates) {
        let attempt = &format!("a{number}");
        let staged = staged(
            state,
            attempt,
            &schema,
            &format!("year,rate\n2024,{rate}\n"),
        )?;
        let mut decision = decision(attempt, &schema, &staged, WriteMode::Append)?;
        decision.decided_at_ms += number;
        let committed = tables.roll_forward(&decision).await?;
        uri.clone_from(&committed[0].uri);
        // Found again as committed, by whoever repeats it.
        assert_eq!(tables.roll_forward(&decision).await?, committed);
    }
    let snapshot = tables.snapshot(&"gdp.rates".parse()?, None).await?;
    assert_eq!(snapshot.uri, uri);
    let url = url::Url::parse(&uri)?;
    assert_eq!(url.to_file_path(), Ok(tables.root(&snapshot.table)));
    csv_of(&tables, &snapshot)
}

fn check(name: &[u8]) -> TestResult {
    let place = tempfile::tempdir()?;
    let state = place.path().join(OsStr::from_bytes(name));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let read = runtime.block_on(commit_and_read(&state, ["1", "2"]))?;
    assert_eq!(read, "year,rate\n2024,1.000000\n2024,2.000000\n");
    Ok(())
}

#[test]
fn a_table_is_read_back_below_a_folder_whose_name_a_url_would_change() -> TestResult {
    for name in [
        "job_feature%2Flogin",
        "100%25",
        "%",
        "back\\slash",
        "a b",
        "what?",
        "#1",
        "tab\tand\nline",
        "état",
        "~",
        "file:",
    ] {
        check(name.as_bytes()).map_err(|error| format!("{name:?}: {error}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn the_folder_that_a_decoded_name_means_is_another_one() -> TestResult {
    let place = tempfile::tempdir()?;
    let plain = commit_and_read(&place.path().join("my state"), ["1", "2"]).await?;
    let encoded = commit_and_read(&place.path().join("my%20state"), ["3", "4"]).await?;
    assert_eq!(plain, "year,rate\n2024,1.000000\n2024,2.000000\n");
    assert_eq!(encoded, "year,rate\n2024,3.000000\n2024,4.000000\n");
    Ok(())
}

/// Names of one folder: mostly what paths, URLs and shells treat specially, and any other byte.
fn names() -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(b"%25F\\ #?;:&+*'\"<>|~=@![]{}.,\n\t\r\x7f".as_slice());
    let byte = prop_oneof![3 => special, 1 => any::<u8>()];
    prop::collection::vec(byte, 1..24).prop_filter("no name of a folder", |name| {
        !name.contains(&0) && !name.contains(&b'/') && name != b"." && name != b".."
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_table_is_read_back_below_a_folder_of_any_name(name in names()) {
        let done = check(&name);
        prop_assert!(done.is_ok(), "{}: {:?}", name.escape_ascii(), done);
    }
}
