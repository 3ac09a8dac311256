//! Tests of the tests: each guarantee is broken in a copy of the project, and its test must notice.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    project::Project,
    steps::{Failure, Task},
};

/// One line of code without which a guarantee does not hold.
struct Break {
    name: &'static str,
    /// What would no longer be so.
    guarantee: &'static str,
    file: &'static str,
    /// What stands there once, and is replaced.
    from: &'static str,
    to: &'static str,
    /// The arguments of `cargo test` that run the tests which must fail.
    tests: &'static str,
}

const BREAKS: &[Break] = &[
    Break {
        name: "commit-once",
        guarantee: "a decision that is rolled forward twice commits once",
        file: "crates/dataset/src/commit.rs",
        from: "present.filter(|present| *present >= wanted.version)",
        to: "present.filter(|_| false)",
        tests: "--lib -- commit::",
    },
    Break {
        name: "fencing",
        guarantee: "reports of an attempt that is no longer the current one change nothing",
        file: "crates/model/src/run/mod.rs",
        from: "Some(attempt) if attempt.number == number => Ok(attempt)",
        to: "Some(attempt) => Ok(attempt)",
        tests: "--test run_histories",
    },
    Break {
        name: "acceptance",
        guarantee: "data that fails a test is not committed",
        file: "crates/client/src/embedded/acceptance.rs",
        from: ".filter(|result| !result.passed)",
        to: ".filter(|_| false)",
        tests: "--test suite -- rows::",
    },
    Break {
        name: "checkpoint-order",
        guarantee: "a late decision does not put an older checkpoint in place of a newer",
        file: "crates/client/src/embedded/checkpoints.rs",
        from: "|| header.decided_at_ms > decided_at_ms",
        to: "",
        tests: "--lib -- embedded::checkpoints::",
    },
    Break {
        name: "entry-bound",
        guarantee: "no statement is longer than the ledger takes",
        file: "crates/model/src/evidence.rs",
        from: "fit::fitting(&document, MAX_STATEMENT_BYTES)",
        to: "fit::fitting(&document, usize::MAX)",
        tests: "--test durability -- evidence::",
    },
    Break {
        name: "record-digest",
        guarantee: "a record beside the ledger is believed only with the digest in its entry",
        file: "crates/client/src/details/mod.rs",
        from: "if found != expected {",
        to: "if false {",
        tests: "--test suite -- records::",
    },
    Break {
        name: "file-digest",
        guarantee: "rows leave a dataset only from the files that were committed",
        file: "crates/dataset/src/read.rs",
        from: "if !found.starts_with(committed.as_str()) {",
        to: "if false {",
        tests: "--lib -- commit::tests::altered::",
    },
    Break {
        name: "recount",
        guarantee: "rows that are not those that were signed do not verify, whatever their log says",
        file: "crates/client/src/details/data.rs",
        from: "Ok((_, digest)) if digest == signed.output.digest => Ok(true),",
        to: "Ok((_, digest)) if !digest.is_empty() => Ok(true),",
        tests: "--test suite -- forged::",
    },
    Break {
        name: "decoding",
        guarantee: "a file that unpacks to more than its stage may use is decoded nowhere else",
        file: "crates/client/src/embedded/data.rs",
        from: "let staged = if spec.format == OutputFormat::Parquet {",
        to: "let staged = if spec.format == OutputFormat::Parquet && spec.limits.max_rows == 0 {",
        tests: "--test suite -- poison::",
    },
    Break {
        name: "replaced-folder",
        guarantee: "a link that work puts in the place of its folder leads nobody anywhere",
        file: "crates/runner/src/handler/slots.rs",
        from: "if !metadata.is_dir() {",
        to: "if false {",
        tests: "--lib -- handler::slots::",
    },
    Break {
        name: "removed-mount",
        guarantee: "what is mounted in a tree is not removed with it",
        file: "crates/tree/src/open.rs",
        from: "ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS",
        to: "ResolveFlags::NO_SYMLINKS",
        tests: "--lib -- hostile::a_mount",
    },
    Break {
        name: "closed-folder",
        guarantee: "a folder that its owner may not change is removed",
        file: "crates/tree/src/open.rs",
        from: "if !mode.contains(Mode::RWXU) {",
        to: "if false {",
        tests: "--lib -- grown::any_tree",
    },
    Break {
        name: "removed-lock",
        guarantee: "a state folder has one writer, whoever removes its file `lock`",
        file: "crates/control/src/store/lock.rs",
        from: "Ok(()) => Some(opened),",
        to: "Ok(()) => None,",
        tests: "--lib -- lock::",
    },
    Break {
        name: "verification",
        guarantee: "a changed byte of an exported ledger is found",
        file: "crates/ledger/src/verify/walk.rs",
        from: "as_stored.is_some_and(|levels| root_of_edge(levels) == *root)",
        to: "as_stored.is_some()",
        tests: "--lib -- verify::",
    },
    Break {
        name: "policy",
        guarantee: "what no policy permits does not run",
        file: "crates/control/src/governance/evaluation.rs",
        from: "let allowed = permitted && errors.is_empty();",
        to: "let allowed = true;",
        tests: "--test suite -- policy::",
    },
    Break {
        name: "crossing",
        guarantee: "data crosses a boundary only where the manifest declares it",
        file: "crates/model/src/pipeline/crossing.rs",
        from: "None if laxer.is_empty() => None,",
        to: "None if !laxer.is_empty() => None,",
        tests: "--test diagnostics",
    },
    Break {
        name: "old-boundary",
        guarantee: "data that was written within a stricter boundary stays there",
        file: "crates/client/src/embedded/boundaries.rs",
        from: "boundary.laxer_parts(from).is_empty();",
        to: "boundary.laxer_parts(from).len() < 9;",
        tests: "--lib -- embedded::boundaries::",
    },
    Break {
        name: "identity",
        guarantee: "an identity that was changed opens nothing",
        file: "crates/agent/src/access.rs",
        from: ".map_err(|_| AccessError::Forged)?;",
        to: ".ok();",
        tests: "--lib -- access::",
    },
    Break {
        name: "secret-scope",
        guarantee: "an attempt is given the secrets of its own identity, and no others",
        file: "crates/agent/src/access.rs",
        from: "let open = self.scopes().secrets.contains(&reference);",
        to: "let open = true;",
        tests: "--lib -- access::",
    },
    Break {
        name: "allow-list",
        guarantee: "a public name that is not allowed does not go by the approved proxy",
        file: "crates/network/src/path/plan.rs",
        from: "self.public_via.filter(|_| self.public_names.have(target))",
        to: "self.public_via",
        tests: "--lib -- path::plan",
    },
    Break {
        name: "flood",
        guarantee: "what comes faster than it may waits where it costs the agent nothing",
        file: "crates/network/src/broker.rs",
        from: "self.refusals.spend(1).await;",
        to: "",
        tests: "--test broker -- limits::a_flood",
    },
    Break {
        name: "last-request",
        guarantee: "a body that a server leaves unread is no request to another host",
        file: "crates/network/src/inspect/http/head.rs",
        from: "line(&[b\"Connection: close\"]);",
        to: "{}",
        tests: "--test broker -- battery::what_http_server",
    },
    Break {
        name: "network",
        guarantee: "a sandbox has no network but its own loopback",
        file: "crates/sandbox/src/launcher/birth.rs",
        from: "| libc::CLONE_NEWUTS\n    | libc::CLONE_NEWNET) as u64",
        to: "| libc::CLONE_NEWUTS) as u64",
        tests: "--test sandbox",
    },
    Break {
        name: "inputs",
        guarantee: "work cannot change its inputs",
        file: "crates/runner/src/local/places.rs",
        from: "bind(&places.input, inside::INPUT, Access::Read)",
        to: "bind(&places.input, inside::INPUT, Access::Write)",
        tests: "--test conformance -- inputs_can_be_read",
    },
    Break {
        name: "redaction",
        guarantee: "a secret that work prints is not in its log",
        file: "crates/runner/src/local/log.rs",
        from: "redaction: target.redactor.as_ref().map(Redactor::stream),",
        to: "redaction: None,",
        tests: "--test suite -- secrets::a_secret_that_work_tells",
    },
    Break {
        name: "secrets-in-failures",
        guarantee: "a secret is in no failure, dead letter or evidence",
        file: "crates/agent/src/executor.rs",
        from: "secrets::redact(&redactor, &mut outcome);",
        to: "let _ = (redactor, &mut outcome);",
        tests: "--test suite -- secrets::a_canary",
    },
    Break {
        name: "redaction-encodings",
        guarantee: "a secret is redacted in the encodings that docs/secrets.md lists",
        file: "crates/secrets/src/redact/pattern.rs",
        from: "..MAX_RARE_SYMBOLS => patterns.add_rare(label, &needle),",
        to: "..MAX_RARE_SYMBOLS => {}",
        tests: "--lib -- redact::tests::table",
    },
    Break {
        name: "dumpable",
        guarantee: "a process with secrets is not dumped",
        file: "crates/secrets/src/dump.rs",
        from: "set_dumpable_behavior(DumpableBehavior::NotDumpable)",
        to: "set_dumpable_behavior(DumpableBehavior::Dumpable)",
        tests: "--test dump",
    },
    Break {
        name: "piped-dump",
        guarantee: "the memory of a stage is piped to no program of the host",
        file: "crates/sandbox/src/init/payload.rs",
        from: "const CORE_BYTES: u64 = 1;",
        to: "const CORE_BYTES: u64 = 0;",
        tests: "--test sandbox -- the_memory_of_what_crashes",
    },
    Break {
        name: "userinfo",
        guarantee: "a password in a request's address is in no record",
        file: "crates/network/src/inspect/userinfo.rs",
        from: "Some((_, host)) => (true, host),",
        to: "Some(_) => (false, authority),",
        tests: "--lib -- inspect::userinfo",
    },
    Break {
        name: "path-gate",
        guarantee: "a run waits for a path that is down",
        file: "crates/control/src/reconcile/capacity.rs",
        from: "through && !stage.egress.is_empty()",
        to: "through && stage.egress.is_empty()",
        tests: "--test suite -- boundary::a_run_waits",
    },
    Break {
        name: "stopped-checkpoint",
        guarantee: "work that saved its checkpoint when it was stopped goes on from there",
        file: "crates/runner/src/local/sandboxed.rs",
        from: "saved: ran.stopped &&",
        to: "saved: false && ran.stopped &&",
        tests: "--test conformance -- container::a_command_that_is_asked",
    },
    Break {
        name: "stopped-handler",
        guarantee: "so does a handler",
        file: "crates/runner/src/handler/worker.rs",
        from: "matches!(happened, Happened::Stopped { saved: true })",
        to: "false",
        tests: "--test suite -- erp::a_poll_that_was_cancelled",
    },
    Break {
        name: "warm-secrets",
        guarantee: "a process that was given secrets serves no other run",
        file: "crates/agent/src/secrets.rs",
        from: "ReuseKey::of_run(run.clone(), key)",
        to: "{ let _ = run; ReuseKey::of_any_run(key) }",
        tests: "--lib -- secrets::",
    },
    Break {
        name: "lent-secrets",
        guarantee: "a warm sandbox has the secrets of an attempt for its time alone",
        file: "crates/runner/src/handler/worker.rs",
        from: ".map_or(Ok(()), SecretsFolder::take_back);",
        to: ".map_or(Ok(()), |_| std::io::Result::Ok(()));",
        tests: "--test conformance -- container::secrets_are",
    },
    Break {
        name: "sweeping",
        guarantee: "nothing that was not decided for is left in staging",
        file: "crates/control/src/reconcile/turn.rs",
        from: ".filter(|attempt| !self.swept.contains(attempt));",
        to: ".filter(|_| false);",
        tests: "--test suite -- functions::a_good_function",
    },
    Break {
        name: "history-fence",
        guarantee: "reports of an attempt that is no longer the current one change nothing",
        file: "crates/model/src/run/mod.rs",
        from: "Some(attempt) if attempt.number == number => Ok(attempt)",
        to: "Some(attempt) => Ok(attempt)",
        tests: "--test histories",
    },
    Break {
        name: "history-outbox",
        guarantee: "an end that was told is the end, whoever dies after",
        file: "crates/agent/src/dispatcher.rs",
        from: "if let Some(told) = self.kept_end(attempt).await {",
        to: "if let Some(told) = self.kept_end(attempt).await.filter(|_| false) {",
        tests: "--test histories",
    },
    Break {
        name: "history-launch",
        guarantee: "a launch that comes twice begins one attempt",
        file: "crates/agent/src/register.rs",
        from: "Held::Live(_) => return Opened::Nothing,",
        to: "Held::Live(_) => {}",
        tests: "--test histories",
    },
    Break {
        name: "history-roll-forward",
        guarantee: "a commit decision is rolled forward",
        file: "crates/control/src/reconcile/turn.rs",
        from: "wants.insert(Want::RollForward(task, number));",
        to: "let _ = Want::RollForward(task, number);",
        tests: "--test histories",
    },
    Break {
        name: "history-cleanup",
        guarantee: "nothing is left of an attempt that has ended",
        file: "crates/control/src/reconcile/turn.rs",
        from: ".filter(|attempt| !self.swept.contains(attempt));",
        to: ".filter(|_| false);",
        tests: "--test histories",
    },
    Break {
        name: "history-owner",
        guarantee: "an owner that was succeeded writes nothing",
        file: "crates/control/src/journal/memory.rs",
        from: "durable.position.epoch == self.epoch && batch.position == durable.position.next();",
        to: "batch.position.seq == durable.position.next().seq;",
        tests: "--test histories",
    },
    Break {
        name: "history-staging",
        guarantee: "no loss of power takes what was decided for",
        file: "crates/agent/src/places.rs",
        from: "self.files.sync_folder(&folder)?;",
        to: "",
        tests: "--test histories",
    },
    Break {
        name: "history-certain",
        guarantee: "an end is told once nothing of the attempt runs any more",
        file: "crates/agent/src/dispatcher.rs",
        from: "while let Err(error) = runner.destroy(&token).await {",
        to: "if let Err(error) = runner.destroy(&token).await {",
        tests: "--test histories",
    },
    Break {
        name: "history-kept",
        guarantee: "a success is told only once a later process would find it",
        file: "crates/agent/src/dispatcher.rs",
        from: "if !is_done {",
        to: "if is_done || !is_done {",
        tests: "--test histories",
    },
    Break {
        name: "doubt",
        guarantee: "what may have persisted is found out though nobody asks for anything else",
        file: "crates/control/src/writer.rs",
        from: "in_doubt = writer.is_in_doubt();",
        to: "in_doubt = writer.is_in_doubt() && writer.fenced;",
        tests: "--lib -- tests::what_is_in_doubt",
    },
    Break {
        name: "rounded-decimals",
        guarantee: "the type of a rounded decimal does not follow how its digits are written",
        file: "crates/engine/src/arithmetic/finite.rs",
        from: "match number.data_type().is_decimal() {",
        to: "match number.data_type().is_null() {",
        tests: "--test engine -- figures::a_rounded_decimal",
    },
    Break {
        name: "unkept-end",
        guarantee: "two ends of one attempt are never told, also where its end cannot be kept",
        file: "crates/agent/src/dispatcher.rs",
        from: "self.end_for_certain(&**runner, attempt).await;",
        to: "let _ = runner;",
        tests: "--lib -- failing::a_success_that_cannot_be_kept",
    },
    Break {
        name: "reopened-cancelled",
        guarantee: "a run that is cancelled comes to its end, whatever is not true any more",
        file: "crates/model/src/run/reopen.rs",
        from: "if !self.state.starts_tasks() {",
        to: "if self.state.is_final() {",
        tests: "--test run_histories",
    },
    Break {
        name: "zeros",
        guarantee: "both zeros are one where floats are looked up",
        file: "crates/engine/src/arithmetic/zero.rs",
        from: "Expr::InList(found) if is_float(&found.expr)? => {",
        to: "Expr::InList(found) if found.list.is_empty() && is_float(&found.expr)? => {",
        tests: "--test engine -- figures::both_zeros",
    },
    Break {
        name: "history-clocks",
        guarantee: "an identity opens what it is for though a clock is behind",
        file: "crates/model/src/identity.rs",
        from: "SignedDuration = SignedDuration::from_mins(5);",
        to: "SignedDuration = SignedDuration::ZERO;",
        tests: "--test histories",
    },
    Break {
        name: "history-caps",
        guarantee: "no more is under way at once than may be",
        file: "crates/control/src/reconcile/capacity.rs",
        from: "!self.is_full(caps) && of_class < caps.of_class(class)",
        to: "!self.is_full(caps) && of_class < usize::MAX",
        tests: "--test histories",
    },
    Break {
        name: "history-ledger",
        guarantee: "the ledger hears of every entry, in order",
        file: "crates/control/src/writer.rs",
        from: "let first = batch.first_entry;",
        to: "let first = batch.first_entry + 1;",
        tests: "--test histories",
    },
    Break {
        name: "history-doubt",
        guarantee: "a batch of which nobody knew whether it was written is told of if it was",
        file: "crates/control/src/writer.rs",
        from: "self.resolve(batch, Arc::new(error))",
        to: "self.resolve(Batch { position: Position::default(), ..batch }, Arc::new(error))",
        tests: "--test histories",
    },
    Break {
        name: "history-watermark",
        guarantee: "a run that has ended is known until it can be asked for",
        file: "crates/control/src/shard.rs",
        from: "pub(crate) fn settle(&mut self, seen: u64) {",
        to: "pub(crate) fn settle(&mut self, _: u64) { let seen = u64::MAX;",
        tests: "--test histories",
    },
    Break {
        name: "history-stop",
        guarantee: "an attempt that is stopped before it is launched has an end",
        file: "crates/control/src/reconcile/turn.rs",
        from: "wants.extend([Want::Stop(task, number), Want::Give(task, number)]);",
        to: "wants.extend([Want::Stop(task, number)]);",
        tests: "--test histories",
    },
    Break {
        name: "history-acknowledge",
        guarantee: "an agent keeps an end until that is durable",
        file: "crates/control/src/reconcile/record.rs",
        from: "self.todo.push(Todo::Record { attempt, report });",
        to: "self.todo.extend([Todo::Acknowledge(attempt.clone()), Todo::Record { attempt, report }]);",
        tests: "--test histories",
    },
    Break {
        name: "untrusted-escapes",
        guarantee: "a terminal obeys nothing of what others wrote",
        file: "crates/model/src/untrusted.rs",
        from: "is_unprintable(c) && !passes(c)",
        to: "c.is_ascii_control() && !passes(c)",
        tests: "--lib -- untrusted::",
    },
    Break {
        name: "untrusted-bounds",
        guarantee: "what others wrote is bounded where it is made and where it is read",
        file: "crates/model/src/untrusted.rs",
        from: "if text.len() > MAX {",
        to: "if text.is_empty() {",
        tests: "--lib -- untrusted::",
    },
];

