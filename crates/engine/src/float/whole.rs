//! `sum` over whole numbers and decimals, and `avg` over decimals, in DataFusion's terms.
//!
//! A sum is kept in 256 bits, which rows cannot exhaust, and fails in the end if it does not fit
//! its type. A sum that fails on the way would depend on the order of rows: `9e18 + 9e18 - 9e18`.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray as _, BooleanArray, Decimal256Array, Int64Array,
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

/// How many numbers, and their sum.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    count: i64,
    sum: i256,
}

impl Group {
    fn add(&mut self, number: i256) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(number);
    }

    fn subtract(&mut self, number: i256) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(number);
    }

    fn merge(&mut self, count: i64, sum: i256) {
        self.count += count;
        self.sum = self.sum.wrapping_add(sum);
    }
}

impl WholeStatistic {
    /// The result; null for no numbers.
    fn evaluate(&self, group: Group) -> Result<ScalarValue> {
        if group.count <= 0 {
            return ScalarValue::try_from(&self.data_type);
        }
        let sum = group.sum;
        let too_large = |_: ()| {
            let name = if self.is_mean { "an average" } else { "a sum" };
            let text = Decimal256Type::format_decimal(sum, DECIMAL256_MAX_PRECISION, self.scale);
            ArrowError::ArithmeticOverflow(format!(
                "{name} over {text} is out of range for {}; CAST to a wider DECIMAL",
                self.data_type
            ))
        };
        let value = match self.data_type {
            DataType::Decimal128(precision, scale) => {
                let value = if self.is_mean {
                    let shift = u32::try_from(scale - self.scale).unwrap_or(0);
                    let scaled = sum.checked_mul(i256::from_i128(10).wrapping_pow(shift));
                    let count = i256::from_i128(group.count.into());
                    scaled.map(|scaled| rounded_quotient(scaled, count))
                } else {
                    Some(sum)
                };
                let fits =
                    |value: &i128| Decimal128Type::is_valid_decimal_precision(*value, precision);
                let value = value.and_then(i256::to_i128).filter(fits);
                value.map(|value| ScalarValue::Decimal128(Some(value), precision, scale))
            }
            DataType::UInt64 => {
                let value = sum.to_i128().and_then(|sum| u64::try_from(sum).ok());
                value.map(|value| ScalarValue::UInt64(Some(value)))
            }
            _ => {
                let value = sum.to_i128().and_then(|sum| i64::try_from(sum).ok());
                value.map(|value| ScalarValue::Int64(Some(value)))
            }
        };
        Ok(value.ok_or(()).map_err(too_large)?)
    }

    fn to_columns(groups: &[Group]) -> Result<Vec<ArrayRef>> {
        let counts = Int64Array::from_iter_values(groups.iter().map(|group| group.count));
        let sums = Decimal256Array::from_iter_values(groups.iter().map(|group| group.sum));
        let sums = sums.with_data_type(SUM_TYPE);
        Ok(vec![Arc::new(counts), Arc::new(sums)])
    }
}

/// The type of a partial sum.
pub(super) const SUM_TYPE: DataType = DataType::Decimal256(DECIMAL256_MAX_PRECISION, 0);

/// Calls `each` with every number that is not null, and its row.
fn for_each(numbers: &ArrayRef, mut each: impl FnMut(usize, i256)) -> Result<()> {
    fn walk<T: ArrowPrimitiveType>(
        numbers: &ArrayRef,
        widen: impl Fn(T::Native) -> i128,
        each: &mut impl FnMut(usize, i256),
    ) {
        let numbers = numbers.as_primitive::<T>();
        for (row, number) in numbers.values().iter().enumerate() {
            if numbers.is_valid(row) {
                each(row, i256::from_i128(widen(*number)));
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
        let values = groups
            .into_iter()
            .map(|group| self.statistic.evaluate(group));
        let values = values.collect::<Result<Vec<_>>>()?;
        if values.is_empty() {
            return Ok(datafusion::arrow::array::new_empty_array(
                &self.statistic.data_type,
            ));
        }
        ScalarValue::iter_to_array(values)
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
