//! Checkpoints in the state folder: what work saved for the next time that it runs.
//!
//! A checkpoint belongs to a *position*: tenant, pipeline, stage and partition. What an attempt
//! saved becomes its position's checkpoint with the decision that commits its outputs, and never
//! without them: a cursor that ran ahead of its rows would lose them. An attempt that asks to be
//! tried again (exit status 75) hands its checkpoint on to the next attempt of the same task only,
//! because what it wrote beside it is swept.
//!
//! Each is one file: a line of JSON that says whose it is, and a tar archive of the folder. So it is
//! replaced as a whole, whatever happens meanwhile.

use std::{
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use barecount_agent::DataError;
use barecount_api::{assignment::Assignment, attempt::AttemptRef};
use barecount_dataset::{
    disk::{Disk, LocalDisk},
    input::{InputError, InputFolder},
    stage::Limits,
};
use barecount_model::{
    boundary::Boundary, digest::Digest, run::outcome::StagedCheckpoint, seal::SealKey,
};
use serde::{Deserialize, Serialize};

use super::boundaries::names_in;
use crate::failure::chain;

/// A checkpoint says where to go on; rows belong into outputs.
const MAX_BYTES: u64 = 16 << 20;
const MAX_FILES: u64 = 1_000;
/// Its name among the outputs that an attempt staged; no dataset has such a name.
const STAGED: &str = ".checkpoint";

/// The checkpoints of a state folder.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints {
    state: PathBuf,
    seals: SealKey,
}

/// Whose a checkpoint is.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    attempt: String,
    decided_at_ms: i64,
    digest: String,
    /// In which boundary it was saved; unknown of those that are older than boundaries.
    #[serde(default)]
    boundary: Option<Boundary>,
    /// Over the name of the file and all of the above, in hexadecimal.
    #[serde(default)]
    seal: String,
}

impl Header {
    fn parts(&self, name: &str) -> io::Result<[Vec<u8>; 6]> {
        Ok([
            b"checkpoint".to_vec(),
            name.as_bytes().to_vec(),
            self.attempt.as_bytes().to_vec(),
            self.decided_at_ms.to_le_bytes().to_vec(),
            self.digest.as_bytes().to_vec(),
            serde_json::to_vec(&self.boundary)?,
        ])
    }
}

/// How a decision names a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    position: String,
    task: String,
    attempt: String,
    /// Relative to the state folder.
    staging: PathBuf,
    #[serde(default)]
    boundary: Option<Boundary>,
}

impl Checkpoints {
    /// Those of a state folder, whose headers are sealed.
    pub(super) fn new(state: PathBuf, seals: SealKey) -> Self {
        Self { state, seals }
    }

