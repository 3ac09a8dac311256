//! Function packages, images and driver bundles.

use std::{
    fs,
    io::{self, Cursor, Read},
    path::Path,
};

use barecount_artifact::{
    Digest, Limits, Store, driver,
    image::{self, ImageError, Selection, spec::Platform},
    package,
};
use barecount_tree::{remove, to_the_end};

use super::{MEMORY_BYTES, Target, sections};
use crate::corpus;

const LONGEST: usize = 64 << 10;

/// Small enough that a bomb crosses them at once.
const LIMITS: Limits = Limits {
    archive_bytes: 1 << 20,
    total_bytes: 1 << 20,
    entry_bytes: 256 << 10,
    entries: 256,
    ratio: 200,
    path_bytes: 256,
    path_depth: 16,
    layers: 8,
    document_bytes: 64 << 10,
};

const WORDS: &[&str] = &[
    "../",
    "/",
    "//",
    "./",
    "/etc/passwd",
    "bootstrap",
    "driver.json",
    ".wh.",
    ".wh..wh..opq",
    "PK\u{1}\u{2}",
    "PK\u{3}\u{4}",
    "PK\u{5}\u{6}",
    "PK\u{6}\u{6}",
    "ustar",
    "\u{0}",
    "\\",
    "CON",
    "con",
    "bootſtrap",
    "path=",
    "size=",
    "linkpath=",
    "=== ",
    "{layer}",
    "{layer.size}",
    "{diff}",
    "{config}",
    "{manifest}",
    "sha256:",
    "sha512:",
    "null",
    "[]",
    "{}",
    "\"",
    "-1",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.index.v1+json",
];

pub(crate) const PACKAGE: Target = Target {
    name: "package",
    seeds: || corpus::seeds("package"),
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, scratch| {
        unpacking(scratch, |folder| {
            package::unpack_into(Cursor::new(input), input.len() as u64, folder, &LIMITS)
                .map(|_| "unpacked".to_owned())
                .map_err(|error| chain(&error))
        })
    },
};

pub(crate) const DRIVER: Target = Target {
    name: "driver",
    seeds: || corpus::seeds("driver"),
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, scratch| {
        let mut tar = input.to_vec();
        mend(&mut tar);
        unpacking(scratch, |folder| {
            driver::unpack_into(Cursor::new(&tar), tar.len() as u64, folder, &LIMITS)
                .map(|_| "unpacked".to_owned())
                .map_err(|error| chain(&error))
        })
    },
};

pub(crate) const IMAGE: Target = Target {
    name: "image",
    seeds: || corpus::seeds("image"),
    words: WORDS,
    longest: LONGEST,
    memory_bytes: MEMORY_BYTES,
    run: |input, scratch| {
        let outcome = import(input, scratch);
        let left = remove(scratch, &to_the_end).map_err(io::Error::from);
        let left = left.and_then(|()| fs::create_dir(scratch));
        left.expect("the scratch folder is emptied");
        outcome
    },
};

/// Unpacks into a folder, and holds that nothing was written beside it or beyond the bounds.
fn unpacking(scratch: &Path, unpack: impl FnOnce(&Path) -> Result<String, String>) -> String {
    let folder = scratch.join("unpacked");
    fs::create_dir(&folder).expect("the scratch folder is empty");
    let outcome = unpack(&folder);
    assert_eq!(
        names(scratch),
        ["unpacked"],
        "written outside of its folder"
    );
    let bytes = size(&folder);
    assert!(bytes <= LIMITS.total_bytes, "{bytes} bytes were unpacked");
    remove(&folder, &to_the_end).expect("it can be removed");
    outcome.unwrap_or_else(|refusal| refusal)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it can be read").flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("it can be read").flatten();
    let sizes = entries.map(|entry| {
        let metadata = entry.path().symlink_metadata().expect("it is there");
        if metadata.is_dir() {
            size(&entry.path())
        } else {
            metadata.len()
        }
    });
    sizes.sum()
}

