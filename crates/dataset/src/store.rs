//! The object store that the Delta log is written through: local files, durable when reported.
//!
//! The `object_store` crate's own local store does not sync what it writes; a commit that was
//! reported could be gone after a power cut. Reads and listings are passed on to it, writes go
//! through [`Disk`].
//!
//! A store is rooted at its table's folder, so that the Delta library sees no path of the host: it
//! takes paths apart as URLs, and what a folder's name has of `%`, `\\` or `#` is not its to read.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart,
};

use crate::disk::Disk;

/// A table's folder as a store whose puts are durable when they return.
#[derive(Debug, Clone)]
pub(crate) struct DurableStore {
    files: Arc<LocalFileSystem>,
    disk: Arc<dyn Disk>,
}

impl DurableStore {
    /// The store of the folder at `root`, which is there.
    pub(crate) fn new(root: &std::path::Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let files = Arc::new(LocalFileSystem::new_with_prefix(root)?);
        Ok(Self { files, disk })
    }

    async fn write(&self, location: &Path, content: Bytes, mode: PutMode) -> Result<PutResult> {
        let path = self.files.path_to_filesystem(location)?;
        let disk = Arc::clone(&self.disk);
        let put = move || -> std::io::Result<()> {
            disk.create_dir_all(&folder_of(&path))?;
            match mode {
                PutMode::Overwrite => disk.replace(&path, &content),
                PutMode::Create => disk.create(&path, &content),
                PutMode::Update(_) => Err(std::io::ErrorKind::Unsupported.into()),
            }
        };
        // Runs to its end even if this future is dropped: a put happens whole or not at all.
        let done = tokio::task::spawn_blocking(put)
            .await
            .map_err(std::io::Error::other);
        match done.flatten() {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source: error.into(),
                })
            }
            Err(error) => Err(Error::Generic {
                store: "durable local files",
                source: error.into(),
            }),
        }
    }
}

fn folder_of(path: &std::path::Path) -> PathBuf {
    path.parent().map(PathBuf::from).unwrap_or_default()
}

impl std::fmt::Display for DurableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("durable local files")
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.write(location, payload.into(), options.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (store, location) = (self.clone(), location.clone());
        Ok(Box::new(BufferedUpload {
            store,
            location,
            content: Vec::new(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let content = self.files.get(from).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        self.write(to, content, mode).await.map(drop)
    }
}

/// An upload that is held in memory and written as one: only checkpoints of the log come so.
#[derive(Debug)]
struct BufferedUpload {
    store: DurableStore,
    location: Path,
    content: Vec<u8>,
}

#[async_trait]
impl MultipartUpload for BufferedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        data.iter()
            .for_each(|bytes| self.content.extend_from_slice(bytes));
        async { Ok(()) }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let content = std::mem::take(&mut self.content).into();
        self.store
            .write(&self.location, content, PutMode::Overwrite)
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        self.content.clear();
        Ok(())
    }
}
