use std::io::Cursor;

use proptest::prelude::*;

use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn source(files: &[(&str, &str, u32)]) -> io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, content, mode) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a file is in a folder"))?;
        std::fs::write(&file, content)?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(*mode))?;
    }
    Ok(folder)
}

fn store() -> Result<(tempfile::TempDir, Store), Box<dyn std::error::Error>> {
    let state = tempfile::tempdir()?;
    let store = Store::open(state.path())?;
    Ok((state, store))
}

fn contents(folder: &tempfile::TempDir) -> Result<Contents, WalkError> {
    walk::walk(folder.path(), &Limits::default(), &|_| false)
}

/// A zip by the library's writer: each entry a name, a unix mode and its content.
fn zip_of(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(0o755)
            .external_attributes(mode << 16)
            .system(System::Unix);
        zip.start_file(*name, options)
            .expect("the entry is started");
        zip.write_all(content).expect("the entry is written");
    }
    zip.finish().expect("the zip is written").into_inner()
}

/// Unpacks into a folder whose surroundings must stay as they are.
fn unpack_bytes(zip: &[u8], limits: &Limits) -> Result<(), PackageError> {
    let around = tempfile::tempdir().expect("a folder");
    let inside = around.path().join("a/b/inside");
    std::fs::create_dir_all(&inside).expect("a folder");
    let outcome = unpack_into(Cursor::new(zip), zip.len() as u64, &inside, limits);
    for (folder, only) in [(around.path(), "a"), (&around.path().join("a"), "b")] {
        let found: Vec<_> = std::fs::read_dir(folder).expect("readable").collect();
        assert!(found.len() == 1, "something was written beside {only}");
    }
    remove(&inside);
    outcome.map(drop)
}

fn remove(folder: &Path) {
    barecount_tree::remove(folder, &barecount_tree::to_the_end).expect("removable");
}

/// The fault of the entry that made `zip` refused.
fn fault(zip: &[u8]) -> (String, EntryFault) {
    match unpack_bytes(zip, &Limits::default()) {
        Err(PackageError::Entry { entry, source }) => (entry, source),
        other => panic!("expected a refused entry, found {other:?}"),
    }
}

#[test]
fn one_content_gives_one_digest_wherever_and_whenever_it_is_packed() -> Outcome {
    let (_state, store) = store()?;
    let files = [
        ("bootstrap", "#!", 0o755),
        ("lib/b", "b", 0o600),
        ("lib.d/a", "a", 0o644),
    ];
    let first = source(&files)?;
    let second = source(&files)?;
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    File::open(second.path().join("bootstrap"))?.set_modified(old)?;
    let a = pack(&store, &contents(&first)?, BOOTSTRAP)?;
    let b = pack(&store, &contents(&second)?, BOOTSTRAP)?;
    assert_eq!(a, b);
    let folder = unpack(&store, &a.digest, BOOTSTRAP, &Limits::default())?;
    assert_eq!(std::fs::read(folder.join("lib/b"))?, b"b");
    let mode = |name| std::fs::metadata(folder.join(name)).map(|m| m.permissions().mode() & 0o7777);
    assert_eq!(
        (mode("bootstrap")?, mode("lib/b")?, mode("lib")?),
        (0o555, 0o444, 0o555)
    );
    Ok(())
}

#[test]
fn a_package_needs_an_executable_bootstrap() -> Outcome {
    let (_state, store) = store()?;
    let missing = pack(
        &store,
        &contents(&source(&[("main", "", 0o755)])?)?,
        BOOTSTRAP,
    );
    assert!(matches!(missing, Err(PackageError::NoEntryPoint { .. })));
    let plain = source(&[("bootstrap", "", 0o644)])?;
    let plain = pack(&store, &contents(&plain)?, BOOTSTRAP);
    assert!(matches!(plain, Err(PackageError::NotExecutable { .. })));

    let limits = Limits::default();
    let zip = store.put_bytes(&zip_of(&[("bootstrap", 0o100_644, b"x")]))?;
    let refused = unpack(&store, &zip.digest, BOOTSTRAP, &limits);
    assert!(matches!(refused, Err(PackageError::NotExecutable { .. })));
    Ok(())
}

#[test]
fn names_that_could_leave_the_folder_are_refused_by_name() {
    for name in ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil"] {
        let (entry, fault) = fault(&zip_of(&[("ok", 0o100_755, b""), (name, 0o100_644, b"x")]));
        assert!(matches!(fault, EntryFault::Name(_)), "{name}: {fault:?}");
        assert_eq!(entry, shown(name.as_bytes()));
    }
}

#[test]
fn links_and_devices_are_refused() {
    assert!(matches!(
        fault(&zip_of(&[("l", 0o120_777, b"/etc")])).1,
        EntryFault::Link
    ));
    for mode in [0o060_644, 0o020_644, 0o010_644, 0o140_644] {
        assert!(matches!(
            fault(&zip_of(&[("d", mode, b"")])).1,
            EntryFault::Special
        ));
    }
}

#[test]
fn names_that_collide_are_refused() {
    let collision = zip_of(&[("Read.me", 0o100_644, b"1"), ("read.ME", 0o100_644, b"2")]);
    assert!(
        matches!(fault(&collision).1, EntryFault::CaseCollision { other } if other == "Read.me")
    );
    let through_file = zip_of(&[("a", 0o100_644, b"1"), ("a/b", 0o100_644, b"2")]);
    assert!(matches!(
        fault(&through_file).1,
        EntryFault::Write(TreeError::ThroughFile { .. })
    ));
    // The writer refuses duplicates, so the second name is patched in afterwards.
    let mut twice = zip_of(&[("aaa", 0o100_644, b"1"), ("bbb", 0o100_644, b"2")]);
    replace(&mut twice, b"bbb", b"aaa");
    assert!(matches!(fault(&twice).1, EntryFault::Duplicate));
}

