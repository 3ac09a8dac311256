//! What work says that would steer a terminal, mislead a reader or fill a store.

use std::{fs, path::Path};

use super::{in_json, look_up, variable};

/// What a terminal would obey, what turns text around and what is not seen; then a line that looks
/// like one of the platform's, and more of the kind up to so many bytes.
pub(crate) fn steering(bytes: usize) -> String {
    let mut text = "\x1b]0;owned\x07\x1b[2J\u{9b}31m\u{202e}evil\u{2066}\u{200b}\u{2028}\u{3164}\u{fe0f}\u{e0101}\u{e000}\x08\r\nstate     forged\n".to_owned();
    while text.len() < bytes {
        text.push_str("\x1b[31mmore\u{9d}\u{202d}");
    }
    text
}

/// The same as the name of a file.
pub(crate) fn name() -> String {
    steering(100).replace('/', "")
}

/// The same as the name of a column.
pub(crate) fn column() -> String {
    format!("\"{}\"", steering(2 << 10))
}

/// Says it wherever work can say something and succeed.
pub(crate) fn steer(output: &Path) {
    println!("{}", steering(5 << 20));
    eprintln!("{}", steering(100));
    steer_rows(output, "id,text");
    fs::create_dir_all(output.join(name())).expect("a folder can be made");
    fs::create_dir_all(output.join(format!("{}{}", name(), "x".repeat(100)))).expect("a folder can be made");
    let letters = output.join("_dead_letters");
    fs::create_dir_all(&letters).expect("a folder can be made");
    let long = in_json(&steering(30_000));
    let own = format!(
        "{{\"record\": \"{long}\", \"error\": \"{long}\", \"dataset\": \"{long}\", \"schema_hash\": \"{long}\"}}\n"
    );
    fs::write(letters.join("own.jsonl"), own).expect("dead letters can be written");
    for label in ["\x1b]0;owned\x07\x1b[2J", "\u{202e}evil\u{9b}2J", "line\nstate     forged"] {
        let _ = look_up(&format!("{label}.example"));
    }
}

/// Rows of which a cell, and one that does not fit, say it.
pub(crate) fn steer_rows(output: &Path, header: &str) {
    let folder = output.join(variable("DATASET"));
    fs::create_dir_all(&folder).expect("the output folder can be written");
    let cell = steering(500_000);
    let rows = format!("{header}\n1,\"{cell}\"\n\"{cell}\",\"{cell}\"\n2,plain\n");
    fs::write(folder.join("part.csv"), rows).expect("rows can be written");
}
