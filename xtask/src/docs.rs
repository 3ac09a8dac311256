//! The pages of `docs/` as a site, by mdBook.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    project::Project,
    steps::{Failure, Task},
};

const MDBOOK_VERSION: &str = "0.5.4";

/// Builds the site in the target folder, and mdBook first where it is not there yet.
pub(crate) fn build(project: &Project) -> Result<(), Failure> {
    let program = install(project)?;
    let book = project.target.join("docs");
    let failed = |error: io::Error| Failure::new("docs", format!("{}: {error}", book.display()));
    gather(&project.root, &book).map_err(failed)?;
    let text = |path: &Path| path.display().to_string();
    Task::of([text(&program), "build".to_owned(), text(&book)])
        .minutes(5)
        .run("docs", project)
}

fn install(project: &Project) -> Result<PathBuf, Failure> {
    let tools = project.target.join("tools");
    let install = format!(
        "cargo install mdbook --version {MDBOOK_VERSION} --locked --no-default-features \
         --features search --root"
    );
    Task::new(&install)
        .argument(tools.display().to_string())
        .minutes(30)
        .run("docs-install", project)?;
    Ok(tools.join("bin/mdbook"))
}

/// Lays the book's source out: the pages, and behind them those of errors and decisions, which
/// nobody lists by hand.
fn gather(root: &Path, book: &Path) -> io::Result<()> {
    let source = book.join("src");
    if book.exists() {
        fs::remove_dir_all(book)?;
    }
    fs::create_dir_all(&source)?;
    let docs = root.join("docs");
    copy_pages(&docs, &source)?;
    fs::copy(
        root.join("ARCHITECTURE.md"),
        book.join("src/architecture.md"),
    )?;
    let mut contents = fs::read_to_string(docs.join("SUMMARY.md"))?;
    contents.push_str("\n# Reference\n\n- [The map of the code](architecture.md)\n");
    contents.push_str("- [Escape battery](escape-battery.md)\n");
    for (folder, title) in [("errors", "Errors"), ("decisions", "Decisions")] {
        fs::create_dir_all(source.join(folder))?;
        let pages = copy_pages(&docs.join(folder), &source.join(folder))?;
        let _ = write!(contents, "\n# {title}\n\n");
        for (name, heading) in pages {
            let _ = writeln!(contents, "- [{heading}]({folder}/{name})");
        }
    }
    fs::write(source.join("SUMMARY.md"), contents)?;
    fs::write(
        book.join("book.toml"),
        "[book]\ntitle = \"BareCount Runners\"\nlanguage = \"en\"\n",
    )
}

/// Copies a folder's pages; answers their names and headings in order.
fn copy_pages(from: &Path, to: &Path) -> io::Result<Vec<(String, String)>> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !path.is_file() || path.extension().is_none_or(|kind| kind != "md") {
            continue;
        }
        // The page on the map of the code is beside the others in the book.
        let text = fs::read_to_string(&path)?.replace("../ARCHITECTURE.md", "architecture.md");
        let heading = text.lines().next().unwrap_or(name);
        let heading = heading.trim_start_matches('#').trim();
        pages.push((name.to_owned(), heading.to_owned()));
        fs::write(to.join(name), text)?;
    }
    pages.sort();
    Ok(pages)
}