#[test]
fn bombs_are_refused_by_size_ratio_and_count() {
    let zeros = vec![0; 8 << 20];
    let bomb = zip_of(&[("zeros", 0o100_644, &zeros)]);
    let bound = |limits: &Limits| match unpack_bytes(&bomb, limits) {
        Err(PackageError::Entry {
            source: EntryFault::Bound(bound),
            ..
        }) => bound,
        other => panic!("expected a bound, found {other:?}"),
    };
    assert_eq!(bound(&Limits::default()), Exceeded::Ratio(200));
    let limits = Limits {
        total_bytes: 1 << 20,
        ..Limits::default()
    };
    assert_eq!(bound(&limits), Exceeded::TotalBytes(1 << 20));
    let limits = Limits {
        entry_bytes: 1 << 20,
        ..Limits::default()
    };
    assert_eq!(bound(&limits), Exceeded::EntryBytes(1 << 20));
    let many = zip_of(&[("a", 0, b""), ("b", 0, b""), ("c", 0, b"")]);
    let refused = unpack_bytes(
        &many,
        &Limits {
            entries: 2,
            ..Limits::default()
        },
    );
    assert!(matches!(
        refused,
        Err(PackageError::Bound(Exceeded::Entries(2)))
    ));
}

#[test]
fn content_is_compared_with_what_the_headers_declare() {
    let good = zip_of(&[("file", 0o100_644, b"some content")]);
    let declared_size = 12_u32.to_le_bytes();
    let mut smaller = good.clone();
    replace(&mut smaller, &declared_size, &11_u32.to_le_bytes());
    assert!(unpack_bytes(&smaller, &Limits::default()).is_err());

    let crc = u32::to_le_bytes(crc_of(&good));
    let mut wrong_crc = good.clone();
    replace(&mut wrong_crc, &crc, &[1, 2, 3, 4]);
    assert!(matches!(fault(&wrong_crc).1, EntryFault::Damaged(_)));

    let mut one_name = good.clone();
    let at = one_name
        .windows(4)
        .position(|window| window == b"file")
        .expect("the local name");
    one_name[at] = b'F';
    assert!(
        matches!(fault(&one_name).1, EntryFault::Header(_)),
        "two names for one entry"
    );

    let mut not_text = good;
    replace(&mut not_text, b"file", b"fil\xff");
    let (entry, fault) = fault(&not_text);
    assert!(matches!(
        fault,
        EntryFault::Name(crate::entry::NameFault::NotUtf8)
    ));
    assert_eq!(entry, "fil\u{fffd}");
}

#[test]
fn encrypted_entries_are_refused() {
    let mut encrypted = zip_of(&[("file", 0o100_644, b"secret")]);
    // Bit 0 of the general purpose flags, in the local and in the central header.
    let central = encrypted
        .windows(4)
        .position(|w| w == b"PK\x01\x02")
        .expect("a central header");
    encrypted[6] |= 1;
    encrypted[central + 8] |= 1;
    assert!(matches!(fault(&encrypted).1, EntryFault::Encrypted));
}

#[test]
fn every_truncation_is_an_error_and_never_a_panic() {
    let whole = zip_of(&[
        ("bootstrap", 0o100_755, b"content"),
        ("lib/a", 0o100_644, b"more"),
    ]);
    assert!(unpack_bytes(&whole, &Limits::default()).is_ok());
    for length in 0..whole.len() {
        let cut = unpack_bytes(&whole[..length], &Limits::default());
        assert!(
            cut.is_err(),
            "{length} of {} bytes were enough",
            whole.len()
        );
    }
}

#[test]
fn a_refused_package_leaves_nothing_unpacked() -> Outcome {
    let (state, store) = store()?;
    let zip = store.put_bytes(&zip_of(&[("bootstrap", 0o100_755, b""), ("../x", 0, b"")]))?;
    assert!(unpack(&store, &zip.digest, BOOTSTRAP, &Limits::default()).is_err());
    assert_eq!(std::fs::read_dir(state.path().join("unpacked"))?.count(), 0);
    Ok(())
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut found = 0;
    for at in 0..=bytes.len() - old.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + new.len()].copy_from_slice(new);
            found += 1;
        }
    }
    assert!(found > 0, "nothing to replace");
}

fn crc_of(zip: &[u8]) -> u32 {
    let mut archive = ZipArchive::new(Cursor::new(zip)).expect("a zip");
    archive.by_index(0).expect("an entry").crc32()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_zip_with_any_bytes_changed_neither_panics_nor_escapes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)
    ) {
        let mut zip = zip_of(&[("bootstrap", 0o100_755, b"content"), ("../up", 0o100_644, b"x"),
            ("lib/a", 0o100_644, b"aaaaaaaaaaaaaaaaaaaaaaaa")]);
        for (index, byte) in changes {
            let at = index.index(zip.len());
            zip[at] = byte;
        }
        let _ = unpack_bytes(&zip, &Limits::default());
    }

    #[test]
    fn any_entry_name_stays_inside(name in "[a-zA-Z./\\\\ ]{1,24}") {
        let _ = unpack_bytes(&zip_of(&[(&name, 0o100_644, b"x")]), &Limits::default());
    }
}
