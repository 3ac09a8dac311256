//! The disk of an agent's host: what is on it after a loss of power is what was synchronised, and of
//! the rest whatever chance leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use barecount_agent::{Files, Room};
use barecount_tree::{Amount, Aside, Linked, Measured, Stop};

use crate::dice::Dice;

/// One disk. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct WorldDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    dice: Dice,
    boots: u64,
    full: bool,
    healthy: bool,
    /// What is seen, by path.
    seen: BTreeMap<String, Node>,
    /// What a loss of power cannot take.
    kept: BTreeMap<String, Node>,
    contents: Vec<Content>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// What a file holds, whatever it is called.
#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    kept: Vec<u8>,
}

impl WorldDisk {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(State {
            dice,
            boots: 1,
            full: false,
            healthy: false,
            seen: BTreeMap::new(),
            kept: BTreeMap::new(),
            contents: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a folder that was there before the history began.
    pub(crate) fn install(&self, folder: &Path) {
        let mut state = self.state();
        let path = text(folder);
        let ends = path.match_indices('/').skip(1).map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            state.seen.insert(path[..end].to_owned(), Node::Folder);
            state.kept.insert(path[..end].to_owned(), Node::Folder);
        }
    }

    /// Fails at nothing from here on.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.healthy = true;
        state.full = false;
    }

    pub(crate) fn fill(&self, full: bool) {
        self.state().full = full;
    }

    pub(crate) fn lose_power(&self) {
        self.state().lose_power();
    }

    /// Whether a file is there whatever happens to the host.
    pub(crate) fn keeps(&self, path: &Path) -> bool {
        let state = self.state();
        let path = text(path);
        let folders = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]);
        folders
            .into_iter()
            .all(|folder| state.kept.contains_key(folder))
            && state.seen.get(path) == state.kept.get(path)
            && matches!(state.kept.get(path), Some(Node::File(content))
                if state.contents[*content].kept == state.contents[*content].seen)
    }
}

