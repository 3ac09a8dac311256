//! What the lines of the dispatch example and of its peers say, as figures with their budgets.

use serde_json::Value;

use super::figure::{Budget, Figure};

/// A kind of load: what our line and those of peers call it.
struct Kind {
    case: &'static str,
    peers: &'static str,
    budget: Budget,
    /// What is claimed of the fastest peer.
    beside_peers: Option<Budget>,
}

const KINDS: &[Kind] = &[
    Kind {
        case: "128 in flight, one call each",
        peers: "one call each",
        budget: Budget::AtLeast(20_000.0),
        beside_peers: Some(Budget::TimesAtLeast(10.0)),
    },
    Kind {
        case: "batches of 100, 8 in flight",
        peers: "batched",
        budget: Budget::AtLeast(30_000.0),
        beside_peers: None,
    },
];

/// What a million tasks that wait may take of memory: 300 MB.
const QUEUED_MIB: f64 = 300e6 / (1 << 20) as f64;

/// Runs that do nothing, beside the disk and beside peers.
pub(crate) fn read(lines: &[Value]) -> Vec<Figure> {
    let mut figures = one_in_flight(lines);
    let sync = number(ours(lines, "one in flight"), "fdatasync_p50_ms");
    for kind in KINDS {
        figures.extend(throughput(lines, kind, sync));
    }
    figures.extend(lines.iter().flat_map(of_a_queue));
    let wait = "integrated_ms_after_the_last_answer";
    if let Some(wait) = number(ours(lines, "ledger"), wait) {
        let figure = Figure::new("dispatch", "last answer to durable checkpoint", wait, "ms");
        figures.push(figure);
    }
    figures
}

fn one_in_flight(lines: &[Value]) -> Vec<Figure> {
    let case = "one in flight";
    let Some(p50) = number(ours(lines, case), "p50_ms") else {
        return Vec::new();
    };
    let figure = Figure::new("dispatch", case, p50, "ms p50");
    let mut figures = Vec::new();
    if let Some(sync) = number(ours(lines, case), "fdatasync_p50_ms") {
        let beside = figure.clone().beside("fdatasync of a page", sync);
        figures.push(beside.budget(Budget::TimesAtMost(2.5)));
    }
    let peers = peers(lines, case, "p50_ms").into_iter();
    figures.extend(peers.map(|(peer, other)| figure.clone().beside(peer, other)));
    figures
}

fn throughput(lines: &[Value], kind: &Kind, sync_ms: Option<f64>) -> Vec<Figure> {
    let line = ours(lines, kind.case);
    let Some(rate) = number(line, "runs_per_second") else {
        return Vec::new();
    };
    let figure = Figure::new("dispatch", kind.case, rate, "runs/s");
    let absolute = figure.clone().budget(kind.budget);
    let mut figures = vec![match sync_ms {
        Some(sync) => absolute.beside("synchronisations one after another", 1e3 / sync),
        None => absolute,
    }];
    let mut rates = peers(lines, kind.peers, "runs_per_second");
    rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    for (place, (peer, other)) in rates.into_iter().enumerate() {
        let beside = figure.clone().beside(peer, other);
        figures.push(match kind.beside_peers {
            Some(claim) if place == 0 => beside.budget(claim),
            _ => beside,
        });
    }
    for (key, unit) in [
        ("cpu_us_per_run", "µs of processor time a run"),
        ("writer_us_per_run", "µs of the writer's a run"),
        ("written_bytes_per_run", "bytes written a run"),
    ] {
        let Some(cost) = number(line, key) else {
            continue;
        };
        let figure = Figure::new("dispatch", kind.case, cost, unit);
        let others = peers(lines, kind.peers, key);
        if others.is_empty() {
            figures.push(figure);
        } else {
            let others = others.into_iter();
            figures.extend(others.map(|(peer, other)| figure.clone().beside(peer, other)));
        }
    }
    figures
}

/// What a line says of tasks that wait, and of questions with many runs behind them.
fn of_a_queue(line: &Value) -> Vec<Figure> {
    let figures = [
        ("open_ms", "ms until it is open", Some(5_000.0)),
        ("resident_mib", "MiB resident", Some(QUEUED_MIB)),
        ("disk_mib", "MiB on the disk", None),
        ("cpu_us_per_task", "µs of processor time a task", None),
        (
            "times_that_of_the_first",
            "times that of the smallest queue",
            Some(1.2),
        ),
        ("runs_ls_p50_ms", "ms p50 of the newest runs", None),
        (
            "evidence_of_a_run_p50_ms",
            "ms p50 of a run's evidence",
            None,
        ),
        ("outputs_of_a_run_p50_ms", "ms p50 of a run's outputs", None),
    ];
    let case = line["case"].as_str().unwrap_or_default();
    let read = figures.into_iter().filter_map(|(key, unit, most)| {
        let figure = Figure::new("dispatch", case, line[key].as_f64()?, unit);
        Some(match most {
            Some(most) => figure.budget(Budget::AtMost(most)),
            None => figure,
        })
    });
    read.collect()
}