/// Makes an image layout of the input's sections, takes it into a store, and opens it. Digests and
/// sizes are filled in where the documents name them in braces, so that mutations reach past them.
fn import(input: &[u8], scratch: &Path) -> String {
    let (layout, state) = (scratch.join("layout"), scratch.join("state"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the scratch folder is empty");
    let files = sections::split(input);
    let section = |name: &str| {
        let found = files.iter().find(|(found, _)| found == name);
        found.map(|(_, body)| body.to_vec()).unwrap_or_default()
    };
    let put = |content: &[u8]| {
        let digest = Digest::of(content);
        fs::write(blobs.join(digest.hex()), content).expect("the blob is written");
        digest
    };
    let (layer, diff) = layer(&section("layer"));
    let mut known = vec![
        ("{layer.size}", layer.len().to_string()),
        ("{layer}", put(&layer).to_string()),
        ("{diff}", diff.to_string()),
    ];
    for name in ["config", "manifest"] {
        let document = fill(&section(name), &known);
        let braces = if name == "config" {
            ["{config.size}", "{config}"]
        } else {
            ["{manifest.size}", "{manifest}"]
        };
        known.push((braces[0], document.len().to_string()));
        known.push((braces[1], put(&document).to_string()));
    }
    fs::write(layout.join("index.json"), fill(&section("index"), &known)).expect("written");
    fs::write(layout.join("oci-layout"), section("oci-layout")).expect("written");
    let platform = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
    };
    let opened = Store::open(&state)
        .map_err(ImageError::from)
        .and_then(|store| {
            let manifest = image::import(&store, &layout, &Selection::Only, &platform, &LIMITS)?;
            image::open(&store, &manifest.digest, &platform, &LIMITS)
        });
    let mut beside = names(scratch);
    beside.sort();
    assert_eq!(beside, ["layout", "state"], "written outside of the store");
    match opened {
        Ok(image) => {
            let bytes = size(&image.rootfs);
            assert!(bytes <= LIMITS.total_bytes, "{bytes} bytes were unpacked");
            "opened".to_owned()
        }
        Err(error) => chain(&error),
    }
}

/// The layer's blob, its header sums mended where it is a plain tar, and the digest of the tar.
fn layer(section: &[u8]) -> (Vec<u8>, Digest) {
    let mut blob = section.to_vec();
    let mut tar = Vec::new();
    let unpacked = flate2::read::GzDecoder::new(section)
        .take(LIMITS.total_bytes)
        .read_to_end(&mut tar);
    if unpacked.is_ok() {
        return (blob, Digest::of(&tar));
    }
    mend(&mut blob);
    let digest = Digest::of(&blob);
    (blob, digest)
}

fn fill(document: &[u8], known: &[(&str, String)]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(document) else {
        return document.to_vec();
    };
    let text = known.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(name, value)
    });
    text.into_bytes()
}

const BLOCK: usize = 512;
const SUM: std::ops::Range<usize> = 148..156;

/// Makes the sums of a tar's headers right, so that what else is wrong with them is looked at.
fn mend(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        if header.iter().all(|&byte| byte == 0) {
            return;
        }
        header[SUM].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..135]).unwrap_or_default();
        let size = usize::from_str_radix(size.trim_matches([' ', '\0']), 8).unwrap_or_default();
        at = at.saturating_add(BLOCK + size.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(target: &Target) -> Vec<String> {
        let scratch = tempfile::tempdir().expect("a folder");
        let seeds = (target.seeds)().expect("there are seeds");
        seeds
            .iter()
            .map(|seed| (target.run)(seed, scratch.path()))
            .collect()
    }

    #[test]
    fn the_seeds_are_taken_so_that_mutations_begin_where_it_matters() {
        for target in [&PACKAGE, &DRIVER] {
            let answers = answers(target);
            assert!(
                answers.iter().all(|answer| answer == "unpacked"),
                "{answers:?}"
            );
        }
        let answers = answers(&IMAGE);
        assert!(
            answers.iter().all(|answer| answer == "opened"),
            "{answers:?}"
        );
    }
}
