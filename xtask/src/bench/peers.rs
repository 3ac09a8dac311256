//! Programs in `xtask/peers` that have others do what a benchmark measures of us.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    project::Project,
    setup,
    steps::{Failure, Task},
    supervise::Shown,
};

/// Runs one of them in a folder of its own beneath `scratch`, and gives the lines that it printed.
/// Servers that it started end with it, however it ends.
pub(crate) fn run(peer: &str, scratch: &Path, project: &Project) -> Result<Vec<Value>, Failure> {
    let log = format!("bench-peer-{peer}");
    let folder = scratch.join(peer);
    fs::create_dir(&folder).map_err(|error| Failure::new(&log, error.to_string()))?;
    let program = project.peers().join(format!("{peer}.js"));
    let command = [&setup::node(project)?, &program, &folder];
    Task::of(command.map(|part| part.display().to_string()))
        .minutes(3)
        .shown(Shown::InLog)
        .run(&log, project)?;
    lines(&log, project)
}

/// The lines of JSON in a log. Others, as servers print them, are not for us.
pub(crate) fn lines(log: &str, project: &Project) -> Result<Vec<Value>, Failure> {
    let said = fs::read_to_string(project.log(log))
        .map_err(|error| Failure::new(log, error.to_string()))?;
    Ok(said
        .lines()
        .filter(|line| line.starts_with('{'))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}