impl State {
    /// What may fail at any time.
    fn may_write(&mut self) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.may_go_on(8)
    }

    fn may_go_on(&mut self, of_thousand: u64) -> io::Result<()> {
        if !self.healthy && self.dice.chance(of_thousand) {
            return Err(io::Error::other("it was to fail"));
        }
        Ok(())
    }

    fn put(&mut self, path: &str, bytes: &[u8], durably: bool) -> io::Result<()> {
        self.may_write()?;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if self.seen.get(parent) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let content = match self.seen.get(path) {
            Some(Node::File(content)) => *content,
            Some(Node::Folder) => return Err(io::ErrorKind::IsADirectory.into()),
            None => {
                self.contents.push(Content::default());
                let content = self.contents.len() - 1;
                self.seen.insert(path.to_owned(), Node::File(content));
                content
            }
        };
        let content = &mut self.contents[content];
        content.seen = bytes.to_vec();
        if durably {
            content.kept = bytes.to_vec();
        }
        Ok(())
    }

    fn lose_power(&mut self) {
        self.boots += 1;
        let paths: BTreeSet<String> = self.seen.keys().chain(self.kept.keys()).cloned().collect();
        let mut left: BTreeMap<String, Node> = BTreeMap::new();
        for path in paths {
            let (seen, kept) = (self.seen.get(&path), self.kept.get(&path));
            let node = match seen == kept || self.dice.chance(500) {
                true => kept,
                false => seen,
            };
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let has_parent = parent.is_empty() || left.contains_key(parent);
            if let Some(node) = node.copied().filter(|_| has_parent) {
                left.insert(path, node);
            }
        }
        for content in &mut self.contents {
            if content.seen != content.kept {
                content.seen = match self.dice.below(3) {
                    0 => content.kept.clone(),
                    // Torn: its beginning was written, or all of it.
                    _ => {
                        let length = self.dice.below(content.seen.len() as u64 + 1);
                        content.seen[..usize::try_from(length).unwrap_or(0)].to_vec()
                    }
                };
                content.kept = content.seen.clone();
            }
        }
        self.seen = left.clone();
        self.kept = left;
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// The direct children of a folder.
fn children<'a>(
    nodes: &'a BTreeMap<String, Node>,
    folder: &str,
) -> impl Iterator<Item = (&'a str, Node)> {
    let prefix = format!("{folder}/");
    let above = prefix.len();
    nodes
        .range(prefix.clone()..)
        .take_while(move |(path, _)| path.starts_with(&prefix))
        .filter(move |(path, _)| !path[above..].contains('/'))
        .map(|(path, node)| (path.as_str(), *node))
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn remove_all(nodes: &mut BTreeMap<String, Node>, folder: &str) {
    nodes.remove(folder);
    let prefix = format!("{folder}/");
    let below: Vec<String> = nodes
        .range(prefix.clone()..)
        .take_while(|(path, _)| path.starts_with(&prefix))
        .map(|(path, _)| path.clone())
        .collect();
    for path in below {
        nodes.remove(&path);
    }
}

impl Files for WorldDisk {
    fn boot(&self) -> io::Result<String> {
        Ok(self.state().boots.to_string())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let path = text(path);
        if state.seen.contains_key(path) {
            return Ok(());
        }
        state.may_write()?;
        let ends = path.match_indices('/').skip(1).map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            if !state.seen.contains_key(&path[..end]) {
                state.seen.insert(path[..end].to_owned(), Node::Folder);
            }
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let Some(Node::File(content)) = state.seen.get(text(path)).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        state.may_go_on(8)?;
        Ok(state.contents[content].seen.clone())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.state().put(text(path), bytes, false)
    }

    fn write_durably(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.state().put(text(path), bytes, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.may_go_on(8)?;
        let node = state.seen.remove(text(from));
        let node = node.ok_or(io::ErrorKind::NotFound)?;
        state.seen.insert(text(to).to_owned(), node);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let folder = text(path);
        if state.seen.get(folder) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.may_go_on(8)?;
        let seen: Vec<(String, Node)> = children(&state.seen, folder)
            .map(|(path, node)| (path.to_owned(), node))
            .collect();
        let gone: Vec<String> = children(&state.kept, folder)
            .filter(|(path, _)| !state.seen.contains_key(*path))
            .map(|(path, _)| path.to_owned())
            .collect();
        for path in gone {
            remove_all(&mut state.kept, &path);
        }
        state.kept.extend(seen);
        Ok(())
    }

    fn is_file(&self, path: &Path) -> bool {
        matches!(self.state().seen.get(text(path)), Some(Node::File(_)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !matches!(state.seen.get(text(path)), Some(Node::File(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.may_go_on(8)?;
        state.seen.remove(text(path));
        Ok(())
    }

    fn remove_folder(&self, path: &Path, _stop: Stop<'_>) -> io::Result<()> {
        let mut state = self.state();
        if !state.seen.contains_key(text(path)) {
            return Ok(());
        }
        state.may_go_on(8)?;
        remove_all(&mut state.seen, text(path));
        Ok(())
    }

    /// What is aside nobody looks at any more.
    fn set_aside(&self, path: &Path, aside: &Aside) -> io::Result<PathBuf> {
        let mut state = self.state();
        state.may_go_on(8)?;
        remove_all(&mut state.seen, text(path));
        Ok(aside.path().to_owned())
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.seen.get(text(path)) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = children(&state.seen, text(path)).map(|(path, _)| name(path).to_owned());
        Ok(names.collect())
    }

    /// Without end, or none.
    fn room(&self, _path: &Path) -> io::Result<Room> {
        let left = match self.state().full {
            true => Amount::default(),
            false => Amount::ENDLESS,
        };
        Ok(Room {
            left,
            total: Amount::ENDLESS,
        })
    }

    /// Work writes nothing here.
    fn measure(&self, _path: &Path, _linked: Linked, _most: Amount) -> io::Result<Measured> {
        Ok(Measured {
            amount: Amount::default(),
            whole: true,
        })
    }
}
