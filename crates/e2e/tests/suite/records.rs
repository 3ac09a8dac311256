//! What a run reached and was given is printed whole, and only as the ledger vouches for it.

use std::path::{Path, PathBuf};

use barecount_e2e::{Outcome, place::Place, process::Finished};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{boundary, pipelines};

/// A finished run of one stage, which reached out in its first attempt and its second.
struct Ran {
    place: Place,
    id: String,
    port: u16,
}

impl Ran {
    /// Reaches a server of its own, and what `targets` names beside it.
    fn to(targets: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let port = boundary::serve("yes")?.port();
        let targets = format!("tcp://erp.example:{port} {targets}");
        let place = boundary::place("container", &targets, port);
        let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
        let twice = manifest
            .replace("\"reach out\"", "\"reach out and fail once\"")
            .replace("application: 0", "application: 1")
            .replace(
                "      egress:",
                "      secrets: { token: { from: erp/token } }\n      egress:",
            );
        assert_ne!(twice, manifest);
        place.write("pipeline.yaml", twice);
        let set = ["secrets", "set", "erp/token", "--tenant", "demo"];
        let set = place.barecount(set).reads("a value that nobody prints");
        set.finish().exits_with(0);
        let finished = boundary::command(&place).finish().exits_with(0);
        let id = finished.json("run")["id"].as_str().map(str::to_owned);
        Ok(Self {
            place,
            id: id.ok_or("a run has an id")?,
            port,
        })
    }

    fn runs(&self, verb: &str, more: &[&str]) -> Finished {
        let arguments = [&["runs", verb, &self.id], more].concat();
        self.place.barecount(arguments).finish()
    }

    fn items(&self, verb: &str, more: &[&str]) -> Vec<Value> {
        let asked = self.runs(verb, &[more, &["-o", "json"]].concat());
        let listed = asked.exits_with(0).json(verb);
        listed["items"].as_array().cloned().unwrap_or_default()
    }

    fn verify(&self, more: &[&str]) -> Finished {
        let arguments = [&["evidence", "verify", "-o", "json"], more].concat();
        self.place.barecount(arguments).finish()
    }

