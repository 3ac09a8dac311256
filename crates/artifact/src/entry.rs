//! Names of archive entries, parsed once into paths that cannot leave a folder.

use std::collections::BTreeMap;
use std::io;

use barecount_model::untrusted::Label;

use crate::limits::{Exceeded, Limits, exceeded};
use crate::tree::{FileError, TreeError};

/// A relative path of plain components: no `..`, no root, valid UTF-8.
///
/// The path of an archive's own root (`./`) has no components.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(String);

/// Why a name cannot be a path inside an unpacked archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// It is no text.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// It starts at the root.
    #[error("the name is an absolute path")]
    Absolute,
    /// It climbs out.
    #[error("the name contains `..`")]
    Parent,
    /// Another system's separator, which unpackers treat differently.
    #[error("the name contains a backslash")]
    Backslash,
    /// NUL and other control characters.
    #[error("the name contains a control character")]
    Control,
    /// More bytes than allowed.
    #[error("the name is longer than {0} bytes")]
    TooLong(usize),
    /// More components than allowed.
    #[error("the name has more than {0} components")]
    TooDeep(usize),
    /// No name where one is needed.
    #[error("the name is empty")]
    Empty,
}

/// Why one entry of an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum EntryFault {
    /// Its name cannot be a path.
    #[error(transparent)]
    Name(#[from] NameFault),
    /// It is a link where none may be.
    #[error("it is a link")]
    Link,
    /// It is a device, a named pipe or a socket.
    #[error("it is neither a file nor a folder")]
    Special,
    /// It is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// The archive has it twice.
    #[error("the archive has it twice")]
    Duplicate,
    /// It differs from another name in case only, and would replace it on some systems.
    #[error("its name differs from `{other}` in upper and lower case only")]
    CaseCollision {
        /// The other name.
        other: String,
    },
    /// It costs more than allowed.
    #[error(transparent)]
    Bound(#[from] Exceeded),
    /// It holds another number of bytes than it declares.
    #[error("it does not hold the {declared} bytes that it declares")]
    DeclaredSize {
        /// What it declares.
        declared: u64,
    },
    /// Its bytes are damaged or cut off.
    #[error("its content is damaged")]
    Damaged(#[source] io::Error),
    /// Its two headers, its compression or its attributes make no sense.
    #[error("its header is not usable")]
    Header(#[source] io::Error),
    /// Its content has another digest than declared.
    #[error("its content is not what its digest says")]
    Digest,
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] TreeError),
}

impl From<FileError> for EntryFault {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Tree(error) => Self::Write(error),
            FileError::Content(error) => match exceeded(&error) {
                Some(bound) => Self::Bound(bound),
                None => Self::Damaged(error),
            },
        }
    }
}

/// The names an archive has used so far.
#[derive(Debug)]
pub(crate) struct Names {
    used: BTreeMap<String, (EntryPath, bool)>,
    fold_case: bool,
}

impl Names {
    /// For archives that must unpack on systems to which `A` and `a` are one name.
    pub(crate) fn ignoring_case() -> Self {
        Self {
            used: BTreeMap::new(),
            fold_case: true,
        }
    }

    /// For archives of Linux trees, where they are two.
    pub(crate) fn exact() -> Self {
        Self {
            used: BTreeMap::new(),
            fold_case: false,
        }
    }

    /// Takes note of a name; a folder may be named again, nothing else may.
    pub(crate) fn add(&mut self, path: &EntryPath, folder: bool) -> Result<(), EntryFault> {
        let name = path.as_str();
        let key = if self.fold_case {
            name.to_lowercase()
        } else {
            name.to_owned()
        };
        let known = self.used.insert(key, (path.clone(), folder));
        match known {
            None => Ok(()),
            Some((other, _)) if other != *path => Err(EntryFault::CaseCollision {
                other: other.to_string(),
            }),
            Some((_, true)) if folder => Ok(()),
            Some(_) => Err(EntryFault::Duplicate),
        }
    }
}

/// Longest component that common file systems take, in bytes.
const COMPONENT_BYTES: usize = 255;

impl EntryPath {
    /// Parses a name as it stands in an archive that may come from any system. A trailing `/`,
    /// doubled separators and `.` components vanish, as they do when a kernel resolves them.
    ///
    /// # Errors
    /// [`NameFault`] tells what is wrong with the name.
    pub fn parse(raw: &[u8], limits: &Limits) -> Result<Self, NameFault> {
        let name = text(raw, limits)?;
        if name.starts_with('/') {
            return Err(NameFault::Absolute);
        }
        if name.contains('\\') {
            return Err(NameFault::Backslash);
        }
        Self::relative(name, limits)
    }

