//! One figure, and its budget.

use serde::Serialize;

/// What was measured, beside the alternative in the same run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) case: String,
    pub(crate) ours: f64,
    pub(crate) unit: &'static str,
    pub(crate) alternative: Option<Alternative>,
    pub(crate) budget: Option<Budget>,
}

/// What ours is held against.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alternative {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// What ours may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Budget {
    /// So much at most.
    AtMost(f64),
    /// So much at least.
    AtLeast(f64),
    /// So many times the alternative at most.
    TimesAtMost(f64),
    /// So many times the alternative at least.
    TimesAtLeast(f64),
    /// So much more than the alternative at most.
    MoreAtMost(f64),
}

/// A figure as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    bench: &'static str,
    case: &'a str,
    ours: f64,
    unit: &'static str,
    alternative: Option<f64>,
    alternative_name: Option<&'a str>,
    /// Ours by the alternative.
    ratio: Option<f64>,
    budget: Option<String>,
    met: Option<bool>,
}

impl Figure {
    pub(crate) fn new(bench: &'static str, case: &str, ours: f64, unit: &'static str) -> Self {
        Self {
            bench,
            case: case.to_owned(),
            ours,
            unit,
            alternative: None,
            budget: None,
        }
    }

    pub(crate) fn beside(mut self, name: &str, value: f64) -> Self {
        self.alternative = Some(Alternative {
            name: name.to_owned(),
            value,
        });
        self
    }

    pub(crate) fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    fn ratio(&self) -> Option<f64> {
        let alternative = self.alternative.as_ref()?;
        (alternative.value > 0.0).then(|| self.ours / alternative.value)
    }

    /// Whether it is within its budget; `None` where it has none, or nothing to be held against.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.budget? {
            Budget::AtMost(most) => Some(self.ours <= most),
            Budget::AtLeast(least) => Some(self.ours >= least),
            Budget::TimesAtMost(times) => self.ratio().map(|ratio| ratio <= times),
            Budget::TimesAtLeast(times) => self.ratio().map(|ratio| ratio >= times),
            Budget::MoreAtMost(most) => {
                let alternative = self.alternative.as_ref()?;
                Some(self.ours - alternative.value <= most)
            }
        }
    }

    pub(crate) fn line(&self) -> Line<'_> {
        let alternative = self.alternative.as_ref();
        let budget = self.budget.map(|budget| match budget {
            Budget::AtMost(most) => format!("at most {most} {}", self.unit),
            Budget::AtLeast(least) => format!("at least {least} {}", self.unit),
            Budget::TimesAtMost(times) => format!("at most {times:.3} of the alternative"),
            Budget::TimesAtLeast(times) => format!("at least {times:.3} of the alternative"),
            Budget::MoreAtMost(most) => {
                format!("at most {most} {} more than the alternative", self.unit)
            }
        });
        Line {
            bench: self.bench,
            case: &self.case,
            ours: rounded(self.ours),
            unit: self.unit,
            alternative: alternative.map(|other| rounded(other.value)),
            alternative_name: alternative.map(|other| other.name.as_str()),
            ratio: self.ratio().map(rounded),
            budget,
            met: self.met(),
        }
    }
}

impl Line<'_> {
    /// For people, what is missed and by what.
    pub(crate) fn shortfall(&self) -> String {
        let Self {
            bench,
            case,
            ours,
            unit,
            ..
        } = self;
        let budget = self.budget.as_deref().unwrap_or("none");
        let beside = self.alternative_name.map(|name| format!(" ({name})"));
        let beside = beside.unwrap_or_default();
        format!("{bench}: {case}: {ours} {unit}, where the budget is {budget}{beside}")
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misses_its_budget_is_said_with_it_and_what_it_stands_beside() {
        let figure = Figure::new("etl", "a", 3.0, "ms").budget(Budget::TimesAtMost(2.0));
        let told = "etl: a: 3 ms, where the budget is at most 2.000 of the alternative (bare)";
        assert_eq!(figure.beside("bare", 1.0).line().shortfall(), told);
        let figure = Figure::new("etl", "b", 3.0, "ms").budget(Budget::AtMost(2.0));
        assert_eq!(
            figure.line().shortfall(),
            "etl: b: 3 ms, where the budget is at most 2 ms"
        );
    }
}
