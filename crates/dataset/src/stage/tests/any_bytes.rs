//! Whatever the bytes are, they are rows, dead letters, or malformed as a whole.

use proptest::prelude::*;

use super::*;

/// None where the file as a whole is not of its format.
fn staged_or_malformed(staged: TestResult<Seen>) -> Result<Option<Seen>, TestCaseError> {
    match staged {
        Ok(staged) => Ok(Some(staged)),
        Err(error) => match error.downcast_ref::<StageError>() {
            Some(StageError::Malformed { .. }) => Ok(None),
            _ => Err(TestCaseError::fail(error.to_string())),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_after_a_header_are_rows_or_dead_letters_or_malformed(
        body in prop_oneof![
            any::<Vec<u8>>(),
            prop::collection::vec(
                prop::sample::select(b"\",\n\r19-USD\xff ".to_vec()), 0..200
            ),
        ],
    ) {
        let run = || -> TestResult<Seen> {
            let mut output = Output::new(OutputFormat::Csv)?;
            output.spec.limits.max_record_bytes = 64;
            let bytes = [b"date,currency,rate\n".as_slice(), &body].concat();
            Ok(output.write("a.csv", bytes)?.stage()?)
        };
        let Some(staged) = staged_or_malformed(run())? else { return Ok(()) };
        let lines = body.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64 + 1;
        prop_assert!(staged.rows + staged.dead_letters <= lines);
    }

    #[test]
    fn any_bytes_as_json_lines_are_rows_or_dead_letters_or_malformed(body in any::<Vec<u8>>()) {
        let run = || -> TestResult<Seen> {
            Ok(Output::new(OutputFormat::Ndjson)?.write("a.ndjson", &body)?.stage()?)
        };
        let Some(staged) = staged_or_malformed(run())? else { return Ok(()) };
        prop_assert_eq!(staged.rows, 0);
    }
}