    /// Seals every checkpoint that is there. For the first time that they are sealed at all.
    ///
    /// # Errors
    /// Any error of the file system.
    pub(super) fn seal_all(&self) -> io::Result<()> {
        for name in names_in(&self.state.join("checkpoints"))? {
            let path = self.state.join("checkpoints").join(&name);
            if let Some((header, archive)) = read(&path)? {
                self.write(&path, header, &archive)?;
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, mut header: Header, archive: &[u8]) -> io::Result<()> {
        let parts = header.parts(&name_of(path))?;
        let parts = parts.each_ref().map(Vec::as_slice);
        header.seal = hex::encode(self.seals.seal(&parts));
        write(path, &header, archive)
    }

    /// A checkpoint, if it is one that this program wrote there.
    fn read(&self, path: &Path) -> io::Result<Option<(Header, Vec<u8>)>> {
        let Some((header, archive)) = read(path)? else {
            return Ok(None);
        };
        let parts = header.parts(&name_of(path))?;
        let parts = parts.each_ref().map(Vec::as_slice);
        let seal = hex::decode(&header.seal).unwrap_or_default();
        match self.seals.holds(&parts, &seal) {
            true => Ok(Some((header, archive))),
            false => Err(io::Error::other(
                "it was not written by who holds the key of this folder's ledger",
            )),
        }
    }

    /// Puts what was saved last into an attempt's folder, and says its digest; none if nothing was.
    pub(super) fn provide(
        &self,
        assignment: &Assignment,
        into: &Path,
    ) -> Result<Option<String>, DataError> {
        let position = position(assignment);
        let handed_on = self.handed_on(&position, &assignment.attempt.task.printed());
        for path in [handed_on, self.current(&position)] {
            let found = self
                .read(&path)
                .map_err(|error| unreadable(&path, &error))?;
            if let Some((header, archive)) = found {
                if is_stricter(header.boundary.as_ref(), assignment.stage.boundary.as_ref()) {
                    tracing::warn!(
                        attempt = %assignment.attempt.token(),
                        "a checkpoint was saved within a stricter boundary; the stage begins anew"
                    );
                    continue;
                }
                unpack(&archive, into).map_err(|error| unreadable(&path, &error))?;
                return Ok(Some(header.digest));
            }
        }
        Ok(None)
    }

    /// Makes what an attempt saved durable among its staged outputs; nothing if it neither found
    /// nor left a checkpoint.
    pub(super) fn stage(
        &self,
        assignment: &Assignment,
        saved: &Path,
        staging: &Path,
    ) -> Result<Option<StagedCheckpoint>, DataError> {
        let (archive, files) = pack(saved)?;
        let position = position(assignment);
        if files == 0 && !self.current(&position).exists() {
            return Ok(None);
        }
        let path = staging.join(STAGED);
        let digest = Digest::of(&archive).to_string();
        LocalDisk::default()
            .create(&path, &archive)
            .map_err(|error| unwritable(&path, &error))?;
        let commit = Commit {
            position,
            task: assignment.attempt.task.to_string(),
            attempt: assignment.attempt.token().to_string(),
            staging: path.strip_prefix(&self.state).unwrap_or(&path).to_owned(),
            boundary: assignment.stage.boundary.clone(),
        };
        Ok(Some(StagedCheckpoint {
            digest,
            files,
            bytes: archive.len() as u64,
            commit: serde_json::to_value(commit).map_err(|error| unwritable(&path, &error))?,
        }))
    }

    /// Keeps what an attempt saved for the next attempt of its task. Dying before the end leaves
    /// what an earlier attempt handed on.
    pub(super) fn hand_on(&self, assignment: &Assignment, saved: &Path) -> Result<(), DataError> {
        let (archive, files) = pack(saved)?;
        if files == 0 {
            return Ok(());
        }
        let AttemptRef { task, .. } = &assignment.attempt;
        let path = self.handed_on(&position(assignment), &task.printed());
        let header = Header {
            attempt: assignment.attempt.token().to_string(),
            decided_at_ms: 0,
            digest: Digest::of(&archive).to_string(),
            boundary: assignment.stage.boundary.clone(),
            seal: String::new(),
        };
        self.write(&path, header, &archive)
            .map_err(|error| unwritable(&path, &error))
    }

    /// Makes a staged checkpoint that of its position. Idempotent; an older decision changes
    /// nothing.
    pub(super) fn roll_forward(
        &self,
        staged: &StagedCheckpoint,
        decided_at_ms: i64,
    ) -> Result<(), DataError> {
        let commit: Commit = serde_json::from_value(staged.commit.clone())
            .map_err(|error| unreadable(&self.state, &error))?;
        let path = self.current(&commit.position);
        let current = self
            .read(&path)
            .map_err(|error| unreadable(&path, &error))?;
        let is_done = |(header, _): &(Header, Vec<u8>)| {
            header.attempt == commit.attempt || header.decided_at_ms > decided_at_ms
        };
        if !current.as_ref().is_some_and(is_done) {
            let from = self.state.join(&commit.staging);
            let archive = bounded(&from).map_err(|error| unreadable(&from, &error))?;
            if Digest::of(&archive).to_string() != staged.digest {
                return Err(unreadable(&from, &io::Error::other("it has been changed")));
            }
            let header = Header {
                attempt: commit.attempt,
                decided_at_ms,
                digest: staged.digest.clone(),
                boundary: commit.boundary,
                seal: String::new(),
            };
            self.write(&path, header, &archive)
                .map_err(|error| unwritable(&path, &error))?;
        }
        let handed_on = self.handed_on(&commit.position, &commit.task);
        match std::fs::remove_file(&handed_on) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(unwritable(&handed_on, &error))
            }
            _ => Ok(()),
        }
    }

