//! An exact sum of floats: a fixed-point number, as wide as the floats that were added need.

/// Bits in a digit. The rest of an `i64` takes the carries of many additions.
const DIGIT_BITS: usize = 32;
/// Additions after which carries are moved on: each adds less than 2^32 to a digit.
const MAX_PENDING: u32 = 1 << 30;
/// The place of the least bit of a float's fraction.
const FRACTION_BITS: u32 = 52;
/// The most digits that a sum can have: 2098 bits of floats, and 64 for their count.
const MAX_DIGITS: usize = 70;

/// A sum of floats without rounding. Numbers can be taken out again, exactly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ExactSum {
    /// The place of the first digit; digit 0 counts multiples of 2^-1074.
    base: usize,
    /// Signed digits; after [`Self::carry`], all but the last are in `0..2^32`.
    digits: Vec<i64>,
    /// Additions since carries were last moved on.
    pending: u32,
    /// How many infinities and NaNs are in the sum.
    positive_infinities: i64,
    negative_infinities: i64,
    nans: i64,
}

impl ExactSum {
    /// Adds a number.
    pub(super) fn add(&mut self, number: f64) {
        self.add_signed(number, 1);
    }

    /// Takes out a number that was added before.
    pub(super) fn subtract(&mut self, number: f64) {
        self.add_signed(number, -1);
    }

    fn add_signed(&mut self, number: f64, sign: i64) {
        if !number.is_finite() {
            let count = if number.is_nan() {
                &mut self.nans
            } else if number > 0.0 {
                &mut self.positive_infinities
            } else {
                &mut self.negative_infinities
            };
            *count += sign;
            return;
        }
        let bits = number.to_bits();
        let exponent = (bits >> FRACTION_BITS) & 0x7ff;
        let fraction = bits & ((1 << FRACTION_BITS) - 1);
        // Without an exponent, a float counts multiples of 2^-1074; with exponent 1 as well, but
        // one bit more is set. From there on each exponent moves by one place.
        let (mantissa, place) = match exponent {
            0 => (fraction, 0),
            _ => (fraction | (1 << FRACTION_BITS), exponent as usize - 1),
        };
        if mantissa == 0 {
            return;
        }
        let sign = if number < 0.0 { -sign } else { sign };
        let first = place / DIGIT_BITS;
        let shifted = u128::from(mantissa) << (place % DIGIT_BITS);
        self.widen(first, first + 3);
        let at = first - self.base;
        for (digit, shift) in self.digits[at..at + 3].iter_mut().zip([0, 32, 64]) {
            *digit += sign * i64::from((shifted >> shift) as u32);
        }
        self.pending += 1;
        if self.pending >= MAX_PENDING {
            self.carry();
        }
    }

    /// Whether all numbers in the sum are finite.
    pub(super) fn is_finite(&self) -> bool {
        self.positive_infinities == 0 && self.negative_infinities == 0 && self.nans == 0
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        other.carry();
        self.carry();
        self.widen(other.base, other.base + other.digits.len());
        let at = other.base - self.base;
        for (digit, more) in self.digits[at..].iter_mut().zip(&other.digits) {
            *digit += more;
        }
        self.pending = 1;
        self.positive_infinities += other.positive_infinities;
        self.negative_infinities += other.negative_infinities;
        self.nans += other.nans;
    }

    /// Makes room for the digits from `first` to before `end`.
    fn widen(&mut self, first: usize, end: usize) {
        if self.digits.is_empty() {
            self.base = first;
        }
        if first < self.base {
            let missing = self.base - first;
            self.digits.splice(0..0, std::iter::repeat_n(0, missing));
            self.base = first;
        }
        if end > self.base + self.digits.len() {
            self.digits.resize(end - self.base, 0);
        }
    }

    /// Moves carries on, so that all digits but the last are in `0..2^32`, and the last is
    /// neither 0 nor, above another digit, -1.
    fn carry(&mut self) {
        let mut carried = 0;
        for digit in &mut self.digits {
            let sum = *digit + carried;
            carried = sum >> DIGIT_BITS;
            *digit = sum & 0xffff_ffff;
        }
        if carried != 0 {
            self.digits.push(carried);
        }
        while let [.., below, -1] = &mut self.digits[..] {
            *below -= 1 << DIGIT_BITS;
            self.digits.pop();
        }
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        self.pending = 0;
    }

