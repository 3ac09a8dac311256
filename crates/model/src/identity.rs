//! Identities of attempts: who an attempt is, how long that holds, and what it may reach.
//!
//! Each attempt has an identity of its own, made when it is placed and gone soon after it should
//! have ended. It is named as [SPIFFE](https://spiffe.io) names workloads, and carries its access
//! scopes: what of the platform's objects the attempt may read, write or reach, as its plan has it
//! and no more. Here identities are plain data; who signs them, and who checks the signature, is
//! elsewhere.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::evidence::canonical_json;
use crate::id::{RunId, TaskId};
use crate::manifest::SecretSpec;
use crate::plan::{InputPlan, StagePlan};
use crate::text::DatasetName;

/// What the signed bytes begin with, so that a signature of anything else is none of an identity.
const PURPOSE: &str = "barecount.dev/attempt-identity/v1\n";
/// For getting ready and for staging outputs, beyond the attempt's timeout and grace period.
const ALLOWANCE: SignedDuration = SignedDuration::from_hours(1);
/// So much the clock of whoever checks an identity may be behind that of who issued it: another
/// host's, or the same one's after it was set.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);
/// So many entries of a scope are shown in evidence; the digest covers all.
const SHOWN: usize = 32;

/// One attempt, by everything that tells it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// The environment, which is the trust domain.
    pub environment: String,
    /// The tenant.
    pub tenant: String,
    /// The pipeline.
    pub pipeline: String,
    /// The stage.
    pub stage: String,
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The attempt's number.
    pub attempt: u32,
}

impl std::fmt::Display for Workload {
    /// The SPIFFE ID. Names of the platform are of its characters, so that nothing is escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            environment,
            tenant,
            pipeline,
            stage,
            run,
            task,
            attempt,
        } = self;
        write!(
            f,
            "spiffe://{environment}/tenant/{tenant}/pipeline/{pipeline}/stage/{stage}/run/{run}/\
             task/{task}/attempt/{attempt}"
        )
    }
}

/// What an attempt may reach. What is in no scope is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessScopes {
    /// Datasets that it reads.
    pub datasets_read: BTreeSet<DatasetName>,
    /// Datasets that it writes.
    pub datasets_write: BTreeSet<DatasetName>,
    /// Files beside the manifest that it reads, by digest.
    pub files: BTreeSet<String>,
    /// Secrets, by reference.
    pub secrets: BTreeSet<String>,
    /// Destinations, as `host:port`.
    pub destinations: BTreeSet<String>,
    /// Topics whose messages start it.
    pub topics: BTreeSet<String>,
}

impl AccessScopes {
    /// What a stage's plan declares, and nothing else.
    pub fn of(stage: &StagePlan) -> Self {
        let mut scopes = Self::default();
        for input in &stage.inputs {
            match input {
                InputPlan::Dataset { dataset, .. } => {
                    scopes.datasets_read.insert(dataset.clone());
                }
                InputPlan::File { digest, .. } => {
                    scopes.files.insert(digest.clone());
                }
            }
        }
        let outputs = stage.outputs.iter();
        scopes.datasets_write = outputs.map(|output| output.dataset.clone()).collect();
        let secrets = stage.secrets.values();
        scopes.secrets = secrets.map(SecretSpec::reference).collect();
        let egress = stage.egress.iter();
        scopes.destinations = egress
            .map(|to| format!("{}:{}", to.host, to.port))
            .collect();
        if let Some(event) = stage.work.event()
            && event["type"] == "message"
            && let Some(topic) = event["topic"].as_str()
        {
            scopes.topics.insert(topic.to_owned());
        }
        scopes
    }

    /// The scopes as evidence keeps them: their digest, and as much of each as anyone reads.
    pub fn evidence(&self) -> Value {
        let whole = serde_json::to_value(self).unwrap_or_default();
        let mut shown = json!({ "digest": Digest::of(canonical_json(&whole).as_bytes()) });
        for (name, entries) in whole.as_object().into_iter().flatten() {
            let entries = entries.as_array().map_or(&[][..], Vec::as_slice);
            let (first, rest) = entries.split_at(entries.len().min(SHOWN));
            shown[name] = first.into();
            if !rest.is_empty() {
                shown[format!("{name}_left_out")] = rest.len().into();
            }
        }
        shown
    }
}

/// An attempt's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Whose it is.
    pub workload: Workload,
    /// What it opens.
    pub scopes: AccessScopes,
    /// Since when it holds.
    pub issued_at: Timestamp,
    /// From when on it no longer holds.
    pub expires_at: Timestamp,
}

impl Identity {
    /// The identity of an attempt that is placed at `now`. It outlasts what the attempt is given
    /// by an hour, in which inputs are provided and outputs are staged.
    pub fn issue(workload: Workload, stage: &StagePlan, now: Timestamp) -> Self {
        let given = stage.timeout_ms.saturating_add(stage.grace_ms);
        let given = SignedDuration::from_millis(given.try_into().unwrap_or(i64::MAX));
        let expires_at = now
            .saturating_add(given)
            .and_then(|end| end.saturating_add(ALLOWANCE))
            .unwrap_or(Timestamp::MAX);
        Self {
            workload,
            scopes: AccessScopes::of(stage),
            issued_at: now,
            expires_at,
        }
    }