/// Breaks what is named, or all, one after the other.
#[expect(clippy::print_stdout, reason = "the summary is the result")]
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let chosen = choose(names)?;
    let project = Project::find()?;
    let copy = Copy::make(&project)?;
    let mut unnoticed = Vec::new();
    for broken in &chosen {
        let original = copy.apply(broken)?;
        let passed = copy.passes(&project, broken);
        copy.write(broken.file, &original)?;
        let noticed = !passed?;
        println!(
            "{} {}: {}",
            if noticed { "noticed  " } else { "UNNOTICED" },
            broken.name,
            broken.guarantee
        );
        if !noticed {
            unnoticed.push(broken.name);
        }
    }
    if unnoticed.is_empty() {
        return Ok(());
    }
    let reason = format!("no test noticed: {}", unnoticed.join(", "));
    Err(Failure::new("break", reason))
}

fn choose(names: &[String]) -> Result<Vec<&'static Break>, Failure> {
    if let Some(unknown) = names
        .iter()
        .find(|name| BREAKS.iter().all(|known| known.name != **name))
    {
        let known: Vec<_> = BREAKS.iter().map(|known| known.name).collect();
        let reason = format!("there is no such break; there are {}", known.join(", "));
        return Err(Failure::new(unknown.as_str(), reason));
    }
    let wanted = |broken: &&Break| names.is_empty() || names.iter().any(|name| name == broken.name);
    Ok(BREAKS.iter().filter(wanted).collect())
}

