//! Ties are broken by the rows' own values.
//!
//! Whatever sorts rows to pick or number them gets all other columns as further sort keys. Rows
//! that are then still equal are equal in everything, so any order of theirs gives the same
//! result. Each result is one that SQL allows for the statement as it was written.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, Result, plan_err};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{
    Distinct, DistinctOn, Limit, Projection, Sort, Window,
};
use datafusion::logical_expr::{Expr, LogicalPlan, SortExpr, WindowFrameUnits};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Aggregates that string values together, or pick one, in an order that can be given.
const ORDERED_AGGREGATES: [&str; 5] = [
    "array_agg",
    "first_value",
    "last_value",
    "nth_value",
    "string_agg",
];
/// Window functions that look at single rows whatever their frame.
const ROW_FUNCTIONS: [&str; 4] = ["lag", "lead", "ntile", "row_number"];

/// Settles what is settled before optimisation: limits, `DISTINCT ON`, ordered aggregates.
pub(super) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Limit(limit) => settle_limit(limit),
        LogicalPlan::Distinct(Distinct::On(distinct)) => settle_distinct(distinct),
        node @ LogicalPlan::Aggregate(_) => settle_aggregate(node),
        node => Ok(Transformed::no(node)),
    })?;
    // The order of an output's rows is fixed as they are written.
    Ok(match plan.data {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Arc::unwrap_or_clone(sort.input),
        plan => plan,
    })
}

fn settle_limit(limit: Limit) -> Result<Transformed<LogicalPlan>> {
    let input = with_total_order(limit.input.as_ref())?;
    Ok(Transformed::yes(LogicalPlan::Limit(Limit {
        input: Arc::new(input),
        ..limit
    })))
}

/// The plan with its sort total; sorted, if it is not.
fn with_total_order(plan: &LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(sort) => {
            let mut sort = sort.clone();
            add_columns(&mut sort.expr, &sort.input);
            Ok(LogicalPlan::Sort(sort))
        }
        // Sorting by a column that is not selected leaves such a projection above the sort.
        LogicalPlan::Projection(projection)
            if matches!(projection.input.as_ref(), LogicalPlan::Sort(_)) =>
        {
            let input = with_total_order(&projection.input)?;
            plan.with_new_exprs(projection.expr.clone(), vec![input])
        }
        plan => {
            let mut expr = Vec::new();
            add_columns(&mut expr, plan);
            Ok(LogicalPlan::Sort(Sort {
                expr,
                input: Arc::new(plan.clone()),
                fetch: None,
            }))
        }
    }
}

fn settle_distinct(mut distinct: DistinctOn) -> Result<Transformed<LogicalPlan>> {
    let first = |on: &Expr| on.clone().sort(true, true);
    let mut order = match distinct.sort_expr.take() {
        Some(order) => order,
        None => distinct.on_expr.iter().map(first).collect(),
    };
    add_columns(&mut order, &distinct.input);
    distinct.sort_expr = Some(order);
    Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(
        distinct,
    ))))
}

