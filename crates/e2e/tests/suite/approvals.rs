//! Approvals are acts on record: somebody asks, somebody else grants, and what the signed ledger has
//! of it is what counts.

use std::{ffi::OsString, time::Instant};

use barecount_e2e::{
    Outcome,
    place::Place,
    process::{Finished, PATIENCE, wait_until},
};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::pipelines;

/// An account that is none of the tests' own.
pub(crate) const OFFICER: &str = "4242";

/// An environment that grants the class in size `medium` alone, and has these approvers.
fn environment(approvers: &str) -> String {
    format!(
        "apiVersion: barecount.dev/v1
kind: Environment
metadata: {{ name: prod }}
spec:
  kind: production
  backends: {{ container: local }}
  governance:
    matrix:
      - tenant: demo
        allow: [{{ classes: [container], sizes: [medium], network_profiles: [private_vpc] }}]
{approvers}"
    )
}

pub(crate) fn approvers(accounts: &[&str]) -> String {
    format!(
        "    approvers: [{{ tenant: demo, accounts: [{}] }}]\n",
        accounts.join(", ")
    )
}

/// A pipeline whose stage is of size `small`, which needs an approval here.
fn place() -> Place {
    let place = pipelines::container("");
    let accounts = [format!("uid-{OFFICER}"), own_account()];
    let accounts = accounts.each_ref().map(String::as_str);
    place.write("environments/prod.yaml", environment(&approvers(&accounts)));
    place
        .barecount(["build", "pipeline.yaml"])
        .finish()
        .exits_with(0);
    place
}

/// The account of this process, as the operating system names it.
fn own_account() -> String {
    let id = rustix::process::getuid().as_raw();
    let accounts = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let named = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(&id.to_string())).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid-{id}"))
}

/// What has a program's account be another one, which can still open the state folder: its real user
/// where root starts it, and else its user in a namespace.
fn as_account(id: &str) -> Vec<OsString> {
    let words = match rustix::process::geteuid().is_root() {
        true => vec!["setpriv".to_owned(), format!("--ruid={id}")],
        false => vec![
            "unshare".to_owned(),
            "--user".to_owned(),
            format!("--map-user={id}"),
        ],
    };
    words.into_iter().map(OsString::from).collect()
}

fn run(place: &Place, more: &[&str]) -> Finished {
    place
        .barecount(["run", "pipeline.yaml", "--env", "prod", "-o", "json"])
        .arguments(more)
        .finish()
}

/// Asks for what the pipeline needs, and gives the approval's identifier.
pub(crate) fn request(place: &Place, environment: &str) -> Result<String, barecount_e2e::Failure> {
    let asked = place
        .barecount([
            "approvals",
            "request",
            "pipeline.yaml",
            "--reason",
            "month-end",
            "--env",
            environment,
            "-o",
            "json",
        ])
        .finish()
        .exits_with(0)
        .json("approvals");
    let id = asked["items"][0]["id"].as_str().ok_or("an identifier")?;
    Ok(id.to_owned())
}

pub(crate) fn act(place: &Place, account: &str, verb: &str, id: &str, more: &[&str]) -> Finished {
    place
        .barecount(["approvals", verb, id, "--reason", "agreed", "-o", "json"])
        .arguments(more)
        .behind(&as_account(account))
        .finish()
}

fn explain(place: &Place) -> Finished {
    place
        .barecount(["policy", "explain", "pipeline.yaml", "--env", "prod"])
        .finish()
}

fn verify(place: &Place) -> Finished {
    place.barecount(["evidence", "verify"]).finish()
}

