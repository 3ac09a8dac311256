//! What the lines of each measuring example say, as figures with their budgets.

use serde_json::Value;

use super::figure::{Budget, Figure};

/// The line whose member `key` is `value`.
fn line<'a>(lines: &'a [Value], key: &str, value: &str) -> Option<&'a Value> {
    lines.iter().find(|line| line[key] == value)
}

fn number(line: Option<&Value>, key: &str) -> Option<f64> {
    line?.get(key)?.as_f64()
}

/// What an engine's line says of a case.
fn of_engine(lines: &[Value], case: &Value, engine: &str, key: &str) -> Option<f64> {
    let mut found = lines.iter();
    number(
        found.find(|line| line["case"] == *case && line["engine"] == engine),
        key,
    )
}

/// Cold starts of `/bin/true`.
pub(crate) fn sandbox(lines: &[Value]) -> Vec<Figure> {
    let p50 = |what| number(line(lines, "what", what), "p50_us");
    let Some(ours) = p50("sandbox until it has ended") else {
        return Vec::new();
    };
    let case = |name: &str| Figure::new("sandbox", name, ours, "µs p50");
    let mut figures = Vec::new();
    let unshare = "unshare -Urmpiun --fork --mount-proc";
    if let Some(other) = p50(unshare) {
        let figure = case("cold start beside unshare").beside(unshare, other);
        figures.push(figure.budget(Budget::TimesAtMost(1.3)));
    }
    if let (Some(brokered), Some(other)) =
        (p50("brokered sandbox until it has ended"), p50(unshare))
    {
        let figure = Figure::new("sandbox", "brokered cold start", brokered, "µs p50");
        figures.push(
            figure
                .beside(unshare, other)
                .budget(Budget::TimesAtMost(1.3)),
        );
    }
    let beside_crun = case("cold start beside crun").budget(Budget::TimesAtMost(1.0 / 3.0));
    figures.push(match p50("crun run") {
        Some(other) => beside_crun.beside("crun run", other),
        None => beside_crun,
    });
    if let Some(other) = p50("fork and exec") {
        figures.push(case("cold start beside fork and exec").beside("fork and exec", other));
    }
    figures
}

/// Connections through the broker.
pub(crate) fn network(lines: &[Value]) -> Vec<Figure> {
    let median = |bench: &str, way: &str| {
        let found = lines
            .iter()
            .find(|line| line["bench"] == bench && line["way"] == way);
        number(found, "median")
    };
    let mut figures = Vec::new();
    for (bench, case, unit, beside, budget) in [
        (
            "throughput",
            "relayed",
            "MiB/s",
            "plain_splice",
            Budget::TimesAtLeast(0.9),
        ),
        (
            "connections",
            "new connections",
            "connections/s",
            "direct",
            Budget::TimesAtLeast(0.5),
        ),
        (
            "round_trip_p50",
            "round trip",
            "µs p50",
            "direct",
            Budget::MoreAtMost(60.0),
        ),
    ] {
        let Some(ours) = median(bench, "broker") else {
            continue;
        };
        for way in [
            "plain_splice",
            "direct",
            "slirp4netns",
            "pasta",
            "pasta_loopback",
        ] {
            if let Some(other) = median(bench, way) {
                let figure = Figure::new("network", case, ours, unit).beside(way, other);
                figures.push(if way == beside {
                    figure.budget(budget)
                } else {
                    figure
                });
            }
        }
    }
    if let Some(kib) = number(line(lines, "bench", "memory"), "open") {
        let figure = Figure::new("network", "1,000 flows open", kib / 1024.0, "MiB resident");
        figures.push(figure.budget(Budget::AtMost(64.0)));
    }
    figures
}

