//! Landlock rules: what is not a writable mount cannot be written, whatever the mounts say; no
//! signal and no abstract socket leaves the sandbox.

use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};

use crate::error::{Failure, Step};
use crate::spec::{Mount, Spec};

/// The newest version whose rights are asked for; older kernels take what they know.
const NEWEST: ABI = ABI::V6;

/// Opens the ruleset of a specification, inside its root.
pub(super) fn ruleset(spec: &Spec) -> Result<OwnedFd, Failure> {
    build(spec)
        .ok()
        .and_then(Option::<OwnedFd>::from)
        .ok_or_else(|| Failure::new(Step::Landlock, rustix::io::Errno::NOSYS))
}

fn build(spec: &Spec) -> Result<RulesetCreated, landlock::RulesetError> {
    let write = AccessFs::from_write(NEWEST);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(write)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for path in ["/tmp", "/dev/shm"] {
        ruleset = allow(ruleset, Path::new(path), write)?;
    }
    let use_only = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    for path in ["/dev", "/proc"] {
        ruleset = allow(ruleset, Path::new(path), use_only)?;
    }
    for mount in &spec.mounts {
        match mount {
            Mount::Bind {
                read_only: true, ..
            } => {}
            Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => {
                ruleset = allow(ruleset, target, write)?;
            }
        }
    }
    Ok(ruleset)
}

fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let Ok(place) = PathFd::new(path) else {
        return Ok(ruleset);
    };
    // A file takes no rights that are about directories.
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    ruleset.add_rule(PathBeneath::new(place, access))
}
