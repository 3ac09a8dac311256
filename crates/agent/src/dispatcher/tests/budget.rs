//! Attempts that take more of their host's disk than they may, on a disk that is a double.

use barecount_tree::{Amount, Measured};

use super::{failing::Noted, *};
use crate::files::Room;

const GIB: u64 = 1 << 30;
const PLENTY: u64 = 100 * GIB;

fn amount(bytes: u64) -> Amount {
    Amount { bytes, files: 10 }
}

/// An attempt that runs until it is ended, its budget, and the disk that it is on.
struct Place {
    world: World,
    life: Life,
    files: Arc<Noted>,
}

impl Place {
    fn begin(left: u64) -> Result<Self, Box<dyn std::error::Error>> {
        let world = World::new(Script::hangs())?;
        let files = Arc::new(Noted::default());
        let folders = StagingFolders::on(Arc::clone(&files) as _, world.state.path());
        let life = world.begin_with(Arc::new(world.cloud.restarted()), folders)?;
        let place = Self { world, life, files };
        place.tell(left, 0, true);
        Ok(place)
    }

    /// What is left on the disk, and what the attempt has of it as far as all of that is seen.
    fn tell(&self, left: u64, held: u64, whole: bool) {
        let room = Room {
            left: Amount {
                bytes: left,
                files: 1 << 30,
            },
            total: Amount {
                bytes: PLENTY,
                files: 1 << 30,
            },
        };
        let measured = Measured {
            amount: amount(held),
            whole,
        };
        let mut told = self.files.told.lock().unwrap_or_else(|it| it.into_inner());
        *told = Some((room, measured));
    }

    fn launch(&self, budget: u64) {
        let mut assignment = assignment(1);
        assignment.stage.resources.disk_bytes = Some(budget);
        self.life.order(Order::Launch(Box::new(assignment)));
    }

    /// The code and kind of the failure that the attempt comes to as time goes on.
    fn failure(&mut self) -> Result<(FailureKind, String), Box<dyn std::error::Error>> {
        self.life.idle_as_time_goes_on(&self.world.clock)?;
        match result(self.life.end_of()) {
            Some(AttemptResult::Failed(failure)) => Ok((failure.kind, failure.code)),
            other => Err(format!("it did not fail: {other:?}").into()),
        }
    }

    /// Lets a while go by, after which the attempt still runs; then stops it.
    fn runs_on(&mut self) -> TestResult {
        for _ in 0..50 {
            self.world.clock.advance(Duration::from_secs(1));
            let idle = async { tokio::time::timeout(GLANCE, self.life.agent.idle()).await };
            assert!(self.life.runtime.block_on(idle).is_err(), "it was ended");
        }
        assert_eq!(self.life.agent.activities().len(), 1, "it was ended");
        self.life.order(stop(1));
        let end = result(self.life.end_of());
        assert!(matches!(end, Some(AttemptResult::Stopped)), "{end:?}");
        Ok(())
    }
}

#[test]
fn what_takes_more_of_the_disk_than_its_size_has_is_ended_and_has_failed_by_it() -> TestResult {
    let mut place = Place::begin(PLENTY)?;
    place.launch(10 * GIB);
    place.life.started();
    place.tell(PLENTY - 11 * GIB, 11 * GIB, true);
    assert_eq!(
        place.failure()?,
        (FailureKind::Application, "BC0615".to_owned())
    );
    Ok(())
}

#[test]
fn what_somebody_else_takes_or_frees_is_not_counted() -> TestResult {
    let mut place = Place::begin(PLENTY)?;
    place.launch(10 * GIB);
    place.life.started();
    place.tell(PLENTY - 50 * GIB, GIB, true);
    place.runs_on()?;
    // And what it takes while somebody else frees as much is found all the same.
    let mut place = Place::begin(PLENTY)?;
    place.launch(10 * GIB);
    place.life.started();
    place.tell(PLENTY, 11 * GIB, true);
    assert_eq!(place.failure()?.1, "BC0615");
    Ok(())
}

#[test]
fn what_hides_its_folders_is_held_to_have_taken_what_the_disk_has_lost() -> TestResult {
    let mut place = Place::begin(PLENTY)?;
    place.launch(10 * GIB);
    place.life.started();
    place.tell(PLENTY - 11 * GIB, 0, false);
    assert_eq!(place.failure()?.1, "BC0615");
    Ok(())
}

#[test]
fn on_a_disk_that_is_nearly_full_those_end_that_have_much_of_it_and_none_begins() -> TestResult {
    let mut large = Place::begin(2 * GIB)?;
    large.launch(10 * GIB);
    large.life.started();
    large.tell(GIB / 4, GIB, true);
    let full = (FailureKind::Infrastructure, "BC0616".to_owned());
    assert_eq!(large.failure()?, full);

    let mut small = Place::begin(2 * GIB)?;
    small.launch(10 * GIB);
    small.life.started();
    small.tell(GIB / 4, 1 << 20, true);
    small.runs_on()?;

    let mut late = Place::begin(GIB / 2)?;
    late.launch(10 * GIB);
    assert_eq!(late.failure()?, full);
    assert_eq!(late.world.cloud.started(), 0);
    Ok(())
}
