//! What a group of rows keeps for a sum, a mean or a variance.

use datafusion::arrow::error::ArrowError;
use datafusion::common::Result;

use super::exact_sum::ExactSum;

/// The statistic of a group of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Statistic {
    Sum,
    Mean,
    /// With the divisor `n - 1` if it is of a sample, and its root if it is a deviation.
    Variance {
        is_sample: bool,
        is_root: bool,
    },
}

impl Statistic {
    pub(super) fn needs_squares(self) -> bool {
        matches!(self, Self::Variance { .. })
    }
}

/// A group of floats: how many, their sum, and the sum of their squares where that is needed.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupState {
    pub(super) count: i64,
    pub(super) sum: ExactSum,
    pub(super) squares: ExactSum,
}

impl GroupState {
    pub(super) fn add(&mut self, statistic: Statistic, number: f64) {
        self.count += 1;
        self.sum.add(number);
        if statistic.needs_squares() {
            let (high, low) = square(number);
            self.squares.add(high);
            self.squares.add(low);
        }
    }

    pub(super) fn subtract(&mut self, statistic: Statistic, number: f64) {
        self.count -= 1;
        self.sum.subtract(number);
        if statistic.needs_squares() {
            let (high, low) = square(number);
            self.squares.subtract(high);
            self.squares.subtract(low);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    /// The statistic; `None` where SQL says null. Of finite numbers it is finite, or an error.
    pub(super) fn evaluate(&mut self, statistic: Statistic) -> Result<Option<f64>> {
        let value = self.compute(statistic);
        if self.sum.is_finite() && value.is_some_and(|value| !value.is_finite()) {
            let what = match statistic {
                Statistic::Sum => "a sum",
                Statistic::Mean => "an average",
                Statistic::Variance { .. } => "a variance",
            };
            let problem = format!("{what} is out of range for Float64");
            return Err(ArrowError::ComputeError(problem).into());
        }
        Ok(value)
    }

    fn compute(&mut self, statistic: Statistic) -> Option<f64> {
        let count = self.count as f64;
        match statistic {
            _ if self.count <= 0 => None,
            Statistic::Sum => Some(self.sum.rounded()),
            Statistic::Mean => Some(self.mean()),
            Statistic::Variance { is_sample, is_root } => {
                if is_sample && self.count < 2 {
                    return None;
                }
                let divisor = if is_sample { count - 1.0 } else { count };
                let variance = self.scaled_variance() / count / divisor;
                Some(if is_root { variance.sqrt() } else { variance })
            }
        }
    }

    /// The mean, rounded as if divided without rounding before.
    fn mean(&mut self) -> f64 {
        let count = self.count as f64;
        let (high, low) = self.sum.rounded_pair();
        let mean = high / count;
        if !mean.is_finite() {
            return mean;
        }
        let rest = mean.mul_add(-count, high) + low;
        mean + rest / count
    }

    /// `n Σx² - (Σx)²`, in twice the precision of a float, for the two are often nearly equal.
    fn scaled_variance(&mut self) -> f64 {
        let count = self.count as f64;
        let sum = self.sum.rounded_pair();
        let squares = self.squares.rounded_pair();
        if !sum.0.is_finite() || !squares.0.is_finite() {
            return f64::NAN;
        }
        let mut difference = ExactSum::default();
        let (high, low) = product(count, squares.0);
        [high, low, count * squares.1]
            .iter()
            .for_each(|term| difference.add(*term));
        let (high, low) = square(sum.0);
        [high, low, 2.0 * sum.0 * sum.1]
            .iter()
            .for_each(|term| difference.subtract(*term));
        difference.rounded().max(0.0)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap_bytes()
    }
}

fn square(number: f64) -> (f64, f64) {
    product(number, number)
}

/// A product and what its rounding took off; nothing where there is no finite product.
fn product(a: f64, b: f64) -> (f64, f64) {
    let high = a * b;
    let low = if high.is_finite() {
        a.mul_add(b, -high)
    } else {
        0.0
    };
    (high, low)
}

#[cfg(test)]
mod tests {
    use super::{GroupState, Statistic};

    fn evaluate(statistic: Statistic, numbers: &[f64]) -> datafusion::common::Result<Option<f64>> {
        let mut state = GroupState::default();
        numbers
            .iter()
            .for_each(|number| state.add(statistic, *number));
        state.evaluate(statistic)
    }

    #[test]
    fn a_variance_far_from_zero_keeps_its_digits() -> datafusion::common::Result<()> {
        let sample = Statistic::Variance {
            is_sample: true,
            is_root: false,
        };
        let far = [1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0, 1e9 + 4.0];
        assert_eq!(evaluate(sample, &far)?, Some(5.0 / 3.0));
        assert_eq!(evaluate(sample, &[0.1; 7])?, Some(0.0));
        assert_eq!(evaluate(sample, &[1.0])?, None);
        assert!(evaluate(sample, &[1.0, f64::INFINITY])?.is_some_and(f64::is_nan));
        Ok(())
    }

    #[test]
    fn what_finite_numbers_give_is_finite_or_an_error() -> datafusion::common::Result<()> {
        let sample = Statistic::Variance {
            is_sample: true,
            is_root: false,
        };
        assert!(evaluate(sample, &[1e200, 1.0]).is_err());
        assert!(evaluate(Statistic::Sum, &[f64::MAX, f64::MAX]).is_err());
        let infinite = evaluate(Statistic::Sum, &[f64::INFINITY, 1.0])?;
        assert_eq!(infinite, Some(f64::INFINITY));
        Ok(())
    }

    #[test]
    fn nothing_has_no_sum_and_no_mean() -> datafusion::common::Result<()> {
        assert_eq!(evaluate(Statistic::Sum, &[])?, None);
        assert_eq!(evaluate(Statistic::Mean, &[])?, None);
        assert_eq!(evaluate(Statistic::Mean, &[0.1; 3])?, Some(0.1));
        Ok(())
    }
}
