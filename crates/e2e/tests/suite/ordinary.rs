//! Without privileges: an ordinary user, and on most hosts no control groups. Started by root, these
//! tests give up being root; started by an ordinary user, they are what they are.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use barecount_e2e::{
    Outcome, binary, erp,
    mounts::MountNamespace,
    place::Place,
    process::{Finished, Invocation},
};
use serde_json::Value;

use crate::pipelines;

/// Any user but root.
pub(crate) const USER: u32 = 1000;

/// A place that belongs to an ordinary user, who need not reach what is around it.
pub(crate) struct Home {
    pub(crate) place: Place,
    namespace: Option<MountNamespace>,
}

impl Home {
    pub(crate) fn of(place: Place) -> Self {
        if !rustix::process::geteuid().is_root() {
            let namespace = None;
            return Self { place, namespace };
        }
        place.write("barecount", "");
        own(place.path()).expect("root can give files away");
        let mut namespace = MountNamespace::new();
        // The folders above may be closed to everybody else.
        namespace.run(&format!("mount --bind '{}' /mnt", place.path().display()));
        let program = binary::barecount().display();
        namespace.run(&format!("mount --bind '{program}' /mnt/barecount"));
        Self {
            place,
            namespace: Some(namespace),
        }
    }

    /// Where the place is for its owner.
    pub(crate) fn path(&self) -> PathBuf {
        match self.namespace {
            Some(_) => PathBuf::from("/mnt"),
            None => self.place.path().to_owned(),
        }
    }

    /// The binary under test, as its owner reaches it.
    fn program(&self) -> PathBuf {
        match self.namespace {
            Some(_) => PathBuf::from("/mnt/barecount"),
            None => binary::barecount().to_owned(),
        }
    }

    pub(crate) fn barecount(&self, arguments: &[&str]) -> Finished {
        self.invocation(arguments).finish()
    }

    pub(crate) fn invocation(&self, arguments: &[&str]) -> Invocation {
        self.command(&self.program(), arguments)
    }

    /// Any program, as the place's owner.
    fn command(&self, program: &Path, arguments: &[&str]) -> Invocation {
        let config = self.path().join("config");
        let command = Invocation::of(program, self.place.path(), arguments);
        let command = command.env("XDG_CONFIG_HOME", config);
        let Some(namespace) = &self.namespace else {
            return command;
        };
        let mut entry = namespace.entry(Path::new("/mnt"));
        let user = [
            format!("--reuid={USER}"),
            format!("--regid={USER}"),
            "--clear-groups".to_owned(),
        ];
        entry.push("setpriv".into());
        entry.extend(user.map(OsString::from));
        command.behind(&entry)
    }

    /// What each attempt was held to, by the evidence.
    fn enforcement(&self) -> Vec<Value> {
        let listed = self.barecount(&["evidence", "ls", "-o", "json"]);
        let listed = listed.exits_with(0).json("evidence");
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let attempts = items.iter().filter(|entry| entry["kind"] == "attempt");
        attempts
            .map(|entry| {
                let index = entry["index"].to_string();
                let shown = self.barecount(&["evidence", "show", &index, "-o", "json"]);
                let shown = shown.exits_with(0).json("evidence_entry");
                shown["statement"]["predicate"]["detail"]["enforcement"]["controls"].clone()
            })
            .collect()
    }
}

/// Gives a folder and all in it to the ordinary user.
pub(crate) fn own(path: &Path) -> Outcome {
    std::os::unix::fs::chown(path, Some(USER), Some(USER))?;
    if path.is_dir() {
        for entry in fs_err::read_dir(path)? {
            own(&entry?.path())?;
        }
    }
    Ok(())
}

#[test]
fn functions_containers_and_jobs_run_and_evidence_says_what_could_not_be_enforced() {
    let job = Place::new();
    job.barecount(["init"]).finish().exits_with(0);
    for place in [pipelines::function(""), pipelines::container(""), job] {
        let home = Home::of(place);
        let finished = home.barecount(&["run", "pipeline.yaml", "-o", "json"]);
        let finished = finished.exits_with(0);
        assert_eq!(finished.json("run")["state"], "succeeded");
        home.barecount(&["evidence", "verify"]).exits_with(0);
        let enforcement = home.enforcement();
        assert!(!enforcement.is_empty(), "there was an attempt");
        let lacks = |controls: &Value| {
            ["memory", "cpu", "pids"]
                .into_iter()
                .any(|limit| controls[limit]["level"] != "enforced")
        };
        let hints = finished
            .stderr
            .lines()
            .filter(|line| line.starts_with("hint: "));
        let lacking = enforcement.iter().any(lacks);
        assert_eq!(hints.count(), usize::from(lacking), "{}", finished.stderr);
        for controls in enforcement {
            for name in [
                "namespaces",
                "network",
                "privileges",
                "root_file_system",
                "seccomp",
            ] {
                assert_eq!(controls[name]["level"], "enforced", "{name}: {controls}");
            }
            for (name, control) in controls.as_object().into_iter().flatten() {
                let held = control["level"] == "enforced";
                assert!(held || control["reason"].is_string(), "{name}: {controls}");
            }
        }
        home.place.nothing_is_left();
    }
}

