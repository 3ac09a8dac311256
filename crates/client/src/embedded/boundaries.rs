//! In which boundaries the data of each dataset was written, beside the datasets themselves, and
//! like them by tenant.
//!
//! A manifest says how strict the stage is that writes a dataset, but what lies in the table may be
//! older than the manifest, or another pipeline's. So each commit leaves its boundary here, and
//! who reads is held against what is found. The record is written before the commit and so never
//! lacks a boundary; dying in between leaves one too many, which the next whole overwrite clears.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use barecount_agent::{AccessError, DataError};
use barecount_dataset::{
    decision::{Committed, Decision, WriteMode},
    disk::{Disk, LocalDisk},
    name::Tenant,
    table::Tables,
};
use barecount_model::{
    boundary::{Boundary, Crossing},
    codes,
    plan::StagePlan,
    run::outcome::{Staged, StagedDataset},
    seal::SealKey,
    text::DatasetName,
};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// Where a staged commit says in which boundary it was written.
const MARK: &str = "boundary";

/// No record is larger: boundaries are few.
const MAX_BYTES: u64 = 1 << 20;

/// The records of a state folder.
#[derive(Debug)]
pub(super) struct Boundaries {
    folder: PathBuf,
    /// What records are sealed with; without it they are believed as they lie there.
    seals: Option<SealKey>,
    /// Held while a record is changed.
    changing: Mutex<()>,
}

