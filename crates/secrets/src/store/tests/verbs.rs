//! Setting, listing, removing, rotating.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{GetError, Limits, SetError, Store, StoreError};
use super::fixture::{Fixture, NOW, TestResult, get, name, names, reference, set, tenant};
use crate::key::{Argon2Cost, KeyFile, KeySources, Passphrase};
use crate::reference::Version;
use crate::secret::{ReadError, Secret};

const CHEAP: Argon2Cost = Argon2Cost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

fn passphrase(current: &str, former: &[&str]) -> Result<Box<Passphrase>, crate::KeyError> {
    let former = former
        .iter()
        .map(|text| Secret::new(text.as_bytes()))
        .collect();
    Passphrase::new(Secret::new(current.as_bytes()), former, CHEAP).map(Box::new)
}

#[test]
fn what_is_set_is_read_by_another_process() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    assert_eq!(
        set(&store, "erp/token", "canary-1")?,
        reference("erp/token@1")
    );
    assert_eq!(
        set(&store, "erp/token", "canary-2")?,
        reference("erp/token@2")
    );
    let other = fixture.open()?;
    assert_eq!(get(&other, "erp/token")?, "canary-2");
    assert_eq!(get(&other, "erp/token@1")?, "canary-1");
    set(&store, "erp/token", "canary-3")?;
    assert_eq!(
        get(&other, "erp/token")?,
        "canary-3",
        "it does not read from its cache"
    );
    Ok(())
}

#[test]
fn a_value_is_kept_to_the_byte() -> TestResult {
    let (_fixture, store) = Fixture::new()?;
    let bytes: Vec<u8> = (0..=255).chain(*b"\r\n\n").collect();
    store.set(&name("binary"), &mut &bytes[..], NOW)?;
    assert_eq!(store.get(&reference("binary"))?.1.expose(), bytes);
    Ok(())
}

#[test]
fn values_too_long_or_too_short_are_refused() -> TestResult {
    let (_fixture, store) = Fixture::new()?;
    let longest = vec![b'x'; crate::MAX_VALUE_BYTES];
    store.set(&name("long"), &mut &longest[..], NOW)?;
    let refused = store.set(&name("longer"), &mut std::io::repeat(b'x'), NOW);
    assert!(matches!(
        refused,
        Err(SetError::Value {
            source: ReadError::TooLong { limit: 65536 },
            ..
        })
    ));
    for short in ["", "abc", "abc\n", "    "] {
        let refused = store.set(&name("short"), &mut short.as_bytes(), NOW);
        assert!(
            matches!(refused, Err(SetError::TooShort { minimum: 4, .. })),
            "{short:?}"
        );
    }
    assert_eq!(names(&store)?, ["long".to_owned()].into());
    Ok(())
}

#[test]
fn the_least_length_can_be_raised_but_not_lowered() -> TestResult {
    let (fixture, _) = Fixture::new()?;
    for (asked, minimum) in [(0, 4), (12, 12)] {
        let limits = Limits {
            min_value_bytes: asked,
            ..Limits::default()
        };
        let keys = Box::new(fixture.key.clone());
        let store = Store::open(&fixture.folder(), tenant("acme"), keys, limits)?;
        let value = "x".repeat(minimum - 1);
        let refused = store.set(&name("a"), &mut value.as_bytes(), NOW);
        assert!(matches!(refused, Err(SetError::TooShort { minimum: m, .. }) if m == minimum));
        store.set(&name("a"), &mut "x".repeat(minimum).as_bytes(), NOW)?;
    }
    Ok(())
}

#[test]
fn the_newest_versions_are_kept() -> TestResult {
    let (fixture, _) = Fixture::new()?;
    let limits = Limits {
        versions_kept: 2,
        ..Limits::default()
    };
    let keys = Box::new(fixture.key.clone());
    let store = Store::open(&fixture.folder(), tenant("acme"), keys, limits)?;
    for value in ["canary-1", "canary-2", "canary-3"] {
        set(&store, "a", value)?;
    }
    assert_eq!(get(&store, "a@2")?, "canary-2");
    let gone = store.get(&reference("a@1"));
    assert!(matches!(
        gone,
        Err(GetError::NoVersion {
            version: 1,
            newest: 3,
            ..
        })
    ));
    Ok(())
}

#[test]
fn a_removed_secret_is_gone_and_its_versions_are_not_given_again() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    store.remove(&name("a"))?;
    assert!(names(&store)?.is_empty());
    assert!(matches!(
        store.get(&reference("a")),
        Err(GetError::NotFound { .. })
    ));
    assert!(matches!(
        store.get(&reference("a@1")),
        Err(GetError::NotFound { .. })
    ));
    assert!(matches!(
        store.remove(&name("a")),
        Err(GetError::NotFound { .. })
    ));
    assert_eq!(set(&fixture.open()?, "a", "canary-2")?, reference("a@2"));
    Ok(())
}

#[test]
fn the_list_tells_names_versions_times_and_keys() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    let later = NOW + jiff::SignedDuration::from_hours(1);
    set(&store, "b", "canary-1")?;
    store.set(&name("b"), &mut &b"canary-2"[..], later)?;
    set(&store, "a", "canary-3")?;
    let key = fixture.key.ids()?[0];
    let text = serde_json::to_string(&store.list()?)?;
    let expected = format!(
        r#"[{{"name":"a","created":"{NOW}","rotated":"{NOW}","versions":[{{"number":1,"created":"{NOW}","key":"{key}"}}]}},{{"name":"b","created":"{NOW}","rotated":"{later}","versions":[{{"number":1,"created":"{NOW}","key":"{key}"}},{{"number":2,"created":"{later}","key":"{key}"}}]}}]"#
    );
    assert_eq!(text, expected);
    Ok(())
}