fn settle_aggregate(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let keys = aggregate_keys(&node)?;
    let names = NamePreserver::new(&node);
    node.map_expressions(|expression| {
        let name = names.save(&expression);
        let settled = expression.transform_up(|part| match part {
            Expr::AggregateFunction(mut function)
                if ORDERED_AGGREGATES.contains(&function.func.name()) =>
            {
                add_aggregate_keys(&mut function.params, &keys);
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            part => Ok(Transformed::no(part)),
        })?;
        Ok(settled.update_data(|expression| name.restore(expression)))
    })
}

/// The order for aggregates that are given none: the first that another one is given, for one
/// operator can sort in one order only; then all columns that the operator looks at.
fn aggregate_keys(node: &LogicalPlan) -> Result<Vec<SortExpr>> {
    let (mut keys, mut used) = (Vec::new(), HashSet::new());
    node.apply_expressions(|expression| {
        used.extend(expression.column_refs().into_iter().cloned());
        expression.apply(|part| {
            if let Expr::AggregateFunction(function) = part
                && keys.is_empty()
                && !function.params.distinct
                && ORDERED_AGGREGATES.contains(&function.func.name())
            {
                keys.clone_from(&function.params.order_by);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let columns = node
        .inputs()
        .into_iter()
        .flat_map(|input| input.schema().columns());
    add_keys(&mut keys, columns.filter(|column| used.contains(column)));
    Ok(keys)
}

/// Completes an aggregate's order. One over distinct values can be ordered by these only.
fn add_aggregate_keys(params: &mut AggregateFunctionParams, keys: &[SortExpr]) {
    let more = match params.args.first() {
        Some(value) if params.distinct => vec![value.clone().sort(true, true)],
        _ => keys.to_vec(),
    };
    for key in more {
        if !params
            .order_by
            .iter()
            .any(|present| present.expr == key.expr)
        {
            params.order_by.push(key);
        }
    }
}

/// Adds all columns of a plan that are not sort keys yet.
fn add_columns(keys: &mut Vec<SortExpr>, plan: &LogicalPlan) {
    add_keys(keys, plan.schema().columns());
}

fn add_keys(keys: &mut Vec<SortExpr>, columns: impl IntoIterator<Item = Column>) {
    for column in columns {
        if !keys.iter().any(|key| is_column(&key.expr, &column)) {
            keys.push(Expr::Column(column).sort(true, true));
        }
    }
}

fn is_column(expression: &Expr, column: &Column) -> bool {
    matches!(expression, Expr::Column(found) if found == column)
}

/// Makes the order of window functions total, as the last step of optimisation: by then plans
/// hold only those columns that are used, so that no column is read for the sake of order alone.
#[derive(Debug)]
pub(crate) struct TotalWindowOrder;

impl OptimizerRule for TotalWindowOrder {
    fn name(&self) -> &'static str {
        "total_window_order"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Window(window) => settle_window(window),
            // A sort that keeps only some rows; the columns that are gone cannot be told apart.
            LogicalPlan::Sort(mut sort) if sort.fetch.is_some() => {
                let before = sort.expr.len();
                add_columns(&mut sort.expr, &sort.input);
                let changed = sort.expr.len() > before;
                Ok(Transformed::new_transformed(
                    LogicalPlan::Sort(sort),
                    changed,
                ))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

fn settle_window(window: Window) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new_for_projection();
    let (mut by_peers, mut by_rows, mut changed) = (Vec::new(), Vec::new(), false);
    for expression in &window.window_expr {
        let name = names.save(expression);
        let mut depends_on_rows = false;
        let settled = expression.clone().transform_up(|part| match part {
            Expr::WindowFunction(mut function) => {
                depends_on_rows = looks_at_rows(function.fun.name(), &function.params)?;
                let more = depends_on_rows && add_order(&mut function.params, &window.input);
                let function = Expr::WindowFunction(function);
                Ok(Transformed::new_transformed(function, more))
            }
            part => Ok(Transformed::no(part)),
        })?;
        changed |= settled.transformed;
        let settled = name.restore(settled.data);
        if depends_on_rows {
            &mut by_rows
        } else {
            &mut by_peers
        }
        .push(settled);
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let with_window =
        |input, expressions| Window::try_new(expressions, input).map(LogicalPlan::Window);
    if by_peers.is_empty() {
        return with_window(window.input, by_rows).map(Transformed::yes);
    }
    // One operator has one order, so these become two; their columns then trade places.
    let peers = with_window(window.input, by_peers)?;
    let both = with_window(Arc::new(peers), by_rows)?;
    let columns = window.schema.columns().into_iter().map(Expr::Column);
    let projection = Projection::try_new(columns.collect(), Arc::new(both))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

/// Whether a function's result depends on single rows, not on groups of peers.
fn looks_at_rows(name: &str, params: &WindowFunctionParams) -> Result<bool> {
    let frame = &params.window_frame;
    let starts_open = frame.start_bound.is_unbounded();
    let is_open = starts_open && frame.end_bound.is_unbounded();
    let is_ordered = ORDERED_AGGREGATES.contains(&name);
    Ok(match name {
        name if ROW_FUNCTIONS.contains(&name) => true,
        _ if frame.units == WindowFrameUnits::Rows => !is_open || is_ordered,
        _ if !is_ordered => false,
        "first_value" if starts_open => true,
        _ if is_open => true,
        name => {
            return plan_err!(
                "{name}() over a RANGE or GROUPS frame leaves open which of several equal rows is \
                 meant; use a ROWS frame"
            );
        }
    })
}

/// Makes the order total. Columns that other window functions computed in the very same order are
/// left out: their rows come in this order already, and need not be sorted again.
fn add_order(params: &mut WindowFunctionParams, input: &LogicalPlan) -> bool {
    let before = params.order_by.len();
    let (mut windows, mut base) = (Vec::new(), input);
    while let LogicalPlan::Window(window) = base {
        windows.push(window);
        base = &window.input;
    }
    add_window_keys(params, base.schema().columns());
    for window in windows.iter().rev() {
        let is_same = window.window_expr.iter().all(|expression| {
            let order = match expression.clone().unalias_nested().data {
                Expr::WindowFunction(function) => function.params,
                _ => return false,
            };
            order.partition_by == params.partition_by && order.order_by == params.order_by
        });
        if !is_same {
            let computed = window.schema.columns();
            add_window_keys(
                params,
                computed[window.input.schema().fields().len()..].to_vec(),
            );
        }
    }
    params.order_by.len() > before
}

fn add_window_keys(params: &mut WindowFunctionParams, columns: Vec<Column>) {
    for column in columns {
        let is_key = params
            .order_by
            .iter()
            .any(|key| is_column(&key.expr, &column));
        let divides = params
            .partition_by
            .iter()
            .any(|part| is_column(part, &column));
        if !is_key && !divides {
            params.order_by.push(Expr::Column(column).sort(true, true));
        }
    }
}