impl Boundaries {
    /// The records in a folder of their own, for who only looks.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            seals: None,
            changing: Mutex::new(()),
        }
    }

    /// The same for who commits and hands out: a record has its seal, or is believed by nobody.
    pub(super) fn sealed(mut self, seals: SealKey) -> Self {
        self.seals = Some(seals);
        self
    }

    /// Seals every record that is there. For the first time that records are sealed at all.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn seal_all(&self) -> io::Result<()> {
        for tenant in names_in(&self.folder)? {
            let Ok(tenant) = tenant.parse::<Tenant>() else {
                continue;
            };
            for file in names_in(&self.folder.join(tenant.as_str()))? {
                let Some(dataset) = file.strip_suffix(".json") else {
                    continue;
                };
                let bytes = crate::manifest::read_bounded(&self.path(&tenant, dataset), MAX_BYTES)?;
                let (record, _) = split(&bytes);
                let known: Vec<Boundary> = serde_json::from_slice(record)?;
                self.write(&tenant, dataset, &known)?;
            }
        }
        Ok(())
    }

    /// In which boundaries a dataset was written.
    ///
    /// # Errors
    /// Any error of the file system, and a record that is damaged.
    pub(super) fn written_within(
        &self,
        tenant: &Tenant,
        dataset: &DatasetName,
    ) -> io::Result<Vec<Boundary>> {
        self.of(tenant, dataset.as_str())
    }

    /// In which boundaries a dataset was written, if the stage may read what was.
    ///
    /// # Errors
    /// [`AccessError::StricterData`] if it may not.
    pub(super) fn let_read(
        &self,
        tenant: &Tenant,
        dataset: &DatasetName,
        stage: &StagePlan,
    ) -> Result<Vec<Boundary>, DataError> {
        let written = self.of(tenant, dataset.as_str());
        let written = written.map_err(|error| unusable(dataset.as_str(), &error))?;
        // A plan that is older than boundaries was accepted before there were any to hold.
        if let Some(reader) = &stage.boundary {
            check(dataset, &written, reader, &stage.crossings)?;
        }
        Ok(written)
    }

    /// Notes in which boundary each dataset of a decision was written, before it can be read.
    ///
    /// # Errors
    /// If that cannot be made durable, or a mark cannot be understood: then nothing may be
    /// committed.
    pub(super) fn note(&self, tenant: &Tenant, staged: &Staged) -> Result<(), DataError> {
        for staged in &staged.datasets {
            if let Some(boundary) = marked(staged)? {
                let noted = self.add(tenant, &staged.dataset, &boundary);
                noted.map_err(|error| unusable(&staged.dataset, &error))?;
            }
        }
        Ok(())
    }

    /// Forgets the boundaries of what a decision has replaced: where it replaced all of a dataset,
    /// and nothing was committed after it. An earlier decision that is rolled forward once more
    /// changes nothing.
    ///
    /// # Errors
    /// If that cannot be made durable, or a mark cannot be understood.
    pub(super) async fn settle(
        &self,
        staged: &Staged,
        decision: &Decision,
        committed: &[Committed],
        tables: &Tables,
    ) -> Result<(), DataError> {
        for staged in &staged.datasets {
            let Some(boundary) = marked(staged)? else {
                continue;
            };
            let name = staged.dataset.as_str();
            let of_it = |table: &DatasetName| table.as_str() == name;
            let whole = decision.datasets.iter().any(|commit| {
                of_it(&commit.table)
                    && commit.mode == WriteMode::Overwrite
                    && commit.replace_partition.is_empty()
            });
            let Some(done) = committed.iter().find(|done| of_it(&done.dataset)) else {
                continue;
            };
            let latest = tables.snapshot(&done.dataset, None).await;
            let is_latest = latest.is_ok_and(|latest| latest.version == done.version);
            let noted = if whole && is_latest {
                self.replace(tables.tenant(), name, &boundary)
            } else {
                self.add(tables.tenant(), name, &boundary)
            };
            noted.map_err(|error| unusable(name, &error))?;
        }
        Ok(())
    }

    /// Adds the boundary of data that is about to be committed, or was.
    ///
    /// # Errors
    /// Any error of the file system: then nothing may be committed.
    fn add(&self, tenant: &Tenant, dataset: &str, boundary: &Boundary) -> io::Result<()> {
        self.change(tenant, dataset, |known| {
            if !known.contains(boundary) {
                known.push(boundary.clone());
            }
        })
    }

    /// Forgets every boundary but that of the data which has just replaced all else.
    ///
    /// # Errors
    /// Any error of the file system.
    fn replace(&self, tenant: &Tenant, dataset: &str, boundary: &Boundary) -> io::Result<()> {
        self.change(tenant, dataset, |known| *known = vec![boundary.clone()])
    }

    /// The boundaries that the data of a dataset was written in; none for data that is older than
    /// these records.
    ///
    /// # Errors
    /// Any error of the file system, and a record that is damaged or that somebody else wrote.
    fn of(&self, tenant: &Tenant, dataset: &str) -> io::Result<Vec<Boundary>> {
        let bytes = match crate::manifest::read_bounded(&self.path(tenant, dataset), MAX_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes?,
        };
        let (record, seal) = split(&bytes);
        if let Some(seals) = &self.seals
            && !seals.holds(&parts(tenant, dataset, record), &seal)
        {
            return Err(io::Error::other(
                "the record was not written by who holds the key of this folder's ledger",
            ));
        }
        Ok(serde_json::from_slice(record)?)
    }

    fn write(&self, tenant: &Tenant, dataset: &str, known: &[Boundary]) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(known)?;
        if let Some(seals) = &self.seals {
            let seal = seals.seal(&parts(tenant, dataset, &bytes));
            bytes.push(b'\n');
            bytes.extend_from_slice(hex::encode(seal).as_bytes());
        }
        let disk = LocalDisk::default();
        disk.create_dir_all(&self.folder.join(tenant.as_str()))?;
        disk.replace(&self.path(tenant, dataset), &bytes)
    }

    fn change(
        &self,
        tenant: &Tenant,
        dataset: &str,
        change: impl FnOnce(&mut Vec<Boundary>),
    ) -> io::Result<()> {
        let _held = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.of(tenant, dataset)?;
        let mut known = before.clone();
        change(&mut known);
        if known == before {
            return Ok(());
        }
        self.write(tenant, dataset, &known)
    }

    /// Moves a record that was kept when a dataset was nobody's in particular to the tenant whose
    /// the dataset is. Blocks. Idempotent.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn give(&self, dataset: &str, tenant: &Tenant) -> io::Result<()> {
        let (disk, from) = (LocalDisk::default(), self.folder.join(file_of(dataset)));
        if !from.exists() {
            return Ok(());
        }
        disk.create_dir_all(&self.folder.join(tenant.as_str()))?;
        disk.rename(&from, &self.path(tenant, dataset))
    }

    fn path(&self, tenant: &Tenant, dataset: &str) -> PathBuf {
        self.folder.join(tenant.as_str()).join(file_of(dataset))
    }
}

/// What a record's seal is over.
fn parts<'r>(tenant: &'r Tenant, dataset: &'r str, record: &'r [u8]) -> [&'r [u8]; 4] {
    [
        b"boundaries",
        tenant.as_str().as_bytes(),
        dataset.as_bytes(),
        record,
    ]
}

/// A record, and the seal on the line after it; none of one that is older.
fn split(bytes: &[u8]) -> (&[u8], Vec<u8>) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let record = lines.next().unwrap_or_default();
    let seal = lines.next().map(hex::decode);
    (record, seal.and_then(Result::ok).unwrap_or_default())
}

/// The names in a folder; none where there is none.
pub(super) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn file_of(dataset: &str) -> String {
    format!("{dataset}.json")
}

