//! Runs: many short lives of a whole world, each with its own seed.

use crate::faults::{Broken, Faults};
use crate::judge::Wrong;
use crate::random::Rng;
use crate::world::{SECOND, Setting, World};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

/// Hand-outs of one life.
const LIFE: u64 = 5_000;

/// What came of one life.
pub struct Life {
    pub hand_outs: u64,
    pub counts: BTreeMap<&'static str, u64>,
    pub found: Vec<(Wrong, String)>,
}

/// Two PCP controller plugins, one of them with a limit per client, and one that is called.
pub fn setting(broken: Option<Broken>) -> Setting {
    let mut faults = Faults::storm();
    if broken == Some(Broken::GrantWithoutAsk) {
        // A grant has to come after its request is over, while another worker of the pod waits.
        faults.request_gone = 0.3;
        faults.slow_down = 0.1;
    }
    Setting {
        pods: vec![vec![3, 3, 2, 2, 1, 1], vec![3, 3, 2], vec![0, 0, 0]],
        clients: ["10.0.0.1", "10.0.0.2", "fd00::3"]
            .map(str::to_owned)
            .to_vec(),
        ports: ["10000", "20000"].map(str::to_owned).to_vec(),
        per_client: vec![None, Some(3), None],
        crowd: 60,
        work_ms: 20,
        faults,
        broken,
    }
}

/// One life: faults until enough was handed out, then peace until everything has ended.
pub fn live(seed: u64, hand_outs: u64, broken: Option<Broken>) -> Life {
    let mut world = World::new(seed, setting(broken));
    let enough = world.run(3_600 * SECOND, |world| {
        world.judge.deliveries >= hand_outs || !world.judge.found.is_empty()
    });
    if !enough {
        let text = format!(
            "only {} jobs were handed out in an hour",
            world.judge.deliveries
        );
        world.judge.wrong(Wrong::NotEnded, text);
    }
    if world.judge.found.is_empty() {
        world.peace();
    }
    Life {
        hand_outs: world.judge.deliveries,
        counts: world.counts,
        found: world.judge.found,
    }
}

impl World {
    /// Faults stop; everything has to come to its end.
    pub fn peace(&mut self) {
        self.calm = true;
        self.away_until = 0;
        for leader in &mut self.leaders {
            leader.deaf_until = 0;
            leader.wall.ahead = 0;
        }
        self.one_leader();
        self.resume_all();
        let settled = |world: &World| {
            let left = (0..world.pods.len())
                .map(|pod| world.unsettled(pod))
                .sum::<usize>();
            world.open == 0 && left == 0
        };
        if !self.run(120 * SECOND, settled) {
            for pod in 0..self.pods.len() {
                if self.unsettled(pod) > 0 {
                    let text = format!("pod {pod} still has {:?}", self.ledger(pod));
                    self.judge.wrong(Wrong::NotEnded, text);
                }
            }
        }
        self.judge.end(&self.server);
    }
}

/// Seed of the life with this number in a run. The first is the run's own, so that a life that
/// went wrong is a run of one life.
pub fn seed_of(seed: u64, life: u64) -> u64 {
    match life {
        0 => seed,
        life => Rng::new(seed ^ life.wrapping_mul(0x2545_f491_4f6c_dd1d)).next() >> 1,
    }
}

/// What a run has come to.
#[derive(Default)]
struct Sum {
    hand_outs: u64,
    lives: u64,
    counts: BTreeMap<&'static str, u64>,
    failed: Option<String>,
}

/// Runs lives until this many jobs were handed out; an error names the seed that failed. A life is
/// one thread's; several threads live several lives.
pub fn run(seed: u64, hand_outs: u64) -> Result<(), String> {
    let begun = Instant::now();
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(life) = next(&sum, hand_outs) {
                    let of = seed_of(seed, life);
                    let came = live(of, LIFE.min(hand_outs), None);
                    let Ok(mut sum) = sum.lock() else { return };
                    sum.hand_outs += came.hand_outs;
                    for (what, count) in came.counts {
                        *sum.counts.entry(what).or_default() += count;
                    }
                    let failed = report(of, &came.found);
                    sum.failed = sum.failed.take().or(failed);
                }
            });
        }
    });
    let sum = sum
        .into_inner()
        .map_err(|_| "a life has panicked".to_owned())?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut text = format!(
        "simulation: seed {seed}, {} hand-outs in {} lives, {seconds:.1} s on {threads} threads, \
         {:.0} hand-outs/s\n",
        sum.hand_outs,
        sum.lives,
        sum.hand_outs as f64 / seconds
    );
    for (what, count) in &sum.counts {
        text += &format!("  {what:40} {count}\n");
    }
    if sum.failed.is_none() {
        for wrong in Wrong::ALL {
            text += &format!("  found: {:33} 0\n", format!("{wrong:?}"));
        }
    }
    print!("{text}");
    sum.failed.map_or(Ok(()), Err)
}

/// Number of the next life, while there is to be one.
fn next(sum: &Mutex<Sum>, hand_outs: u64) -> Option<u64> {
    let mut sum = sum.lock().ok()?;
    // As if those that are under way were over.
    let over = sum.failed.is_some() || sum.lives * LIFE >= hand_outs.max(1);
    let life = (!over).then_some(sum.lives)?;
    sum.lives += 1;
    Some(life)
}

fn report(seed: u64, found: &[(Wrong, String)]) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let mut text = format!(
        "SIM_SEED={seed} SIM_HANDOUTS={LIFE}: {} findings",
        found.len()
    );
    for (what, words) in found.iter().take(8) {
        text += &format!("\n  {what:?}: {words}");
    }
    Some(text)
}

/// Seeds that are kept: one a line, and what they once showed.
pub fn kept() -> Vec<u64> {
    include_str!("seeds.txt")
        .lines()
        .filter_map(|line| line.split('#').next()?.trim().parse().ok())
        .collect()
}

pub fn kept_seeds() -> Result<(), String> {
    for seed in kept() {
        let life = live(seed, LIFE, None);
        if let Some(text) = report(seed, &life.found) {
            return Err(text);
        }
    }
    Ok(())
}

/// The judge has to find a driver's mistake within so many lives.
pub fn finds(broken: Broken, expected: &[Wrong]) -> Result<(), String> {
    for seed in 1..=20 {
        let life = live(seed, 2_000, Some(broken));
        if let Some((what, _)) = life.found.iter().find(|(what, _)| expected.contains(what)) {
            println!("simulation: {broken:?} is found as {what:?} by seed {seed}");
            return Ok(());
        }
    }
    Err(format!("{broken:?} was not found as {expected:?}"))
}