/// The predicates of the entries of a kind, oldest first.
fn evidence(place: &Place, kind: &str) -> Vec<Value> {
    let listed = place
        .barecount(["evidence", "ls", "-o", "json"])
        .finish()
        .exits_with(0)
        .json("evidence");
    let entries = listed["items"].as_array().cloned().unwrap_or_default();
    let of_kind = entries.iter().filter(|entry| entry["kind"] == kind);
    let shown = of_kind.map(|entry| {
        let index = entry["index"].to_string();
        let shown = place
            .barecount(["evidence", "show", &index, "-o", "json"])
            .finish()
            .exits_with(0)
            .json("evidence_entry");
        shown["statement"]["predicate"].clone()
    });
    shown.collect()
}

/// Asserts that the run's entry names the approval with both accounts, and that each act has one.
fn evidence_names(place: &Place, id: &str) {
    let submission = &evidence(place, "submission")[0];
    let relied_on = &submission["decision"]["decisions"][0]["approvals"][0];
    assert_eq!(relied_on["id"], id);
    assert_eq!(relied_on["requester"], own_account());
    assert_eq!(relied_on["approver"], format!("uid-{OFFICER}"));
    let acts = evidence(place, "approval");
    let acts: Vec<_> = acts.iter().map(|of| (&of["act"], &of["by"])).collect();
    assert_eq!(
        acts,
        [
            (&json!("requested"), &json!(own_account())),
            (&json!("granted"), &json!(format!("uid-{OFFICER}")))
        ]
    );
}

#[test]
fn what_is_refused_is_asked_for_granted_by_another_account_and_runs_as_often_as_granted() -> Outcome
{
    let place = place();
    run(&place, &[])
        .fails_with(3, "BC0401")
        .tells("barecount approvals request pipeline.yaml --stage work --reason TEXT");
    let id = request(&place, "prod")?;
    assert_eq!(request(&place, "prod")?, id, "it is asked for once");
    run(&place, &[])
        .fails_with(3, "BC0401")
        .tells(&format!("barecount approvals grant {id}"));

    let own = place
        .barecount(["approvals", "grant", &id, "--reason", "I may"])
        .finish();
    own.fails_with(3, "BC0401").tells("cannot grant it");
    act(&place, "4343", "grant", &id, &[])
        .fails_with(3, "BC0401")
        .tells("`uid-4343` is no approver");
    explain(&place).exits_with(3);

    let granted = act(
        &place,
        OFFICER,
        "grant",
        &id,
        &["--for", "1h", "--runs", "1"],
    );
    let granted = granted.exits_with(0).json("approval");
    assert_eq!(granted["granted"]["by"], format!("uid-{OFFICER}"));
    assert_eq!(
        (&granted["standing"], &granted["runs_left"]),
        (&json!("granted"), &json!(1))
    );
    explain(&place).exits_with(0).tells(&id);
    run(&place, &[]).exits_with(0);

    evidence_names(&place, &id);
    place
        .barecount(["trace", "raw.rows"])
        .finish()
        .exits_with(0)
        .tells(&format!(
            "asked for by {}, granted by uid-{OFFICER}: agreed",
            own_account()
        ));

    run(&place, &["--force", "all"])
        .fails_with(3, "BC0401")
        .tells("granted for a number of runs");
    verify(&place).exits_with(0);
    place
        .barecount(["evidence", "export", "log"])
        .finish()
        .exits_with(0);
    place
        .barecount(["evidence", "verify", "log", "--vkey", "log/key.vkey"])
        .finish()
        .exits_with(0);
    Ok(())
}

