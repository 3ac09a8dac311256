//! Image layouts of others: folders with `oci-layout`, `index.json` and `blobs/`.

use std::io::{self, Read};
use std::path::Path;

use super::spec::{Descriptor, Index, Layout, Platform, REF_NAME, media_type};
use super::{Documents, ImageError, descriptor, parse};
use crate::store::{Blob, Blobs, StoreError};
use crate::{Digest, Limits, Store};

/// Which image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The only one for the platform.
    Only,
    /// The one whose manifest (or index) has this digest.
    Digest(Digest),
    /// The one with this `org.opencontainers.image.ref.name`.
    Name(String),
}

impl std::fmt::Display for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Only => f.write_str("for this platform"),
            Self::Digest(digest) => write!(f, "with the digest {digest}"),
            Self::Name(name) => write!(f, "called `{name}`"),
        }
    }
}

/// Indexes within indexes, beyond which a layout is refused.
const INDEX_DEPTH: usize = 4;

/// Takes an image from the layout in `folder` into the store, everything verified; the answer is
/// the manifest, by which a lock pins it.
///
/// # Errors
/// See [`ImageError`].
pub fn import(
    store: &Store,
    folder: &Path,
    selection: &Selection,
    platform: &Platform,
    limits: &Limits,
) -> Result<Blob, ImageError> {
    let layout: Layout = parse(
        "file",
        "oci-layout".into(),
        &file(folder, "oci-layout", limits)?,
    )?;
    if layout.image_layout_version != "1.0.0" {
        return Err(ImageError::Unsupported {
            document: "file",
            name: "oci-layout".into(),
            what: "version",
            found: layout.image_layout_version,
        });
    }
    let index: Index = parse(
        "file",
        "index.json".into(),
        &file(folder, "index.json", limits)?,
    )?;
    let blobs = Blobs::at(folder.join("blobs"));
    let mut fitting: Vec<_> = index
        .manifests
        .into_iter()
        .filter(|manifest| fits(selection, manifest))
        .collect();
    if *selection != Selection::Only && fitting.len() > 1 {
        fitting.dedup_by_key(|manifest| manifest.digest);
    }
    let manifest = select(
        &blobs,
        fitting,
        &selection.to_string(),
        platform,
        limits,
        INDEX_DEPTH,
    )?;
    take(store, &blobs, &manifest, platform, limits)
}

fn fits(selection: &Selection, manifest: &Descriptor) -> bool {
    match selection {
        Selection::Only => true,
        Selection::Digest(digest) => manifest.digest == *digest,
        Selection::Name(name) => manifest.annotations.get(REF_NAME) == Some(name),
    }
}

/// The one manifest for the platform among `candidates`, looked for in nested indexes too.
fn select(
    blobs: &Blobs,
    candidates: Vec<Descriptor>,
    wanted: &str,
    platform: &Platform,
    limits: &Limits,
    depth: usize,
) -> Result<Descriptor, ImageError> {
    let mut fitting: Vec<Descriptor> = candidates
        .into_iter()
        .filter(|manifest| {
            manifest
                .platform
                .as_ref()
                .is_none_or(|found| found == platform)
        })
        .collect();
    let count = fitting.len();
    let manifest = match fitting.pop() {
        None => {
            return Err(ImageError::NoSuchImage {
                wanted: format!("{wanted} on {platform}"),
            });
        }
        Some(_) if count > 1 => {
            return Err(ImageError::Ambiguous {
                wanted: wanted.to_owned(),
                count,
            });
        }
        Some(manifest) => manifest,
    };
    match manifest.media_type.as_str() {
        media_type::MANIFEST | media_type::DOCKER_MANIFEST => Ok(manifest),
        media_type::INDEX | media_type::DOCKER_INDEX if depth > 0 => {
            let Descriptor { digest, size, .. } = manifest;
            let bytes = blobs.read(&digest, Some(size), limits.document_bytes)?;
            let index: Index = parse("index", digest.to_string(), &bytes)?;
            select(blobs, index.manifests, wanted, platform, limits, depth - 1)
        }
        other => Err(ImageError::Unsupported {
            document: "manifest",
            name: manifest.digest.to_string(),
            what: "media type",
            found: other.to_owned(),
        }),
    }
}

/// Copies what a manifest names, and the manifest last: an image that is there is whole.
fn take(
    store: &Store,
    blobs: &Blobs,
    manifest: &Descriptor,
    platform: &Platform,
    limits: &Limits,
) -> Result<Blob, ImageError> {
    let documents = Documents::read(blobs, &manifest.digest, Some(manifest.size), limits)?;
    documents.check(platform, limits)?;
    let config = std::iter::once(&documents.manifest.config);
    for part in documents
        .manifest
        .layers
        .iter()
        .chain(config)
        .chain([manifest])
    {
        if part.size > limits.archive_bytes {
            return Err(StoreError::TooLarge {
                limit: limits.archive_bytes,
            }
            .into());
        }
        let (file, _) = blobs.open(&part.digest, Some(part.size))?;
        store.put(file, Some(&part.digest), part.size)?;
    }
    super::open(store, &manifest.digest, platform, limits)?;
    Ok(Blob {
        digest: manifest.digest,
        size: manifest.size,
    })
}

fn file(folder: &Path, name: &str, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let not_a_layout = |source| ImageError::NotALayout {
        folder: folder.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    barecount_tree::open_regular(&folder.join(name))
        .and_then(|file| file.take(limits.document_bytes + 1).read_to_end(&mut bytes))
        .map_err(not_a_layout)?;
    if bytes.len() as u64 > limits.document_bytes {
        return Err(StoreError::TooLarge {
            limit: limits.document_bytes,
        }
        .into());
    }
    Ok(bytes)
}

/// Writes an image of the store as a layout into the empty or missing folder `folder`, for other
/// tools to read; `name` becomes its `org.opencontainers.image.ref.name`.
///
/// # Errors
/// See [`ImageError`].
pub fn export(
    store: &Store,
    manifest: &Digest,
    folder: &Path,
    name: &str,
    limits: &Limits,
) -> Result<(), ImageError> {
    let not_written = |source: io::Error| ImageError::Write(source);
    let target = Store::open(folder)?;
    let mut size = 0;
    for digest in super::closure(store, manifest, limits)? {
        let (file, blob) = store.blobs().open(&digest, None)?;
        target.put(file, Some(&digest), blob.size)?;
        if digest == *manifest {
            size = blob.size;
        }
    }
    // A layout has neither; both are empty.
    std::fs::remove_dir(folder.join("unpacked")).map_err(not_written)?;
    std::fs::remove_file(folder.join("lock")).map_err(not_written)?;
    let mut entry = descriptor(
        media_type::MANIFEST,
        Blob {
            digest: *manifest,
            size,
        },
    );
    entry
        .annotations
        .insert(REF_NAME.to_owned(), name.to_owned());
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests: vec![entry],
    };
    let layout = Layout {
        image_layout_version: "1.0.0".to_owned(),
    };
    let json = |error: serde_json::Error| ImageError::Write(error.into());
    std::fs::write(
        folder.join("index.json"),
        serde_json::to_vec(&index).map_err(json)?,
    )
    .map_err(not_written)?;
    std::fs::write(
        folder.join("oci-layout"),
        serde_json::to_vec(&layout).map_err(json)?,
    )
    .map_err(not_written)
}
