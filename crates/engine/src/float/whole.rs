//! `sum` over whole numbers and decimals, and `avg` over decimals, in DataFusion's terms.
//!
//! A sum is kept in more bits than rows can exhaust, and fails in the end if it does not fit its
//! type. A sum that fails on the way would depend on the order of rows: `9e18 + 9e18 - 9e18`.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray as _, BooleanArray, Decimal128Array,
    Decimal256Array, Int64Array, PrimitiveArray,
};
use datafusion::arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, DecimalType as _,
    Int64Type, UInt64Type, i256,
};
use datafusion::arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::aggregate::is_kept;
use crate::arithmetic::rounded_quotient;

/// What is computed of a group of numbers, and in which type.
#[derive(Debug, Clone)]
pub(super) struct WholeStatistic {
    pub(super) is_mean: bool,
    /// Digits after the point of what is added.
    pub(super) scale: i8,
    /// The type of the result.
    pub(super) data_type: DataType,
}

/// How many numbers, and their sum in 192 bits: each number has 128, and there are fewer than 2⁶³.
/// Of many groups two share a line of the processor's cache.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    count: i64,
    /// The sum's upper bits, with its sign.
    high: i64,
    low: u128,
}

impl Group {
    fn add(&mut self, number: i128) {
        self.count += 1;
        self.carry(number.cast_unsigned(), sign(number));
    }

    fn subtract(&mut self, number: i128) {
        self.count -= 1;
        let (low, borrows) = self.low.overflowing_sub(number.cast_unsigned());
        self.low = low;
        self.high = self.high.wrapping_sub(sign(number) + i64::from(borrows));
    }

    /// Adds a sum of [`Self::sum`].
    fn merge(&mut self, count: i64, sum: i256) {
        self.count += count;
        let (low, high) = sum.to_parts();
        self.carry(low, high as i64);
    }

    fn carry(&mut self, low: u128, high: i64) {
        let (low, carries) = self.low.overflowing_add(low);
        self.low = low;
        self.high = self.high.wrapping_add(high).wrapping_add(carries.into());
    }

    fn sum(&self) -> i256 {
        i256::from_parts(self.low, self.high.into())
    }
}

/// What a number's upper bits are, were it longer.
fn sign(number: i128) -> i64 {
    -i64::from(number < 0)
}

impl WholeStatistic {
    /// The result; null for no numbers.
    fn evaluate(&self, group: Group) -> Result<ScalarValue> {
        Ok(match self.data_type {
            DataType::Decimal128(precision, scale) => {
                let value = self.value(group, digits(precision))?;
                ScalarValue::Decimal128(value, precision, scale)
            }
            DataType::UInt64 => ScalarValue::UInt64(self.value(group, |sum| sum.try_into().ok())?),
            _ => ScalarValue::Int64(self.value(group, |sum| sum.try_into().ok())?),
        })
    }

    /// The results of many groups.
    fn evaluate_all(&self, groups: &[Group]) -> Result<ArrayRef> {
        Ok(match self.data_type {
            DataType::Decimal128(precision, _) => {
                let values: Decimal128Array = self.values(groups, digits(precision))?;
                Arc::new(values.with_data_type(self.data_type.clone()))
            }
            DataType::UInt64 => {
                Arc::new(self.values::<UInt64Type>(groups, |sum| sum.try_into().ok())?)
            }
            _ => Arc::new(self.values::<Int64Type>(groups, |sum| sum.try_into().ok())?),
        })
    }

    fn values<T: ArrowPrimitiveType>(
        &self,
        groups: &[Group],
        narrow: impl Fn(i128) -> Option<T::Native>,
    ) -> Result<PrimitiveArray<T>> {
        let values = groups.iter().map(|group| self.value(*group, &narrow));
        values.collect()
    }

    /// The result as `narrow` has it in the result's type, if it has it; none for no numbers.
    fn value<N>(&self, group: Group, narrow: impl Fn(i128) -> Option<N>) -> Result<Option<N>> {
        if group.count <= 0 {
            return Ok(None);
        }
        match self.exact(group).and_then(i256::to_i128).and_then(narrow) {
            Some(value) => Ok(Some(value)),
            None => Err(self.too_large(group).into()),
        }
    }

    /// The result, if it does not even have more digits than can be computed with.
    fn exact(&self, group: Group) -> Option<i256> {
        match self.data_type {
            DataType::Decimal128(_, scale) if self.is_mean => {
                let shift = u32::try_from(scale - self.scale).unwrap_or(0);
                let factor = i256::from_i128(10).wrapping_pow(shift);
                let scaled = group.sum().checked_mul(factor)?;
                Some(rounded_quotient(
                    scaled,
                    i256::from_i128(group.count.into()),
                ))
            }
            _ => Some(group.sum()),
        }
    }

    fn too_large(&self, group: Group) -> ArrowError {
        let name = if self.is_mean { "an average" } else { "a sum" };
        let text =
            Decimal256Type::format_decimal(group.sum(), DECIMAL256_MAX_PRECISION, self.scale);
        ArrowError::ArithmeticOverflow(format!(
            "{name} over {text} is out of range for {}; CAST to a wider DECIMAL",
            self.data_type
        ))
    }

    fn to_columns(groups: &[Group]) -> Result<Vec<ArrayRef>> {
        let counts = Int64Array::from_iter_values(groups.iter().map(|group| group.count));
        let sums = Decimal256Array::from_iter_values(groups.iter().map(Group::sum));
        let sums = sums.with_data_type(SUM_TYPE);
        Ok(vec![Arc::new(counts), Arc::new(sums)])
    }
}

