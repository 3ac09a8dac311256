use std::error::Error;
use std::path::Path;

use super::*;

type Outcome = Result<(), Box<dyn Error>>;

const MONTHLY: &str = "year,month,currency,month_end_rate,mean_rate,volatility_30d,change_on_year\n\
    2024,2024-02-01,USD,1.081300,1.079500,0.065000,0.020200\n\
    2024,2024-01-01,USD,1.083700,1.090500,,\n\
    2023,2023-12-01,XTS,2.000000,2.000000,0.000000,-0.500000\n";
const DRAWDOWN: &str = "currency,worst_drawdown,peak_date,trough_date\n\
    USD,-0.002215,2024-01-31,2024-02-29\n";
const INVOICES: &str = "year,invoice_id,issued,currency,amount,rate_date,rate,amount_eur\n\
    2024,A,2024-01-02,USD,10.00,2024-01-02,1.095600,9.13\n\
    2024,B,2024-01-03,EUR,0.10,2024-01-03,1.000000,0.10\n\
    2025,C,2025-01-03,EUR,-1.00,2025-01-03,1.000000,-1.00\n";

fn attempt(folder: &Path, monthly: &str) -> io::Result<Attempt> {
    for (dataset, text) in [
        ("kpi.fx_monthly", monthly),
        ("kpi.fx_drawdown", DRAWDOWN),
        ("gdp.invoices_eur", INVOICES),
    ] {
        fs::create_dir_all(folder.join(dataset))?;
        fs::write(folder.join(dataset).join("part-0.csv"), text)?;
    }
    Ok(Attempt {
        task_id: "task_1".into(),
        attempt: 1,
        input_dir: folder.into(),
        output_dir: folder.join("out"),
    })
}

#[test]
fn both_files_are_written_in_a_fixed_order_and_twice_the_same() -> Outcome {
    let folder = tempfile::tempdir()?;
    let attempt = attempt(folder.path(), MONTHLY)?;
    let report = folder.path().join("out/publish.fx_report/report.html");
    let (rows, bytes) = publish(&attempt)?;
    let first = fs::read_to_string(&report)?;
    assert_eq!((rows, bytes), (3, first.len()));
    assert_eq!(
        fs::read_to_string(folder.path().join("out/publish.fx_report/fx_monthly.csv"))?,
        "month,currency,month_end_rate,mean_rate,volatility_30d,change_on_year\n\
         2024-01-01,USD,1.083700,1.090500,,\n\
         2024-02-01,USD,1.081300,1.079500,0.065000,0.020200\n\
         2023-12-01,XTS,2.000000,2.000000,0.000000,-0.500000\n"
    );
    publish(&attempt)?;
    assert_eq!(fs::read_to_string(&report)?, first);
    Ok(())
}

#[test]
fn the_page_tells_the_figures_and_asks_for_nothing_else() -> Outcome {
    let folder = tempfile::tempdir()?;
    let page = page::render(&Figures::read(&attempt(folder.path(), MONTHLY)?.input_dir)?);
    for told in [
        "Dec\u{a0}2023",
        "1.0813",
        "+2.0\u{a0}%",
        "6.5\u{a0}%",
        "−0.2\u{a0}%",
        "31\u{a0}Jan\u{a0}2024",
        "€\u{a0}9.23",
        "€\u{a0}−1.00",
        "No longer published",
        "European Central Bank",
        r#"aria-labelledby="t-usd d-usd""#,
    ] {
        assert!(page.contains(told), "the page does not tell {told}");
    }
    for request in [
        "http:", "https:", "src=", "href=", "url(", "<script", "@import",
    ] {
        assert!(!page.contains(request), "the page has {request}");
    }
    for tag in [
        "svg", "figure", "table", "tbody", "tr", "td", "th", "section", "div", "dl",
    ] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    Ok(())
}

#[test]
fn what_the_tables_hold_cannot_become_markup() -> Outcome {
    let folder = tempfile::tempdir()?;
    let monthly = MONTHLY.replace("XTS", "<img onerror='1'>");
    let page = page::render(&Figures::read(
        &attempt(folder.path(), &monthly)?.input_dir,
    )?);
    assert!(page.contains("&lt;img onerror=&#39;1&#39;&gt;"));
    assert!(!page.contains("<img"));
    Ok(())
}

#[test]
fn a_table_that_does_not_hold_figures_is_bad_data() -> Outcome {
    for (good, bad) in [
        ("1.0837", "NaN"),
        ("2024-02-01", "2024-02-30"),
        ("0.0650", "x"),
        ("2024,", "2024,,"),
    ] {
        let folder = tempfile::tempdir()?;
        let error = publish(&attempt(folder.path(), &MONTHLY.replacen(good, bad, 1))?)
            .expect_err("the figures are bad");
        assert_eq!(error.status(), Status::DataErr, "{bad}");
    }
    let folder = tempfile::tempdir()?;
    let header = MONTHLY.lines().next().unwrap_or_default();
    let empty = publish(&attempt(folder.path(), header)?).expect_err("there are no figures");
    assert_eq!(empty.to_string(), "kpi.fx_monthly has no rows");
    Ok(())
}