#[test]
fn work_reads_its_secrets_and_cannot_change_them() {
    let declared = "      secrets: { token: { from: erp/token } }\n";
    for place in [
        pipelines::container_with("read secrets", declared),
        pipelines::function_with("read secrets", declared, pipelines::GOOD_ROWS),
    ] {
        let home = Home::of(place);
        home.invocation(&["secrets", "set", "erp/token", "--tenant", "demo"])
            .reads("an ordinary value")
            .finish()
            .exits_with(0);
        let finished = home.barecount(&["run", "pipeline.yaml", "-o", "json"]);
        let run = finished.exits_with(0).json("run");
        home.barecount(&["runs", "logs", run["id"].as_str().unwrap_or_default()])
            .exits_with(0)
            .tells("token has 17 bytes")
            .tells("written: false");
        home.place.nothing_is_left();
    }
}

#[test]
fn work_that_eats_memory_or_never_stops_forking_fails_alone() {
    for (behaviour, more) in [("eat memory", ""), ("fork bomb", "      timeout: 8s\n")] {
        let home = Home::of(pipelines::container_with(behaviour, more));
        let finished = home.barecount(&["run", "pipeline.yaml", "-o", "json"]);
        assert_eq!(finished.exits_with(1).json("run")["state"], "failed");
        home.place.nothing_is_left();
    }
}

#[test]
fn the_order_system_of_the_example_gets_a_test_host_without_privileges() {
    let home = Home::of(erp::place_without_sources());
    let secret = ["secrets", "set", "erp/client-secret", "--tenant", "demo"];
    home.command(&home.program(), &secret)
        .reads(erp::secret())
        .finish()
        .exits_with(0);
    let script = home.path().join("erp-poll/run").display().to_string();
    let (user, group) = match &home.namespace {
        Some(_) => (USER, USER),
        None => (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        ),
    };
    let namespaces = ["--user", "--map-root-user", "--net", &script, "--inside"];
    let finished = home
        .command(Path::new("unshare"), &namespaces)
        .env("ERP_PLATFORM", home.program())
        .env("ERP_WORK", home.path())
        .env("ERP_STATE", home.path().join(".barecount"))
        .env("ERP_USER", user.to_string())
        .env("ERP_GROUP", group.to_string())
        .env("ERP_API", home.path().join("erp-api"))
        .env("ERP_LOG", home.path().join("api.jsonl"))
        .finish()
        .exits_with(0);
    finished
        .tells("333 rows committed, 3 dead letters")
        .tells("162 rows committed, 2 dead letters")
        .tells("erp.corp.example (10.20.0.5):8080");
    home.place.nothing_is_left();
}

#[test]
fn a_folder_of_keys_that_a_run_as_root_has_left_is_named_with_what_to_do() {
    let home = Home::of(pipelines::container(""));
    let keys = home.place.join("config/barecount");
    fs_err::create_dir_all(&keys).expect("a folder can be made");
    own(&home.place.join("config")).expect("root can give files away");
    // Only root can give something away: a test that cannot is no test.
    std::os::unix::fs::chown(&keys, Some(0), Some(0)).expect("root can take files");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs_err::set_permissions(&keys, closed).expect("root can close folders");
    home.barecount(&["run", "pipeline.yaml"])
        .fails_with(2, "BC0901")
        .tells("/mnt/config/barecount belongs to another user (id 0)")
        .tells("chown -R 1000 /mnt/config/barecount");
}

#[test]
fn what_is_less_than_promised_of_secrets_is_told_once() {
    let declared = "      secrets: { token: { from: erp/token } }\n";
    let home = Home::of(pipelines::container_with("read secrets", declared));
    let hints = |value: &str, limit: &str| -> Vec<String> {
        home.invocation(&["secrets", "set", "erp/token", "--tenant", "demo"])
            .reads(value)
            .finish()
            .exits_with(0);
        let limited = format!("ulimit -l {limit} && exec \"$@\"");
        let finished = home
            .invocation(&["run", "pipeline.yaml", "--force", "work"])
            .behind(&["sh", "-c", &limited, "sh"].map(Into::into))
            .finish()
            .exits_with(0);
        let lines = finished.stderr.lines().map(str::to_owned);
        lines.filter(|line| line.starts_with("hint: ")).collect()
    };
    let told = |hints: &[String], what: &str| {
        let found = hints.iter().filter(|hint| hint.contains(what));
        found.count()
    };
    let (swap, long) = ("may swap", "secret `erp/token` of stage `work` is too long");
    let short = hints("an ordinary value", "8192");
    assert_eq!(
        (told(&short, swap), told(&short, long)),
        (0, 0),
        "{short:?}"
    );
    let unlocked = hints("another value", "0");
    assert_eq!(
        (told(&unlocked, swap), told(&unlocked, long)),
        (1, 0),
        "{unlocked:?}"
    );
    // Each line is looked for by itself.
    let long_value: String = (0..500).map(|n| format!("{n} is this line\n")).collect();
    let longer = hints(&long_value, "8192");
    assert_eq!(
        (told(&longer, swap), told(&longer, long)),
        (0, 1),
        "{longer:?}"
    );
}