    /// The records of one kind beside the ledger, by attempt.
    fn files(&self, ending: &str) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
        let entries = fs_err::read_dir(self.place.state().join("logs"))?;
        let paths: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths: Vec<PathBuf> = paths.map_err(|error: std::io::Error| error)?;
        paths.retain(|path| path.to_string_lossy().ends_with(ending));
        paths.sort();
        Ok(paths)
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The problems that a verification names, by file.
fn problems(verified: &Finished) -> Vec<(String, String)> {
    let verification = verified.json("verification");
    let problems = verification["problems"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    problems
        .map(|problem| (text(&problem["file"]), text(&problem["message"])))
        .collect()
}

#[test]
fn every_flow_of_every_attempt_is_printed_however_many_kinds_there_are() -> Outcome {
    // More kinds than evidence shows.
    let targets: Vec<String> = (1..=40)
        .map(|host| format!("tcp://192.0.2.{host}:443"))
        .collect();
    let ran = Ran::to(&targets.join(" "))?;
    let shown = ran.runs("show", &[]).exits_with(0);
    // 41 kinds in each attempt, of which the second shows 32.
    shown.tells(&format!(
        "… and 50 more kinds of flow: `barecount runs flows {}`",
        ran.id
    ));
    let items = ran.items("flows", &[]);
    assert_eq!(items.len(), 82);
    for attempt in [1, 2] {
        for target in 1..=40 {
            let address = json!(format!("192.0.2.{target}"));
            let found = items.iter().find(|item| {
                item["attempt"] == attempt && item["address"] == address && item["port"] == 443
            });
            let found = found.ok_or(format!("no flow to {address} in attempt {attempt}"))?;
            assert_eq!(found["verdict"], "refused", "{found:#}");
            assert_eq!(found["name"], Value::Null, "null, not missing: {found:#}");
        }
    }
    let second = ran.items("flows", &["--attempt", "2", "--stage", "work"]);
    assert_eq!(second.len(), 41);
    assert!(second.iter().all(|item| item["attempt"] == 2));
    let refused = ran.items("flows", &["--refused"]);
    assert_eq!(refused.len(), 80);
    assert!(refused.iter().all(|item| item["verdict"] == "refused"));
    let listed = ran.runs("flows", &["-o", "json"]).json("flows");
    let sums = &listed["attempts"][0];
    assert_eq!(sums["totals"]["refused"], 40, "{sums:#}");
    // The entry that vouches for them is the attempt's.
    let entry = sums["entry"].to_string();
    let shown = ran.place.barecount(["evidence", "show", &entry]).finish();
    shown.exits_with(0).tells("\"attempt\": 1");
    let yaml = ran.runs("flows", &["-o", "yaml"]).exits_with(0);
    yaml.tells("schema: barecount/flows/v1");
    Ok(())
}

#[test]
fn flows_and_accesses_are_tables_for_a_person() -> Outcome {
    let ran = Ran::to("tcp://192.0.2.7:443")?;
    let port = ran.port.to_string();
    let flows = ran.runs("flows", &["--attempt", "2"]).exits_with(0);
    let hidden = flows.stdout.replace(&port, &"P".repeat(port.len()));
    assert_eq!(
        hidden,
        "\
TASK  ATTEMPT  DESTINATION                    PROTOCOL  VERDICT  TIMES  SENT  RECEIVED  REASON
work  2        erp.example (127.0.0.1):PPPPP  http      allowed  1      56 B  60 B      -
work  2        192.0.2.7:443                  tcp       refused  1      0 B   0 B       the address \
192.0.2.7 is not declared
"
    );
    flows.tells("1 attempt, as the signed ledger has them");
    let accesses = ran.runs("accesses", &["--attempt", "1"]).exits_with(0);
    let mut told: Vec<String> = Vec::new();
    for line in accesses.stdout.lines() {
        let cells = line.split("  ").map(str::trim);
        // The moment is another each time.
        let cells = cells.map(|cell| if is_moment(cell) { "MOMENT" } else { cell });
        let cells: Vec<&str> = cells.filter(|cell| !cell.is_empty()).collect();
        told.push(cells.join(" | "));
    }
    let destination = format!("erp.example:{port}");
    let reached = format!("work | 1 | identity | reach | {destination} | allowed | MOMENT | -");
    assert_eq!(
        told,
        [
            "TASK | ATTEMPT | RECORD | ACTION | OBJECT | VERDICT | AT | REASON",
            "work | 1 | identity | fetch | secret erp/token | allowed | MOMENT | -",
            &reached,
            "work | 1 | identity | read | its checkpoint | allowed | MOMENT | -",
            "work | 1 | identity | write | its checkpoint | allowed | MOMENT | -",
            "work | 1 | secrets | fetch | secret erp/token@1 | allowed | MOMENT | -",
        ]
    );
    let accesses = ran.items("accesses", &["--attempt", "1"]);
    assert_eq!(accesses.len(), 5);
    assert_eq!(accesses[4]["reason"], Value::Null, "null, not missing");
    ran.runs("accesses", &["--refused"])
        .exits_with(0)
        .tells("nothing was refused");
    ran.runs("show", &[]).exits_with(0).tells(&format!(
        "… and 1 more accesses to secrets: `barecount runs accesses {}`",
        ran.id
    ));
    for verb in ["flows", "accesses"] {
        ran.runs(verb, &["--stage", "none"])
            .exits_with(4)
            .tells("Its stages are work.");
        ran.runs(verb, &["--attempt", "3"])
            .exits_with(4)
            .tells("barecount runs show");
        ran.runs(verb, &["--attempt", "0"]).exits_with(2);
    }
    Ok(())
}

#[test]
fn every_access_is_printed_also_where_evidence_has_no_room_for_all() -> Outcome {
    let inputs: String = (0..80)
        .map(|number| format!("        - {{ file: data/{number}.txt, name: in{number} }}\n"))
        .collect();
    let place = pipelines::container_with("", &format!("      inputs:\n{inputs}"));
    for number in 0..80 {
        place.write(format!("data/{number}.txt"), number.to_string());
    }
    let finished = pipelines::start(&place).finish().exits_with(0);
    let id = finished.json("run")["id"].as_str().map(str::to_owned);
    let id = id.ok_or("a run has an id")?;
    let asked = || {
        place
            .barecount(["runs", "accesses", &id, "-o", "json"])
            .finish()
    };
    let listed = asked().exits_with(0).json("accesses");
    let items = listed["items"].as_array().ok_or("a list")?;
    for number in 0..80 {
        let object = json!(format!("file in{number}"));
        let read = |item: &&Value| item["object"] == object && item["verdict"] == "allowed";
        assert_eq!(items.iter().filter(read).count(), 1, "{object}");
    }
    let totals = &listed["attempts"][0]["totals"];
    assert_eq!(totals["allowed"], items.len(), "{totals}");
    assert_eq!(totals["unlisted"], 0, "{totals}");
    let logs = place.state().join("logs");
    let mut entries = fs_err::read_dir(logs)?;
    let record = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        let is_record = path.to_string_lossy().ends_with(".objects.jsonl");
        is_record.then_some(path)
    });
    let record = record.ok_or("there is a record beside the ledger")?;
    let text = fs_err::read_to_string(&record)?;
    fs_err::write(&record, text.replace("in79", "in78"))?;
    asked().fails_with(7, "BC0904");
    place
        .barecount(["evidence", "verify"])
        .finish()
        .exits_with(7)
        .tells(".objects.jsonl");
    Ok(())
}

