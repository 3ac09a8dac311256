//! `sum`, `avg`, `var` and `stddev`, in DataFusion's terms: those over floats, and which of the
//! others are computed by [`super::whole`].

use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BinaryArray, BooleanArray, Float64Array, Int64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature,
};

use super::state::{GroupState, Statistic};
use super::whole::{SUM_TYPE, WholeAccumulator, WholeDistinct, WholeGroups, WholeStatistic};

/// Puts exact aggregates in the place of DataFusion's.
pub(crate) fn replace_aggregates(state: &mut SessionState) -> Result<()> {
    let variance = |is_sample, is_root| Statistic::Variance { is_sample, is_root };
    for (name, statistic) in [
        ("sum", Statistic::Sum),
        ("avg", Statistic::Mean),
        ("var", variance(true, false)),
        ("var_pop", variance(false, false)),
        ("stddev", variance(true, true)),
        ("stddev_pop", variance(false, true)),
    ] {
        let inner = state.udaf(name)?;
        let exact = ExactAggregate { inner, statistic };
        state.register_udaf(Arc::new(AggregateUDF::from(exact)))?;
    }
    Ok(())
}

/// An aggregate that is DataFusion's for durations and intervals only.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAggregate {
    inner: Arc<AggregateUDF>,
    statistic: Statistic,
}

impl ExactAggregate {
    /// Whether the arguments are floats. DataFusion's signatures coerce all float types, and
    /// whatever else has no exact arithmetic of its own, to this one.
    fn is_float(fields: &[FieldRef]) -> bool {
        fields
            .first()
            .is_some_and(|field| field.data_type() == &DataType::Float64)
    }

    fn exact(&self, args: &AccumulatorArgs<'_>) -> Result<Option<ExactAccumulator>> {
        if !Self::is_float(args.expr_fields) {
            return Ok(None);
        }
        if args.is_distinct {
            return exec_err!(
                "{}(DISTINCT …) of floats is not supported; CAST to DECIMAL",
                self.inner.name()
            );
        }
        Ok(Some(ExactAccumulator {
            statistic: self.statistic,
            state: GroupState::default(),
        }))
    }
}

impl ExactAggregate {
    /// What is computed if the arguments are whole numbers, or decimals.
    fn whole(&self, fields: &[FieldRef], result: &FieldRef) -> Option<WholeStatistic> {
        let is_mean = match self.statistic {
            Statistic::Sum => false,
            Statistic::Mean => true,
            Statistic::Variance { .. } => return None,
        };
        let scale = match fields.first()?.data_type() {
            DataType::Int64 | DataType::UInt64 if !is_mean => 0,
            DataType::Decimal128(_, scale) => *scale,
            _ => return None,
        };
        Some(WholeStatistic {
            is_mean,
            scale,
            data_type: result.data_type().clone(),
        })
    }
}

impl AggregateUDFImpl for ExactAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if let Some(whole) = self.whole(args.expr_fields, &args.return_field) {
            return Ok(if args.is_distinct {
                Box::new(WholeDistinct::new(whole, self.inner.accumulator(args)?))
            } else {
                Box::new(WholeAccumulator::new(whole))
            });
        }
        match self.exact(&args)? {
            Some(exact) => Ok(Box::new(exact)),
            None => self.inner.accumulator(args),
        }
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        if let Some(whole) = self.whole(args.expr_fields, &args.return_field) {
            if args.is_distinct {
                return exec_err!(
                    "{}(DISTINCT …) is not supported over a frame that moves",
                    self.inner.name()
                );
            }
            return Ok(Box::new(WholeAccumulator::new(whole)));
        }
        match self.exact(&args)? {
            Some(exact) => Ok(Box::new(exact)),
            None => self.inner.create_sliding_accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let is_whole = self.whole(args.input_fields, &args.return_field).is_some();
        if args.is_distinct || !(is_whole || Self::is_float(args.input_fields)) {
            return self.inner.state_fields(args);
        }
        let field = |part: &str, data_type| {
            Arc::new(Field::new(
                format!("{}[{part}]", args.name),
                data_type,
                true,
            ))
        };
        if is_whole {
            return Ok(vec![
                field("count", DataType::Int64),
                field("sum", SUM_TYPE),
            ]);
        }
        let mut fields = vec![
            field("count", DataType::Int64),
            field("sum", DataType::Binary),
        ];
        if self.statistic.needs_squares() {
            fields.push(field("squares", DataType::Binary));
        }
        Ok(fields)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        let is_exact = Self::is_float(args.expr_fields)
            || self.whole(args.expr_fields, &args.return_field).is_some();
        if is_exact {
            !args.is_distinct
        } else {
            self.inner.groups_accumulator_supported(args)
        }
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        if let Some(whole) = self.whole(args.expr_fields, &args.return_field) {
            return Ok(Box::new(WholeGroups::new(whole)));
        }
        match self.exact(&args)? {
            Some(exact) => Ok(Box::new(ExactGroups {
                statistic: exact.statistic,
                groups: Vec::new(),
                heap_bytes: 0,
            })),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

/// The state of one group.
#[derive(Debug)]
struct ExactAccumulator {
    statistic: Statistic,
    state: GroupState,
}

impl Accumulator for ExactAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let numbers = values[0].as_primitive::<Float64Type>();
        let statistic = self.statistic;
        numbers
            .iter()
            .flatten()
            .for_each(|number| self.state.add(statistic, number));
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let numbers = values[0].as_primitive::<Float64Type>();
        let statistic = self.statistic;
        numbers
            .iter()
            .flatten()
            .for_each(|number| self.state.subtract(statistic, number));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.state.evaluate(self.statistic)?))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.state.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let columns = to_columns(self.statistic, vec![std::mem::take(&mut self.state)]);
        columns
            .iter()
            .map(|column| ScalarValue::try_from_array(column, 0))
            .collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for row in 0..states[0].len() {
            self.state
                .merge(&from_columns(self.statistic, states, row)?);
        }
        Ok(())
    }
}