/// Writes into a staged commit in which boundary it was written.
pub(super) fn mark(commit: &mut Value, boundary: Option<&Boundary>) {
    commit[MARK] = json!(boundary);
}

/// A staged commit says in which boundary it was written, but not in a way that can be understood.
#[derive(Debug, thiserror::Error)]
#[error("the boundary that {dataset} was written in cannot be understood")]
struct MarkError {
    dataset: String,
    source: serde_json::Error,
}

impl From<MarkError> for DataError {
    fn from(error: MarkError) -> Self {
        let MarkError { source, .. } = &error;
        Self::Host {
            code: codes::STATE_UNREADABLE.id,
            message: format!(
                "{error}: {source}; the state folder was damaged or changed by hand: restore it \
                 from a copy"
            ),
        }
    }
}

/// In which boundary a staged dataset was written; nobody knows of what was staged before
/// boundaries were kept, which has no mark.
///
/// # Errors
/// A mark that is there and cannot be understood is not taken for none: that would open the dataset
/// to every reader.
fn marked(staged: &StagedDataset) -> Result<Option<Boundary>, MarkError> {
    match staged.commit.get(MARK) {
        None | Some(Value::Null) => Ok(None),
        Some(mark) => Boundary::deserialize(mark)
            .map(Some)
            .map_err(|source| MarkError {
                dataset: staged.dataset.clone(),
                source,
            }),
    }
}

fn unusable(dataset: &str, error: &io::Error) -> DataError {
    DataError::Host {
        code: "BC0701",
        message: format!("the boundaries of {dataset} cannot be read or noted: {error}"),
    }
}

