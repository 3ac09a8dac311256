use super::*;
use crate::Limits;
use crate::entry::EntryPath;
use crate::tree::{Links, Tree, Written};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn store() -> Result<(tempfile::TempDir, Store), Box<dyn std::error::Error>> {
    let state = tempfile::tempdir()?;
    let store = Store::open(&state.path().join("artifacts"))?;
    Ok((state, store))
}

/// Fills a tree with one file.
fn write(folder: &Path, name: &str, mut content: &[u8]) -> Written {
    let tree = Tree::open(folder, Links::Refused).expect("the folder is there");
    let path = EntryPath::parse(name.as_bytes(), &Limits::default()).expect("a good path");
    tree.file(&path, false, &mut content)
        .expect("it can be written");
    tree.freeze().expect("it can be frozen")
}

#[test]
fn content_comes_back_by_its_digest() -> Outcome {
    let (_state, store) = store()?;
    let blob = store.put_bytes(b"content")?;
    assert_eq!(
        blob,
        Blob {
            digest: Digest::of(b"content"),
            size: 7
        }
    );
    assert_eq!(store.blobs().read(&blob.digest, Some(7), 100)?, b"content");
    Ok(())
}

#[test]
fn a_damaged_blob_is_refused_by_name_and_healed_by_storing_again() -> Outcome {
    let (_state, store) = store()?;
    let blob = store.put_bytes(b"content")?;
    let path = store.blobs().path(&blob.digest);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))?;
    std::fs::write(&path, b"CONTENT")?;
    let refused = store.blobs().open(&blob.digest, None);
    assert!(
        matches!(&refused, Err(StoreError::DigestMismatch { expected, actual })
            if *expected == blob.digest && *actual == Digest::of(b"CONTENT"))
    );
    assert!(!store.has(&blob.digest)?);
    store.put_bytes(b"content")?;
    assert!(store.has(&blob.digest)?);
    Ok(())
}

#[test]
fn what_is_there_is_kept_as_it_is_and_what_is_damaged_is_not() -> Outcome {
    use std::os::unix::fs::MetadataExt as _;
    let (_state, store) = store()?;
    let blob = store.keep_bytes(b"content")?;
    let path = store.blobs().path(&blob.digest);
    let file = std::fs::metadata(&path)?.ino();
    assert_eq!(store.keep_bytes(b"content")?, blob);
    assert_eq!(
        std::fs::metadata(&path)?.ino(),
        file,
        "it was written again"
    );
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))?;
    std::fs::write(&path, b"CONTENT")?;
    assert_eq!(store.keep_bytes(b"content")?, blob);
    assert_eq!(store.blobs().read(&blob.digest, None, 100)?, b"content");
    store.sync()?;
    Ok(())
}

#[test]
fn other_content_than_expected_is_not_stored() -> Outcome {
    let (_state, store) = store()?;
    let expected = Digest::of(b"wanted");
    let refused = store.put(&b"brought"[..], Some(&expected), 100);
    assert!(matches!(refused, Err(StoreError::DigestMismatch { .. })));
    assert!(!store.has(&expected)? && !store.has(&Digest::of(b"brought"))?);
    assert_eq!(
        entries(&store.root.join("blobs/sha256"))?.len(),
        0,
        "something was left behind"
    );
    Ok(())
}

#[test]
fn sizes_are_bounded_and_compared() -> Outcome {
    let (_state, store) = store()?;
    let too_large = store.put(io::repeat(0), None, 1000);
    assert!(matches!(
        too_large,
        Err(StoreError::TooLarge { limit: 1000 })
    ));
    let blob = store.put_bytes(b"content")?;
    let other_size = store.blobs().open(&blob.digest, Some(8));
    assert!(matches!(
        other_size,
        Err(StoreError::SizeMismatch {
            expected: 8,
            actual: 7,
            ..
        })
    ));
    assert!(matches!(
        store.blobs().read(&blob.digest, None, 6),
        Err(StoreError::TooLarge { limit: 6 })
    ));
    Ok(())
}

#[test]
fn many_writers_of_one_content_all_succeed() -> Outcome {
    let (_state, store) = store()?;
    let digest = Digest::of(b"tree");
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| -> Result<PathBuf, StoreError> {
                    store.put_bytes(b"content")?;
                    store.unpack(&digest, |folder| Ok(write(folder, "file", b"x")))
                })
            })
            .collect();
        for writer in writers {
            let path = writer.join().expect("a writer does not panic")?;
            assert_eq!(
                std::fs::read(path.join("file")).expect("the tree is whole"),
                b"x"
            );
        }
        Ok::<_, StoreError>(())
    })?;
    assert_eq!(
        entries(&store.root.join("unpacked"))?.len(),
        1,
        "something was left behind"
    );
    Ok(())
}

#[test]
fn a_failed_unpacking_leaves_nothing_behind() -> Outcome {
    let (_state, store) = store()?;
    let digest = Digest::of(b"tree");
    let failed = store.unpack(&digest, |_| Err(StoreError::Missing { digest }));
    assert!(matches!(failed, Err(StoreError::Missing { .. })));
    assert_eq!(entries(&store.root.join("unpacked"))?.len(), 0);
    assert!(store.unpacked(&digest).is_none());
    Ok(())
}

#[test]
fn garbage_goes_and_what_is_named_stays() -> Outcome {
    let (_state, store) = store()?;
    let kept = store.put_bytes(b"kept")?;
    let dropped = store.put_bytes(b"dropped")?;
    let store = store.sealed(SealKey::new([1; 32].into()));
    store.unpack::<StoreError>(&dropped.digest, |folder| Ok(write(folder, "file", b"x")))?;
    assert_eq!(entries(&store.root.join("lists"))?.len(), 1);
    std::fs::write(store.root.join("blobs/sha256/.new-dead"), "half")?;
    let collected = store.collect(&BTreeSet::from([kept.digest]))?;
    let collected = collected.ok_or("nobody writes")?;
    assert_eq!((collected.blobs, collected.blob_bytes), (1, 7));
    assert_eq!((collected.trees, collected.unfinished), (1, 1));
    assert!(collected.left.is_empty(), "{:?}", collected.left);
    assert_eq!(entries(&store.root.join("lists"))?.len(), 0);
    assert!(store.has(&kept.digest)? && !store.has(&dropped.digest)?);
    Ok(())
}

#[test]
fn garbage_is_not_collected_while_somebody_writes() -> Outcome {
    let (_state, store) = store()?;
    let outcome = store.write::<_, StoreError>(None, |_| store.collect(&BTreeSet::new()))?;
    assert!(outcome.1.is_none());
    Ok(())
}
