//! Every history, whatever goes wrong in it, comes to one end.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use barecount_sim::Tally;

/// So many histories take some 5 s of one processor in a debug build.
const HISTORIES: u64 = 200;

fn number(name: &str, otherwise: u64) -> Result<u64, Box<dyn Error>> {
    match std::env::var(name) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(otherwise),
    }
}

#[test]
fn every_history_comes_to_one_end_whatever_goes_wrong_in_it() -> Result<(), Box<dyn Error>> {
    let histories = number("BARECOUNT_SIM_HISTORIES", HISTORIES)?;
    let first = number("BARECOUNT_SIM_SEED", 0)?;
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let play = || -> Result<Tally, String> {
        let mut sum = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + histories {
                return Ok(sum);
            }
            sum += barecount_sim::play(seed).map_err(|violation| {
                // The others need not go on.
                next.store(u64::MAX / 2, Ordering::Relaxed);
                violation.to_string()
            })?;
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let sums: Vec<Result<Tally, String>> = thread::scope(|scope| {
        let played: Vec<_> = (0..threads).map(|_| scope.spawn(play)).collect();
        let joined = played.into_iter().map(|thread| thread.join());
        joined
            .map(|joined| joined.unwrap_or_else(|_| Err("a history panicked".to_owned())))
            .collect()
    });
    let mut sum = Tally::default();
    for of in sums {
        sum += of?;
    }
    let took = began.elapsed().as_secs_f64();
    let rate = histories as f64 / took.max(0.001);
    // Shown where somebody asked for these histories.
    let text = format!(
        "{histories} histories from seed {first} in {took:.1} s, {rate:.0} a second: {sum}\n"
    );
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}
