//! Every way out that is known, tried from inside each class of runner by each network profile: what
//! is declared is reached, everything else is refused and recorded. The same without a boundary gets
//! out, so that these tests can fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::Path,
};

use barecount_e2e::{
    Outcome, binary,
    place::Place,
    process::{Finished, Invocation},
    programs,
    world::{Hosts, World},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    battery::{self, Battery, End, Probe},
    ordinary, pipelines,
};

/// The records of flows, by stage.
type Flows = BTreeMap<String, Vec<Value>>;

const PROBER: &str = env!("CARGO_BIN_EXE_prober");

fn world() -> World {
    let hosts = Hosts {
        near: &battery::near(),
        far: &battery::far(),
        own_in_tunnel: "10.60.0.1",
        resolver: battery::RESOLVER,
    };
    World::new(Path::new(env!("CARGO_BIN_EXE_world")), hosts)
}

/// A pipeline of one stage for each battery, by a class of runner.
fn place(class: &str, batteries: &[Battery], more: &str) -> Place {
    let place = Place::new();
    let mut files = programs::loader_and_libraries();
    let prober = fs_err::read(PROBER).expect("the prober was built");
    files.push(("prober".to_owned(), prober));
    for battery in batteries {
        let lines: Vec<&str> = battery
            .probes
            .iter()
            .map(|probe| probe.line.as_str())
            .collect();
        files.push((battery.profile.to_owned(), lines.join("\n").into_bytes()));
    }
    let artifact = match class {
        "container" => image(&place, &files),
        _ => {
            let files: Vec<(&str, &[u8])> = files
                .iter()
                .map(|(name, content)| (name.as_str(), content.as_slice()))
                .collect();
            programs::package_with(&place, "worker.zip", &["bootstrap", "loader"], &files);
            "package: worker.zip"
        }
    };
    let command = if class == "dedicated_compute" {
        "      command: [/app/bootstrap]\n"
    } else {
        ""
    };
    let stages: String = batteries
        .iter()
        .map(|battery| stage(class, battery, artifact, &format!("{command}{more}")))
        .collect();
    place.write("pipeline.yaml", pipelines::of_stages("probes", &stages));
    place.write("environments/world.yaml", battery::environment());
    place
}

fn image(place: &Place, files: &[(String, Vec<u8>)]) -> &'static str {
    let worker = fs_err::read(programs::worker()).expect("the worker was built");
    place.write("image/worker", worker);
    let mut listed = String::new();
    for (name, content) in files {
        place.write(Path::new("image").join(name), content);
        let executable = if name == "loader" {
            ", executable: true"
        } else {
            ""
        };
        listed += &format!("  - {{ from: {name}, to: /app/{name}{executable} }}\n");
    }
    place.write(
        "image/build.yaml",
        format!(
            "kind: image\nfiles:\n  - {{ from: worker, to: /app/worker, executable: true }}\n\
             {listed}entrypoint: [/app/worker]\nuser: \"1000:1000\"\n"
        ),
    );
    "image: image"
}

fn stage(class: &str, battery: &Battery, artifact: &str, more: &str) -> String {
    let profile = battery.profile;
    let egress: String = battery
        .egress
        .iter()
        .map(|(host, port, protocol)| {
            format!("        - {{ host: '{host}', port: {port}, protocol: {protocol} }}\n")
        })
        .collect();
    // A facility serves data that must stay there, and no other.
    let residency = if profile == "on_prem_agent" {
        "      residency: plant\n"
    } else {
        ""
    };
    format!(
        "    - name: {}
      phase: ingestion
      runner: {{ class: {class}, size: small, network_profile: {profile}, {artifact} }}
      env: {{ BEHAVIOUR: probe, PROBES: {profile} }}
      egress:
{egress}{residency}{more}",
        profile.replace('_', "-")
    )
}

/// A place on a host of a world, and who uses it.
struct Site {
    place: Place,
    world: World,
    is_shown: bool,
}

impl Site {
    fn new(place: Place) -> Self {
        let world = world();
        Self {
            place,
            world,
            is_shown: false,
        }
    }

    /// Used by an ordinary user, who need not reach what is around the place.
    fn ordinary(place: Place) -> Self {
        let mut site = Self::new(place);
        if rustix::process::geteuid().is_root() {
            let Self { place, world, .. } = &mut site;
            place.write("barecount", "");
            ordinary::own(place.path()).expect("root can give files away");
            world.show(place.path(), "/mnt");
            world.show(binary::barecount(), "/mnt/barecount");
            site.is_shown = true;
        }
        site
    }

