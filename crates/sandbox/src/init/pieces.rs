//! What a root is put together from: each piece a detached mount, with inodes of the sandbox's own
//! wherever others see the same files.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use super::host::HostSystem;
use super::overlay;
use super::resolver::Generated;
use super::sources::{Kind, SEALED, Source, Sources};
use super::staging::Staging;
use crate::error::{Failure, InStep, Step};
use crate::report::Exposed;
use crate::spec::{Root, Spec};

pub(super) struct Pieces {
    /// What is to be the root, if that is a directory.
    pub(super) image: Option<OwnedFd>,
    /// The host's system directories, in the order of [`HostSystem::binds`].
    pub(super) system: Vec<OwnedFd>,
    /// In the order of the specification's mounts; `None` for those that are no bind.
    pub(super) mounts: Vec<Option<OwnedFd>>,
    pub(super) exposed: Exposed,
}

impl Pieces {
    pub(super) fn make(
        spec: &Spec,
        host: &HostSystem,
        sources: &Sources,
        generated: &[Generated],
    ) -> Result<Self, Failure> {
        let mut staging = Staging::open().step(Step::MakeRoot)?;
        let mut pieces = Self {
            image: None,
            system: Vec::new(),
            mounts: Vec::new(),
            exposed: Exposed {
                devices: sources.devices.is_none(),
                places: Vec::new(),
            },
        };
        if let Some(image) = &sources.image {
            let (root, refused) =
                overlay::lay(spec, image, &sources.mounts, generated, &mut staging)?;
            pieces.image = Some(root);
            if let Some(errno) = refused {
                pieces.expose(Path::new("/"), &because(errno));
            }
        }
        if spec.root == Root::HostSystem {
            pieces.add_system(host, sources, &mut staging)?;
        }
        for source in &sources.mounts {
            let piece = match source {
                Some(source) => Some(pieces.own(source, &mut staging)?),
                None => None,
            };
            pieces.mounts.push(piece);
        }
        staging.close().step(Step::MakeRoot)?;
        Ok(pieces)
    }

    fn add_system(
        &mut self,
        host: &HostSystem,
        sources: &Sources,
        staging: &mut Staging,
    ) -> Result<(), Failure> {
        let mut of_layers = Vec::new();
        for (index, layer) in sources.layers.iter().enumerate() {
            let wanted: Vec<&Path> = host
                .binds
                .iter()
                .filter_map(|bind| bind.layer.as_ref())
                .filter(|(of, _)| *of == index)
                .map(|(_, within)| within.as_path())
                .collect();
            let path = &host.layers[index];
            let made = staging
                .take(layer, SEALED, &wanted)
                .step_at(Step::MakeRoot, path)?;
            if let Some(errno) = made.refused {
                self.expose(path, &because(errno));
            }
            of_layers.push(made.pieces.into_iter());
        }
        let mut bound = sources.system.iter();
        for bind in &host.binds {
            let piece = match &bind.layer {
                Some((layer, _)) => of_layers.get_mut(*layer).and_then(Iterator::next),
                None => {
                    self.expose(&bind.path, "file systems are mounted in it");
                    bound.next().and_then(|bound| bound.try_clone().ok())
                }
            };
            let missing = || Failure::at(Step::MakeRoot, &bind.path, Errno::BADF);
            self.system.push(piece.ok_or_else(missing)?);
        }
        Ok(())
    }

    /// The piece of a mount.
    fn own(&mut self, source: &Source, staging: &mut Staging) -> Result<OwnedFd, Failure> {
        let within = match &source.kind {
            Kind::Folder => Path::new(""),
            Kind::FileIn(name) => Path::new(name),
            Kind::Exposed(reason) => {
                self.expose(&source.path, reason);
                return same(source);
            }
            Kind::Bound => return same(source),
        };
        let mut made = staging
            .take(&source.tree, source.attributes, &[within])
            .step_at(Step::OpenSource, &source.path)?;
        if let Some(errno) = made.refused {
            self.expose(&source.path, &because(errno));
        }
        let missing = || Failure::at(Step::OpenSource, &source.path, Errno::BADF);
        made.pieces.pop().ok_or_else(missing)
    }

    fn expose(&mut self, path: &Path, reason: &str) {
        self.exposed
            .places
            .push(format!("{} ({reason})", path.display()));
    }
}

fn same(source: &Source) -> Result<OwnedFd, Failure> {
    let copy = source.tree.as_fd().try_clone_to_owned();
    copy.map_err(|error| Failure::io(Step::OpenSource, &error))
}

fn because(errno: Errno) -> String {
    format!("no overlay: {}", std::io::Error::from(errno))
}
