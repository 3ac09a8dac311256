mod nesting;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use barecount_model::seal::SealKey;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::walk::Content;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// One entry of a layer: type, name, link target or content.
type Entry<'a> = (EntryType, &'a str, &'a [u8]);

const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

/// A tar whose names are written as they are, however hostile.
fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (kind, name, value) in entries {
        let mut header = Header::new_ustar();
        let content: &[u8] = if matches!(*kind, FILE) { value } else { b"" };
        let fields = header.as_ustar_mut().expect("a ustar header");
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        if !matches!(*kind, FILE) {
            fields.linkname[..value.len()].copy_from_slice(value);
        }
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).expect("the entry is written");
    }
    tar.into_inner().expect("the tar is written")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("compressed");
    gzip.finish().expect("compressed")
}

/// A state folder with a store, within a folder of which the rest must stay as it is.
struct Fixture {
    around: tempfile::TempDir,
    store: Store,
}

fn store_in(around: &Path) -> Store {
    let store = Store::open(&around.join("state/artifacts")).expect("a store");
    store.sealed(SealKey::new([7; 32].into()))
}

impl Fixture {
    fn new() -> Self {
        let around = tempfile::tempdir().expect("a folder");
        let store = store_in(around.path());
        Self { around, store }
    }

    /// Stores an image of the given media types and layers.
    fn image(&self, layers: &[(&str, Vec<u8>, Digest)]) -> Digest {
        let config = ImageConfig {
            architecture: Platform::of_this_program().architecture,
            os: "linux".into(),
            config: RunConfig::default(),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: layers.iter().map(|(_, _, diff_id)| *diff_id).collect(),
            },
        };
        let config = put_document(&self.store, &config).expect("stored");
        let layers = layers
            .iter()
            .map(|(media_type, blob, _)| {
                descriptor(media_type, self.store.put_bytes(blob).expect("stored"))
            })
            .collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: None,
            config: descriptor(media_type::CONFIG, config),
            layers,
        };
        put_document(&self.store, &manifest).expect("stored").digest
    }

    fn tars(&self, layers: &[&[Entry<'_>]]) -> Digest {
        let layers: Vec<_> = layers
            .iter()
            .map(|entries| {
                let tar = tar_of(entries);
                let diff_id = Digest::of(&tar);
                (media_type::LAYER, tar, diff_id)
            })
            .collect();
        self.image(&layers)
    }

    fn open(&self, manifest: &Digest, limits: &Limits) -> Result<Image, ImageError> {
        let outcome = open(&self.store, manifest, &Platform::of_this_program(), limits);
        let names = |folder: &Path| -> Vec<_> {
            let mut names: Vec<_> = std::fs::read_dir(folder)
                .expect("readable")
                .map(|entry| entry.expect("readable").file_name())
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            names(self.around.path()),
            ["state"],
            "written outside of the state folder"
        );
        assert_eq!(names(&self.around.path().join("state")), ["artifacts"]);
        let unpacked = names(&self.around.path().join("state/artifacts/unpacked"));
        assert_eq!(
            unpacked.len(),
            usize::from(outcome.is_ok()),
            "half an image is left"
        );
        outcome
    }

    fn fault(&self, layers: &[&[Entry<'_>]]) -> (String, EntryFault) {
        match self.open(&self.tars(layers), &Limits::default()) {
            Err(ImageError::Entry { entry, source, .. }) => (entry, source),
            other => panic!("expected a refused entry, found {other:?}"),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        barecount_tree::remove(self.around.path(), &barecount_tree::to_the_end).expect("removable");
    }
}

fn app() -> Result<(tempfile::TempDir, Contents), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("app"), "#!")?;
    let long = format!("data/{}", "long/".repeat(40));
    let file = |executable| Content::File {
        from: folder.path().join("app"),
        executable,
    };
    let contents = [
        ("app", Content::Folder),
        ("app/run", file(true)),
        (&*format!("{long}name"), file(false)),
        (
            "lib",
            Content::Link {
                target: "/app".into(),
            },
        ),
    ];
    let contents = contents
        .into_iter()
        .map(|(path, content)| {
            Ok((
                EntryPath::parse(path.as_bytes(), &Limits::default())?,
                content,
            ))
        })
        .collect::<Result<Contents, crate::entry::NameFault>>()?;
    Ok((folder, contents))
}

#[test]
fn an_image_is_a_function_of_its_files_and_configuration() -> Outcome {
    let fixture = Fixture::new();
    let platform = Platform::of_this_program();
    let config = || RunConfig {
        user: "1000".into(),
        env: vec!["A=b".into()],
        entrypoint: vec!["/app/run".into()],
        labels: BTreeMap::from([("k".into(), "v".into())]),
        ..RunConfig::default()
    };
    let limits = Limits {
        path_bytes: 4096,
        ..Limits::default()
    };
    let (_a, one) = app()?;
    let (_b, two) = app()?;
    let first = pack(&fixture.store, &one, config(), &platform)?;
    assert_eq!(first, pack(&fixture.store, &two, config(), &platform)?);
    let image = fixture.open(&first.digest, &limits)?;
    assert_eq!(image.config, config());
    let name = format!("data/{}name", "long/".repeat(40));
    assert_eq!(std::fs::read(image.rootfs.join(name))?, b"#!");
    assert_eq!(
        std::fs::read_link(image.rootfs.join("lib"))?,
        Path::new("/app")
    );
    Ok(())
}

#[test]
fn an_exported_layout_is_imported_again_under_the_same_digest() -> Outcome {
    let fixture = Fixture::new();
    let platform = Platform::of_this_program();
    let limits = Limits::default();
    let (_files, contents) = app()?;
    let image = pack(&fixture.store, &contents, RunConfig::default(), &platform)?;
    let layout = tempfile::tempdir()?;
    export(
        &fixture.store,
        &image.digest,
        layout.path(),
        "app:1",
        &limits,
    )?;
    for selection in [
        Selection::Only,
        Selection::Digest(image.digest),
        Selection::Name("app:1".into()),
    ] {
        let other = Fixture::new();
        let imported = import(&other.store, layout.path(), &selection, &platform, &limits)?;
        assert_eq!(imported, image);
        other.open(&image.digest, &limits)?;
    }
    let other = Platform {
        os: "linux".into(),
        architecture: "riscv64".into(),
    };
    let refused = import(
        &fixture.store,
        layout.path(),
        &Selection::Only,
        &other,
        &limits,
    );
    assert!(matches!(refused, Err(ImageError::Platform { .. })));
    let name = Selection::Name("app:2".into());
    let refused = import(&fixture.store, layout.path(), &name, &platform, &limits);
    assert!(matches!(refused, Err(ImageError::NoSuchImage { .. })));
    Ok(())
}

#[test]
fn a_damaged_layout_is_refused_by_the_name_of_the_damaged_blob() -> Outcome {
    let fixture = Fixture::new();
    let platform = Platform::of_this_program();
    let limits = Limits::default();
    let (_files, contents) = app()?;
    let image = pack(&fixture.store, &contents, RunConfig::default(), &platform)?;
    for damaged in closure(&fixture.store, &image.digest, &limits)? {
        let layout = tempfile::tempdir()?;
        export(&fixture.store, &image.digest, layout.path(), "app", &limits)?;
        let blob = layout.path().join("blobs/sha256").join(damaged.hex());
        let mut bytes = std::fs::read(&blob)?;
        bytes[0] ^= 1;
        std::fs::remove_file(&blob)?;
        std::fs::write(&blob, bytes)?;
        let other = Fixture::new();
        let refused = import(
            &other.store,
            layout.path(),
            &Selection::Only,
            &platform,
            &limits,
        );
        assert!(
            matches!(&refused, Err(ImageError::Store(StoreError::DigestMismatch { expected, .. }))
                if *expected == damaged),
            "{refused:?}"
        );
    }
    Ok(())
}

#[test]
fn upper_layers_replace_hide_and_add() -> Outcome {
    let fixture = Fixture::new();
    let lower: &[Entry<'_>] = &[
        (FOLDER, "etc/", b""),
        (FILE, "etc/a", b"lower a"),
        (FILE, "etc/b", b"lower b"),
        (FILE, "opaque/old", b"old"),
        (FILE, "was-file", b""),
        (FILE, "was-folder/x", b""),
        (FOLDER, "usr/lib", b""),
        (LINK, "lib", b"usr/lib"),
    ];
    let upper: &[Entry<'_>] = &[
        (FILE, "etc/a", b"upper a"),
        (FILE, "etc/.wh.b", b""),
        (FILE, "opaque/new", b"new"),
        (FILE, "opaque/.wh..wh..opq", b""),
        (FILE, "was-file/x", b"x"),
        (FILE, "lib/through", b"through"),
        (HARD, "etc/c", b"etc/a"),
        (FILE, ".wh..wh.plnk/1", b""),
    ];
    let upper: Vec<_> = std::iter::once((FOLDER, "was-file", &b""[..]))
        .chain(upper.iter().copied())
        .chain([
            (FILE, ".wh.was-folder", &b""[..]),
            (FILE, ".wh.missing", &b""[..]),
        ])
        .collect();
    let image = fixture.open(&fixture.tars(&[lower, &upper]), &Limits::default())?;
    let read = |name: &str| std::fs::read_to_string(image.rootfs.join(name)).ok();
    assert_eq!(read("etc/a").as_deref(), Some("upper a"));
    assert_eq!(read("etc/c").as_deref(), Some("upper a"));
    assert_eq!(read("etc/b"), None);
    assert_eq!(
        (read("opaque/old"), read("opaque/new").as_deref()),
        (None, Some("new"))
    );
    assert_eq!(read("was-file/x").as_deref(), Some("x"));
    assert_eq!(read("usr/lib/through").as_deref(), Some("through"));
    assert!(!image.rootfs.join("was-folder").exists());
    assert!(!image.rootfs.join(".wh..wh.plnk").exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(image.rootfs.join("etc/a"))?.permissions(),
    );
    assert_eq!(mode & 0o7777, 0o555, "set-id and write bits are gone");
    Ok(())
}

#[test]
fn no_entry_leaves_the_root_folder() {
    let fixture = Fixture::new();
    for name in ["../evil", "/../evil", "a/../../evil", "/a/../../evil"] {
        assert!(
            matches!(
                fixture.fault(&[&[(FILE, name, b"x")]]).1,
                EntryFault::Name(_)
            ),
            "{name}"
        );
    }
    for target in ["/../etc/passwd", "../../../etc/passwd"] {
        let (_, fault) = fixture.fault(&[&[(HARD, "passwd", target.as_bytes())]]);
        assert!(matches!(fault, EntryFault::Name(_)), "{target}");
    }
    for target in ["b", "/etc/passwd"] {
        let missing = fixture.fault(&[&[(HARD, "a", target.as_bytes())]]).1;
        assert!(
            matches!(missing, EntryFault::Write(TreeError::NoLinkTarget { .. })),
            "{target}"
        );
    }
}

#[test]
fn names_and_hard_links_from_the_root_are_within_the_image() -> Outcome {
    let fixture = Fixture::new();
    let unit = "lib/systemd/system-a\\x2db.slice";
    let entries: &[Entry<'_>] = &[
        (FOLDER, "/", b""),
        (FILE, "/etc/a", b"a"),
        (HARD, "etc/b", b"/etc/a"),
        (FILE, unit, b"[Unit]"),
    ];
    let image = fixture.open(&fixture.tars(&[entries]), &Limits::default())?;
    for (name, content) in [("etc/a", "a"), ("etc/b", "a"), (unit, "[Unit]")] {
        let found = std::fs::read_to_string(image.rootfs.join(name))?;
        assert_eq!(found, content, "{name}");
    }
    Ok(())
}

#[test]
fn devices_and_pipes_are_left_out_by_name_and_hide_what_was_below() -> Outcome {
    let fixture = Fixture::new();
    let lower: &[Entry<'_>] = &[
        (FILE, "dev/null", b"a file in its place"),
        (EntryType::Char, "dev/tty", b""),
        (EntryType::Fifo, "run/pipe", b""),
    ];
    let upper: &[Entry<'_>] = &[
        (EntryType::Char, "dev/null", b""),
        (EntryType::Block, "dev/sda", b""),
        (HARD, "dev/disk", b"/dev/sda"),
        (FILE, "dev/tty", b"now a file"),
    ];
    let manifest = fixture.tars(&[lower, upper]);
    let image = fixture.open(&manifest, &Limits::default())?;
    let left_out: Vec<_> = left_out(&fixture.store, &manifest, &Limits::default())?
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(left_out, ["dev/disk", "dev/null", "dev/sda", "run/pipe"]);
    for name in left_out {
        assert!(!image.rootfs.join(&name).exists(), "{name}");
    }
    let tty = std::fs::read_to_string(image.rootfs.join("dev/tty"))?;
    assert_eq!(tty, "now a file");
    Ok(())
}

#[test]
fn links_lead_nowhere_outside() -> Outcome {
    let fixture = Fixture::new();
    // Each entry goes through a link of the layer below; without `IN_ROOT` they would all land
    // beside the state folder, which `open` looks at.
    let lower: &[Entry<'_>] = &[
        (LINK, "up", b"../../../../.."),
        (LINK, "abs", b"/"),
        (LINK, "chain", b"up/up"),
    ];
    let upper: &[Entry<'_>] = &[
        (FILE, "up/evil-1", b"x"),
        (FILE, "abs/evil-2", b"x"),
        (FILE, "chain/evil-3", b"x"),
        (FILE, "up/.wh.state", b""),
    ];
    let image = fixture.open(&fixture.tars(&[lower, upper]), &Limits::default())?;
    for name in ["evil-1", "evil-2", "evil-3"] {
        assert!(
            image.rootfs.join(name).exists(),
            "{name} is not in the root folder"
        );
    }
    Ok(())
}

#[test]
fn circles_and_repetitions_are_refused() {
    let fixture = Fixture::new();
    let twice = fixture.fault(&[&[(FILE, "a", b"1"), (FILE, "./a", b"2")]]);
    assert!(matches!(twice.1, EntryFault::Duplicate));
    let circle = fixture.fault(&[&[(LINK, "a", b"b"), (LINK, "b", b"a"), (FILE, "a/x", b"")]]);
    assert!(matches!(
        circle.1,
        EntryFault::Write(TreeError::ThroughLink { .. })
    ));
    let parent = fixture.fault(&[&[(FILE, "a/.wh...", b"")]]);
    assert!(matches!(parent.1, EntryFault::Name(_)));
}

#[test]
fn bombs_are_refused() {
    let fixture = Fixture::new();
    let tar = tar_of(&[(FILE, "zeros", &vec![0; 16 << 20])]);
    let layer = (media_type::LAYER_GZIP, gzip(&tar), Digest::of(&tar));
    let bomb = fixture.image(std::slice::from_ref(&layer));
    let bound = |limits: Limits| match fixture.open(&bomb, &limits) {
        Err(ImageError::Bound(bound)) => bound,
        other => panic!("expected a bound, found {other:?}"),
    };
    assert_eq!(
        bound(Limits {
            ratio: 20,
            ..Limits::default()
        }),
        Exceeded::Ratio(20)
    );
    let limits = Limits {
        total_bytes: 1 << 20,
        ..Limits::default()
    };
    assert_eq!(bound(limits), Exceeded::TotalBytes(1 << 20));
    let many = fixture.tars(&[&[(FILE, "a", b""), (FILE, "b", b"")]]);
    let refused = fixture.open(
        &many,
        &Limits {
            entries: 1,
            ..Limits::default()
        },
    );
    assert!(matches!(
        refused,
        Err(ImageError::Bound(Exceeded::Entries(1)))
    ));
}

#[test]
fn a_layer_must_be_what_the_configuration_says_in_a_format_that_is_taken() {
    let fixture = Fixture::new();
    let tar = tar_of(&[(FILE, "a", b"a")]);
    let limits = Limits::default();
    let other = fixture.image(&[(media_type::LAYER, tar.clone(), Digest::of(b"other"))]);
    assert!(matches!(
        fixture.open(&other, &limits),
        Err(ImageError::DiffId { .. })
    ));
    let zstd = fixture.image(&[(media_type::LAYER_ZSTD, tar.clone(), Digest::of(&tar))]);
    let refused = fixture.open(&zstd, &limits).expect_err("zstd is not taken");
    assert!(refused.to_string().contains("tar+zstd"), "{refused}");
    let mut cut = gzip(&tar);
    cut.truncate(cut.len() / 2);
    let cut = fixture.image(&[(media_type::LAYER_GZIP, cut, Digest::of(&tar))]);
    assert!(fixture.open(&cut, &limits).is_err());
}

#[test]
fn a_manifest_that_is_no_manifest_is_refused() {
    let fixture = Fixture::new();
    for document in [
        "",
        "{}",
        "[]",
        "{\"schemaVersion\":2,\"config\":{},\"layers\":[]}",
    ] {
        let blob = fixture
            .store
            .put_bytes(document.as_bytes())
            .expect("stored");
        let refused = fixture.open(&blob.digest, &Limits::default());
        assert!(
            matches!(refused, Err(ImageError::Document { .. })),
            "{document}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_layer_with_any_bytes_changed_neither_panics_nor_escapes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        repair in any::<bool>(),
    ) {
        let fixture = Fixture::new();
        let mut tar = tar_of(&[
            (FOLDER, "etc/", b""), (FILE, "etc/a", b"content"), (LINK, "up", b"../../.."),
            (FILE, "up/evil", b"x"), (HARD, "b", b"etc/a"), (FILE, ".wh.etc", b""),
        ]);
        for (index, byte) in changes {
            // Headers are where it hurts; most of a tar is padding.
            let at = index.index(tar.len());
            tar[at - at % 512 + at % 160] = byte;
        }
        if repair {
            repair_checksums(&mut tar);
        }
        let diff_id = Digest::of(&tar);
        let manifest = fixture.image(&[(media_type::LAYER, tar, diff_id)]);
        let _ = fixture.open(&manifest, &Limits::default());
    }

    #[test]
    fn any_names_and_links_stay_inside(
        entries in proptest::collection::vec((0..5_usize, r"[ab./\\]{1,8}", r"[ab./\\]{1,8}"), 1..12)
    ) {
        let fixture = Fixture::new();
        let kinds = [FILE, FOLDER, LINK, HARD, EntryType::Char];
        let entries: Vec<Entry<'_>> = entries
            .iter()
            .map(|(kind, name, target)| (kinds[*kind], name.as_str(), target.as_bytes()))
            .collect();
        let layers: Vec<&[Entry<'_>]> = entries.chunks(1).collect();
        let _ = fixture.open(&fixture.tars(&layers), &Limits::default());
    }
}

/// Makes the checksum of every header right again, so that damage reaches what lies behind it.
fn repair_checksums(tar: &mut [u8]) {
    for block in tar
        .chunks_exact_mut(512)
        .filter(|block| block[257..262] == *b"ustar")
    {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}
