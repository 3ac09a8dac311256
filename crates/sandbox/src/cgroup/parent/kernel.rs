//! A version 2 hierarchy in memory, by the rules of the kernel (`cgroup-v2.rst`) as far as they
//! decide where a group can be.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::super::tree::Tree;

/// Controllers that need no group without processes, and make one threaded that has some.
const THREADED: [&str; 3] = ["cpu", "cpuset", "pids"];

#[derive(Clone, Default)]
struct Node {
    owner: u32,
    delegated: bool,
    processes: BTreeSet<i32>,
    gives: BTreeSet<String>,
    threaded: bool,
    files: BTreeMap<String, String>,
    alive: bool,
}

pub(super) struct Kernel {
    uid: u32,
    top: BTreeSet<String>,
    /// Whether the top is the root of all groups, and not that of a namespace.
    true_root: bool,
    pub(super) read_only: bool,
    nodes: RefCell<BTreeMap<PathBuf, Node>>,
}

fn refusal(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn path(group: &str) -> PathBuf {
    Path::new("/cg").join(group.trim_start_matches('/'))
}

impl Kernel {
    /// The groups of a host, as its users begin: `uid` is who asks.
    pub(super) fn host(uid: u32, true_root: bool) -> Self {
        let top = ["cpu", "cpuset", "io", "memory", "pids"].map(str::to_owned);
        Self {
            uid,
            top: top.into(),
            true_root,
            read_only: false,
            nodes: RefCell::new([(path("/"), Node::default())].into()),
        }
    }

    /// A group of `owner` with processes, that gives controllers to those in it.
    pub(super) fn group(self, group: &str, owner: u32, processes: &[i32], gives: &str) -> Self {
        let node = Node {
            owner,
            processes: processes.iter().copied().collect(),
            gives: gives.split_ascii_whitespace().map(str::to_owned).collect(),
            ..Node::default()
        };
        self.nodes.borrow_mut().insert(path(group), node);
        self
    }

    pub(super) fn delegated(self, group: &str) -> Self {
        self.change(group, |node| node.delegated = true);
        self
    }

    pub(super) fn with(self, group: &str, file: &str, value: &str) -> Self {
        self.change(group, |node| {
            node.files.insert(file.to_owned(), value.to_owned());
        });
        self
    }

    /// A launcher's directory, which only the one that lives holds a lock on.
    pub(super) fn set_alive(&self, group: &Path, alive: bool) {
        if let Some(node) = self.nodes.borrow_mut().get_mut(group) {
            node.alive = alive;
        }
    }

    pub(super) fn end(&self, process: i32) {
        for node in self.nodes.borrow_mut().values_mut() {
            node.processes.remove(&process);
        }
    }

    pub(super) fn start(&self, group: &Path, processes: &[i32]) {
        if let Some(node) = self.nodes.borrow_mut().get_mut(group) {
            node.processes.extend(processes);
        }
    }

    fn change(&self, group: &str, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.borrow_mut().get_mut(&path(group)) {
            change(node);
        }
    }

    /// Everything that can be seen of the groups, one line for each.
    pub(super) fn shown(&self) -> Vec<String> {
        let nodes = self.nodes.borrow();
        let line = |(path, node): (&PathBuf, &Node)| {
            let gives: Vec<&str> = node.gives.iter().map(String::as_str).collect();
            let kind = if node.threaded { " threaded" } else { "" };
            let processes = &node.processes;
            format!(
                "{} {processes:?} [{}]{kind}",
                path.display(),
                gives.join(" ")
            )
        };
        nodes.iter().map(line).collect()
    }

    pub(super) fn any_threaded(&self) -> bool {
        self.nodes.borrow().values().any(|node| node.threaded)
    }

    fn available(&self, nodes: &BTreeMap<PathBuf, Node>, group: &Path) -> BTreeSet<String> {
        let above = group.parent().and_then(|parent| nodes.get(parent));
        above.map_or_else(|| self.top.clone(), |above| above.gives.clone())
    }

    fn is_root(&self, group: &Path) -> bool {
        self.true_root && group == path("/")
    }

    fn permit(&self, node: &Node) -> io::Result<()> {
        if self.read_only {
            return Err(refusal(libc::EROFS));
        }
        if self.uid != 0 && node.owner != self.uid {
            return Err(refusal(libc::EACCES));
        }
        Ok(())
    }

    fn control(&self, group: &Path, word: &str) -> io::Result<()> {
        let mut nodes = self.nodes.borrow_mut();
        let available = self.available(&nodes, group);
        let (sign, name) = word.split_at(1);
        let below = |child: &&PathBuf| child.parent() == Some(group);
        let needed = nodes
            .iter()
            .any(|(child, node)| below(&child) && node.gives.contains(name));
        let node = nodes.get_mut(group).ok_or_else(|| refusal(libc::ENOENT))?;
        if sign == "-" {
            if needed {
                return Err(refusal(libc::EBUSY));
            }
            node.gives.remove(name);
            return Ok(());
        }
        if !available.contains(name) {
            return Err(refusal(libc::ENOENT));
        }
        if !node.processes.is_empty() && !self.is_root(group) {
            if !THREADED.contains(&name) {
                return Err(refusal(libc::EBUSY));
            }
            node.threaded = true;
        }
        node.gives.insert(name.to_owned());
        Ok(())
    }

    fn enter(&self, group: &Path, process: &str) -> io::Result<()> {
        let process: i32 = process.parse().map_err(|_| refusal(libc::EINVAL))?;
        let mut nodes = self.nodes.borrow_mut();
        let target = nodes.get(group).ok_or_else(|| refusal(libc::ENOENT))?;
        if !target.gives.is_empty() && !self.is_root(group) {
            return Err(refusal(libc::EBUSY));
        }
        let from = nodes
            .values_mut()
            .find(|node| node.processes.contains(&process));
        let Some(from) = from else {
            return Err(refusal(libc::ESRCH));
        };
        from.processes.remove(&process);
        if let Some(target) = nodes.get_mut(group) {
            target.processes.insert(process);
        }
        Ok(())
    }
}

impl Tree for Kernel {
    fn read(&self, group: &Path, file: &str) -> io::Result<String> {
        let nodes = self.nodes.borrow();
        let node = nodes.get(group).ok_or_else(|| refusal(libc::ENOENT))?;
        let words = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        match file {
            "cgroup.type" if self.is_root(group) => Err(refusal(libc::ENOENT)),
            "cgroup.type" if node.threaded => Ok("domain threaded\n".to_owned()),
            "cgroup.type" => Ok("domain\n".to_owned()),
            "cgroup.controllers" => Ok(words(&self.available(&nodes, group))),
            "cgroup.subtree_control" => Ok(words(&node.gives)),
            "cgroup.procs" => {
                let lines = node.processes.iter().map(|process| format!("{process}\n"));
                Ok(lines.collect())
            }
            file => node
                .files
                .get(file)
                .cloned()
                .ok_or_else(|| refusal(libc::ENOENT)),
        }
    }

    fn write(&self, group: &Path, file: &str, text: &str) -> io::Result<()> {
        {
            let nodes = self.nodes.borrow();
            self.permit(nodes.get(group).ok_or_else(|| refusal(libc::ENOENT))?)?;
        }
        match file {
            "cgroup.subtree_control" => self.control(group, text),
            "cgroup.procs" => self.enter(group, text),
            file => {
                let controller = file.split('.').next().unwrap_or_default();
                let mut nodes = self.nodes.borrow_mut();
                if !self.available(&nodes, group).contains(controller) {
                    return Err(refusal(libc::ENOENT));
                }
                let node = nodes.get_mut(group).ok_or_else(|| refusal(libc::ENOENT))?;
                node.files.insert(file.to_owned(), text.to_owned());
                Ok(())
            }
        }
    }

    fn make(&self, group: &Path) -> io::Result<()> {
        let mut nodes = self.nodes.borrow_mut();
        let parent = group.parent().and_then(|parent| nodes.get(parent));
        self.permit(parent.ok_or_else(|| refusal(libc::ENOENT))?)?;
        let owner = self.uid;
        nodes.entry(group.to_owned()).or_insert(Node {
            owner,
            ..Node::default()
        });
        Ok(())
    }

    fn remove(&self, group: &Path) -> io::Result<()> {
        let mut nodes = self.nodes.borrow_mut();
        let below = nodes.keys().any(|child| child.parent() == Some(group));
        let busy = nodes
            .get(group)
            .is_some_and(|node| !node.processes.is_empty());
        if below || busy {
            return Err(refusal(libc::EBUSY));
        }
        nodes.remove(group);
        Ok(())
    }

    fn children(&self, group: &Path) -> io::Result<Vec<String>> {
        let nodes = self.nodes.borrow();
        let below = nodes.keys().filter(|child| child.parent() == Some(group));
        let name = |child: &PathBuf| child.file_name().map(|name| name.to_string_lossy().into());
        Ok(below.filter_map(name).collect())
    }

    fn owner(&self, group: &Path) -> io::Result<u32> {
        let nodes = self.nodes.borrow();
        let node = nodes.get(group).ok_or_else(|| refusal(libc::ENOENT))?;
        Ok(node.owner)
    }

    fn is_delegated(&self, group: &Path) -> bool {
        self.nodes
            .borrow()
            .get(group)
            .is_some_and(|node| node.delegated)
    }

    fn is_alive(&self, directory: &Path) -> bool {
        self.nodes
            .borrow()
            .get(directory)
            .is_some_and(|node| node.alive)
    }
}
