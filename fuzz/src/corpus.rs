//! Inputs that are worth mutating.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use rand::{Rng, rngs::StdRng};

/// Inputs that made a target answer in ways of their own.
pub(crate) struct Corpus {
    inputs: Vec<Vec<u8>>,
    answers: HashSet<String>,
}

/// Inputs kept at most.
const INPUTS: usize = 4096;
/// Of an answer, so many characters tell it apart.
const ANSWER_CHARACTERS: usize = 160;

impl Corpus {
    pub(crate) fn new(seeds: Vec<Vec<u8>>) -> Self {
        Self {
            inputs: seeds,
            answers: HashSet::new(),
        }
    }

    /// Keeps the input if the answer is new but for the numbers in it and what it quotes.
    pub(crate) fn learn(&mut self, input: &[u8], answer: &str) {
        let unquoted = answer.split(['`', '"']).step_by(2);
        let kind: String = unquoted
            .flat_map(str::chars)
            .filter(|character| !character.is_ascii_digit())
            .take(ANSWER_CHARACTERS)
            .collect();
        if self.answers.insert(kind) && self.inputs.len() < INPUTS {
            self.inputs.push(input.to_vec());
        }
    }

    /// One of the inputs; half the time one of the latest.
    pub(crate) fn pick(&self, random: &mut StdRng) -> &[u8] {
        let count = self.inputs.len();
        let first = if random.random() {
            count.saturating_sub(16)
        } else {
            0
        };
        match count {
            0 => &[],
            _ => &self.inputs[random.random_range(first..count)],
        }
    }

    /// How many kinds of answer there were.
    pub(crate) fn kinds(&self) -> usize {
        self.answers.len()
    }
}

/// The files of a folder beneath `seeds/`, in order.
pub(crate) fn seeds(folder: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(|error| io::Error::other(format!("{}: {error}", folder.display())))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    paths.into_iter().map(fs::read).collect()
}

/// Files of the repository that are seeds as they are.
pub(crate) fn repository(folder: &str, extension: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(|error| io::Error::other(format!("{}: {error}", folder.display())))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths.into_iter().map(fs::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_differs_in_numbers_or_quotes_alone_is_not_new() {
        let mut corpus = Corpus::new(vec![]);
        corpus.learn(b"one", "line 1 is wrong");
        corpus.learn(b"two", "line 22 is wrong");
        corpus.learn(b"three", "line 3 has no `a`");
        corpus.learn(b"four", "line 4 has no `b`");
        assert_eq!(corpus.inputs, [&b"one"[..], b"three"]);
        assert_eq!(corpus.kinds(), 2);
    }
}