/// Whether a reader may have data that was written in these boundaries: each has to be one that the
/// reader is as strict as, or as lax as the one from which a declared crossing leads.
///
/// # Errors
/// With the first boundary from which nothing leads to the reader.
fn check(
    dataset: &DatasetName,
    written: &[Boundary],
    reader: &Boundary,
    crossings: &[Crossing],
) -> Result<(), AccessError> {
    let declared = crossings
        .iter()
        .filter(|crossing| crossing.dataset == *dataset);
    let open = |boundary: &&Boundary| {
        let leads = |from: &Boundary| boundary.laxer_parts(from).is_empty();
        leads(reader) || declared.clone().any(|crossing| leads(&crossing.from))
    };
    match written.iter().find(|boundary| !open(boundary)) {
        None => Ok(()),
        Some(stricter) => Err(AccessError::StricterData {
            dataset: dataset.clone(),
            boundary: stricter.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use barecount_model::{class::NetworkProfile, manifest::Classification};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn acme() -> Tenant {
        "acme".parse().expect("the test names a tenant")
    }

    fn boundary(network_profile: NetworkProfile) -> Boundary {
        Boundary {
            network_profile,
            residency: None,
            classification: Classification::Internal,
        }
    }

    const PUBLIC: NetworkProfile = NetworkProfile::PublicVpcEgress;
    const PRIVATE: NetworkProfile = NetworkProfile::PrivateVpc;
    const FACILITY: NetworkProfile = NetworkProfile::OnPremAgent;

    #[test]
    fn data_of_a_stricter_boundary_is_read_only_over_a_crossing_from_one_as_strict() -> TestResult {
        let name: DatasetName = "raw.a".parse()?;
        let check = |written: &[NetworkProfile], crossing: Option<(&str, NetworkProfile)>| {
            let written: Vec<_> = written.iter().copied().map(boundary).collect();
            let crossings: Vec<_> = crossing
                .map(|(dataset, from)| Crossing {
                    dataset: dataset.parse().expect("the test names a dataset"),
                    from: boundary(from),
                    to: boundary(PUBLIC),
                    reason: "because".to_owned(),
                })
                .into_iter()
                .collect();
            check(&name, &written, &boundary(PUBLIC), &crossings).is_ok()
        };
        assert!(check(&[], None) && check(&[PUBLIC], None));
        assert!(!check(&[PRIVATE], None));
        assert!(!check(&[PUBLIC, PRIVATE], None), "some of it is stricter");
        assert!(check(&[PUBLIC, PRIVATE], Some(("raw.a", PRIVATE))));
        assert!(!check(&[PRIVATE], Some(("raw.b", PRIVATE))), "another's");
        assert!(
            !check(&[FACILITY], Some(("raw.a", PRIVATE))),
            "stricter still"
        );
        Ok(())
    }

    #[test]
    fn boundaries_add_up_until_everything_is_replaced() -> TestResult {
        let folder = tempfile::tempdir()?;
        let records = Boundaries::new(folder.path().join("boundaries"));
        assert_eq!(records.of(&acme(), "raw.a")?, []);
        for profile in [PRIVATE, PUBLIC, PRIVATE] {
            records.add(&acme(), "raw.a", &boundary(profile))?;
        }
        let again = Boundaries::new(folder.path().join("boundaries"));
        assert_eq!(
            again.of(&acme(), "raw.a")?,
            [boundary(PRIVATE), boundary(PUBLIC)]
        );
        assert_eq!(again.of(&acme(), "raw.b")?, []);
        assert_eq!(
            again.of(&"globex".parse()?, "raw.a")?,
            [],
            "another tenant's"
        );
        again.replace(&acme(), "raw.a", &boundary(PUBLIC))?;
        assert_eq!(records.of(&acme(), "raw.a")?, [boundary(PUBLIC)]);
        Ok(())
    }

    fn staged(commit: Value) -> Staged {
        Staged {
            datasets: vec![StagedDataset {
                dataset: "raw.a".to_owned(),
                rows: 1,
                bytes: 1,
                digest: "sha256:00".to_owned(),
                commit,
            }],
            ..Staged::default()
        }
    }

    #[test]
    fn a_mark_that_cannot_be_understood_commits_nothing_and_none_is_older() -> TestResult {
        let folder = tempfile::tempdir()?;
        let records = Boundaries::new(folder.path().to_owned());
        for older in [json!({}), json!({ MARK: null })] {
            records.note(&acme(), &staged(older))?;
            assert_eq!(records.of(&acme(), "raw.a")?, []);
        }
        let mut whole = json!({});
        mark(&mut whole, Some(&boundary(PRIVATE)));
        let mut part = whole.clone();
        part[MARK]["network_profile"] = json!("moon");
        for damaged in [json!({ MARK: "private" }), json!({ MARK: {} }), part] {
            let failed = records.note(&acme(), &staged(damaged));
            let Err(DataError::Host { code, message }) = failed else {
                return Err(format!("it was taken for none: {failed:?}").into());
            };
            assert_eq!(code, "BC0802");
            assert!(message.contains("raw.a"), "{message}");
            assert!(message.contains("restore it from a copy"), "{message}");
            assert_eq!(records.of(&acme(), "raw.a")?, []);
        }
        records.note(&acme(), &staged(whole))?;
        assert_eq!(records.of(&acme(), "raw.a")?, [boundary(PRIVATE)]);
        Ok(())
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_an_open_dataset() -> TestResult {
        let folder = tempfile::tempdir()?;
        let records = Boundaries::new(folder.path().to_owned());
        records.add(&acme(), "raw.a", &boundary(PRIVATE))?;
        std::fs::write(folder.path().join("acme/raw.a.json"), "[{}]")?;
        assert!(records.of(&acme(), "raw.a").is_err());
        assert!(records.add(&acme(), "raw.a", &boundary(PUBLIC)).is_err());
        Ok(())
    }

    #[test]
    fn a_record_that_somebody_else_wrote_opens_nothing() -> TestResult {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let records = || {
            let key = SealKey::new([7; 32].into());
            Boundaries::new(folder.path().to_owned()).sealed(key)
        };
        for dataset in ["raw.a", "raw.b"] {
            records().add(&acme(), dataset, &boundary(PRIVATE))?;
        }
        records().add(&acme(), "raw.open", &boundary(PUBLIC))?;
        assert_eq!(records().of(&acme(), "raw.a")?, [boundary(PRIVATE)]);
        let whole = std::fs::read_to_string(at("acme/raw.a.json"))?;
        let (record, seal) = whole.split_once('\n').ok_or("it has a seal")?;
        let open = std::fs::read_to_string(at("acme/raw.open.json"))?;
        let forged = serde_json::to_string(&[boundary(PUBLIC)])?;
        for written in [
            format!("{forged}\n{seal}"),
            forged.clone(),
            record.to_owned(),
            format!("{record}\n"),
            open,
            "[]".to_owned(),
        ] {
            std::fs::write(at("acme/raw.a.json"), &written)?;
            assert!(records().of(&acme(), "raw.a").is_err(), "{written}");
            assert!(records().add(&acme(), "raw.a", &boundary(PUBLIC)).is_err());
        }
        // Those from before there were seals are taken as they are, once.
        std::fs::write(at("acme/raw.a.json"), record)?;
        records().seal_all()?;
        assert_eq!(records().of(&acme(), "raw.a")?, [boundary(PRIVATE)]);
        assert_eq!(std::fs::read_to_string(at("acme/raw.a.json"))?, whole);
        Ok(())
    }
}