/// A number, if it has no more digits than these.
fn digits(precision: u8) -> impl Fn(i128) -> Option<i128> {
    move |number| Decimal128Type::is_valid_decimal_precision(number, precision).then_some(number)
}

/// The type of a partial sum.
pub(super) const SUM_TYPE: DataType = DataType::Decimal256(DECIMAL256_MAX_PRECISION, 0);

/// Calls `each` with every number that is not null, and its row.
fn for_each(numbers: &ArrayRef, mut each: impl FnMut(usize, i128)) -> Result<()> {
    fn walk<T: ArrowPrimitiveType>(
        numbers: &ArrayRef,
        widen: impl Fn(T::Native) -> i128,
        each: &mut impl FnMut(usize, i128),
    ) {
        let numbers = numbers.as_primitive::<T>();
        for (row, number) in numbers.values().iter().enumerate() {
            if numbers.is_valid(row) {
                each(row, widen(*number));
            }
        }
    }
    match numbers.data_type() {
        DataType::Int64 => walk::<Int64Type>(numbers, i128::from, &mut each),
        DataType::UInt64 => walk::<UInt64Type>(numbers, i128::from, &mut each),
        DataType::Decimal128(..) => walk::<Decimal128Type>(numbers, |number| number, &mut each),
        other => return exec_err!("{other} cannot be added up"),
    }
    Ok(())
}

/// One group.
#[derive(Debug)]
pub(super) struct WholeAccumulator {
    statistic: WholeStatistic,
    group: Group,
}

impl WholeAccumulator {
    pub(super) fn new(statistic: WholeStatistic) -> Self {
        Self {
            statistic,
            group: Group::default(),
        }
    }
}

impl Accumulator for WholeAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for_each(&values[0], |_, number| self.group.add(number))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for_each(&values[0], |_, number| self.group.subtract(number))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.statistic.evaluate(self.group)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = WholeStatistic::to_columns(&[self.group])?;
        columns
            .iter()
            .map(|column| ScalarValue::try_from_array(column, 0))
            .collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[0].as_primitive::<Int64Type>();
        let sums = states[1].as_primitive::<Decimal256Type>();
        for (count, sum) in counts.values().iter().zip(sums.values()) {
            self.group.merge(*count, *sum);
        }
        Ok(())
    }
}

/// Many groups.
pub(super) struct WholeGroups {
    statistic: WholeStatistic,
    groups: Vec<Group>,
}

impl WholeGroups {
    pub(super) fn new(statistic: WholeStatistic) -> Self {
        Self {
            statistic,
            groups: Vec::new(),
        }
    }
}

impl GroupsAccumulator for WholeGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize(total_num_groups, Group::default());
        for_each(&values[0], |row, number| {
            if is_kept(filter, row) {
                self.groups[group_indices[row]].add(number);
            }
        })
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        self.statistic.evaluate_all(&groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        WholeStatistic::to_columns(&emit_to.take_needed(&mut self.groups))
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize(total_num_groups, Group::default());
        let counts = values[0].as_primitive::<Int64Type>();
        let sums = values[1].as_primitive::<Decimal256Type>();
        for (row, group) in group_indices.iter().enumerate() {
            self.groups[*group].merge(counts.value(row), sums.value(row));
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut groups = vec![Group::default(); values[0].len()];
        for_each(&values[0], |row, number| {
            if is_kept(filter, row) {
                groups[row].add(number);
            }
        })?;
        WholeStatistic::to_columns(&groups)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.groups.capacity() * size_of::<Group>()
    }
}

/// Distinct numbers, which DataFusion collects.
#[derive(Debug)]
pub(super) struct WholeDistinct {
    statistic: WholeStatistic,
    numbers: Box<dyn Accumulator>,
}

impl WholeDistinct {
    pub(super) fn new(statistic: WholeStatistic, numbers: Box<dyn Accumulator>) -> Self {
        Self { statistic, numbers }
    }
}

impl Accumulator for WholeDistinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.numbers.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let states = self.numbers.state()?;
        let Some(ScalarValue::List(lists)) = states.first() else {
            return exec_err!("distinct numbers are not kept as a list");
        };
        let mut group = Group::default();
        for numbers in lists.iter().flatten() {
            for_each(&numbers, |_, number| group.add(number))?;
        }
        self.statistic.evaluate(group)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.numbers.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.numbers.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.numbers.merge_batch(states)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = i128> {
        let edges = vec![
            0,
            1,
            -1,
            i128::MAX,
            i128::MIN,
            i64::MAX.into(),
            i64::MIN.into(),
        ];
        prop_oneof![prop::sample::select(edges), any::<i128>()]
    }

    proptest! {
        /// As 256 bits have it, which none of these exhausts.
        #[test]
        fn a_sum_holds_more_than_its_numbers(
            added in prop::collection::vec(number(), 0..40),
            elsewhere in prop::collection::vec(number(), 0..40),
            subtracted in prop::collection::vec(number(), 0..40),
        ) {
            let (mut group, mut other, mut sum) = (Group::default(), Group::default(), i256::ZERO);
            for number in &added {
                group.add(*number);
                sum = sum.wrapping_add(i256::from_i128(*number));
            }
            for number in &elsewhere {
                other.add(*number);
                sum = sum.wrapping_add(i256::from_i128(*number));
            }
            group.merge(other.count, other.sum());
            for number in &subtracted {
                group.subtract(*number);
                sum = sum.wrapping_sub(i256::from_i128(*number));
            }
            prop_assert_eq!(group.sum(), sum);
            let count = added.len() + elsewhere.len();
            prop_assert_eq!(group.count, count as i64 - subtracted.len() as i64);
        }
    }
}