    fn current(&self, position: &str) -> PathBuf {
        self.state.join("checkpoints").join(position)
    }

    fn handed_on(&self, position: &str, task: &str) -> PathBuf {
        let name = format!("{position}.{task}");
        self.state.join("checkpoints").join(name)
    }
}

/// Whether what was saved may not be seen by an attempt of the same stage now, because the manifest
/// has put the stage into a laxer boundary since.
fn is_stricter(saved: Option<&Boundary>, now: Option<&Boundary>) -> bool {
    match (saved, now) {
        (Some(saved), Some(now)) => !saved.laxer_parts(now).is_empty(),
        _ => false,
    }
}

/// The name of a position's file: a digest, since names of partitions are anybody's text.
fn position(assignment: &Assignment) -> String {
    let parts = [
        assignment.tenant.as_str(),
        assignment.pipeline.as_str(),
        assignment.stage.name.as_str(),
        assignment.partition.as_deref().unwrap_or_default(),
    ];
    let digest = Digest::of(parts.join("\0").as_bytes()).to_string();
    digest.trim_start_matches("sha256:").to_owned()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn write(path: &Path, header: &Header, archive: &[u8]) -> io::Result<()> {
    let mut content = serde_json::to_vec(header)?;
    content.push(b'\n');
    content.extend_from_slice(archive);
    let disk = LocalDisk::default();
    if let Some(folder) = path.parent() {
        disk.create_dir_all(folder)?;
    }
    disk.replace(path, &content)
}

fn read(path: &Path) -> io::Result<Option<(Header, Vec<u8>)>> {
    let mut content = match bounded(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let end = content.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| io::Error::other("it does not say whose it is"))?;
    let archive = content.split_off(end + 1);
    let header: Header = serde_json::from_slice(&content)?;
    if Digest::of(&archive).to_string() != header.digest {
        return Err(io::Error::other("it is damaged"));
    }
    Ok(Some((header, archive)))
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // An archive adds less than two kilobytes a file to what is in them.
    let most = MAX_BYTES + MAX_FILES * 2048 + 4096;
    let read = std::fs::File::open(path)?
        .take(most + 1)
        .read_to_end(&mut content)?;
    if read as u64 > most {
        return Err(io::Error::other("it is too large"));
    }
    Ok(content)
}

/// The folder as an archive that depends on names and contents alone, and how many files it has.
fn pack(folder: &Path) -> Result<(Vec<u8>, u64), DataError> {
    let refused = |error: &InputError| {
        DataError::Work {
            code: "BC0708",
            message: format!("the checkpoint cannot be kept: {}", chain(error)),
        }
        .unless_of_host(error)
    };
    let limits = Limits {
        max_files: MAX_FILES,
        max_bytes: MAX_BYTES,
        ..Limits::default()
    };
    let opened = InputFolder::open(folder).map_err(|error| refused(&error))?;
    let files = opened.files(&limits).map_err(|error| refused(&error))?;
    let mut archive = tar::Builder::new(Vec::new());
    for file in &files {
        let content = opened.open_file(file).map_err(|error| refused(&error))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(file.bytes);
        header.set_mode(0o666);
        archive
            // A file that has grown or shrunk meanwhile is an error.
            .append_data(&mut header, &file.path, Exactly(content, file.bytes))
            .map_err(|error| unreadable(&folder.join(&file.path), &error))?;
    }
    let archive = archive
        .into_inner()
        .map_err(|error| unreadable(folder, &error))?;
    Ok((archive, files.len() as u64))
}

/// Reads so many bytes, and fails where there are fewer.
struct Exactly(std::fs::File, u64);

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.1)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.0.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.1 -= read as u64;
        Ok(read)
    }
}

