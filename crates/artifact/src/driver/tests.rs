use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Fixture {
    around: tempfile::TempDir,
    store: Store,
    contents: Contents,
}

impl Fixture {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let around = tempfile::tempdir()?;
        let source = around.path().join("source");
        std::fs::create_dir_all(source.join("bin"))?;
        std::fs::write(source.join("bin/extract"), "#!")?;
        std::fs::set_permissions(source.join("bin/extract"), PermissionsExt::from_mode(0o755))?;
        std::fs::write(source.join("LICENSE"), "free")?;
        let contents = walk::walk(&source, &Limits::default(), &|_| false)?;
        let store = Store::open(&around.path().join("artifacts"))?;
        Ok(Self {
            around,
            store,
            contents,
        })
    }

    fn pack(&self, version: &str) -> Result<Digest, DriverError> {
        pack(
            &self.store,
            &self.contents,
            "sqlite",
            version,
            "bin/extract",
        )
        .map(|blob| blob.digest)
    }

    fn open(
        &self,
        name: &str,
        version: Option<&str>,
        digest: Digest,
    ) -> Result<Driver, DriverError> {
        let wanted = Wanted {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            digest,
        };
        open(&self.store, &wanted, &Limits::default())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        barecount_tree::remove(self.around.path(), &barecount_tree::to_the_end).expect("removable");
    }
}

#[test]
fn a_driver_is_found_by_name_version_and_digest_and_by_nothing_less() -> Outcome {
    let fixture = Fixture::new()?;
    let digest = fixture.pack("3.1")?;
    assert_eq!(digest, fixture.pack("3.1")?);
    assert_eq!(digest, Fixture::new()?.pack("3.1")?);
    let driver = fixture.open("sqlite", Some("3.1"), digest)?;
    assert_eq!(
        driver.description.files["LICENSE"].digest,
        Digest::of(b"free")
    );
    assert_eq!(
        std::fs::read(driver.folder.join(&driver.description.entry_point))?,
        b"#!"
    );

    assert!(matches!(
        fixture.open("oracle", None, digest),
        Err(DriverError::WrongName { wanted, found }) if wanted == "oracle" && found == "sqlite"
    ));
    assert!(matches!(
        fixture.open("sqlite", Some("3.2"), digest),
        Err(DriverError::WrongVersion { wanted, found, .. }) if wanted == "3.2" && found == "3.1"
    ));
    let other = Digest::of(b"other");
    assert!(matches!(
        fixture.open("sqlite", None, other),
        Err(DriverError::Missing { digest, .. }) if digest == other
    ));
    Ok(())
}

#[test]
fn a_damaged_bundle_is_refused() -> Outcome {
    let fixture = Fixture::new()?;
    let digest = fixture.pack("1")?;
    let path = fixture.store.blobs().path(&digest);
    let mut bytes = std::fs::read(&path)?;
    bytes[600] ^= 1;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644))?;
    std::fs::write(&path, bytes)?;
    assert!(matches!(
        fixture.open("sqlite", None, digest),
        Err(DriverError::WrongDigest { .. })
    ));
    Ok(())
}

#[test]
fn an_entry_point_must_be_an_executable_of_the_bundle() -> Outcome {
    let fixture = Fixture::new()?;
    for entry_point in ["bin/missing", "LICENSE", "bin"] {
        let refused = pack(
            &fixture.store,
            &fixture.contents,
            "sqlite",
            "1",
            entry_point,
        );
        assert!(
            matches!(refused, Err(DriverError::File { .. })),
            "{entry_point}"
        );
    }
    Ok(())
}

/// A bundle with the given `driver.json` and one file `a`.
fn bundle(description: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [(DESCRIPTION, description), ("a", "content of a")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, content.as_bytes())
            .expect("written");
    }
    tar.into_inner().expect("written")
}

fn good_description() -> String {
    let digest = Digest::of(b"content of a");
    format!(
        r#"{{"name":"n","version":"1","entryPoint":"a","files":{{"a":{{"digest":"{digest}","size":12,"executable":true}}}}}}"#
    )
}

fn unpack_bytes(bundle: &[u8]) -> Result<Description, DriverError> {
    let around = tempfile::tempdir().expect("a folder");
    let inside = around.path().join("inside");
    std::fs::create_dir(&inside).expect("a folder");
    let outcome = unpack_into(bundle, bundle.len() as u64, &inside, &Limits::default());
    assert_eq!(
        std::fs::read_dir(around.path()).expect("readable").count(),
        1,
        "escaped"
    );
    barecount_tree::remove(&inside, &barecount_tree::to_the_end).expect("removable");
    outcome.map(|(description, _)| description)
}

#[test]
fn files_are_compared_with_the_description() {
    assert!(unpack_bytes(&bundle(&good_description())).is_ok());
    for (old, new) in [("12", "13"), ("true", "false"), (r#""a":{"#, r#""b":{"#)] {
        let refused = unpack_bytes(&bundle(&good_description().replacen(old, new, 1)));
        assert!(
            matches!(refused, Err(DriverError::File { .. })),
            "{old} → {new}: {refused:?}"
        );
    }
    let none = r#"{"name":"n","version":"1","entryPoint":"a","files":{}}"#;
    assert!(matches!(
        unpack_bytes(&bundle(none)),
        Err(DriverError::File { .. })
    ));
    assert!(matches!(
        unpack_bytes(&bundle("{}")),
        Err(DriverError::Description(_))
    ));
    assert!(matches!(unpack_bytes(b""), Err(DriverError::NoDescription)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_bundle_with_any_bytes_changed_neither_panics_nor_escapes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = bundle(&good_description());
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = unpack_bytes(&bytes);
    }

    #[test]
    fn any_description_is_an_error_or_a_description(text in "\\PC{0,200}") {
        let _ = unpack_bytes(&bundle(&text));
    }
}