/// Whether a text is an instant in UTC, as RFC 3339 writes it.
fn is_moment(text: &str) -> bool {
    text.len() > 20 && text.starts_with("20") && text.ends_with('Z')
}

#[test]
fn a_record_that_was_changed_cut_removed_or_replaced_is_not_believed() -> Outcome {
    let ran = Ran::to("tcp://192.0.2.7:443")?;
    let verified = ran.verify(&[]).exits_with(0).json("verification");
    assert_eq!(verified["details"]["proved"], 9, "{verified:#}");
    for (verb, ending) in [("flows", ".flows.jsonl"), ("accesses", ".secrets.jsonl")] {
        ran.runs(verb, &[]).exits_with(0);
        let file = ran.files(ending)?.pop().ok_or("there is a record")?;
        let intact = fs_err::read(&file)?;
        let name = file.file_name().ok_or("it has a name")?;
        let name = format!("logs/{}", name.to_string_lossy());
        let expected = digest(&intact);
        let not_believed = |found: Option<String>| {
            let mut telling = vec![name.clone(), expected.clone(), "attempt 2".to_owned()];
            telling.extend(found.clone());
            let mut told = ran.runs(verb, &[]).fails_with(7, "BC0904");
            assert_eq!(told.stdout, "", "nothing is told of what is not believed");
            for text in telling {
                told = told.tells(&text);
            }
            // The other attempt's record is another.
            ran.runs(verb, &["--attempt", "1"]).exits_with(0);
            let problems = problems(&ran.verify(&[]).exits_with(7));
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].0, name);
            assert!(problems[0].1.contains(&expected), "{problems:?}");
            ran.verify(&["--no-details"]).exits_with(0);
        };
        let mut changed = intact.clone();
        changed[intact.len() / 2] ^= 1;
        let longer = [&intact[..], b"\n"].concat();
        for bytes in [&changed, &intact[..intact.len() / 2], b"", &longer] {
            fs_err::write(&file, bytes)?;
            not_believed(Some(digest(bytes)));
        }
        fs_err::remove_file(&file)?;
        not_believed(Some("there is no file".to_owned()));
        // A pipe that nobody writes to would be waited for.
        rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RUSR, 0)?;
        not_believed(None);
        fs_err::remove_file(&file)?;
        fs_err::create_dir(&file)?;
        not_believed(None);
        fs_err::remove_dir(&file)?;
        // Nothing is on the disk of it, and reading it would take for ever.
        fs_err::File::create(&file)?.set_len(1 << 40)?;
        not_believed(Some("larger than any record".to_owned()));
        fs_err::remove_file(&file)?;
        std::os::unix::fs::symlink("/dev/zero", &file)?;
        not_believed(None);
        fs_err::remove_file(&file)?;
        fs_err::write(&file, intact)?;
        ran.runs(verb, &[]).exits_with(0);
    }
    ran.verify(&[]).exits_with(0);
    let verify = ["evidence", "verify"];
    let verified = ran.place.barecount(verify).finish().exits_with(0);
    verified.tells("details   9 records beside the log, each as its entry names it");
    Ok(())
}