    /// Parses a name as it stands in a layer of an image. There a leading `/` stands for the
    /// image's own root, as `tar` and container engines take it, and a backslash is a character
    /// as any other.
    ///
    /// # Errors
    /// [`NameFault`] tells what is wrong with the name.
    pub fn of_layer(raw: &[u8], limits: &Limits) -> Result<Self, NameFault> {
        Self::relative(text(raw, limits)?.trim_start_matches('/'), limits)
    }

    fn relative(name: &str, limits: &Limits) -> Result<Self, NameFault> {
        let components: Vec<&str> = name
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        if components.contains(&"..") {
            return Err(NameFault::Parent);
        }
        if components.len() > limits.path_depth {
            return Err(NameFault::TooDeep(limits.path_depth));
        }
        if components.iter().any(|part| part.len() > COMPONENT_BYTES) {
            return Err(NameFault::TooLong(COMPONENT_BYTES));
        }
        Ok(Self(components.join("/")))
    }

    /// The path with `/` between its components; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the archive's root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder that holds the entry, and its name there; nothing for the root.
    pub fn split(&self) -> Option<(Self, &str)> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.rsplit_once('/') {
            Some((parent, name)) => (Self(parent.to_owned()), name),
            None => (Self(String::new()), &self.0),
        })
    }

    /// The entry called `name` in this folder; `name` is one component of a parsed path.
    pub(crate) fn join(&self, name: &str) -> Self {
        if self.is_root() {
            Self(name.to_owned())
        } else {
            Self(format!("{}/{name}", self.0))
        }
    }
}

impl std::fmt::Display for EntryPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(if self.is_root() { "." } else { &self.0 })
    }
}

/// A name that is text of bearable length.
fn text<'a>(raw: &'a [u8], limits: &Limits) -> Result<&'a str, NameFault> {
    if raw.len() > limits.path_bytes {
        return Err(NameFault::TooLong(limits.path_bytes));
    }
    let name = std::str::from_utf8(raw).map_err(|_| NameFault::NotUtf8)?;
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name.chars().any(char::is_control) {
        return Err(NameFault::Control);
    }
    Ok(name)
}

/// A name as it stands in an archive, made fit for a message.
pub(crate) fn shown(raw: &[u8]) -> String {
    Label::of_bytes(raw).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(raw: &[u8]) -> Result<EntryPath, NameFault> {
        EntryPath::parse(raw, &Limits::default())
    }

    #[test]
    fn a_name_that_could_leave_the_folder_is_refused() {
        for (raw, fault) in [
            (&b"../x"[..], NameFault::Parent),
            (b"a/../../x", NameFault::Parent),
            (b"/etc/passwd", NameFault::Absolute),
            (b"a\\..\\x", NameFault::Backslash),
            (b"a\0b", NameFault::Control),
            (b"\xff", NameFault::NotUtf8),
            (b"", NameFault::Empty),
        ] {
            assert_eq!(parse(raw), Err(fault), "{}", shown(raw));
        }
    }

    #[test]
    fn different_spellings_of_one_path_are_one_path() -> Result<(), NameFault> {
        assert_eq!(parse(b"./a//b/./c/")?, parse(b"a/b/c")?);
        assert!(parse(b"./")?.is_root());
        Ok(())
    }

    #[test]
    fn a_name_in_a_layer_begins_at_the_root_of_the_image() {
        let of_layer = |raw: &[u8]| EntryPath::of_layer(raw, &Limits::default());
        for (raw, path) in [
            (&b"/"[..], ""),
            (b"/etc/x", "etc/x"),
            (b"//etc//x", "etc/x"),
            (b"/./etc", "etc"),
            (b"units/a\\x2db.slice", "units/a\\x2db.slice"),
        ] {
            let parsed = of_layer(raw).map(|path| path.as_str().to_owned());
            assert_eq!(parsed.as_deref(), Ok(path), "{}", shown(raw));
        }
        for (raw, fault) in [
            (&b"/../x"[..], NameFault::Parent),
            (b"/etc/../../x", NameFault::Parent),
            (b"/a\0b", NameFault::Control),
            (b"", NameFault::Empty),
        ] {
            assert_eq!(of_layer(raw), Err(fault), "{}", shown(raw));
        }
    }

    proptest! {
        #[test]
        fn a_parsed_path_is_always_relative_and_plain(
            raw in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                "[ab./\\\\]{0,12}".prop_map(String::into_bytes),
            ]
        ) {
            for path in [parse(&raw), EntryPath::of_layer(&raw, &Limits::default())].into_iter().flatten() {
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert!(path.as_str().split('/').all(|part| part != ".." && part != "."));
            }
        }
    }
}
