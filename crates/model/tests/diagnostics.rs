//! What people are told about wrong manifests: one snapshot for each file under `wrong/`.

use std::collections::BTreeSet;
use std::path::Path;

use barecount_model::{codes::JOB_NOT_PLANNABLE, diagnostic, pipeline};

#[test]
fn wrong_manifests_are_explained() -> Result<(), std::io::Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut files: Vec<_> = std::fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let mut codes = BTreeSet::new();
    for path in &files {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let bytes = std::fs::read(path)?;
        let diagnostics = match pipeline::load(&format!("{name}.yaml"), &bytes) {
            Ok(loaded) => loaded.warnings,
            Err(diagnostics) => diagnostics,
        };
        assert!(!diagnostics.is_empty(), "{name} is not wrong");
        let places: Vec<_> = diagnostics.iter().map(|d| (d.line, d.column)).collect();
        assert!(places.is_sorted(), "{name}: {places:?}");
        codes.extend(diagnostics.iter().map(|diagnostic| diagnostic.code));
        let text = diagnostic::render(&diagnostics, &String::from_utf8_lossy(&bytes));
        insta::assert_snapshot!(name, text);
    }
    // Every code of the manifest is shown at least once; what is told of jobs is in other files.
    let all = barecount_model::codes::ALL.iter().map(|code| code.id);
    let unseen: Vec<_> = all
        .filter(|id| id.starts_with("BC02") && *id != JOB_NOT_PLANNABLE.id && !codes.contains(id))
        .collect();
    assert_eq!(unseen, Vec::<&str>::new());
    Ok(())
}