    fn barecount<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        let Self { place, world, .. } = self;
        if !self.is_shown {
            let entry = world.entry(place.path());
            return place.barecount(arguments).behind(&entry);
        }
        let mut entry = world.entry(Path::new("/mnt"));
        let user = ordinary::USER;
        let user = [format!("--reuid={user}"), format!("--regid={user}")];
        entry.push("setpriv".into());
        entry.extend(user.map(OsString::from));
        entry.push("--clear-groups".into());
        Invocation::of("/mnt/barecount", place.path(), arguments)
            .env("XDG_CONFIG_HOME", "/mnt/config")
            .behind(&entry)
    }

    /// A run of the place's pipeline.
    fn run(&self) -> Invocation {
        self.barecount(["run", "pipeline.yaml", "--env", "world", "-o", "json"])
    }
}

/// What the prober of a stage said of each probe.
fn told(site: &Site, run: &Finished, stage: &str) -> BTreeMap<String, String> {
    let run = run.json("run");
    let id = run["id"].as_str().unwrap_or_default();
    let log = site
        .barecount(["runs", "logs", id, "--stage", stage])
        .finish()
        .exits_with(0);
    let lines = log
        .stdout
        .lines()
        .filter_map(|line| line.split_once("probe ")?.1.split_once(" => "));
    lines
        .map(|(probe, answer)| (probe.to_owned(), answer.to_owned()))
        .collect()
}

/// What evidence has of each stage's only attempt.
fn attempts(site: &Site) -> BTreeMap<String, Value> {
    let show = |arguments: &[&str], kind: &str| {
        let shown = site.barecount(["evidence"].iter().chain(arguments).copied());
        let shown = shown.argument("-o").argument("json").finish();
        shown.exits_with(0).json(kind)
    };
    let listed = show(&["ls"], "evidence");
    let items = listed["items"].as_array().into_iter().flatten();
    let attempts = items.filter(|entry| entry["kind"] == "attempt");
    let by_stage = attempts.map(|entry| {
        let shown = show(&["show", &entry["index"].to_string()], "evidence_entry");
        let attempt = shown["statement"]["predicate"].clone();
        let stage = attempt["task"]["stage"].as_str().unwrap_or_default();
        (stage.to_owned(), attempt)
    });
    by_stage.collect()
}

/// What is recorded of the flows of each stage's only attempt.
fn flows(site: &Site) -> Flows {
    let attempts = attempts(site).into_iter();
    let flows = attempts.map(|(stage, attempt)| {
        let digest = attempt["detail"]["network"]["digest"].as_str();
        (stage, recorded(&site.place, digest.unwrap_or_default()))
    });
    flows.collect()
}

/// The flow records beside the ledger of which evidence has this digest: sums, then a record a line.
fn recorded(place: &Place, digest: &str) -> Vec<Value> {
    let logs = fs_err::read_dir(place.state().join("logs")).expect("logs are kept");
    let kept = logs.map(|entry| entry.expect("logs can be listed").path());
    let kept = kept.filter(|path| path.to_string_lossy().ends_with(".flows.jsonl"));
    let mut texts = kept.map(|path| fs_err::read_to_string(path).expect("a record can be read"));
    let text = texts.find(|text| digest == format!("sha256:{}", hex::encode(Sha256::digest(text))));
    let text = text.unwrap_or_else(|| panic!("no record has the digest {digest}"));
    let lines = text.lines().skip(1).map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("a record is JSON")
}

/// Whether a record is about this host, by name or address.
fn is_of(record: &Value, host: &str, port: u16) -> bool {
    let mut known = [&record["name"], &record["address"]].into_iter();
    known.any(|found| found == host) && record["port"] == port
}

/// Whether a record is that of a probe which got where it should.
fn tells_of_reached(record: &Value, line: &str) -> bool {
    let mut words = line.split(' ');
    let (kind, to) = (words.next(), words.next().unwrap_or_default());
    let (host, port) = to.rsplit_once(':').unwrap_or_default();
    let port = port.parse().unwrap_or_default();
    let end = &record["reason"]["code"];
    is_of(record, host.trim_matches(['[', ']']), port)
        && record["verdict"] == "allowed"
        && record["bytes_down"].as_u64() > Some(0)
        && (kind != Some("cut") || end == "reset")
}