    /// Whether it holds at `now`, by a clock that may be some minutes behind.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        let since = self.issued_at.checked_sub(CLOCKS_DIFFER);
        (since.unwrap_or(Timestamp::MIN)..self.expires_at).contains(&now)
    }

    /// What is signed: a line that says what for, and the identity as canonical JSON.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).unwrap_or_default();
        format!("{PURPOSE}{}", canonical_json(&value)).into_bytes()
    }
}

/// An identity and its Ed25519 signature. Nobody has checked it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIdentity {
    /// What is claimed.
    pub identity: Identity,
    /// The signature of [`Identity::signed_bytes`]; in JSON, in hexadecimal.
    #[serde(with = "hexadecimal")]
    pub signature: [u8; 64],
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        hex::encode(bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).map_err(D::Error::custom)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            environment: "office".to_owned(),
            tenant: "demo".to_owned(),
            pipeline: "fx-rates".to_owned(),
            stage: "land_rates".to_owned(),
            run: RunId::from_bytes([0xab; 16]),
            task: TaskId::from_bytes([0xcd; 16]),
            attempt: 7,
        }
    }

    fn identity() -> Identity {
        Identity {
            workload: workload(),
            scopes: AccessScopes::default(),
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1),
        }
    }

    /// The rules of SPIFFE-ID, section 2: at most 2048 bytes; a trust domain of lower-case letters,
    /// digits, `.`, `-` and `_`; path segments of letters, digits, `.`, `-` and `_`, none empty.
    #[test]
    fn a_workload_is_named_as_spiffe_names_workloads() {
        let id = workload().to_string();
        let rest = id.strip_prefix("spiffe://").expect("the scheme");
        let (domain, path) = rest.split_once('/').expect("a path");
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        assert!(domain.chars().all(|c| plain(c) && !c.is_ascii_uppercase()));
        for segment in path.split('/') {
            let dots = matches!(segment, "" | "." | "..");
            assert!(!dots && segment.chars().all(plain), "{segment}");
        }
        let long = "n".repeat(63);
        let longest = Workload {
            environment: long.clone(),
            tenant: long.clone(),
            pipeline: long.clone(),
            stage: long,
            attempt: u32::MAX,
            ..workload()
        };
        assert!(longest.to_string().len() <= 2048);
    }

    #[test]
    fn an_identity_holds_until_just_before_its_end_and_where_a_clock_is_minutes_behind() {
        let (identity, millisecond) = (identity(), SignedDuration::from_millis(1));
        assert!(identity.holds_at(identity.issued_at));
        assert!(identity.holds_at(identity.issued_at - CLOCKS_DIFFER));
        assert!(identity.holds_at(identity.expires_at - millisecond));
        assert!(!identity.holds_at(identity.expires_at));
        assert!(!identity.holds_at(identity.issued_at - CLOCKS_DIFFER - millisecond));
    }

    #[test]
    fn what_is_signed_changes_with_every_part_of_the_identity() {
        let changes: [fn(&mut Identity); 10] = [
            |i| i.workload.environment.push('x'),
            |i| i.workload.tenant.push('x'),
            |i| i.workload.stage.push('x'),
            |i| i.workload.run = RunId::from_bytes([0; 16]),
            |i| i.workload.attempt += 1,
            |i| i.scopes.datasets_read.extend("raw.a".parse()),
            |i| i.scopes.datasets_write.extend("raw.a".parse()),
            |i| i.scopes.secrets.extend(["a".to_owned()]),
            |i| i.scopes.destinations.extend(["a:1".to_owned()]),
            |i| i.expires_at = Timestamp::MAX,
        ];
        let mut seen = BTreeSet::from([identity().signed_bytes()]);
        for change in changes {
            let mut changed = identity();
            change(&mut changed);
            assert!(seen.insert(changed.signed_bytes()), "{changed:?}");
        }
        assert!(
            seen.iter()
                .all(|bytes| bytes.starts_with(PURPOSE.as_bytes()))
        );
    }

    #[test]
    fn scopes_in_evidence_are_bounded_and_their_digest_covers_all() {
        let mut scopes = AccessScopes {
            destinations: (0..500).map(|n| format!("host-{n:03}:443")).collect(),
            ..AccessScopes::default()
        };
        let shown = scopes.evidence();
        assert_eq!(shown["destinations"].as_array().map(Vec::len), Some(SHOWN));
        assert_eq!(shown["destinations_left_out"], 500 - SHOWN);
        let digest = shown["digest"].clone();
        scopes.destinations.pop_last();
        assert_ne!(scopes.evidence()["digest"], digest);
    }
}