#[test]
fn a_log_that_was_changed_cut_removed_or_replaced_is_shown_as_what_it_is() -> Outcome {
    let ran = Ran::to("tcp://192.0.2.7:443")?;
    ran.runs("logs", &[]).exits_with(0);
    let file = ran.files("-2.log")?.pop().ok_or("there is a log")?;
    let intact = fs_err::read(&file)?;
    let name = file.file_name().ok_or("it has a name")?;
    let name = format!("logs/{}", name.to_string_lossy());
    let expected = digest(&intact);
    let found_out = |message: &str| {
        let problems = problems(&ran.verify(&[]).exits_with(7));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, name);
        assert!(problems[0].1.contains(&expected), "{problems:?}");
        assert!(problems[0].1.contains(message), "{problems:?}");
        ran.verify(&["--no-details"]).exits_with(0);
    };
    let told = |found: &str, text: &[u8]| {
        let shown = ran.runs("logs", &[]).fails_with(7, "BC0904");
        let shown = shown.tells("attempt 2; this is not what was signed: ");
        shown.tells(&name).tells(&expected).tells(found);
        let raw = ran.runs("logs", &["--raw"]).exits_with(7);
        let text = String::from_utf8_lossy(text);
        assert!(
            raw.stdout.contains(&*text),
            "what is there is printed: {raw}"
        );
        let listed = ran.runs("logs", &["-o", "json"]).exits_with(7);
        let items = &listed.json("logs")["items"];
        assert_eq!(items[0]["problem"], Value::Null, "{items:#}");
        assert!(items[1]["problem"].is_string(), "{items:#}");
        found_out(found);
    };
    let mut changed = intact.clone();
    changed[intact.len() / 2] ^= 1;
    for bytes in [&changed, &intact[..intact.len() / 2], b""] {
        fs_err::write(&file, bytes)?;
        told(&digest(bytes), bytes);
    }
    let longer = [&intact[..], b"\n"].concat();
    fs_err::write(&file, &longer)?;
    told("longer than its", &longer);
    fs_err::remove_file(&file)?;
    told("there is no file", b"");
    // A pipe that nobody writes to would be waited for.
    rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RUSR, 0)?;
    told("not a regular file", b"");
    fs_err::remove_file(&file)?;
    // Nothing is on the disk of it, and reading it would take for ever.
    fs_err::File::create(&file)?.set_len(1 << 40)?;
    found_out("longer than its");
    fs_err::write(&file, intact)?;
    ran.runs("logs", &[]).exits_with(0);
    ran.verify(&[]).exits_with(0);
    Ok(())
}