#[test]
fn an_approval_ends_with_its_time_by_being_revoked_and_with_the_question() -> Outcome {
    let place = place();
    let id = request(&place, "prod")?;
    act(&place, OFFICER, "grant", &id, &["--for", "5s"]).exits_with(0);
    wait_until(Instant::now() + PATIENCE, "the approval expires", || {
        explain(&place).status.code() == Some(3)
    });
    explain(&place).tells(&format!("approval `{id}` expired at "));

    let id = request(&place, "prod")?;
    act(&place, OFFICER, "grant", &id, &[]).exits_with(0);
    explain(&place).exits_with(0);
    let manifest = fs_err::read_to_string(place.join("pipeline.yaml"))?;
    place.write(
        "pipeline.yaml",
        manifest.replace("size: small", "size: large"),
    );
    explain(&place)
        .exits_with(3)
        .tells(&format!("approval `{id}` was asked of another question"));
    place.write(
        "pipeline.yaml",
        manifest.replace("you@example.com", "me@example.com"),
    );
    explain(&place).exits_with(0);
    place.write("pipeline.yaml", &manifest);

    act(&place, "4343", "revoke", &id, &[]).fails_with(3, "BC0401");
    act(&place, OFFICER, "revoke", &id, &[]).exits_with(0);
    run(&place, &[])
        .fails_with(3, "BC0401")
        .tells(&format!("approval `{id}` is revoked"));
    act(&place, OFFICER, "revoke", &id, &[]).fails_with(5, "BC0406");

    let id = request(&place, "prod")?;
    act(&place, OFFICER, "deny", &id, &[]).exits_with(0);
    act(&place, OFFICER, "grant", &id, &[]).fails_with(5, "BC0406");
    place
        .barecount(["approvals", "ls", "--only", "denied"])
        .finish()
        .exits_with(0)
        .tells(&id);
    verify(&place).exits_with(0);

    place.write("environments/prod.yaml", environment(""));
    let id = request(&place, "prod")?;
    place
        .barecount(["approvals", "show", &id])
        .finish()
        .exits_with(0)
        .tells("state         requested");
    act(
        &place,
        OFFICER,
        "grant",
        &id,
        &["--env", "environments/prod.yaml"],
    )
    .fails_with(3, "BC0401")
    .tells("is no approver");
    Ok(())
}

#[test]
fn an_approval_that_was_written_into_the_state_counts_for_nothing_and_is_found() -> Outcome {
    let place = place();
    let id = request(&place, "prod")?;
    verify(&place).exits_with(0);
    let store = Connection::open(place.state().join("control.sqlite"))?;
    let body: String =
        store.query_row("SELECT body FROM approvals WHERE id = ?1", [&id], |row| {
            row.get(0)
        })?;
    let mut forged: Value = serde_json::from_str(&body)?;
    forged["state"] = json!("granted");
    forged["granted"] = forged["requested"].clone();
    forged["granted"]["by"] = json!(format!("uid-{OFFICER}"));
    forged["term"] = json!({ "until": "2999-01-01T00:00:00Z" });
    store.execute(
        "UPDATE approvals SET state = 'granted', body = ?2 WHERE id = ?1",
        [&id, &forged.to_string()],
    )?;
    drop(store);
    run(&place, &[]).fails_with(7, "BC0407");
    explain(&place).fails_with(7, "BC0407");
    verify(&place)
        .exits_with(7)
        .tells(&format!("approval {id}: it is not what its acts"));
    Ok(())
}

#[test]
fn an_approval_in_the_environment_file_is_refused_with_the_way_to_ask_for_one() -> Outcome {
    let place = place();
    let id = request(&place, "prod")?;
    let lines = "    approvals:
      - { scope: matrix, tenant: demo, pipeline: worker, requester: a, approver: b,
          justification: c, expires_at: \"2999-01-01T00:00:00Z\" }\n";
    place.write("environments/prod.yaml", environment(lines));
    explain(&place)
        .fails_with(2, "BC0312")
        .tells("barecount approvals request");
    // What the state folder is bound to still holds.
    act(&place, OFFICER, "grant", &id, &[]).exits_with(0);
    Ok(())
}

#[test]
fn nothing_is_asked_for_where_an_approval_would_change_nothing() {
    let place = pipelines::container("");
    let ask = || {
        place
            .barecount(["approvals", "request", "pipeline.yaml", "--reason", "x"])
            .finish()
    };
    ask().fails_with(2, "BC0405");
    assert!(!place.state().exists(), "asking for nothing makes nothing");
    place.barecount(["approvals", "ls"]).finish().exits_with(4);
}
