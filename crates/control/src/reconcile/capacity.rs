//! How much may be under way at once, and what is.

use std::collections::HashMap;

use barecount_model::{
    class::{NetworkProfile, RunnerClass},
    plan::{Plan, StagePlan},
    run::Run,
};

/// How many attempts may be under way at once.
#[derive(Debug, Clone)]
pub struct Caps {
    /// Over all classes.
    pub total: usize,
    /// Of one class; any number of a class that is not named.
    pub class: HashMap<RunnerClass, usize>,
}

impl Caps {
    /// The tasks of a new run that may be placed with its submission, by a process that works on no
    /// other run: nobody counts them while it is not known whether the submission is durable.
    pub fn first(&self, run: &Run, plan: &Plan) -> Vec<usize> {
        let mut busy = Busy::default();
        let mut of_stage: HashMap<&str, usize> = HashMap::new();
        let mut first = Vec::new();
        for (index, task) in run.tasks.iter().enumerate() {
            let stage = plan.stage(&task.stage);
            let in_stage = of_stage.entry(&task.stage).or_default();
            let full = !busy.leaves_room(self, task.class) || *in_stage >= stage_cap(stage);
            // Whether a path is up is found out once the run is there to be held.
            let guarded = stage.is_some_and(is_guarded);
            if task.needs.is_empty() && !full && !guarded {
                *in_stage += 1;
                busy.add(task.class, 1);
                first.push(index);
            }
        }
        first
    }

    pub(super) fn of_class(&self, class: RunnerClass) -> usize {
        self.class.get(&class).copied().unwrap_or(usize::MAX)
    }
}

/// Whether a stage's path has to be up before it is placed: those that lead through something that
/// may be down as a whole, where the stage has something to reach.
pub fn is_guarded(stage: &StagePlan) -> bool {
    let through = matches!(
        stage.network_profile,
        NetworkProfile::PrivateLink | NetworkProfile::Vpn
    );
    through && !stage.egress.is_empty()
}

/// So many tasks of a stage may be under way in one run.
pub(super) fn stage_cap(stage: Option<&StagePlan>) -> usize {
    stage.map_or(usize::MAX, |stage| stage.concurrency_limit as usize)
}

/// How many attempts are under way, or about to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Busy {
    total: usize,
    class: HashMap<RunnerClass, usize>,
}

impl Busy {
    pub(super) fn add(&mut self, class: RunnerClass, count: usize) {
        self.total += count;
        *self.class.entry(class).or_default() += count;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (class, count) in &other.class {
            self.add(*class, *count);
        }
    }

    pub(super) fn take(&mut self, other: &Self) {
        for (class, count) in &other.class {
            self.total = self.total.saturating_sub(*count);
            if let Some(of_class) = self.class.get_mut(class) {
                *of_class = of_class.saturating_sub(*count);
            }
        }
    }

    pub(super) fn is_full(&self, caps: &Caps) -> bool {
        self.total >= caps.total
    }

    pub(super) fn leaves_room(&self, caps: &Caps, class: RunnerClass) -> bool {
        let of_class = self.class.get(&class).copied().unwrap_or(0);
        !self.is_full(caps) && of_class < caps.of_class(class)
    }
}