/// The states of many groups.
struct ExactGroups {
    statistic: Statistic,
    groups: Vec<GroupState>,
    heap_bytes: usize,
}

impl ExactGroups {
    fn change(&mut self, group: usize, change: impl FnOnce(&mut GroupState)) {
        let state = &mut self.groups[group];
        let before = state.heap_bytes();
        change(state);
        self.heap_bytes += state.heap_bytes() - before;
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<GroupState> {
        let taken = emit_to.take_needed(&mut self.groups);
        let heap_bytes = self.groups.iter().map(GroupState::heap_bytes);
        self.heap_bytes = heap_bytes.sum();
        taken
    }
}

impl GroupsAccumulator for ExactGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups
            .resize_with(total_num_groups, GroupState::default);
        let numbers = values[0].as_primitive::<Float64Type>();
        let statistic = self.statistic;
        for (row, group) in group_indices.iter().enumerate() {
            if numbers.is_valid(row) && is_kept(filter, row) {
                let number = numbers.value(row);
                self.change(*group, |state| state.add(statistic, number));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let statistic = self.statistic;
        let mut groups = self.take(emit_to);
        let values = groups.iter_mut().map(|state| state.evaluate(statistic));
        Ok(Arc::new(values.collect::<Result<Float64Array>>()?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        Ok(to_columns(self.statistic, groups))
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups
            .resize_with(total_num_groups, GroupState::default);
        for (row, group) in group_indices.iter().enumerate() {
            let other = from_columns(self.statistic, values, row)?;
            self.change(*group, |state| state.merge(&other));
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let numbers = values[0].as_primitive::<Float64Type>();
        let of_row = |row| {
            let mut state = GroupState::default();
            if numbers.is_valid(row) && is_kept(filter, row) {
                state.add(self.statistic, numbers.value(row));
            }
            state
        };
        let groups = (0..numbers.len()).map(of_row).collect();
        Ok(to_columns(self.statistic, groups))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.groups.capacity() * size_of::<GroupState>() + self.heap_bytes
    }
}

pub(super) fn is_kept(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

/// States as columns, one row a group.
fn to_columns(statistic: Statistic, mut groups: Vec<GroupState>) -> Vec<ArrayRef> {
    let counts: Int64Array = groups.iter().map(|state| Some(state.count)).collect();
    let sums = groups.iter_mut().map(|state| Some(state.sum.encode()));
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(counts), Arc::new(sums.collect::<BinaryArray>())];
    if statistic.needs_squares() {
        let squares = groups.iter_mut().map(|state| Some(state.squares.encode()));
        columns.push(Arc::new(squares.collect::<BinaryArray>()));
    }
    columns
}

fn from_columns(statistic: Statistic, columns: &[ArrayRef], row: usize) -> Result<GroupState> {
    let malformed = || -> DataFusionError { exec_datafusion_err!("a partial sum is malformed") };
    let sum = |column: usize| {
        let bytes = columns[column].as_binary::<i32>().value(row);
        super::exact_sum::ExactSum::decode(bytes).ok_or_else(malformed)
    };
    Ok(GroupState {
        count: columns[0].as_primitive::<Int64Type>().value(row),
        sum: sum(1)?,
        squares: if statistic.needs_squares() {
            sum(2)?
        } else {
            Default::default()
        },
    })
}
