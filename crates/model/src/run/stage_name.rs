//! The name of a task's stage, shared by the tasks that have it: a million of them may wait.

use std::{borrow::Borrow, collections::HashSet, fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a stage. A clone is the same text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageName(Arc<str>);

impl StageName {
    /// The same name, as one text with an equal one among `known`.
    pub fn shared(self, known: &mut HashSet<Self>) -> Self {
        if let Some(known) = known.get(&self) {
            return known.clone();
        }
        known.insert(self.clone());
        self
    }
}

impl Deref for StageName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for StageName {
    fn borrow(&self) -> &str {
        self
    }
}

impl fmt::Debug for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl From<&str> for StageName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl PartialEq<str> for StageName {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for StageName {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl PartialEq<StageName> for String {
    fn eq(&self, other: &StageName) -> bool {
        **self == **other
    }
}

impl Serialize for StageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for StageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_that_were_read_are_one_text() -> Result<(), serde_json::Error> {
        let mut known = HashSet::new();
        let read: Vec<StageName> = serde_json::from_str(r#"["load","load","check"]"#)?;
        let names: Vec<_> = read
            .into_iter()
            .map(|name| name.shared(&mut known))
            .collect();
        assert!(Arc::ptr_eq(&names[0].0, &names[1].0));
        assert_eq!(names[2], "check");
        assert_eq!(serde_json::to_string(&names)?, r#"["load","load","check"]"#);
        Ok(())
    }
}
