//! The pages of `docs/`, followed word by word: what they tell a reader to type does what they say.

use std::path::{Path, PathBuf};

use barecount_e2e::{
    Outcome, binary,
    pages::{self, Step},
    place::Place,
    process::Invocation,
    python,
};

fn docs() -> PathBuf {
    binary::workspace().join("docs")
}

/// A page's reader: where they are, and what they have.
struct Reader {
    place: Place,
    folder: PathBuf,
}

impl Reader {
    fn new() -> Self {
        let place = Place::new();
        let folder = place.join("reader");
        fs_err::create_dir(&folder).expect("a folder in the test's own");
        fs_err::create_dir(place.join("bin")).expect("a folder in the test's own");
        std::os::unix::fs::symlink(binary::barecount(), place.join("bin/barecount"))
            .expect("a link in the test's own folder");
        // A reader has a Python of their own; a version manager's looks for itself in their home.
        let python = fs_err::canonicalize(python::interpreter()).expect("a Python for the tests");
        std::os::unix::fs::symlink(python, place.join("bin/python3"))
            .expect("a link in the test's own folder");
        Self { place, folder }
    }

    fn does(&mut self, page: &str, step: &Step) {
        match step {
            Step::File { name, content } => {
                self.place.write(self.folder.join(name), content.as_bytes());
            }
            Step::Command {
                line,
                text,
                status,
                prints,
            } => self.types(&format!("{page}:{line}"), text, *status, prints),
        }
    }

    fn types(&mut self, at: &str, text: &str, status: i32, prints: &[String]) {
        if let Some(folder) = text.strip_prefix("cd ") {
            self.folder.push(folder);
            assert!(self.folder.is_dir(), "{at}: there is no {folder}");
            return;
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.place.join("bin").display());
        let mut shell = Invocation::of("sh", &self.folder, ["-c", text])
            .env("PATH", path)
            .env("HOME", self.place.join("home"))
            .env("XDG_CONFIG_HOME", self.place.join("config"));
        for name in ["BARECOUNT_BIN", "BARECOUNT_TEST_PYTHON"] {
            shell = shell.without(name);
        }
        let ended = shell.finish();
        assert_eq!(
            ended.status.code(),
            Some(status),
            "{at}: `{text}` ends as the page says: {ended}"
        );
        let printed = format!("{}\n{}", ended.stdout, ended.stderr);
        // What a table is and what is said beside it come on two streams, in no order.
        let other = format!("{}\n{}", ended.stderr, ended.stdout);
        if let Some(line) = pages::missing(prints, &printed)
            && pages::missing(prints, &other).is_some()
        {
            panic!("{at}: `{text}` does not print `{line}` where the page has it: {ended}");
        }
    }
}

fn follow(page: &str) {
    let text = fs_err::read_to_string(docs().join(page)).expect("a page that is listed");
    let mut reader = Reader::new();
    let steps = pages::steps(&text);
    for step in &steps {
        reader.does(page, step);
    }
    reader.place.nothing_runs();
}

#[test]
fn what_the_pages_tell_to_type_does_what_they_say() {
    for page in pages::in_order(&docs()) {
        follow(&page);
    }
}

#[test]
fn a_page_that_says_what_is_not_so_is_noticed() {
    let mut reader = Reader::new();
    let step = pages::steps("```console\n$ echo one\ntwo\n```\n").remove(0);
    let followed = std::panic::AssertUnwindSafe(|| reader.does("page.md", &step));
    assert!(std::panic::catch_unwind(followed).is_err());
}

/// Links lead to pages, headings and files that exist; every page is in the table of contents.
/// The page of promises names tests; one that was renamed or removed is noticed.
#[test]
fn what_holds_a_promise_is_a_test_that_exists() -> Outcome {
    let page = fs_err::read_to_string(docs().join("guarantees.md"))?;
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named: Vec<&str> = rows
        .filter_map(|row| row.split('|').nth(2))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 30, "the page names {} tests", named.len());
    let mut tests = String::new();
    let mut folders = vec![binary::workspace().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                tests.push_str(&fs_err::read_to_string(&path)?);
            }
        }
    }
    let missing: Vec<&str> = named
        .into_iter()
        .filter(|name| !tests.contains(&format!("fn {name}(")))
        .collect();
    assert_eq!(missing, [""; 0], "tests that are named and are not there");
    Ok(())
}

#[test]
fn no_link_of_the_pages_leads_nowhere() -> Outcome {
    let docs = docs();
    let listed = pages::in_order(&docs);
    for entry in fs_err::read_dir(&docs)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_page = name.ends_with(".md") && name != "SUMMARY.md";
        assert!(
            !is_page || listed.contains(&name) || name == "escape-battery.md",
            "{name} is in the table of contents"
        );
    }
    for page in &listed {
        let text = fs_err::read_to_string(docs.join(page))?;
        for target in links(&text) {
            holds(&docs, page, target)?;
        }
    }
    Ok(())
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.starts_with("https://"))
}

fn holds(docs: &Path, page: &str, target: &str) -> Outcome {
    let (file, heading) = match target.split_once('#') {
        Some((file, heading)) => (file, Some(heading)),
        None => (target, None),
    };
    let path = docs.join(if file.is_empty() { page } else { file });
    assert!(path.exists(), "{page}: {target} leads nowhere");
    if let Some(heading) = heading {
        let text = fs_err::read_to_string(&path)?;
        let anchors = text.lines().filter(|line| line.starts_with('#'));
        let found = anchors.map(anchor).any(|anchor| anchor == heading);
        assert!(found, "{page}: {target} leads to no heading");
    }
    Ok(())
}

fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
