//! The steps of a walk: what somebody does to a pipeline from day to day.

use crate::files::{Base, Files, MONTHS, STAGES, WORDS};

/// Something that somebody does. Numbers stand for a choice among what there is then.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Another value of a word of the pipeline.
    Edit(u64),
    /// All files as they were some steps ago.
    Revert(u64),
    /// Another comment in a stage's code.
    Comment(u64),
    /// Another owner.
    Owner,
    /// Other flights, or those of before.
    Flights(u64),
    /// Other names of airlines, or those of before.
    Airlines(u64),
    /// A month is done by its window, of one stage or of all.
    Backfill(u64),
    /// A stage is run alone, after an edit of something.
    Alone(u64),
    /// A stage is done again, or all are.
    Force(u64),
    /// Airlines get a column more, or wider ones, or both.
    Widen(u64),
    /// Airlines are to have less than there is.
    Narrow(u64),
    /// Routes get a column more, or have it no longer.
    Replace,
    /// An earlier version of a dataset is restored.
    Restore(u64),
    /// A dataset is dropped.
    Discard(u64),
    /// The run is asked to stop in the middle, and run again.
    Cancel(u64),
    /// The run's process is killed in the middle, and it is run again.
    Kill(u64),
}

impl Step {
    /// The steps of a seed; the first ones are the same for any number of them.
    pub(crate) fn of(seed: u64, count: usize) -> Vec<Self> {
        let mut chance = Chance(seed);
        (0..count).map(|_| Self::one(&mut chance)).collect()
    }

    fn one(chance: &mut Chance) -> Self {
        // Always two numbers each, so that what a step is does not hang on those before it.
        let (kind, choice) = (chance.next() % 24, chance.next());
        match kind {
            0..=4 => Self::Edit(choice),
            5 | 6 => Self::Revert(choice),
            7 => Self::Comment(choice),
            8 => Self::Owner,
            9 | 10 => Self::Flights(choice),
            11 => Self::Airlines(choice),
            12 | 13 => Self::Backfill(choice),
            14 | 15 => Self::Alone(choice),
            16 => Self::Force(choice),
            17 => Self::Widen(choice),
            18 => Self::Narrow(choice),
            19 => Self::Replace,
            20 => Self::Restore(choice),
            21 => Self::Discard(choice),
            22 => Self::Cancel(choice),
            _ => Self::Kill(choice),
        }
    }
}

/// An edit of a word.
pub(crate) fn edit(files: &mut Files, choice: u64) {
    let word = &WORDS[pick(choice, WORDS.len())];
    let values = word.values.len();
    // Another value than it has.
    let further = 1 + pick(choice / 16, values - 1);
    if let Some(value) = files.words.get_mut(word.name) {
        *value = (*value + further) % values;
    }
}

/// Another comment in a stage that has code.
pub(crate) fn comment(files: &mut Files, choice: u64) {
    let stage = STAGES[1 + pick(choice, STAGES.len() - 1)];
    if let Some(number) = files.comments.get_mut(stage) {
        *number += 1;
    }
}

/// Other files.
pub(crate) fn input(files: &mut Files, flights: bool, choice: u64) {
    if flights {
        files.flights = (files.flights + 1 + pick(choice, Base::FLIGHTS - 1)) % Base::FLIGHTS;
    } else {
        files.airlines = (files.airlines + 1) % Base::AIRLINES;
    }
}

/// A month.
pub(crate) fn month(choice: u64) -> &'static str {
    MONTHS[pick(choice, MONTHS.len())]
}

/// One of so many.
pub(crate) fn pick(choice: u64, count: usize) -> usize {
    usize::try_from(choice % count as u64).unwrap_or_default()
}

/// A sequence of numbers that a seed decides (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