fn ours<'a>(lines: &'a [Value], case: &str) -> Option<&'a Value> {
    lines.iter().find(|line| line["case"] == case)
}

/// What each peer's line of a kind says, with the peer's name.
fn peers<'a>(lines: &'a [Value], kind: &str, key: &str) -> Vec<(&'a str, f64)> {
    let of_kind = lines.iter().filter(|line| line["kind"] == kind);
    of_kind
        .filter_map(|line| Some((line["peer"].as_str()?, line[key].as_f64()?)))
        .collect()
}

fn number(line: Option<&Value>, key: &str) -> Option<f64> {
    line?.get(key)?.as_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn met(lines: &[Value]) -> Vec<Option<bool>> {
        read(lines).iter().map(Figure::met).collect()
    }

    #[test]
    fn one_run_in_flight_may_take_two_and_a_half_synchronisations() {
        let alone =
            |p50: f64| json!({"case": "one in flight", "p50_ms": p50, "fdatasync_p50_ms": 2.0});
        assert_eq!(met(&[alone(5.0)]), [Some(true)]);
        assert_eq!(met(&[alone(5.1)]), [Some(false)]);
    }

    #[test]
    fn one_call_each_is_held_against_the_fastest_peer_of_the_same_kind() {
        let single = |rate: f64| {
            vec![
                json!({"case": "128 in flight, one call each", "runs_per_second": rate}),
                json!({"peer": "slow", "kind": "one call each", "runs_per_second": 100.0}),
                json!({"peer": "fast", "kind": "one call each", "runs_per_second": 2_500.0}),
                json!({"peer": "batching", "kind": "batched", "runs_per_second": 25_000.0}),
            ]
        };
        assert_eq!(met(&single(25_000.0)), [Some(true), Some(true), None]);
        assert_eq!(met(&single(24_999.0)), [Some(true), Some(false), None]);
        assert_eq!(met(&single(19_999.0)), [Some(false), Some(false), None]);
        let names: Vec<_> = read(&single(25_000.0))
            .into_iter()
            .filter_map(|figure| Some(figure.alternative?.name))
            .collect();
        assert_eq!(names, ["fast", "slow"]);
    }

    #[test]
    fn batches_stand_beside_batches() {
        let lines = [
            json!({"case": "batches of 100, 8 in flight", "runs_per_second": 30_000.0}),
            json!({"peer": "single", "kind": "one call each", "runs_per_second": 2_500.0}),
            json!({"peer": "batching", "kind": "batched", "runs_per_second": 25_000.0}),
        ];
        let ratios: Vec<_> = read(&lines)
            .into_iter()
            .map(|figure| (figure.alternative.map(|other| other.name), figure.budget))
            .collect();
        let expected = [
            (None, Some(Budget::AtLeast(30_000.0))),
            (Some("batching".to_owned()), None),
        ];
        assert_eq!(ratios, expected);
    }

    #[test]
    fn the_processor_time_of_a_run_stands_beside_that_of_peers() {
        let lines = [
            json!({"case": "batches of 100, 8 in flight", "runs_per_second": 1.0, "cpu_us_per_run": 50.0}),
            json!({"peer": "batching", "kind": "batched", "runs_per_second": 1.0, "cpu_us_per_run": 100.0}),
            json!({"peer": "single", "kind": "one call each", "cpu_us_per_run": 900.0}),
        ];
        let costs: Vec<_> = read(&lines)
            .into_iter()
            .filter(|figure| figure.unit == "µs of processor time a run")
            .map(|figure| (figure.ours, figure.alternative.map(|other| other.value)))
            .collect();
        assert_eq!(costs, [(50.0, Some(100.0))]);
    }

    #[test]
    fn a_queue_of_a_million_is_open_in_five_seconds_in_300_mb_at_the_cost_of_a_short_one() {
        let queue = |open: f64, mib: f64, times: f64| {
            let case = "1000000 tasks queued";
            met(&[
                json!({"case": case, "open_ms": open, "resident_mib": mib}),
                json!({"case": "a task of 1000000 queued", "times_that_of_the_first": times}),
            ])
        };
        assert_eq!(queue(5_000.0, 286.0, 1.2), [Some(true); 3]);
        assert_eq!(queue(5_001.0, 287.0, 1.3), [Some(false); 3]);
    }

    #[test]
    fn a_peer_s_figure_is_not_taken_for_ours() {
        let peer = json!({"peer": "fast", "kind": "one call each", "runs_per_second": 2_500.0});
        assert_eq!(read(&[peer]), []);
    }
}