    /// The sum, rounded once, half to even.
    pub(super) fn rounded(&mut self) -> f64 {
        let infinities = (self.positive_infinities > 0, self.negative_infinities > 0);
        match infinities {
            _ if self.nans > 0 => return f64::NAN,
            (true, true) => return f64::NAN,
            (true, false) => return f64::INFINITY,
            (false, true) => return f64::NEG_INFINITY,
            (false, false) => {}
        }
        self.carry();
        let is_negative = self.digits.last().is_some_and(|digit| *digit < 0);
        let mut magnitude = self.clone();
        if is_negative {
            magnitude
                .digits
                .iter_mut()
                .for_each(|digit| *digit = -*digit);
            magnitude.carry();
        }
        let rounded = magnitude.round_magnitude();
        if is_negative { -rounded } else { rounded }
    }

    /// What [`Self::rounded`] leaves over, rounded too: together twice a float's precision.
    pub(super) fn rounded_pair(&mut self) -> (f64, f64) {
        let high = self.rounded();
        if !high.is_finite() {
            return (high, 0.0);
        }
        let mut rest = self.clone();
        rest.subtract(high);
        (high, rest.rounded())
    }

    /// Rounds a sum that is not negative and whose carries were moved on. The last digit may hold
    /// more than 32 bits, so it is split first.
    fn round_magnitude(&mut self) -> f64 {
        if let Some(last) = self.digits.last_mut()
            && *last >> DIGIT_BITS != 0
        {
            let high = *last >> DIGIT_BITS;
            *last &= 0xffff_ffff;
            self.digits.push(high);
        }
        let Some(top) = self.digits.len().checked_sub(1) else {
            return 0.0;
        };
        let digit = |down: usize| top.checked_sub(down).map_or(0, |at| self.digits[at]) as u128;
        // The top digit is not 0, so these have 65 to 96 bits, more than a float's 53.
        let window = digit(0) << 64 | digit(1) << 32 | digit(2);
        let has_more = self.digits[..top.saturating_sub(2)].iter().any(|d| *d != 0);
        let window_bits = 128 - window.leading_zeros() as usize;
        // The bits of the whole number of 2^-1074 that this is.
        let bits = (self.base + top) * DIGIT_BITS + window_bits - 2 * DIGIT_BITS;
        let precision = FRACTION_BITS as usize + 1;
        // Small numbers are whole multiples of the smallest float: exact.
        let kept = bits.min(precision);
        let dropped = window_bits - kept;
        let mantissa = (window >> dropped) as u64;
        let rest = window & ((1 << dropped) - 1);
        let half = 1_u128 << (dropped - 1);
        let is_up = rest > half || rest == half && (has_more || mantissa & 1 == 1);
        let mantissa = mantissa + u64::from(is_up);
        // The exponent that goes with a 53-bit mantissa counts from 1, which the mantissa's own
        // highest bit adds; a mantissa that was rounded up to 54 bits carries into the exponent.
        let exponent = (bits - kept) as u64;
        if exponent > 0x7ff {
            return f64::INFINITY;
        }
        let float = (exponent << FRACTION_BITS) + mantissa;
        f64::from_bits(float.min(f64::INFINITY.to_bits()))
    }