/// Whether a record is that of a refused probe.
fn tells_of_refused(record: &Value, end: &End) -> bool {
    let End::Refused {
        host,
        port,
        code,
        led_to,
    } = end
    else {
        return false;
    };
    is_of(record, host, *port)
        && record["verdict"] == "refused"
        && record["reason"]["code"] == *code
        && led_to.is_none_or(|address| record["address"] == address)
}

/// Whether as many flows are recorded as probes are to end so.
fn is_recorded(probe: &Probe, probes: &[Probe], flows: &[Value]) -> bool {
    let Probe { line, end } = probe;
    match end {
        End::Reached(_) => flows.iter().any(|record| tells_of_reached(record, line)),
        End::Refused { .. } => {
            let records = flows.iter().filter(|record| tells_of_refused(record, end));
            let count: u64 = records.filter_map(|record| record["count"].as_u64()).sum();
            let alike = probes.iter().filter(|other| other.end == *end).count();
            usize::try_from(count).is_ok_and(|count| count >= alike)
        }
        End::Unsent => true,
    }
}

/// Why a probe did not end as it should inside a boundary.
fn objection(
    probe: &Probe,
    probes: &[Probe],
    answer: Option<&String>,
    flows: &[Value],
) -> Option<String> {
    let Probe { line, end } = probe;
    let Some(answer) = answer else {
        return Some(format!("{line}: was not tried"));
    };
    let is_well = match end {
        End::Reached(words) => answer.starts_with("reached: ") && answer.contains(words),
        End::Refused { .. } | End::Unsent => answer.starts_with("refused: "),
    };
    if !is_well {
        return Some(format!("{line}: {answer}, and not {end:?}"));
    }
    let is_recorded = is_recorded(probe, probes, flows);
    (!is_recorded).then(|| format!("{line}: {answer}, and no record of {end:?}"))
}

/// Why the probes of a battery did not end as they should.
fn objections(site: &Site, finished: &Finished, battery: &Battery, flows: &Flows) -> Vec<String> {
    let stage = battery.profile.replace('_', "-");
    let told = told(site, finished, &stage);
    let flows = flows.get(&stage).map(Vec::as_slice).unwrap_or_default();
    let probes = &battery.probes;
    let mut found: Vec<String> = probes
        .iter()
        .filter_map(|probe| objection(probe, probes, told.get(&probe.line), flows))
        .collect();
    if !found.is_empty() {
        found.insert(0, format!("{stage}, whose flows were {flows:#?}:"));
    }
    found
}

/// Tries batteries by a class of runner, each in a stage of its own.
fn holds(site: &Site, batteries: &[Battery]) {
    let finished = site.run().finish().exits_with(0);
    let flows = flows(site);
    let mut found: Vec<String> = batteries
        .iter()
        .flat_map(|battery| objections(site, &finished, battery, &flows))
        .collect();
    let heard = site.world.heard().into_iter();
    let strangers = heard.filter(|heard| !battery::may_come(heard));
    found.extend(strangers.map(|heard| format!("came out: {heard}")));
    assert!(found.is_empty(), "{}", found.join("\n"));
    site.place.nothing_is_left();
}

#[test]
fn a_function_reaches_what_is_declared_and_every_other_way_out_is_closed_and_recorded() {
    let batteries = battery::batteries();
    holds(&Site::new(place("serverless", &batteries, "")), &batteries);
}

#[test]
fn a_container_reaches_what_is_declared_and_every_other_way_out_is_closed_and_recorded() {
    let batteries = battery::batteries();
    holds(&Site::new(place("container", &batteries, "")), &batteries);
}

#[test]
fn a_program_on_dedicated_compute_reaches_what_is_declared_and_every_other_way_out_is_closed() {
    let batteries = battery::batteries();
    let place = place("dedicated_compute", &batteries, "");
    holds(&Site::new(place), &batteries);
}

#[test]
fn all_of_it_holds_for_an_ordinary_user_as_well() {
    let batteries = battery::batteries();
    let site = Site::ordinary(place("container", &batteries, ""));
    holds(&site, &batteries);
    let state = site
        .place
        .state()
        .metadata()
        .expect("a run leaves its state");
    assert_ne!(state.uid(), 0, "the run was that of an ordinary user");
}

