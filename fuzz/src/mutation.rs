//! Ways to break an input.

use rand::{Rng, rngs::StdRng};

use crate::corpus::Corpus;

/// Numbers at which arithmetic or a bound may fail.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e400",
    "-0",
    "0.0000001",
    "NaN",
    ".inf",
    "0x7f",
    "1_000",
];
const BYTES: &[u8] = &[
    0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'\t', b'"', b'\\', b'/', b'.',
];
/// Repetitions of one piece: enough for nesting and for growth that is not linear.
const REPETITIONS: usize = 2000;

/// An input of at most `longest` bytes made from those of the corpus and the target's own words.
pub(crate) fn mutate(
    corpus: &Corpus,
    words: &[&str],
    longest: usize,
    random: &mut StdRng,
) -> Vec<u8> {
    let mut input = corpus.pick(random).to_vec();
    for _ in 0..random.random_range(1..=5) {
        match random.random_range(0..11) {
            0 => flip_bit(&mut input, random),
            1 => overwrite(&mut input, random),
            2 => remove(&mut input, random),
            3 => repeat(&mut input, longest, random),
            4 => insert(&mut input, BYTES, random),
            5 => replace_number(&mut input, random),
            6 => splice(&mut input, corpus.pick(random), random),
            7 => truncate(&mut input, random),
            8 => swap_lines(&mut input, random),
            _ if words.is_empty() => flip_bit(&mut input, random),
            _ => {
                let word = words[random.random_range(0..words.len())];
                insert_at(&mut input, word.as_bytes(), random);
            }
        }
    }
    input.truncate(longest);
    input
}

/// A range of the input; short ones are likelier.
fn range(length: usize, random: &mut StdRng) -> std::ops::Range<usize> {
    let start = random.random_range(0..=length);
    let longest = (length - start).min(1 << random.random_range(0..=12));
    start..start + random.random_range(0..=longest)
}

fn flip_bit(input: &mut [u8], random: &mut StdRng) {
    if !input.is_empty() {
        let at = random.random_range(0..input.len());
        input[at] ^= 1 << random.random_range(0..8);
    }
}

fn overwrite(input: &mut [u8], random: &mut StdRng) {
    if !input.is_empty() {
        let at = random.random_range(0..input.len());
        input[at] = if random.random() {
            random.random()
        } else {
            BYTES[random.random_range(0..BYTES.len())]
        };
    }
}

fn remove(input: &mut Vec<u8>, random: &mut StdRng) {
    let range = range(input.len(), random);
    input.drain(range);
}

fn repeat(input: &mut Vec<u8>, longest: usize, random: &mut StdRng) {
    let range = range(input.len(), random);
    let (piece, at) = (input[range.clone()].to_vec(), range.end);
    let room = longest.saturating_sub(input.len()) / piece.len().max(1);
    let most = if random.random_range(0..8) == 0 {
        REPETITIONS
    } else {
        4
    };
    let times = random.random_range(0..=most).min(room);
    input.splice(at..at, piece.repeat(times));
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], random: &mut StdRng) {
    let byte = bytes[random.random_range(0..bytes.len())];
    insert_at(input, &[byte], random);
}

fn insert_at(input: &mut Vec<u8>, piece: &[u8], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    input.splice(at..at, piece.iter().copied());
}

fn replace_number(input: &mut Vec<u8>, random: &mut StdRng) {
    if input.is_empty() {
        return;
    }
    let from = random.random_range(0..input.len());
    let Some(start) = (from..input.len()).find(|&at| input[at].is_ascii_digit()) else {
        return;
    };
    let digits = input[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let number = NUMBERS[random.random_range(0..NUMBERS.len())];
    input.splice(start..start + digits, number.bytes());
}

fn splice(input: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let (here, there) = (range(input.len(), random), range(other.len(), random));
    input.splice(here, other[there].iter().copied());
}

fn truncate(input: &mut Vec<u8>, random: &mut StdRng) {
    if random.random_range(0..4) == 0 {
        let length = random.random_range(0..=input.len());
        input.truncate(length);
    }
}

fn swap_lines(input: &mut Vec<u8>, random: &mut StdRng) {
    let mut lines: Vec<&[u8]> = input.split_inclusive(|&byte| byte == b'\n').collect();
    if lines.len() > 1 {
        let (one, other) = (
            random.random_range(0..lines.len()),
            random.random_range(0..lines.len()),
        );
        lines.swap(one, other);
        *input = lines.concat();
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn mutations_stay_within_the_bound_and_can_be_repeated() {
        let corpus = Corpus::new(vec![b"a: 1\nb: 22\n".to_vec(), vec![]]);
        let sequence = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let inputs = (0..2000).map(|_| mutate(&corpus, &["word"], 512, &mut random));
            inputs.collect::<Vec<_>>()
        };
        let inputs = sequence(7);
        assert!(inputs.iter().all(|input| input.len() <= 512));
        assert!(
            inputs.iter().any(|input| input.len() == 512),
            "some are long"
        );
        assert_eq!(inputs, sequence(7));
        assert_ne!(inputs, sequence(8));
    }
}
