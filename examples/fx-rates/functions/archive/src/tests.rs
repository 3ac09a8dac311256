//! The command with drivers that are small shell scripts, in place of the bundle's program.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, PoisonError};

use super::*;

/// A program cannot be started while it is open for writing anywhere, and a process that another
/// test is just starting holds our files open until it runs its program. So one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

type Outcome = Result<(), Box<dyn Error>>;

struct Attempt {
    folder: tempfile::TempDir,
    work: Work,
}

impl Attempt {
    fn with_driver(script: &str) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("in/gdp.fx_rates"))?;
        fs::write(
            at("in/gdp.fx_rates/part-0.csv"),
            "date,currency,rate\n2022-01-03,USD,1.1355\n2021-12-31,USD,1.1326\n2019-01-02,X,x\n",
        )?;
        fs::create_dir_all(at("drivers/sqlite/bin"))?;
        let program = at("drivers/sqlite/bin/sqlite-extract");
        fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let work = Work {
            places: Places {
                input_dir: at("in"),
                output_dir: at("out"),
            },
            drivers_dir: at("drivers"),
            year: 2022,
        };
        Ok(Self { folder, work })
    }

    fn failure(script: &str) -> Result<u8, Box<dyn Error>> {
        let attempt = Self::with_driver(script)?;
        Ok(archive(&attempt.work)
            .expect_err("the driver fails")
            .status()
            .code())
    }
}

#[test]
fn the_year_is_extracted_with_bounds_and_converted_and_a_bad_invoice_put_aside() -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let script = r#"[ "$3 $4" = "2022-01-01 2023-01-01" ] || exit 70
        case "$1" in */in/invoices/invoices.sqlite) ;; *) exit 70 ;; esac
        printf 'invoice_id,issued,currency,amount\nA,2022-01-01,USD,100\nB,2022-01-04,RUB,5\n'"#;
    let attempt = Attempt::with_driver(script)?;
    assert_eq!(archive(&attempt.work)?, (1, 1));
    let output = attempt.folder.path().join("out");
    assert_eq!(
        fs::read_to_string(output.join("gdp.invoices_eur/part-0.csv"))?,
        "year,invoice_id,issued,currency,amount,rate_date,rate,amount_eur\n\
         2022,A,2022-01-01,USD,100.00,2021-12-31,1.132600,88.29\n"
    );
    let letters = fs::read_to_string(output.join("_dead_letters/gdp.invoices_eur.jsonl"))?;
    assert!(
        letters.contains(r#""record":"B,2022-01-04,RUB,5""#),
        "{letters}"
    );
    Ok(())
}

#[test]
fn a_driver_that_fails_is_told_apart_from_a_database_that_is_bad() -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let header = "echo invoice_id,issued,currency,amount";
    assert_eq!(Attempt::failure(&format!("{header}; exit 65"))?, 65);
    assert_eq!(Attempt::failure(&format!("{header}; exit 66"))?, 65);
    assert_eq!(
        Attempt::failure(&format!("{header}; echo A,2022-01-0; exit 1"))?,
        69
    );
    assert_eq!(Attempt::failure(&format!("{header}; kill -9 $$"))?, 69);
    assert_eq!(Attempt::failure("echo invoice_id,issued")?, 65);
    let attempt = Attempt::with_driver("")?;
    let absent = Work {
        drivers_dir: "/nowhere".into(),
        ..attempt.work
    };
    let error = archive(&absent).expect_err("there is no driver");
    assert_eq!(error.status(), Status::Unavailable);
    Ok(())
}
