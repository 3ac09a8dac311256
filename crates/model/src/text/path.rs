//! Paths below the pipeline's folder, and images.

use super::{InvalidText, text_value};

/// A path below the pipeline's folder, in plain form: no root, no `.` or `..`, no empty part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(String);

impl RelativePath {
    /// The path as it is written, with `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the last `.` of the last part of the path.
    pub fn extension(&self) -> Option<&str> {
        let file = self.0.rsplit('/').next()?;
        file.rsplit_once('.')
            .filter(|(stem, _)| !stem.is_empty())
            .map(|(_, extension)| extension)
    }
}

impl AsRef<std::path::Path> for RelativePath {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

impl std::fmt::Display for RelativePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for RelativePath {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let reason = if text.is_empty() {
            "a path is not empty"
        } else if text.len() > 1024 {
            "a path has at most 1024 bytes"
        } else if text.starts_with('/') || text.starts_with('~') {
            "a path starts in the pipeline's folder, not at a root"
        } else if text.contains('\\') || text.chars().any(char::is_control) {
            "a path has `/` between its parts, and no `\\` or control character"
        } else if text.split('/').any(|part| part == "..") {
            "a path does not climb out of the pipeline's folder with `..`"
        } else if text.split('/').any(|part| part.is_empty() || part == ".") {
            "a path is in its plain form, without `.`, `//` or a final `/`"
        } else if text.split('/').any(|part| part.len() > 255) {
            "a part of a path has at most 255 bytes"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(InvalidText::new(reason))
    }
}

text_value!(
    RelativePath,
    "barecount-path",
    "a path",
    "^[^/~\\\\][^\\\\]{0,1023}$",
    "A path below the pipeline's folder, with `/` between its parts, without `.` and `..`."
);

/// An image: a folder of the pipeline that is built into one, or a reference into a registry.
///
/// As image tools tell them apart: a first part with a `.` or `:`, or `localhost`, is a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageSource {
    /// A folder below the pipeline's folder, which `build` turns into an image.
    Folder(RelativePath),
    /// `<registry>/<repository>` with `:<tag>`, `@sha256:<digest>`, or both.
    Registry(String),
}

impl std::fmt::Display for ImageSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => path.fmt(f),
            Self::Registry(reference) => f.pad(reference),
        }
    }
}

impl std::str::FromStr for ImageSource {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let registry = match text.split_once('/') {
            Some((first, _)) if first != "." && first != ".." => {
                first.contains(['.', ':']) || first == "localhost"
            }
            _ => false,
        };
        if !registry {
            return text.parse().map(Self::Folder);
        }
        let reference = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':' | b'@')
        };
        if text.len() > 512 || !text.bytes().all(reference) || text.contains("//") {
            return Err(InvalidText::new(
                "an image reference is `<registry>/<repository>:<tag>`",
            ));
        }
        let name_end = text.rfind('/').unwrap_or(0);
        if !text[name_end..].contains([':', '@']) {
            return Err(InvalidText::new(
                "an image of a registry needs a `:<tag>` or a digest",
            ));
        }
        Ok(Self::Registry(text.to_owned()))
    }
}

text_value!(
    ImageSource,
    "barecount-image",
    "an image",
    "^[^/~\\\\][^\\\\]{0,1023}$",
    "A folder below the pipeline's folder, or `<registry>/<repository>:<tag>`, or a digest in place of the tag."
);
