//! `container`: a command in the root file system of an image or a package, run to completion; or a
//! handler there, which is kept warm from one task to the next.

use std::path::Path;

use async_trait::async_trait;
use barecount_model::{class::RunnerClass, id::RunId};
use barecount_sandbox::Spec;

use crate::{
    Capabilities, Health, RunnerError,
    handler::{Handlers, PoolLimits},
    launch::{AttemptToken, Isolation, Launch, Root, Work},
    local::{
        Class, Host, Orders, Started,
        places::{self, Access, Seen},
        sandboxed::{self, Input},
    },
};

/// Where a package is, when it is all there is.
const APP: &str = "/app";

/// The class of work; see [`Local`](crate::local::Local).
pub struct Container {
    host: Host,
    handlers: Handlers,
}

impl Container {
    /// Runs commands and handlers on this host. `warm` bounds the sandboxes of handlers; `folder` is
    /// for them alone, on the file system of the attempts' places, and what an earlier process left
    /// in it is removed. Blocking. To be called inside the runtime, which then ends idle sandboxes.
    ///
    /// # Errors
    /// The folder can be neither made nor emptied.
    pub fn new(host: Host, warm: PoolLimits, folder: &Path) -> std::io::Result<Self> {
        let handlers = Handlers::new(host.clone(), warm, folder)?;
        Ok(Self { host, handlers })
    }

    /// How many sandboxes of handlers are warm and without work.
    pub fn warm(&self) -> usize {
        self.handlers.warm()
    }
}

#[async_trait]
impl Class for Container {
    fn capabilities(&self) -> Capabilities {
        self.host.capabilities(RunnerClass::Container)
    }

    async fn probe(&self) -> Health {
        self.host.health()
    }

    async fn start(&self, launch: &Launch, orders: Orders) -> Result<Started, RunnerError> {
        if let Work::Handler { .. } = launch.work {
            return self.handlers.start(launch, orders).await;
        }
        let spec = command(launch)?;
        sandboxed::one_process(self.host.clone(), launch, orders, spec, Input::Nothing).await
    }

    async fn sweep(&self, _: &AttemptToken) -> Result<(), RunnerError> {
        sandboxed::sweep(&self.host).await
    }

    async fn release(&self, run: &RunId) {
        self.handlers.release(run).await;
    }

    async fn shut_down(&self) {
        self.handlers.shut_down().await;
    }
}

/// The sandbox of a command.
pub(crate) fn command(launch: &Launch) -> Result<Spec, RunnerError> {
    let Work::Command {
        root,
        argv,
        working_dir,
    } = &launch.work
    else {
        return Err(RunnerError::Unlaunchable {
            reason: "a command was expected".to_owned(),
            remedy: "Give the stage an `image` or a `package` with a command.".to_owned(),
        });
    };
    let seen = Seen::by(launch);
    let mut spec = Spec::new(sandboxed::name(&launch.token)?, argv.clone());
    spec.env = places::environment(launch, &launch.env, seen.variables());
    spec.limits = sandboxed::limits(&launch.limits);
    spec.isolation = sandboxed::isolation(launch.isolation);
    match (launch.isolation, root) {
        (Isolation::Sandbox, Root::Image(image)) => {
            spec.root = barecount_sandbox::Root::Directory(image.clone());
            spec.mounts = places::mounts(launch);
            spec.cwd.clone_from(working_dir);
        }
        (Isolation::Sandbox, Root::Package(package)) => {
            spec.root = barecount_sandbox::Root::Empty;
            spec.mounts = places::mounts(launch);
            spec.mounts.push(places::bind(package, APP, Access::Run));
            spec.cwd.clone_from(working_dir);
        }
        (Isolation::Process, Root::Package(package)) => {
            // Without a mount namespace the package is where it is on the host.
            let place = |path: &Path| match path.strip_prefix(APP) {
                Ok(rest) => package.join(rest),
                Err(_) => path.to_owned(),
            };
            if let Some(program) = spec.argv.first_mut() {
                *program = place(program.as_ref()).to_string_lossy().into_owned();
            }
            spec.cwd = place(working_dir);
        }
        (Isolation::Process, Root::Image(_)) => {
            return Err(RunnerError::Unlaunchable {
                reason: "an image cannot be run without a sandbox".to_owned(),
                remedy: "Use `isolation: sandbox`, or a `package` in place of the `image`."
                    .to_owned(),
            });
        }
    }
    Ok(spec)
}
