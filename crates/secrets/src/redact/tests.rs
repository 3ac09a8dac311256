//! Redaction, whatever the encoding and however a stream is cut.

mod cut;
mod encodings;
mod examples;
mod properties;
mod table;

use super::Redactor;
use crate::secret::Secret;

fn redactor(secrets: &[(&str, &[u8])]) -> Redactor {
    let secrets: Vec<_> = secrets
        .iter()
        .map(|(name, value)| (*name, Secret::new(value)))
        .collect();
    Redactor::new(secrets.iter().map(|(name, secret)| (*name, secret)))
        .expect("they are redactable")
}

/// What comes out when `text`, which is complete, is pushed in parts that end at `cuts`.
fn in_parts(redactor: &Redactor, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    let mut stream = redactor.stream();
    let mut out = Vec::new();
    for pair in cuts.windows(2) {
        out.extend_from_slice(&stream.push(&text[pair[0]..pair[1]]));
    }
    out.extend_from_slice(&stream.end().0);
    out
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