/// A steady stage beside one that floods.
pub(crate) fn neighbours(lines: &[Value]) -> Vec<Figure> {
    let of = |beside: &str, key: &str| number(line(lines, "beside", beside), key);
    let mut figures = Vec::new();
    for beside in lines.iter().filter_map(|line| line["beside"].as_str()) {
        let figure = |key: &str, what: &str, unit| {
            let ours = of(beside, key)?;
            Some(Figure::new(
                "neighbours",
                &format!("{beside}, {what}"),
                ours,
                unit,
            ))
        };
        let round_trip = figure("p99_us", "round trip", "µs p99");
        figures.extend(
            round_trip
                .zip(of("alone", "p99_us"))
                .map(|(figure, alone)| {
                    let figure = figure.beside("alone", alone);
                    // What takes nothing but processor time is held by a control group, which is not here.
                    match beside {
                        "alone" | "alone_again" | "spin" => figure,
                        _ => figure.budget(Budget::TimesAtMost(2.0)),
                    }
                }),
        );
        let cores = figure("agent_cores", "agent", "cores");
        figures.extend(cores.map(|figure| figure.budget(Budget::AtMost(0.1))));
        figures.extend(figure("tcp_memory_mib", "buffers", "MiB"));
    }
    figures
}

/// Twenty tasks of which nothing has changed.
pub(crate) fn skip(lines: &[Value]) -> Vec<Figure> {
    let p50 = |case: &str| number(line(lines, "case", case), "p50_ms");
    let start = p50("starting the binary");
    let cases = ["nothing has changed", "another owner"].into_iter();
    let figures = cases.filter_map(|case| {
        let figure = Figure::new("skip", case, p50(case)?, "ms p50");
        let figure = figure.budget(Budget::AtMost(100.0));
        Some(match start {
            Some(start) => figure.beside("starting the binary", start),
            None => figure,
        })
    });
    figures.collect()
}

/// Fetches of one secret.
pub(crate) fn secrets(lines: &[Value]) -> Vec<Figure> {
    let p50 = |case| number(line(lines, "case", case), "p50_us").map(|micros| micros / 1e3);
    let mut figures = Vec::new();
    for (case, alternative, budget) in [
        ("fetch", "plain file", Budget::AtMost(1.0)),
        ("fetch and mount", "plain file", Budget::AtMost(1.0)),
        // A record on the disk costs what the disk takes to synchronise.
        ("recorded fetch", "fdatasync", Budget::MoreAtMost(1.0)),
    ] {
        if let (Some(ours), Some(other)) = (p50(case), p50(alternative)) {
            let figure = Figure::new("secrets", case, ours, "ms p50");
            figures.push(figure.beside(alternative, other).budget(budget));
        }
    }
    figures
}

/// Entries appended and integrated.
pub(crate) fn ledger(lines: &[Value]) -> Vec<Figure> {
    let integrated = line(lines, "case", "integrate");
    let mut figures = Vec::new();
    if let Some(rate) = number(integrated, "entries_per_second") {
        let figure = Figure::new("ledger", "appended and integrated", rate, "entries/s")
            .budget(Budget::AtLeast(100_000.0));
        figures.push(match number(integrated, "plain_entries_per_second") {
            Some(other) => figure.beside("appended to a file, synchronised a batch", other),
            None => figure,
        });
    }
    if let Some(wait) = number(integrated, "wait_p99_ms") {
        let figure = Figure::new("ledger", "append to durable checkpoint", wait, "ms p99");
        figures.push(figure.budget(Budget::AtMost(100.0)));
    }
    if let Some(rate) = number(line(lines, "case", "verify"), "entries_per_second") {
        figures.push(Figure::new("ledger", "verified", rate, "entries/s"));
    }
    figures
}

