//! Manifests, held against the state and against governance.

use std::path::Path;

use barecount_control::governance::{Action, Explanation};
use barecount_model::{diagnostic, lock::Lock, version};
use jiff::Timestamp;

use super::{Embedded, evolution, imports, lock, owners, policy, script};
use crate::{
    approvals, client::Checked, environment, failure::Failure, manifest, preparation,
    reporter::Reporter, requester,
};

impl Embedded {
    pub(super) fn checked(&self, file: &Path) -> Result<Checked, Failure> {
        let mut read = manifest::read(file)?;
        let mut found = read.diagnostics().to_vec();
        let mut read_by = Vec::new();
        if let Ok(loaded) = &mut read.result {
            let name = file.display().to_string();
            found.extend(imports::diagnose(&self.state, loaded, &name, &read.source)?);
            read_by = imports::readers_of(&self.state, &loaded.pipeline)?;
            let unfit = evolution::diagnose(&self.state, loaded, &name, &read.source)?;
            found.extend(unfit);
            let taken = owners::diagnose(&self.state, loaded, &name, &read.source)?;
            found.extend(taken);
        }
        let mut rendered = vec![diagnostic::render(&found, &read.source)];
        if let Ok(loaded) = &read.result {
            for job in script::unplannable(loaded, file, None, true)? {
                rendered.push(job.diagnostic.render(&job.source));
                found.push(job.diagnostic);
            }
        }
        Ok(Checked {
            found,
            rendered,
            read_by,
            pipeline: read.result.ok().map(|loaded| loaded.pipeline),
        })
    }

    pub(super) fn answer_of_governance(
        &self,
        file: &Path,
        action: Action,
        reporter: &dyn Reporter,
    ) -> Result<Explanation, Failure> {
        let mut loaded = manifest::load(file, reporter)?;
        imports::hold_of(&mut loaded, &self.state, None)?;
        let folder = manifest::folder(file)?;
        let found = environment::held(&folder, self.environment.as_deref(), &self.state)?;
        // What is not built yet has no version; the answer does not depend on it.
        let lock = lock::read(&folder)?
            .unwrap_or_else(|| Lock::new(loaded.pipeline.name.clone(), Vec::new()));
        let question = policy::question(
            action,
            &loaded.pipeline,
            &version::of(&loaded.manifest, &lock).to_string(),
            &found.environment,
            &requester::name(),
            approvals::on_record(&self.state, &found, &loaded.pipeline, None)?,
            Timestamp::now(),
        );
        let verdict = preparation::governance()?.decide(&question);
        Ok(verdict.into_explanation())
    }
}
