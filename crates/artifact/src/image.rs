//! OCI images: written from files, taken from anyone's image layout, unpacked to a root folder.
//!
//! A store's blobs are laid out as an image layout has them, so an image in the store is its
//! manifest, configuration and layers among the other blobs, named by the manifest's digest. All
//! of it is verified on the way: sizes, digests, media types, the digests of the uncompressed
//! layers (`diff_id`), the platform.
//!
//! Of file metadata only *executable* survives unpacking. The sandbox runs one user; owners,
//! set-id bits, extended attributes and capabilities of an image are not applied.

mod layer;
mod layout;
pub mod spec;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::entry::{EntryFault, EntryPath};
use crate::limits::{Exceeded, Spent};
use crate::store::{Blob, StoreError};
use crate::tree::{Links, Tree, TreeError};
use crate::walk::{Contents, WalkError};
use crate::{Digest, Limits, Store};

use layer::LeftOut;
pub use layout::{Selection, export, import};
use spec::{Descriptor, ImageConfig, Manifest, Platform, RootFs, RunConfig, media_type};

/// An image that could not be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The folder is no image layout.
    #[error("{} is no OCI image layout", folder.display())]
    NotALayout {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A document is not what the specification says.
    #[error("the image's {document} {name} cannot be understood")]
    Document {
        /// Which kind of document.
        document: &'static str,
        /// Its digest or file name.
        name: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A document of a kind or version that is not taken.
    #[error("the image's {document} {name} has the {what} `{found}`, which is not supported")]
    Unsupported {
        /// Which kind of document.
        document: &'static str,
        /// Its digest or file name.
        name: String,
        /// Media type, version…
        what: &'static str,
        /// What it says.
        found: String,
    },
    /// No image of the layout fits what was asked for.
    #[error("the layout has no image {wanted}")]
    NoSuchImage {
        /// What was asked for.
        wanted: String,
    },
    /// More than one image of the layout fits.
    #[error("the layout has {count} images {wanted}; name one by its digest")]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// How many fit.
        count: usize,
    },
    /// The image is for other machines.
    #[error("the image is for {found}, this is {wanted}")]
    Platform {
        /// What it is for.
        found: Platform,
        /// What runs here.
        wanted: Platform,
    },
    /// Manifest and configuration disagree about the layers.
    #[error("the image has {layers} layers, but its configuration lists {diff_ids}")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// A layer has another content than the configuration says.
    #[error("layer {layer} unpacks to {actual}, the configuration says {expected}")]
    DiffId {
        /// The layer's digest.
        layer: Digest,
        /// What the configuration lists.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A layer is no tar, or cut off.
    #[error("layer {layer} cannot be read")]
    Layer {
        /// The layer's digest.
        layer: Digest,
        /// Why.
        source: std::io::Error,
    },
    /// One entry of a layer is refused.
    #[error("entry `{entry}` of layer {layer} is refused")]
    Entry {
        /// The layer's digest.
        layer: Digest,
        /// The entry's name, escaped.
        entry: String,
        /// Why.
        source: EntryFault,
    },
    /// The image costs too much.
    #[error("the image is refused")]
    Bound(#[from] Exceeded),
    /// It has too many layers.
    #[error("the image has {layers} layers, more than {limit}")]
    Layers {
        /// How many.
        layers: usize,
        /// The bound.
        limit: usize,
    },
    /// What it is made of cannot be read.
    #[error("the image's source cannot be read")]
    Source(#[from] WalkError),
    /// It cannot be written.
    #[error("the image cannot be written")]
    Write(#[source] std::io::Error),
    /// The folder to unpack into cannot be used.
    #[error("the image cannot be unpacked")]
    Tree(#[from] TreeError),
    /// The store refused, or a blob is missing or damaged.
    #[error("the image is not whole")]
    Store(#[from] StoreError),
}

/// An image ready to run.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's digest: the image's name.
    pub manifest: Digest,
    /// Its read-only root folder.
    pub rootfs: PathBuf,
    /// How it wants to be run.
    pub config: RunConfig,
}

/// Writes an image of one layer from `contents` into the store; the answer is its manifest.
///
/// The same contents and configuration give the same digest at any time and place.
///
/// # Errors
/// [`ImageError::Source`], [`ImageError::Write`], [`ImageError::Store`].
pub fn pack(
    store: &Store,
    contents: &Contents,
    config: RunConfig,
    platform: &Platform,
) -> Result<Blob, ImageError> {
    let (layer, ()) = store.write(None, |writer| {
        crate::tarball::write(contents, writer).map_err(ImageError::Write)
    })?;
    let document = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        config,
        // The layer is not compressed, so it is its own `diff_id`.
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![layer.digest],
        },
    };
    let config = put_document(store, &document)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: descriptor(media_type::CONFIG, config),
        layers: vec![descriptor(media_type::LAYER, layer)],
    };
    put_document(store, &manifest)
}

fn put_document(store: &Store, document: &impl serde::Serialize) -> Result<Blob, ImageError> {
    let bytes = serde_json::to_vec(document).map_err(|error| ImageError::Write(error.into()))?;
    Ok(store.put_bytes(&bytes)?)
}

fn descriptor(media_type: &str, blob: Blob) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: blob.digest,
        size: blob.size,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

/// The image called `manifest`, unpacked now if it is not yet.
///
/// # Errors
/// See [`ImageError`]; of a refused image nothing is left behind.
pub fn open(
    store: &Store,
    manifest: &Digest,
    platform: &Platform,
    limits: &Limits,
) -> Result<Image, ImageError> {
    let documents = Documents::read(store.blobs(), manifest, None, limits)?;
    documents.check(platform, limits)?;
    let rootfs = store.unpack(manifest, |folder| {
        let tree = Tree::open(folder, Links::WithinRoot)?;
        let (mut spent, mut left_out) = (Spent::new(*limits), LeftOut::default());
        let diff_ids = &documents.config.rootfs.diff_ids;
        for (layer, diff_id) in documents.manifest.layers.iter().zip(diff_ids) {
            let (blob, _) = store.blobs().open(&layer.digest, Some(layer.size))?;
            let account = (&mut spent, &mut left_out);
            layer::apply(blob, layer, diff_id, &tree, account, limits)?;
        }
        Ok::<_, ImageError>(tree.freeze()?)
    })?;
    Ok(Image {
        manifest: *manifest,
        rootfs,
        config: documents.config.config,
    })
}

/// What an image has and its root folder has not: devices, named pipes and further names of those,
/// which nobody may make without privileges. Reads all layers.
///
/// # Errors
/// See [`ImageError`].
pub fn left_out(
    store: &Store,
    manifest: &Digest,
    limits: &Limits,
) -> Result<Vec<EntryPath>, ImageError> {
    let documents = Documents::read(store.blobs(), manifest, None, limits)?;
    let (mut spent, mut left_out) = (Spent::new(*limits), LeftOut::default());
    for layer in &documents.manifest.layers {
        let (blob, _) = store.blobs().open(&layer.digest, Some(layer.size))?;
        left_out.read(blob, layer, &mut spent, limits)?;
    }
    Ok(left_out.paths())
}

/// All blobs of an image: what a garbage collection that keeps it must keep.
///
/// # Errors
/// [`ImageError::Store`] and [`ImageError::Document`].
pub fn closure(
    store: &Store,
    manifest: &Digest,
    limits: &Limits,
) -> Result<BTreeSet<Digest>, ImageError> {
    let documents = Documents::read(store.blobs(), manifest, None, limits)?;
    let mut blobs = BTreeSet::from([*manifest, documents.manifest.config.digest]);
    blobs.extend(documents.manifest.layers.iter().map(|layer| layer.digest));
    Ok(blobs)
}

/// The manifest of an image and its configuration.
struct Documents {
    manifest: Manifest,
    config: ImageConfig,
}

impl Documents {
    fn read(
        blobs: &crate::store::Blobs,
        manifest: &Digest,
        size: Option<u64>,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let bytes = blobs.read(manifest, size, limits.document_bytes)?;
        let manifest: Manifest = parse("manifest", manifest.to_string(), &bytes)?;
        let Descriptor {
            media_type,
            digest,
            size,
            ..
        } = &manifest.config;
        if ![media_type::CONFIG, media_type::DOCKER_CONFIG].contains(&media_type.as_str()) {
            return Err(ImageError::Unsupported {
                document: "configuration",
                name: digest.to_string(),
                what: "media type",
                found: media_type.clone(),
            });
        }
        let bytes = blobs.read(digest, Some(*size), limits.document_bytes)?;
        let config = parse("configuration", digest.to_string(), &bytes)?;
        Ok(Self { manifest, config })
    }

    fn check(&self, platform: &Platform, limits: &Limits) -> Result<(), ImageError> {
        let ImageConfig {
            os,
            architecture,
            rootfs,
            ..
        } = &self.config;
        let found = Platform {
            os: os.clone(),
            architecture: architecture.clone(),
        };
        if found != *platform {
            return Err(ImageError::Platform {
                found,
                wanted: platform.clone(),
            });
        }
        let layers = self.manifest.layers.len();
        if layers > limits.layers {
            return Err(ImageError::Layers {
                layers,
                limit: limits.layers,
            });
        }
        if layers != rootfs.diff_ids.len() {
            let diff_ids = rootfs.diff_ids.len();
            return Err(ImageError::LayerCount { layers, diff_ids });
        }
        self.manifest
            .layers
            .iter()
            .try_for_each(|layer| layer::compression(layer).map(drop))
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    document: &'static str,
    name: String,
    bytes: &[u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document {
        document,
        name,
        source,
    })
}

#[cfg(test)]
mod tests;
