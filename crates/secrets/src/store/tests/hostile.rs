//! Stores that somebody else wrote to.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use proptest::prelude::*;

use super::super::format::{self, Flaw};
use super::super::{Limits, Place, Store, StoreError};
use super::fixture::{Fixture, NOW, TestResult, get, name, set, tenant};
use crate::key::{KeyError, KeyFile};

fn mode(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

#[test]
fn changing_any_byte_of_a_store_is_noticed() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    set(&store, "b", "canary-2")?;
    let bytes = std::fs::read(fixture.file())?;
    // In place: a file system may flush a file that is cut and written anew each time.
    let file = std::fs::File::options().write(true).open(fixture.file())?;
    for (index, byte) in bytes.iter().enumerate() {
        for flip in [0x01, 0x20, 0x80] {
            file.write_all_at(&[byte ^ flip], index as u64)?;
            let opened = fixture.open().map(|_| ());
            assert!(opened.is_err(), "byte {index} ^ {flip:#x} went unnoticed");
        }
        file.write_all_at(&[*byte], index as u64)?;
    }
    assert_eq!(get(&fixture.open()?, "a")?, "canary-1", "the control");
    Ok(())
}

#[test]
fn a_store_that_was_cut_or_grown_is_noticed() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    let bytes = std::fs::read(fixture.file())?;
    let cuts = (0..bytes.len()).step_by(7).chain([bytes.len() - 1]);
    let changed = cuts.map(|length| bytes[..length].to_vec());
    for changed in changed.chain([
        [&bytes[..], b"\0"].concat(),
        [&bytes[..], &bytes[..]].concat(),
    ]) {
        std::fs::write(fixture.file(), &changed)?;
        assert!(fixture.open().is_err(), "{} bytes", changed.len());
    }
    Ok(())
}

#[test]
fn records_cannot_be_swapped_between_names_versions_tenants_or_keys() -> TestResult {
    use crate::key::WrappingKey;
    use crate::secret::Secret;
    use format::{At, VersionRecord};
    let (key, other) = (WrappingKey::generate()?, WrappingKey::generate()?);
    let (a, b) = (name("a"), name("b"));
    let at = At {
        tenant: "acme",
        name: &a,
        number: 1,
    };
    let record = VersionRecord::seal(at, &key, &Secret::new(b"canary-1"), NOW)?;
    assert_eq!(
        record.open(at, &key).map(|value| value.expose().to_vec()),
        Ok(b"canary-1".into())
    );
    for elsewhere in [
        At { name: &b, ..at },
        At { number: 2, ..at },
        At {
            tenant: "umbrella",
            ..at
        },
    ] {
        assert_eq!(record.open(elsewhere, &key).err(), Some(Flaw::Unauthentic));
    }
    assert_eq!(record.open(at, &other).err(), Some(Flaw::Unauthentic));
    Ok(())
}

#[test]
fn the_store_of_another_tenant_is_refused() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    std::fs::copy(fixture.file(), fixture.folder().join("umbrella.secrets"))?;
    let refused = fixture.open_for("umbrella");
    assert!(matches!(refused, Err(StoreError::OtherTenant { found, .. }) if found == "acme"));
    Ok(())
}

#[test]
fn a_store_with_another_key_is_refused() -> TestResult {
    let (fixture, _) = Fixture::new()?;
    let other = KeyFile::create(fixture.home().join("other"))?;
    let opened = Store::open(
        &fixture.folder(),
        tenant("acme"),
        Box::new(other),
        Limits::default(),
    );
    let expected = fixture.key.ids()?[0];
    assert!(matches!(opened, Err(StoreError::WrongKey { id, .. }) if id == expected));
    Ok(())
}

#[test]
fn an_older_store_put_in_place_is_refused_by_whoever_saw_the_newer() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    let old = std::fs::read(fixture.file())?;
    set(&store, "a", "canary-2")?;
    assert_eq!(get(&store, "a")?, "canary-2");
    std::fs::write(fixture.file(), old)?;
    let refused = store.list();
    assert!(
        matches!(
            refused,
            Err(StoreError::RolledBack {
                seen: 3,
                found: 2,
                ..
            })
        ),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn an_older_store_is_refused_by_a_later_process_too_whatever_key_it_is_under() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    let marks = fixture.home().join("config/keys");
    let open = || {
        let place = Place {
            folder: fixture.folder(),
            marks: Some(marks.clone()),
        };
        let keys = Box::new(fixture.key.clone());
        Store::open(place, tenant("acme"), keys, Limits::default())
    };
    set(&store, "a", "canary-1")?;
    drop(store);
    let older = std::fs::read(fixture.file())?;
    open()?.remove(&name("a"))?;
    let newer = std::fs::read(fixture.file())?;
    let refuses_older = || -> TestResult {
        std::fs::write(fixture.file(), &older)?;
        let refused = open();
        assert!(
            matches!(refused, Err(StoreError::RolledBack { found: 2, .. })),
            "{refused:?}"
        );
        Ok(())
    };
    refuses_older()?;
    std::fs::write(fixture.file(), &newer)?;
    fixture.key.add()?;
    open()?.rotate(NOW)?;
    refuses_older()?;
    // A mark that is no number is not taken for none.
    for mark in std::fs::read_dir(&marks)? {
        std::fs::write(mark?.path(), "x")?;
    }
    assert!(matches!(open(), Err(StoreError::Damaged { .. })));
    std::fs::remove_dir_all(&marks)?;
    assert_eq!(open()?.list()?.len(), 1, "nobody has seen another one");
    Ok(())
}

