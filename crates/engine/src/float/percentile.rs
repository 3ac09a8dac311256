//! `percentile_cont` and `median`.
//!
//! DataFusion finds the place between two values to six digits, cuts the mean of two decimals off
//! and lets that of two floats overflow. Here the place is exact as a float can be, as in
//! PostgreSQL, and a median of decimals is rounded as every other quotient is.

use std::mem::size_of_val;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, ListArray, PrimitiveArray, RecordBatch,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float64Type, Schema, i256,
};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature,
};

use crate::arithmetic::rounded_quotient;

/// Puts these in the place of DataFusion's.
pub(crate) fn replace_percentiles(state: &mut SessionState) -> Result<()> {
    for name in ["percentile_cont", "median"] {
        let inner = state.udaf(name)?;
        state.register_udaf(Arc::new(AggregateUDF::from(Percentile { inner })))?;
    }
    Ok(())
}

/// One of the two, named and typed as DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Percentile {
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

    fn supports_within_group_clause(&self) -> bool {
        self.inner.inner().supports_within_group_clause()
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let is_distinct = args.is_distinct;
        let data_type = args.return_field.data_type().clone();
        if let DataType::Decimal128(..) = data_type {
            return Ok(Box::new(Values::<Decimal128Type> {
                values: Vec::new(),
                is_distinct,
                result: Place::Middle(data_type),
            }));
        }
        if !matches!(
            data_type,
            DataType::Float16 | DataType::Float32 | DataType::Float64
        ) {
            return exec_err!(
                "{}() of {data_type} is not supported; CAST to DOUBLE or DECIMAL",
                self.name()
            );
        }
        let place = match args.exprs.get(1) {
            None => 0.5,
            Some(_) => place(&args)?,
        };
        Ok(Box::new(Values::<Float64Type> {
            values: Vec::new(),
            is_distinct,
            result: Place::At {
                place,
                from_top: args
                    .order_bys
                    .first()
                    .is_some_and(|by| by.options.descending),
                data_type,
            },
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let kept = match args.return_field.data_type() {
            decimal @ DataType::Decimal128(..) => decimal.clone(),
            _ => DataType::Float64,
        };
        let list = DataType::List(Arc::new(Field::new_list_field(kept, true)));
        Ok(vec![Arc::new(Field::new(
            format!("{}[values]", args.name),
            list,
            true,
        ))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The place that is asked for: a number from 0 to 1.
fn place(args: &AccumulatorArgs<'_>) -> Result<f64> {
    let refused = || exec_datafusion_err!("a percentile is a constant from 0 to 1");
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let value = args.exprs[1].evaluate(&nothing).map_err(|_| refused())?;
    let ColumnarValue::Scalar(value) = value else {
        return Err(refused());
    };
    match value.cast_to(&DataType::Float64)? {
        ScalarValue::Float64(Some(place)) if (0.0..=1.0).contains(&place) => Ok(place),
        _ => Err(refused()),
    }
}

/// Which value is wanted of those in order.
#[derive(Debug, Clone)]
enum Place {
    /// Of floats: at a share of the way from the lowest, or from the highest.
    At {
        place: f64,
        from_top: bool,
        data_type: DataType,
    },
    /// Of decimals: the one in the middle.
    Middle(DataType),
}

/// Values, all of them kept.
#[derive(Debug)]
struct Values<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    is_distinct: bool,
    result: Place,
}

impl<T: ArrowPrimitiveType> Values<T> {
    fn kept_type(&self) -> DataType {
        match &self.result {
            Place::At { .. } => DataType::Float64,
            Place::Middle(decimal) => decimal.clone(),
        }
    }

    fn keep(&mut self, values: &ArrayRef) -> Result<()> {
        let values = cast(values, &self.kept_type())?;
        let values = values.as_primitive::<T>();
        let more = values.len() - values.null_count();
        self.values
            .try_reserve(more)
            .map_err(|error| exec_datafusion_err!("no memory for {more} more values: {error}"))?;
        self.values.extend(values.iter().flatten());
        Ok(())
    }
}

impl<T: ArrowPrimitiveType + std::fmt::Debug> Accumulator for Values<T>
where
    Values<T>: Evaluate,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.keep(&values[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.keep(&values)?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<T>::from_iter_values(std::mem::take(&mut self.values))
            .with_data_type(self.kept_type());
        let list = ListArray::new(
            Arc::new(Field::new_list_field(self.kept_type(), true)),
            OffsetBuffer::from_lengths([values.len()]),
            Arc::new(values),
            None,
        );
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.find()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<T::Native>()
    }
}

/// Finds the value.
trait Evaluate {
    fn find(&mut self) -> Result<ScalarValue>;
}

impl Evaluate for Values<Float64Type> {
    fn find(&mut self) -> Result<ScalarValue> {
        let Place::At {
            place,
            from_top,
            data_type,
        } = &self.result
        else {
            return exec_err!("floats are asked for the middle of decimals");
        };
        // Every float has its place: NaN is above all others, as in PostgreSQL.
        self.values.sort_unstable_by(|left, right| match from_top {
            true => order(*right, *left),
            false => order(*left, *right),
        });
        if self.is_distinct {
            self.values
                .dedup_by(|left, right| order(*left, *right).is_eq());
        }
        let found = match self.values.len().checked_sub(1) {
            None => None,
            Some(last) => {
                let at = place * last as f64;
                let (below, above) = (at.floor(), at.ceil());
                let value = |at: f64| self.values[(at as usize).min(last)];
                Some(between(value(below), value(above), at - below))
            }
        };
        ScalarValue::Float64(found).cast_to(data_type)
    }
}

/// As floats are sorted: both zeros are one, and so are all NaN, which are above everything.
fn order(left: f64, right: f64) -> std::cmp::Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

/// The point at a share of the way between two values.
fn between(below: f64, above: f64, share: f64) -> f64 {
    if below == above || share == 0.0 {
        return below;
    }
    let distance = above - below;
    if distance.is_infinite() && below.is_finite() && above.is_finite() {
        return below * (1.0 - share) + above * share;
    }
    below + distance * share
}

impl Evaluate for Values<Decimal128Type> {
    fn find(&mut self) -> Result<ScalarValue> {
        let data_type = self.kept_type();
        self.values.sort_unstable();
        if self.is_distinct {
            self.values.dedup();
        }
        let found = match self.values.len() {
            0 => None,
            count if count % 2 == 1 => Some(self.values[count / 2]),
            count => {
                let (below, above) = (self.values[count / 2 - 1], self.values[count / 2]);
                let sum = i256::from_i128(below).wrapping_add(i256::from_i128(above));
                rounded_quotient(sum, i256::from_i128(2)).to_i128()
            }
        };
        ScalarValue::new_primitive::<Decimal128Type>(found, &data_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_between_two_values_is_exact_and_finite() {
        assert_eq!(between(0.0, 1e9, 0.333_333_3), 333_333_300.0);
        assert_eq!(between(-f64::MAX, f64::MAX, 0.5), 0.0);
        assert_eq!(between(f64::INFINITY, f64::INFINITY, 0.5), f64::INFINITY);
        assert_eq!(between(1.0, f64::INFINITY, 0.0), 1.0);
    }

    #[test]
    fn what_is_no_number_is_above_all_others() {
        let mut values = [f64::NAN, 1.0, f64::INFINITY, -f64::NAN, -1.0];
        values.sort_unstable_by(|left, right| order(*left, *right));
        assert_eq!(values[..3], [-1.0, 1.0, f64::INFINITY]);
        assert!(order(f64::NAN, -f64::NAN).is_eq() && order(0.0, -0.0).is_eq());
    }
}