    /// Bytes that it takes beside its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        self.digits.capacity() * size_of::<i64>()
    }

    /// The sum as bytes, equal for equal sums.
    pub(super) fn encode(&mut self) -> Vec<u8> {
        self.carry();
        let header = [
            self.positive_infinities,
            self.negative_infinities,
            self.nans,
            self.base as i64,
        ];
        let words = header.iter().chain(&self.digits);
        words.flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads [`Self::encode`]; `None` if these are others.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| i64::from_le_bytes(*word));
        let mut sum = Self {
            positive_infinities: words.next()?,
            negative_infinities: words.next()?,
            nans: words.next()?,
            base: usize::try_from(words.next()?).ok()?,
            digits: words.collect(),
            pending: 0,
        };
        let fits = sum.base + sum.digits.len() <= MAX_DIGITS && rest.is_empty();
        sum.pending = 1;
        fits.then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::ExactSum;
    use proptest::prelude::*;

    fn sum(numbers: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        numbers.iter().for_each(|number| sum.add(*number));
        sum
    }

    #[test]
    fn what_rounding_at_every_step_would_lose_is_there_at_the_end() {
        let cases: [(&[f64], f64); 12] = [
            (&[], 0.0),
            (&[0.1; 10], 1.0),
            (&[1e100, 1.0, -1e100], 1.0),
            (&[1e308, 1e308, -1e308], 1e308),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[-f64::MAX, -f64::MAX], f64::NEG_INFINITY),
            (&[5e-324, 5e-324], 1e-323),
            (&[f64::MIN_POSITIVE, -5e-324], f64::MIN_POSITIVE - 5e-324),
            // halfway between two floats: to the even one, unless anything more is there
            (&[9007199254740992.0, 1.0], 9007199254740992.0),
            (&[9007199254740992.0, 3.0], 9007199254740996.0),
            (&[9007199254740992.0, 1.0, 5e-324], 9007199254740994.0),
            (&[1.0, f64::INFINITY], f64::INFINITY),
        ];
        for (numbers, expected) in cases {
            assert_eq!(sum(numbers).rounded(), expected, "of {numbers:?}");
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).rounded().is_nan());
        assert!(sum(&[f64::NAN, 1.0]).rounded().is_nan());
    }

    #[test]
    fn taking_out_what_was_put_in_leaves_the_rest_even_of_infinities() {
        let mut rest = sum(&[1e300, 0.1, f64::INFINITY, f64::NAN]);
        rest.subtract(f64::NAN);
        rest.subtract(f64::INFINITY);
        rest.subtract(1e300);
        assert_eq!(rest.rounded(), 0.1);
    }

    /// Floats of all exponents, and their opposites now and then, so that sums cancel.
    fn numbers() -> impl Strategy<Value = Vec<f64>> {
        let float = any::<u64>().prop_map(f64::from_bits);
        let finite = float.prop_filter("finite", |f| f.is_finite());
        let modest = (-1e6..1e6).prop_map(|f: f64| f);
        prop::collection::vec(prop_oneof![finite, modest], 0..40).prop_map(|mut numbers| {
            let opposites = numbers.iter().step_by(3).map(|n| -n).collect::<Vec<_>>();
            numbers.extend(opposites);
            numbers
        })
    }

    proptest! {
        #[test]
        fn two_floats_are_added_as_the_processor_adds_them(a: u64, b: u64) {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            let (ours, theirs) = (sum(&[a, b]).rounded(), a + b);
            prop_assert!(ours == theirs || ours.is_nan() && theirs.is_nan(), "{ours} {theirs}");
        }

        #[test]
        fn neither_order_nor_division_matters(
            numbers in numbers(), seed: u64, cut in 0.0..1.0,
        ) {
            let mut shuffled = numbers.clone();
            shuffled.sort_by_key(|n| n.to_bits().wrapping_mul(seed | 1).rotate_left(17));
            let (left, right) = shuffled.split_at((cut * shuffled.len() as f64) as usize);
            let mut merged = sum(left);
            let mut right = sum(right);
            let right = ExactSum::decode(&right.encode()).expect("its own bytes");
            merged.merge(&right);
            let mut straight = sum(&numbers);
            prop_assert_eq!(straight.rounded().to_bits(), merged.rounded().to_bits());
        }

        #[test]
        fn removing_all_but_one_leaves_it(numbers in numbers(), last in -1e300..1e300) {
            let mut rest = sum(&numbers);
            rest.add(last);
            numbers.iter().for_each(|number| rest.subtract(*number));
            prop_assert_eq!(rest.rounded(), last);
        }

        #[test]
        fn strange_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = ExactSum::decode(&bytes);
        }
    }
}