#[test]
fn a_store_that_is_open_goes_on_reading_through_a_rotation() -> TestResult {
    let (fixture, reader) = Fixture::new()?;
    set(&reader, "a", "canary-1")?;
    let writer = fixture.open()?;
    let old = fixture.key.ids()?[0];
    let new = fixture.key.add()?;
    assert_eq!(get(&reader, "a")?, "canary-1");
    let rotation = writer.rotate(NOW)?;
    assert_eq!((rotation.current, rotation.rewrapped), (new, 1));
    assert_eq!(rotation.retired, [old]);
    assert_eq!(get(&reader, "a")?, "canary-1");
    fixture.key.remove(old)?;
    assert_eq!(get(&reader, "a")?, "canary-1");
    assert_eq!(get(&fixture.open()?, "a")?, "canary-1");
    assert_eq!(reader.keys()?, [new]);
    Ok(())
}

#[test]
fn a_retired_key_opens_nothing_any_more() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    let leaked = fixture.home().join("leaked");
    std::fs::copy(fixture.key.path(), &leaked)?;
    fixture.key.add()?;
    store.rotate(NOW)?;
    let keys = Box::new(KeyFile::open(&leaked)?);
    let refused = Store::open(&fixture.folder(), tenant("acme"), keys, Limits::default());
    assert!(matches!(refused, Err(StoreError::WrongKey { .. })));
    Ok(())
}

#[test]
fn without_a_new_key_a_rotation_writes_nothing() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    let before = std::fs::read(fixture.file())?;
    let rotation = store.rotate(NOW)?;
    assert_eq!((rotation.retired.len(), rotation.rewrapped), (0, 0));
    assert_eq!(std::fs::read(fixture.file())?, before);
    Ok(())
}

#[test]
fn a_passphrase_is_changed_and_the_old_one_is_refused() -> TestResult {
    let home = tempfile::tempdir()?;
    let folder = home.path().join("secrets");
    let (old, new) = ("correct horse battery", "staple of the new year");
    let open = |keys| Store::open(&folder, tenant("acme"), keys, Limits::default());
    let store = Store::create(
        &folder,
        tenant("acme"),
        passphrase(old, &[])?,
        Limits::default(),
        NOW,
    )?;
    set(&store, "a", "canary-1")?;
    assert!(matches!(
        open(passphrase(new, &[])?),
        Err(StoreError::WrongKey { .. })
    ));
    let store = open(passphrase(new, &[old])?)?;
    assert_eq!(store.rotate(NOW)?.rewrapped, 1);
    assert_eq!(get(&open(passphrase(new, &[])?)?, "a")?, "canary-1");
    let refused = open(passphrase(old, &[])?);
    let error = refused.expect_err("the passphrase is the old one");
    assert!(
        error
            .to_string()
            .starts_with("the key or passphrase is not the one of"),
        "{error}"
    );
    assert!(error.help().is_some());
    Ok(())
}

#[test]
fn a_store_moves_from_a_passphrase_to_a_key_file() -> TestResult {
    let home = tempfile::tempdir()?;
    let folder = home.path().join("secrets");
    let phrase = "correct horse battery";
    let store = Store::create(
        &folder,
        tenant("acme"),
        passphrase(phrase, &[])?,
        Limits::default(),
        NOW,
    )?;
    set(&store, "a", "canary-1")?;
    let file = KeyFile::create(home.path().join("key"))?;
    let keys = KeySources::new(Box::new(file.clone()), vec![passphrase(phrase, &[])?]);
    Store::open(&folder, tenant("acme"), Box::new(keys), Limits::default())?.rotate(NOW)?;
    let store = Store::open(&folder, tenant("acme"), Box::new(file), Limits::default())?;
    assert_eq!(get(&store, "a")?, "canary-1");
    Ok(())
}

#[test]
fn a_store_is_made_once() -> TestResult {
    let (fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-1")?;
    let keys = Box::new(fixture.key.clone());
    let again = Store::create(
        &fixture.folder(),
        tenant("acme"),
        keys,
        Limits::default(),
        NOW,
    );
    assert!(matches!(again, Err(StoreError::Exists { .. })));
    assert_eq!(get(&store, "a")?, "canary-1");
    assert!(matches!(
        fixture.open_for("other"),
        Err(StoreError::Missing { .. })
    ));
    Ok(())
}

#[test]
fn writers_at_once_lose_nothing() -> TestResult {
    let (fixture, _) = Fixture::new()?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let store = fixture.open().expect("the store is there");
                scope.spawn(move || {
                    for round in 0..5 {
                        set(&store, "shared", &format!("canary-{writer}-{round}"))
                            .map_err(|error| error.to_string())?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        for writer in writers {
            writer
                .join()
                .expect("no writer panics")
                .expect("no writer fails");
        }
    });
    let newest = fixture.open()?.get(&reference("shared"))?.0;
    assert_eq!(newest, reference("shared@20"));
    Ok(())
}

#[test]
fn threads_that_share_a_store_read_while_one_writes() -> TestResult {
    let (_fixture, store) = Fixture::new()?;
    set(&store, "a", "canary-0")?;
    let (store, done) = (&store, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut newest = 0;
                    while !done.load(Ordering::Relaxed) {
                        let (found, _) = store.get(&reference("a")).expect("it can be read");
                        let Version::Number(number) = found.version else {
                            panic!("{found} has no number");
                        };
                        assert!(number >= newest, "time goes on");
                        newest = number;
                    }
                })
            })
            .collect();
        let written: Result<(), String> = (0..40)
            .try_for_each(|round| set(store, "a", &format!("canary-{round}")).map(|_| ()))
            .map_err(|error| error.to_string());
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("no reader fails");
        }
        written.expect("no writing fails");
    });
    Ok(())
}