#[test]
fn nothing_passes_a_tunnel_that_goes_down_in_the_middle_of_a_transfer() {
    let battery = battery::cut_tunnel();
    let place = place("container", std::slice::from_ref(&battery), "");
    let mut site = Site::new(place);
    let running = site.run().start();
    running.wait_until("the transfer goes on", || {
        let heard = site.world.heard();
        heard.iter().any(|heard| heard == "flip cut.example")
    });
    site.world.cut_tunnel();
    let finished = running.finish().exits_with(0);
    let found = objections(&site, &finished, &battery, &flows(&site));
    assert!(found.is_empty(), "{}", found.join("\n"));
    site.place.nothing_is_left();
}

/// What SQL could be made to reach with, if the engine knew how.
const REACHING_SQL: [&str; 6] = [
    "INSERT INTO output SELECT CAST(n AS BIGINT) AS n FROM 'http://public.example:80/n.csv';",
    "INSERT INTO output SELECT n FROM read_csv('http://public.example:80/n.csv');",
    "CREATE EXTERNAL TABLE n (n BIGINT) STORED AS CSV LOCATION 'http://public.example:80/n.csv';
     INSERT INTO output SELECT n FROM n;",
    "COPY (SELECT 1 AS n) TO 'http://public.example:80/n.csv' STORED AS CSV;",
    "CREATE FUNCTION reach AS 'http://public.example:80/n.so'; INSERT INTO output SELECT 1 AS n;",
    "SET datafusion.catalog.location = 'http://public.example:80/'; INSERT INTO output SELECT 1 AS n;",
];

#[test]
fn sql_knows_no_way_out_not_even_to_what_is_declared() {
    let place = Place::new();
    let harmless = "INSERT INTO output SELECT 1 AS n;";
    let mut stages = String::new();
    for (number, sql) in [harmless].iter().chain(&REACHING_SQL).enumerate() {
        let job = format!("job{number}.sql");
        place.write(
            &job,
            sql.replace("INTO output", &format!("INTO kpi.n{number}")),
        );
        stages += &format!(
            "    - name: job{number}
      phase: kpi
      runner: {{ class: managed_etl, size: small, network_profile: public_vpc_egress, job: {job} }}
      egress: [{{ host: public.example, port: 80, protocol: http }}]
      outputs: [{{ dataset: kpi.n{number}, format: parquet, mode: overwrite, columns: [{{ name: n, type: int64 }}] }}]
"
        );
    }
    place.write("pipeline.yaml", pipelines::of_stages("probes", &stages));
    place.write("environments/world.yaml", battery::environment());
    let site = Site::new(place);
    // None of them can be planned, and so nothing is begun.
    let validated = site
        .place
        .barecount(["validate", "pipeline.yaml", "-o", "json"]);
    let found = validated.finish().exits_with(2).json("diagnostics");
    let found = found["items"].as_array().into_iter().flatten();
    let refused: BTreeSet<&str> = found
        .filter(|item| item["code"] == "BC0233")
        .filter_map(|item| item["file"].as_str())
        .collect();
    let jobs: Vec<String> = (1..=REACHING_SQL.len())
        .map(|number| format!("job{number}.sql"))
        .collect();
    assert_eq!(refused, jobs.iter().map(String::as_str).collect());
    site.run().finish().fails_with(2, "BC0233");
    assert_eq!(site.world.heard(), Vec::<String>::new());
    site.place.nothing_is_left();
}

#[test]
fn without_a_boundary_every_probe_gets_out() -> Outcome {
    let battery = battery::public();
    let place = place(
        "dedicated_compute",
        std::slice::from_ref(&battery),
        "      isolation: process\n",
    );
    let site = Site::new(place);
    let finished = site.run().finish().exits_with(0);
    let told = told(&site, &finished, "public-vpc-egress");
    let kept_in: Vec<String> = battery
        .probes
        .iter()
        .filter(|probe| {
            !told
                .get(&probe.line)
                .is_some_and(|answer| answer.starts_with("reached: "))
        })
        .map(|probe| format!("{}: {:?}", probe.line, told.get(&probe.line)))
        .collect();
    assert!(kept_in.is_empty(), "{}", kept_in.join("\n"));
    let heard = site.world.heard();
    for expected in [
        "udp 93.184.215.15:443",
        "tcp 169.254.169.254:80",
        "abstract",
    ] {
        assert!(
            heard.iter().any(|heard| heard == expected),
            "{expected}: {heard:?}"
        );
    }
    site.place.nothing_is_left();
    Ok(())
}
