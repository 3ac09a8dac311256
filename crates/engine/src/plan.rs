//! From statements to plans that are bounded and give the same rows on every run.
//!
//! SQL leaves some results open: which of several equal rows comes first, what `LIMIT` without
//! an order keeps, in which order texts are strung together. Here those are settled by the rows'
//! own values (see [`order`]), and what cannot be settled is refused. Sums of floats are exact
//! (see [`crate::float`]). So a result depends on what the inputs hold and on nothing else: not
//! on the number of threads, nor on how rows are divided into files, nor on what spills.

mod order;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::{
    DdlStatement, Expr, LogicalPlan, Volatility, WindowFunctionDefinition,
};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as PlannedStatement;
use datafusion::sql::sqlparser::ast::Statement;

pub(crate) use order::TotalWindowOrder;

/// The most operators in a plan, those of its views included.
const MAX_OPERATORS: usize = 2_000;
/// The most operators from a plan's top to its bottom.
const MAX_DEPTH: usize = 200;
/// Aggregates whose results depend on the order of rows, whatever one does.
const ORDER_DEPENDENT: [&str; 16] = [
    "any_value",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "regr_count",
];

/// Plans a query and settles what it leaves open.
pub(crate) async fn plan_query(context: &SessionContext, query: Statement) -> Result<LogicalPlan> {
    let plan = plan(context, query).await?;
    settle(plan)
}

/// Registers a view; nothing is read.
pub(crate) async fn create_view(context: &SessionContext, view: Statement) -> Result<()> {
    let plan = plan(context, view).await?;
    let LogicalPlan::Ddl(DdlStatement::CreateView(view)) = plan else {
        return plan_err!("only plain views can be created");
    };
    if context.table_exist(view.name.clone())? {
        if !view.or_replace {
            return plan_err!("view `{}` is there already", view.name);
        }
        context.deregister_table(view.name.clone())?;
    }
    let settled = settle(view.input.as_ref().clone())?;
    let table = ViewTable::new(settled, view.definition);
    context.register_table(view.name, std::sync::Arc::new(table))?;
    Ok(())
}

async fn plan(context: &SessionContext, statement: Statement) -> Result<LogicalPlan> {
    let statement = PlannedStatement::Statement(Box::new(statement));
    context.state().statement_to_plan(statement).await
}

fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    bound(&plan)?;
    plan.apply_with_subqueries(|node| {
        check_operator(node)?;
        node.apply_expressions(|expression| expression.apply(check_expression))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    order::settle(plan)
}

/// Refuses a plan that is deeper or larger than allowed: views of views grow quickly.
fn bound(plan: &LogicalPlan) -> Result<()> {
    let (mut operators, mut pending) = (0, vec![(plan, 1)]);
    while let Some((node, depth)) = pending.pop() {
        operators += 1;
        if operators > MAX_OPERATORS || depth > MAX_DEPTH {
            return plan_err!(
                "with its views, the statement has more than {MAX_OPERATORS} operators, or more \
                 than {MAX_DEPTH} upon each other"
            );
        }
        pending.extend(node.inputs().into_iter().map(|input| (input, depth + 1)));
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                operators += usize::from(subquery(part).is_some());
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
    }
    Ok(())
}

fn subquery(expression: &Expr) -> Option<&LogicalPlan> {
    match expression {
        Expr::ScalarSubquery(subquery) => Some(&subquery.subquery),
        Expr::Exists(exists) => Some(&exists.subquery.subquery),
        Expr::InSubquery(within) => Some(&within.subquery.subquery),
        _ => None,
    }
}

/// Refuses whatever is not part of a query: the parser refused the statements that make these.
fn check_operator(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::Ddl(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::DescribeTable(_) => plan_err!("only queries can be part of a query"),
        _ => Ok(()),
    }
}

fn check_expression(expression: &Expr) -> Result<TreeNodeRecursion> {
    match expression {
        Expr::ScalarFunction(function)
            if function.func.signature().volatility != Volatility::Immutable =>
        {
            return plan_err!(
                "{}() gives something else on every run, so the run could not be repeated",
                function.name()
            );
        }
        Expr::AggregateFunction(function) => check_aggregate(function.func.name())?,
        Expr::WindowFunction(window) => {
            if let WindowFunctionDefinition::AggregateUDF(function) = &window.fun {
                check_aggregate(function.name())?;
            }
        }
        _ => {}
    }
    Ok(TreeNodeRecursion::Continue)
}

fn check_aggregate(name: &str) -> Result<(), DataFusionError> {
    if ORDER_DEPENDENT.contains(&name) {
        return plan_err!(
            "{name}() depends on the order of rows, which is not fixed; compute it from exact sums"
        );
    }
    Ok(())
}
