use std::error::Error;
use std::fs;
use std::io::Write;

use tempfile::TempDir;
use zip::write::SimpleFileOptions;

use super::*;

type Outcome = Result<(), Box<dyn Error>>;

struct Arrival {
    folder: TempDir,
    event: Event,
}

impl Arrival {
    fn of(bytes: &[u8]) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("eurofxref-hist.zip");
        fs::write(&path, bytes)?;
        let digest = digest::of_reader(bytes)?;
        Ok(Self {
            folder,
            event: Event::FileArrival { path, digest },
        })
    }

    fn land(&self) -> Result<Landed, LandingError> {
        let attempt = Attempt {
            task_id: "task_1".into(),
            attempt: 1,
            input_dir: self.folder.path().into(),
            output_dir: self.folder.path().join("out"),
        };
        land(&attempt, Some(&self.event))
    }

    fn output(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.folder.path().join("out").join(name))
    }
}

fn zipped(texts: &[&[u8]]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = io::Cursor::new(Vec::new());
    let mut writer = zip::ZipWriter::new(&mut bytes);
    for (at, text) in texts.iter().enumerate() {
        writer.start_file(format!("{at}.csv"), SimpleFileOptions::default())?;
        writer.write_all(text)?;
    }
    writer.finish()?;
    Ok(bytes.into_inner())
}

fn published(rows: &[&str]) -> String {
    let mut text = format!("Date,{},\n", schema::CURRENCIES.join(","));
    for row in rows {
        let (date, dollar) = row.split_once(' ').unwrap_or((row, "1.5"));
        text.push_str(&format!("{date},{dollar},{}\n", "N/A,".repeat(40)));
    }
    text
}

#[test]
fn every_day_of_the_published_file_is_landed() -> Outcome {
    let arrival = Arrival::of(include_bytes!("../../../../data/eurofxref-hist.zip"))?;
    let expected = Landed {
        dataset: DATASET,
        rows: 7126,
        dead_letters: 0,
    };
    assert_eq!(arrival.land()?, expected);
    let text = arrival.output("raw.fx_rates/part-0.csv")?;
    let mut lines = text.lines();
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("date,USD,JPY,"))
    );
    assert!(
        lines
            .next()
            .is_some_and(|line| line.starts_with("2026-10-30,1.1172,175.68,N/A,"))
    );
    assert!(lines.all(|line| line.split(',').count() == 42 && !line.ends_with(',')));
    assert!(!arrival.folder.path().join("out/_dead_letters").exists());
    Ok(())
}

#[test]
fn bad_rows_are_put_aside_with_their_reason_and_the_others_land() -> Outcome {
    let mut text = published(&["2024-01-02", "2024-01-03 abc", "2024-01-02", "2024-02-30"]);
    text.push_str("\"2024-01-04,1\n");
    let mut bytes = text.into_bytes();
    bytes.extend(b"2024-01-05,\xe9\n");
    bytes.extend(
        published(&["2024-01-08"])
            .lines()
            .nth(1)
            .unwrap_or_default()
            .bytes(),
    );
    let arrival = Arrival::of(&zipped(&[&bytes])?)?;
    assert_eq!(
        arrival.land()?,
        Landed {
            dataset: DATASET,
            rows: 2,
            dead_letters: 5
        }
    );

    let letters = arrival.output("_dead_letters/raw.fx_rates.jsonl")?;
    let errors = letters
        .lines()
        .map(|line| Ok(serde_json::from_str::<serde_json::Value>(line)?["error"].to_string()))
        .collect::<Result<Vec<_>, serde_json::Error>>()?;
    let expected = [
        "USD is `abc`, which is neither N/A nor a positive decimal number",
        "the date 2024-01-02 was in the file before",
        "`2024-02-30` is not a date as in 1999-01-04",
        "the row has 2 fields where 43 are expected",
        "the row has 2 fields where 43 are expected",
    ];
    assert_eq!(errors, expected.map(|text| format!("\"{text}\"")));
    Ok(())
}

#[test]
fn a_file_that_is_not_what_was_announced_is_refused_whole() -> Outcome {
    let good = published(&["2024-01-02"]);
    let mut arrival = Arrival::of(&zipped(&[good.as_bytes()])?)?;
    let Event::FileArrival { digest, .. } = &mut arrival.event;
    digest.push('0');
    assert!(matches!(arrival.land(), Err(LandingError::Digest { .. })));

    let other = good.replace("USD", "XXX");
    let truncated = zipped(&[good.as_bytes()])?.split_off(20);
    for (bytes, part) in [
        (b"Date,USD\n".to_vec(), "not a readable zip archive"),
        (truncated, "not a readable zip archive"),
        (zipped(&[])?, "0 files"),
        (zipped(&[b"", b""])?, "2 files"),
        (zipped(&[other.as_bytes()])?, "header"),
        (zipped(&[b""])?, "header"),
    ] {
        let error = Arrival::of(&bytes)?.land().expect_err("the archive is bad");
        assert!(
            error.to_string().contains(part),
            "{error} does not say {part}"
        );
        assert_eq!(error.status(), Status::DataErr);
    }
    Ok(())
}

#[test]
fn a_bomb_is_recognised_before_it_fills_the_memory() -> Outcome {
    let mut text = published(&[]).into_bytes();
    let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
    while text.len() as u64 <= MAX_UNPACKED {
        text.extend(&line);
    }
    let arrival = Arrival::of(&zipped(&[&text])?)?;
    assert!(matches!(arrival.land(), Err(LandingError::Bomb)));
    Ok(())
}

#[test]
fn an_invocation_without_an_event_is_a_configuration_failure() -> Outcome {
    let attempt = Attempt {
        task_id: "task_1".into(),
        attempt: 1,
        input_dir: "in".into(),
        output_dir: "out".into(),
    };
    let error = land(&attempt, None).expect_err("there is no event");
    assert_eq!(error.status(), Status::Config);
    let event = r#"{"type":"file_arrival","name":"a.zip","path":"/in/a.zip","bytes":1,"digest":"sha256:0"}"#;
    assert!(matches!(
        serde_json::from_str(event)?,
        Event::FileArrival { .. }
    ));
    Ok(())
}