/// Writes an archive of [`pack`] into a folder. Everybody who reaches the folder may change what is
/// in it: it is the attempt's own.
fn unpack(archive: &[u8], into: &Path) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside || !entry.header().entry_type().is_file() {
            return Err(io::Error::other("it holds something that is no file"));
        }
        let mut folder = into.to_owned();
        for part in path.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            if !folder.exists() {
                std::fs::create_dir(&folder)?;
                std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
            }
        }
        let target = into.join(&path);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&target)?;
        io::copy(&mut entry, &mut file)?;
        file.flush()?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o666))?;
    }
    Ok(())
}

fn unreadable(path: &Path, error: &(dyn std::error::Error + 'static)) -> DataError {
    DataError::Host {
        code: "BC0709",
        message: format!(
            "checkpoint {} cannot be read: {}",
            path.display(),
            chain(error)
        ),
    }
}

fn unwritable(path: &Path, error: &(dyn std::error::Error + 'static)) -> DataError {
    DataError::Host {
        code: "BC0709",
        message: format!(
            "checkpoint {} cannot be written: {}",
            path.display(),
            chain(error)
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use barecount_model::{class::NetworkProfile, manifest::Classification};

    use super::*;

    type Outcome = Result<(), Box<dyn Error>>;

    /// A state folder with an attempt's folders in it.
    struct Ground {
        folder: tempfile::TempDir,
        checkpoints: Checkpoints,
    }

    impl Ground {
        fn new() -> io::Result<Self> {
            let folder = tempfile::tempdir()?;
            let key = SealKey::new([7; 32].into());
            let checkpoints = Checkpoints::new(folder.path().to_owned(), key);
            Ok(Self {
                folder,
                checkpoints,
            })
        }

        fn saved(&self, attempt: &str, text: &str) -> io::Result<StagedCheckpoint> {
            let staging = self.folder.path().join(attempt);
            let saved = staging.join("checkpoint");
            std::fs::create_dir_all(saved.join("pages"))?;
            std::fs::write(saved.join("pages/state"), text)?;
            let (archive, files) = pack(&saved).map_err(io::Error::other)?;
            std::fs::write(staging.join(STAGED), &archive)?;
            let commit = Commit {
                position: "p".to_owned(),
                task: "task_0".to_owned(),
                attempt: attempt.to_owned(),
                staging: PathBuf::from(attempt).join(STAGED),
                boundary: None,
            };
            Ok(StagedCheckpoint {
                digest: Digest::of(&archive).to_string(),
                files,
                bytes: archive.len() as u64,
                commit: serde_json::to_value(commit)?,
            })
        }

        fn current(&self) -> io::Result<String> {
            let Some((_, archive)) = read(&self.checkpoints.current("p"))? else {
                return Ok(String::new());
            };
            let into = tempfile::tempdir()?;
            unpack(&archive, into.path())?;
            std::fs::read_to_string(into.path().join("pages/state"))
        }
    }

    #[test]
    fn the_latest_decision_holds_in_whatever_order_decisions_are_rolled_forward() -> Outcome {
        let ground = Ground::new()?;
        let (old, new) = (ground.saved("a-1", "old")?, ground.saved("b-1", "new")?);
        ground.checkpoints.roll_forward(&old, 10)?;
        assert_eq!(ground.current()?, "old");
        ground.checkpoints.roll_forward(&new, 20)?;
        ground.checkpoints.roll_forward(&old, 10)?;
        assert_eq!(ground.current()?, "new");
        Ok(())
    }

    #[test]
    fn rolling_forward_again_needs_nothing_that_was_swept_meanwhile() -> Outcome {
        let ground = Ground::new()?;
        let saved = ground.saved("a-1", "state")?;
        ground.checkpoints.roll_forward(&saved, 10)?;
        std::fs::remove_dir_all(ground.folder.path().join("a-1"))?;
        ground.checkpoints.roll_forward(&saved, 10)?;
        assert_eq!(ground.current()?, "state");
        Ok(())
    }

    #[test]
    fn a_damaged_checkpoint_is_an_error_and_never_given_to_work() -> Outcome {
        let ground = Ground::new()?;
        let saved = ground.saved("a-1", "state")?;
        ground.checkpoints.roll_forward(&saved, 10)?;
        let path = ground.checkpoints.current("p");
        let whole = std::fs::read(&path)?;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            std::fs::write(&path, damaged)?;
            // A name that says nothing, and a seal in capitals, may be damaged without harm.
            let same = ground.checkpoints.read(&path).is_ok_and(|found| {
                found.is_some_and(|(header, archive)| {
                    header.digest == saved.digest && whole.ends_with(&archive)
                })
            });
            assert!(same || ground.checkpoints.read(&path).is_err(), "byte {at}");
        }
        Ok(())
    }

    #[test]
    fn a_checkpoint_that_somebody_else_wrote_is_given_to_no_work() -> Outcome {
        let ground = Ground::new()?;
        let saved = ground.saved("a-1", "state")?;
        ground.checkpoints.roll_forward(&saved, 10)?;
        let path = ground.checkpoints.current("p");
        let (mut header, _) = read(&path)?.ok_or("it is there")?;
        // Whole, with a digest that fits, as who can write the folder could make it.
        let other = pack(&ground.folder.path().join("a-1/checkpoint"))
            .map_err(io::Error::other)?
            .0;
        let other = [other, vec![0; 512]].concat();
        header.digest = Digest::of(&other).to_string();
        write(&path, &header, &other)?;
        assert!(read(&path)?.is_some(), "its digest fits");
        assert!(ground.checkpoints.read(&path).is_err());
        // One of another position.
        assert!(ground.checkpoints.roll_forward(&saved, 10).is_err());
        ground.checkpoints.write(&path, header, &other)?;
        let elsewhere = ground.checkpoints.current("q");
        std::fs::copy(&path, &elsewhere)?;
        assert!(ground.checkpoints.read(&path)?.is_some());
        assert!(ground.checkpoints.read(&elsewhere).is_err());
        // Those from before there were seals are taken as they are, once.
        ground.checkpoints.seal_all()?;
        assert!(ground.checkpoints.read(&elsewhere)?.is_some());
        Ok(())
    }

    #[test]
    fn a_checkpoint_never_leaves_the_boundary_in_which_it_was_saved() {
        let boundary = |network_profile| Boundary {
            network_profile,
            residency: None,
            classification: Classification::Internal,
        };
        let private = boundary(NetworkProfile::PrivateVpc);
        let public = boundary(NetworkProfile::PublicVpcEgress);
        assert!(is_stricter(Some(&private), Some(&public)));
        assert!(!is_stricter(Some(&public), Some(&private)));
        assert!(!is_stricter(Some(&private), Some(&private)));
    }

    #[test]
    fn links_and_too_much_are_refused() -> Outcome {
        let folder = tempfile::tempdir()?;
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("state"))?;
        assert!(matches!(
            pack(folder.path()),
            Err(DataError::Work { code: "BC0708", .. })
        ));
        std::fs::remove_file(folder.path().join("state"))?;
        std::fs::File::create(folder.path().join("state"))?.set_len(MAX_BYTES + 1)?;
        assert!(matches!(
            pack(folder.path()),
            Err(DataError::Work { code: "BC0708", .. })
        ));
        Ok(())
    }

    #[test]
    fn an_archive_that_leads_out_of_the_folder_is_refused() -> Outcome {
        let into = tempfile::tempdir()?;
        let inside = into.path().join("inside");
        std::fs::create_dir(&inside)?;
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..6].copy_from_slice(b"../out");
        header.set_size(1);
        header.set_cksum();
        builder.append(&header, b"x".as_slice())?;
        assert!(unpack(&builder.into_inner()?, &inside).is_err());
        assert!(!into.path().join("out").exists());
        Ok(())
    }
}