/// A copy of the project that may be broken, with a target folder of its own, which is kept.
struct Copy {
    root: PathBuf,
}

impl Copy {
    fn make(project: &Project) -> Result<Self, Failure> {
        let root = project.target.join("broken");
        let failed = |error: io::Error| Failure::new("copy the project", error.to_string());
        let listed = Command::new("git")
            .args([
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(&project.root)
            .output()
            .map_err(failed)?;
        if !listed.status.success() {
            let told = String::from_utf8_lossy(&listed.stderr).into_owned();
            return Err(Failure::new("copy the project", told));
        }
        for path in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            let from = project.root.join(path);
            if from.is_file() {
                let content = fs::read(&from).map_err(failed)?;
                write_changed(&root.join(path), &content).map_err(failed)?;
            }
        }
        Ok(Self { root })
    }

    /// Breaks it; answers with the file as it was.
    fn apply(&self, broken: &Break) -> Result<String, Failure> {
        let failed = |reason: String| Failure::new(broken.name, reason);
        let path = self.root.join(broken.file);
        let original = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let found = original.matches(broken.from).count();
        if found != 1 {
            return Err(failed(format!(
                "`{}` stands {found} times in {}: adapt the break to the code",
                broken.from, broken.file
            )));
        }
        self.write(broken.file, &original.replace(broken.from, broken.to))?;
        Ok(original)
    }

    fn write(&self, file: &str, content: &str) -> Result<(), Failure> {
        write_changed(&self.root.join(file), content.as_bytes())
            .map_err(|error| Failure::new(file, error.to_string()))
    }

    /// Whether the tests pass. What cannot be built is an error: it shows nothing about them.
    fn passes(&self, project: &Project, broken: &Break) -> Result<bool, Failure> {
        let here = Project {
            root: self.root.clone(),
            target: project.target.clone(),
        };
        let text = |path: PathBuf| path.display().to_string();
        let task = |command: &str| {
            Task::new(command)
                .env("CARGO_TARGET_DIR", text(self.root.join("target")))
                .env(
                    "BARECOUNT_BIN",
                    text(self.root.join("target/debug/barecount")),
                )
                .env("BARECOUNT_TEST_PYTHON", text(project.test_python()))
                .minutes(60)
        };
        let log = format!("break-{}", broken.name);
        task("cargo build --workspace --all-targets --locked").run(&log, &here)?;
        let tests = format!("cargo test --workspace --locked {}", broken.tests);
        Ok(task(&tests).run(&log, &here).is_ok())
    }
}

/// Leaves what is the same already alone, lest it is built again.
fn write_changed(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::BREAKS;

    #[test]
    fn every_break_still_finds_the_line_that_it_breaks() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for broken in BREAKS {
            let code = std::fs::read_to_string(root.join(broken.file)).unwrap_or_default();
            let found = code.matches(broken.from).count();
            let (name, file) = (broken.name, broken.file);
            assert_eq!(found, 1, "`{name}`: adapt it to what {file} is now");
        }
    }
}