/// Warm invocations of a function that echoes.
pub(crate) fn invoke(lines: &[Value]) -> Vec<Figure> {
    let measured = line(lines, "bench", "invoke");
    let mut figures = Vec::new();
    for (key, case) in [
        ("p50_us", "warm echo, published client"),
        ("bare_p50_us", "warm echo, no client library"),
    ] {
        if let Some(p50) = number(measured, key) {
            let figure = Figure::new("invoke", case, p50, "µs p50").budget(Budget::AtMost(150.0));
            figures.push(match number(measured, "plain_tcp_p50_us") {
                Some(other) => figure.beside("HTTP echo over loopback TCP", other),
                None => figure,
            });
        }
    }
    for (key, unit) in [("p99_us", "µs p99"), ("cold_us", "µs")] {
        if let Some(value) = number(measured, key) {
            let case = if key == "cold_us" {
                "cold echo"
            } else {
                "warm echo"
            };
            figures.push(Figure::new("invoke", case, value, unit));
        }
    }
    figures
}

/// Jobs of the embedded engine.
pub(crate) fn etl(lines: &[Value]) -> Vec<Figure> {
    let job = |line: &Value| {
        let (ours, bare) = (line["ours_ms"].as_f64()?, line["bare_ms"].as_f64()?);
        let case = format!("{} at scale {}", line["case"].as_str()?, line["scale"]);
        let figure = Figure::new("etl", &case, ours, "ms").beside("bare DataFusion session", bare);
        Some(figure.budget(Budget::TimesAtMost(1.05)))
    };
    lines.iter().filter_map(job).collect()
}

/// SQL from a dataset's files to a committed dataset.
pub(crate) fn sql(lines: &[Value]) -> Vec<Figure> {
    let ours = lines.iter().filter(|line| line["engine"] == "barecount");
    let mut figures = Vec::new();
    for line in ours {
        let (Some(name), case) = (line["case"].as_str(), &line["case"]) else {
            continue;
        };
        for (key, unit, budget) in [
            (
                "cpu_seconds",
                "s of processor time",
                Some(Budget::TimesAtMost(1.5)),
            ),
            ("seconds", "s", None),
            ("ran_seconds", "s of the engine", None),
            ("peak_mib", "MiB resident", None),
        ] {
            let Some(value) = number(Some(line), key) else {
                continue;
            };
            let figure = Figure::new("sql", name, value, unit);
            let beside = |engine: &str| {
                let other = of_engine(lines, case, engine, key);
                other.map(|other| figure.clone().beside(engine, other))
            };
            let first = beside("duckdb").unwrap_or_else(|| figure.clone());
            figures.push(match budget {
                Some(budget) => first.budget(budget),
                None => first,
            });
            // Held to nothing: it says what of the difference is the order of the rows.
            figures.extend(beside("duckdb, sorted"));
        }
    }
    figures
}