#[test]
fn a_store_or_key_that_others_can_read_is_refused() -> TestResult {
    let (fixture, _) = Fixture::new()?;
    for (path, private) in [(fixture.file(), 0o600), (fixture.folder(), 0o700)] {
        for exposed in [
            private | 0o040,
            private | 0o004,
            private | 0o020,
            private | 0o002,
        ] {
            mode(&path, exposed)?;
            let refused = fixture.open();
            assert!(
                matches!(&refused, Err(StoreError::Exposed { mode, .. }) if *mode == exposed),
                "{}: {refused:?}",
                path.display()
            );
        }
        mode(&path, private)?;
    }
    for exposed in [0o640, 0o604, 0o660, 0o644] {
        mode(fixture.key.path(), exposed)?;
        let refused = KeyFile::open(fixture.key.path());
        assert!(matches!(refused, Err(KeyError::Exposed { mode, .. }) if mode == exposed));
        let refused = fixture.open();
        assert!(matches!(
            refused,
            Err(StoreError::Key(KeyError::Exposed { .. }))
        ));
    }
    mode(fixture.key.path(), 0o400)?;
    fixture.open()?;
    Ok(())
}

#[test]
fn what_the_store_writes_is_private() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    let of = |path: &Path| std::fs::metadata(path).map(|data| data.permissions().mode() & 0o7777);
    assert_eq!(of(&fixture.folder())?, 0o700);
    assert_eq!(of(&fixture.file())?, 0o600);
    assert_eq!(of(fixture.key.path())?, 0o600);
    Ok(())
}

#[test]
fn pipes_and_devices_in_place_of_files_are_refused_without_waiting() -> TestResult {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (fixture, _) = Fixture::new()?;
    for path in [fixture.file(), fixture.key.path().to_owned()] {
        let kept = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        assert!(fixture.open().is_err());
        std::fs::remove_file(&path)?;
        std::fs::write(&path, kept)?;
        mode(&path, 0o600)?;
    }
    fixture.open()?;
    Ok(())
}

#[test]
fn key_files_that_are_not_key_files_are_refused() -> TestResult {
    let home = tempfile::tempdir()?;
    let path = home.path().join("key");
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let many = format!("{key}\n").repeat(40);
    for text in [
        "",
        "\n",
        key,
        "barecount/secrets-key/v1",
        "barecount/secrets-key/v2\n",
        "barecount/secrets-key/v1\nAAAA",
        "barecount/secrets-key/v1\n\n",
        &format!("barecount/secrets-key/v1\n{key}AAAA\n"),
        &format!("barecount/secrets-key/v1\n{key}\n{key}\n"),
        &format!("barecount/secrets-key/v1\n{many}"),
        "\u{feff}barecount/secrets-key/v1\n",
    ] {
        std::fs::write(&path, text)?;
        mode(&path, 0o600)?;
        let refused = KeyFile::open(&path);
        assert!(
            matches!(refused, Err(KeyError::Malformed { .. })),
            "{text:?}"
        );
    }
    std::fs::write(&path, format!("barecount/secrets-key/v1\n{key}\n"))?;
    KeyFile::open(&path)?;
    Ok(())
}

#[test]
fn the_current_key_is_not_removed_and_a_key_file_not_overwritten() -> TestResult {
    let (fixture, _) = Fixture::new()?;
    let ids = fixture.key.ids()?;
    assert!(matches!(
        fixture.key.remove(ids[0]),
        Err(KeyError::NotFormer { .. })
    ));
    let again = KeyFile::create(fixture.key.path());
    assert!(matches!(again, Err(KeyError::Exists { .. })));
    assert_eq!(fixture.key.ids()?, ids);
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_taken_apart_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = format::take_apart(&bytes);
        let lines = [b"barecount/secrets/v1\n", &bytes[..]].concat();
        prop_assert!(format::take_apart(&lines).is_err());
    }

    #[test]
    fn a_header_with_anything_spliced_in_is_taken_apart_without_a_panic(
        at in 0usize..400, junk in prop::collection::vec(any::<u8>(), 1..24)
    ) {
        let text = format!(
            "{}\n{{\"tenant\":\"acme\",\"generation\":1,\"primary\":\"key_{1}\",\"slots\":[{{\"slot\":\
             {{\"id\":\"key_{1}\",\"derivation\":{{\"kind\":\"stored\"}}}},\"added\":\
             \"1970-01-01T00:00:00Z\",\"root\":\"{2}\"}}]}}\n",
            format::MAGIC, "0".repeat(32), "A".repeat(120)
        );
        prop_assert!(format::take_apart(text.as_bytes()).is_ok(), "the control");
        let mut bytes = text.into_bytes();
        let at = at.min(bytes.len());
        bytes.splice(at..at, junk);
        if let Ok(parts) = format::take_apart(&bytes) {
            let root = crate::seal::KeyBytes::generate().expect("there is randomness");
            prop_assert!(parts.open(&root).is_err());
        }
    }
}