#[test]
fn an_entry_that_is_not_the_one_that_was_signed_vouches_for_nothing() -> Outcome {
    let ran = Ran::to("tcp://192.0.2.7:443")?;
    let file = ran
        .files(".flows.jsonl")?
        .pop()
        .ok_or("there is a record")?;
    let intact = fs_err::read(&file)?;
    let text = String::from_utf8(intact.clone())?;
    let changed = text.replace("192.0.2.7", "192.0.2.8");
    assert_ne!(changed, text);
    // Whoever changes the record changes its digest in the entry as well.
    let bundles = tiles(&ran.place.state().join("ledger/tile/entries"))?;
    let (before, after) = (digest(&intact), digest(changed.as_bytes()));
    let mut replaced = 0;
    for path in bundles {
        let bytes = fs_err::read(&path)?;
        let spot = bytes
            .windows(before.len())
            .position(|window| window == before.as_bytes());
        if let Some(spot) = spot {
            let mut bytes = bytes;
            bytes[spot..spot + after.len()].copy_from_slice(after.as_bytes());
            fs_err::write(&path, bytes)?;
            replaced += 1;
        }
    }
    assert!(replaced > 0, "the digest stands in the entries");
    fs_err::write(&file, changed)?;
    ran.runs("flows", &[])
        .fails_with(7, "BC0903")
        .tells("is not the one that was signed");
    ran.verify(&[]).exits_with(7);
    let index = ran.place.barecount(["evidence", "ls", "-o", "json"]);
    let listed = index.finish().exits_with(0).json("evidence");
    let entries = listed["items"].as_array().into_iter().flatten();
    let attempts: Vec<String> = entries
        .filter(|entry| entry["kind"] == "attempt")
        .map(|entry| entry["index"].to_string())
        .collect();
    assert_eq!(attempts.len(), 2);
    ran.place
        .barecount(["evidence", "show", &attempts[1]])
        .finish()
        .fails_with(7, "BC0903");
    Ok(())
}

/// Every file below a folder.
fn tiles(folder: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(tiles(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn an_export_has_the_records_beside_the_log_and_a_stranger_checks_those_that_are_there() -> Outcome
{
    let ran = Ran::to("tcp://192.0.2.7:443")?;
    let export = |folder: &str| ran.place.barecount(["evidence", "export", folder]).finish();
    export("log").exits_with(0).tells("and 7 records");
    // The stranger has the export and the key, and no state folder.
    let stranger = Place::new();
    fs_err::copy(ran.place.join("log/key.vkey"), stranger.join("key.vkey"))?;
    fs_err::rename(ran.place.join("log"), stranger.join("log"))?;
    let verify = |more: &[&str]| {
        let arguments = [
            "evidence", "verify", "log", "--vkey", "key.vkey", "-o", "json",
        ];
        let arguments = [&arguments[..], more].concat();
        stranger.barecount(arguments).finish()
    };
    let details = || verify(&[]).exits_with(0).json("verification")["details"].clone();
    assert_eq!(details(), json!({ "proved": 7, "absent": 0 }));
    let records = tiles(&stranger.join("log/details"))?;
    assert_eq!(records.len(), 7);
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("details/{name}")
    };
    for path in &records {
        let intact = fs_err::read(path)?;
        let named = digest(&intact).replace("sha256:", "details/") + ".json";
        assert_eq!(name(path), named, "a record is called by its digest");
        let mut flipped = intact.clone();
        flipped[7] ^= 4;
        fs_err::write(path, &flipped)?;
        let problems = problems(&verify(&[]).exits_with(7));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, named);
        assert!(problems[0].1.contains(&digest(&flipped)), "{problems:?}");
        verify(&["--no-details"]).exits_with(0);
        fs_err::write(path, intact)?;
    }
    // What no entry names proves nothing, and does not look as if it did.
    for foreign in ["notes.txt", &format!("{}.json", "0".repeat(64))] {
        let path = stranger.write(format!("log/details/{foreign}"), "{}");
        let problems = problems(&verify(&[]).exits_with(7));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, name(&path));
        fs_err::remove_file(path)?;
    }
    fs_err::remove_file(&records[0])?;
    assert_eq!(details(), json!({ "proved": 6, "absent": 1 }));
    fs_err::remove_dir_all(stranger.join("log/details"))?;
    assert_eq!(details(), json!({ "proved": 0, "absent": 7 }));
    // What is not the record that the ledger names is not handed out for it.
    let file = ran
        .files(".flows.jsonl")?
        .pop()
        .ok_or("there is a record")?;
    fs_err::write(&file, "{}\n")?;
    export("log")
        .fails_with(7, "BC0904")
        .tells("left out: entry");
    assert_eq!(tiles(&ran.place.join("log/details"))?.len(), 6);
    Ok(())
}