/// Rows staged and committed, by processor time: ours hashes on a second thread what others do not
/// hash at all, and the machine may do other things.
pub(crate) fn staging(lines: &[Value]) -> Vec<Figure> {
    let ours = lines.iter().filter(|line| line["engine"] == "barecount");
    let mut figures = Vec::new();
    for line in ours {
        let (Some(name), case) = (line["case"].as_str(), &line["case"]) else {
            continue;
        };
        let to_delta = format!("{name} to Delta");
        let figures_of = |key: &str, unit: &'static str| {
            let ours = number(Some(line), key);
            ours.map(|ours| Figure::new("staging", &to_delta, ours, unit))
        };
        if let Some(rate) = figures_of("rows_per_cpu_second", "rows/s of processor time") {
            let others = ["duckdb", "polars"].into_iter().filter_map(|engine| {
                let figure = rate.clone().beside(
                    engine,
                    of_engine(lines, case, engine, "rows_per_cpu_second")?,
                );
                Some(match engine {
                    "duckdb" => figure.budget(Budget::TimesAtLeast(0.5)),
                    _ => figure,
                })
            });
            let before = figures.len();
            figures.extend(others);
            if figures.len() == before {
                figures.push(rate);
            }
        }
        for (key, unit, budget) in [
            ("cpu_seconds", "s of processor time", None),
            ("seconds", "s", None),
            ("peak_mib", "MiB resident", Some(Budget::AtMost(256.0))),
        ] {
            let Some(mut figure) = figures_of(key, unit) else {
                continue;
            };
            if let Some(other) = of_engine(lines, case, "duckdb", key) {
                figure = figure.beside("duckdb", other);
            }
            figures.push(match budget {
                Some(budget) => figure.budget(budget),
                None => figure,
            });
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bench::dispatch;

    fn met(figures: &[Figure]) -> Vec<Option<bool>> {
        figures.iter().map(Figure::met).collect()
    }

    fn cold_start(ours: u64) -> Vec<Value> {
        vec![
            json!({"what": "sandbox until it has ended", "p50_us": ours}),
            json!({"what": "unshare -Urmpiun --fork --mount-proc", "p50_us": 1000}),
            json!({"what": "crun run", "p50_us": 4500}),
        ]
    }

    #[test]
    fn a_cold_start_is_held_against_unshare_and_crun() {
        assert_eq!(met(&sandbox(&cold_start(1300))), [Some(true), Some(true)]);
        assert_eq!(met(&sandbox(&cold_start(1400))), [Some(false), Some(true)]);
        assert_eq!(met(&sandbox(&cold_start(1600))), [Some(false), Some(false)]);
    }

    #[test]
    fn where_crun_does_not_run_nothing_is_claimed_about_it() {
        let without = &cold_start(1000)[..2];
        assert_eq!(met(&sandbox(without)), [Some(true), None]);
    }

    #[test]
    fn a_job_may_take_a_twentieth_longer_than_the_bare_engine() {
        let job =
            |ours: u32| json!({"case": "tpch-q1", "scale": 1.0, "ours_ms": ours, "bare_ms": 100});
        assert_eq!(met(&etl(&[job(105), job(106)])), [Some(true), Some(false)]);
    }

    #[test]
    fn staging_may_take_twice_the_time_of_duckdb_and_256_mib() {
        let line = |case: &str, engine: &str, rate: u32, peak: u32| json!({"case": case, "engine": engine, "rows_per_cpu_second": rate, "peak_mib": peak});
        let measured = |rate, peak| {
            [
                line("csv", "barecount", rate, peak),
                line("csv", "duckdb", 1_000, 900),
                line("csv, 7 partitions", "barecount", rate, peak),
            ]
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(met(&staging(&measured(500, 256))), [yes, yes, None, yes]);
        assert_eq!(met(&staging(&measured(499, 257))), [no, no, None, no]);
    }

    #[test]
    fn a_fetch_may_take_a_millisecond_and_its_record_one_more_than_the_disk() {
        let line = |case: &str, p50: f64| json!({"case": case, "p50_us": p50});
        let measured = [
            line("plain file", 10.0),
            line("fetch", 1_001.0),
            line("fetch and mount", 999.0),
            line("fdatasync", 2_000.0),
            line("recorded fetch", 2_900.0),
        ];
        let expected = [Some(false), Some(true), Some(true)];
        assert_eq!(met(&secrets(&measured)), expected);
    }

    #[test]
    fn an_example_that_says_nothing_has_no_figures() {
        for read in [
            sandbox,
            ledger,
            invoke,
            secrets,
            etl,
            staging,
            dispatch::read,
        ] {
            assert!(read(&[]).is_empty());
        }
    }

    #[test]
    fn a_figure_is_one_line_with_all_its_members() {
        let figure = Figure::new("etl", "a", 1.05, "ms")
            .beside("bare", 1.0)
            .budget(Budget::TimesAtMost(1.05));
        let line = serde_json::to_string(&figure.line()).expect("it is plain data");
        let expected = r#"{"bench":"etl","case":"a","ours":1.05,"unit":"ms","alternative":1.0,"alternative_name":"bare","ratio":1.05,"budget":"at most 1.050 of the alternative","met":true}"#;
        assert_eq!(line, expected);
    }
}
