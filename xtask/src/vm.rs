//! The hosts that people have, as virtual machines: Debian's kernels with Debian's systemd, on which
//! each way to start a run is tried, and what it is held to is compared with the table.
//!
//! Nothing of the machine that this runs on is part of it but qemu, which emulates the processor where
//! there is no KVM.

mod artifacts;
mod boot;
mod found;
mod rows;
mod table;

use std::path::PathBuf;

use self::{
    artifacts::Artifacts,
    boot::Boot,
    rows::{ROWS, Row, World},
};
use crate::{
    project::Project,
    setup,
    steps::{Failure, Task},
};

const USAGE: &str = "usage: cargo xtask vm [--table] [--binary FILE] [--kernel VERSION] [ROW…]";

/// What was asked for.
#[derive(Default)]
struct Asked {
    binary: Option<PathBuf>,
    /// Begins the version of the only kernel to boot.
    kernel: Option<String>,
    rows: Vec<String>,
    table: bool,
}

/// Boots the hosts and holds the table against them; with `--table`, only writes it to the page.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let asked = Asked::parse(arguments)?;
    let project = Project::find()?;
    if asked.table {
        return table::write(&project.root);
    }
    setup::for_machines(&project)?;
    let binary = asked.binary(&project)?;
    let artifacts = Artifacts::prepare(&project, &binary)?;
    let mut differing = Vec::new();
    for boot in Boot::all(&artifacts.kernels) {
        let rows = asked.rows_of(&boot);
        if rows.is_empty() {
            continue;
        }
        let folder = boot.run(&rows, &artifacts, &project)?;
        for row in rows {
            let told = row.hold_against(&folder.join(row.name), &binary, &boot);
            report(&boot, row, &told);
            if !told.is_empty() {
                differing.push(format!("{} on {}", row.name, boot.name));
            }
        }
    }
    if !differing.is_empty() {
        let reason = format!("not as in the table: {}", differing.join(", "));
        return Err(Failure::new("vm", reason));
    }
    table::write(&project.root)
}

#[expect(clippy::print_stdout, reason = "what was found is the result")]
fn report(boot: &Boot, row: &Row, differences: &[String]) {
    let verdict = if differences.is_empty() {
        "as in the table"
    } else {
        "DIFFERS"
    };
    println!("  {:<16} {:<32} {verdict}", boot.name, row.name);
    for difference in differences {
        println!("      {difference}");
    }
}

impl Asked {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let usage = || Failure::new("vm", USAGE);
        let mut asked = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--table" => asked.table = true,
                "--binary" => asked.binary = Some(words.next().ok_or_else(usage)?.into()),
                "--kernel" => asked.kernel = Some(words.next().ok_or_else(usage)?.clone()),
                name if ROWS.iter().any(|row| row.name == name) => asked.rows.push(name.to_owned()),
                _ => return Err(usage()),
            }
        }
        Ok(asked)
    }

    fn rows_of(&self, boot: &Boot) -> Vec<&'static Row> {
        if self
            .kernel
            .as_ref()
            .is_some_and(|kernel| !boot.kernel.starts_with(kernel))
        {
            return Vec::new();
        }
        let chosen = |row: &&Row| {
            let named = self.rows.iter().any(|name| name == row.name);
            let usual = self.kernel.is_some() || boot.is_oldest || row.on_each_kernel;
            named || (self.rows.is_empty() && usual)
        };
        let of_boot = ROWS.iter().filter(|row| row.world == boot.world);
        of_boot.filter(chosen).collect()
    }

    /// The program to try: the one that was named, else the release build if it is of what is here
    /// now, else a debug build.
    fn binary(&self, project: &Project) -> Result<PathBuf, Failure> {
        if let Some(binary) = &self.binary {
            return Ok(binary.clone());
        }
        Task::new("cargo build --workspace --all-targets --locked")
            .minutes(40)
            .run("build", project)?;
        let release = project.target.join("release/barecount");
        let debug = project.debug_program("barecount");
        // What has changed since was built for debugging just now.
        let made = |program: &PathBuf| std::fs::metadata(program).and_then(|it| it.modified()).ok();
        Ok(if made(&release) > made(&debug) {
            release
        } else {
            debug
        })
    }
}

impl World {
    fn is_systemd(self) -> bool {
        self == Self::Systemd
    }
}
