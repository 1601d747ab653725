//! Those who create Jobs, and change their minds.

use crate::plugin::pick;
use crate::server::{Plan, uid_of};
use crate::world::{MS, SECOND, SimEvent, World};

impl World {
    /// A Job as somebody may want it.
    pub fn a_plan(&mut self) -> Plan {
        let clients = self.setting.clients.clone();
        let ports = self.setting.ports.clone();
        let rng = &mut self.rng;
        let now = self.now;
        let location = match rng.chance(0.6) {
            true => pick(rng, &clients).unwrap_or_default(),
            false => String::new(),
        };
        let port = match rng.chance(0.2) {
            true => pick(rng, &ports).unwrap_or_default(),
            false => String::new(),
        };
        let start = match rng.below(20) {
            0..=8 => None,
            9..=17 => Some(now.saturating_sub(rng.below(5 * SECOND))),
            _ => Some(now + rng.range(MS, 2 * SECOND)),
        };
        let from = start.unwrap_or(now).max(now);
        let expire = rng
            .chance(0.25)
            .then(|| from + rng.range(5 * MS, 4 * SECOND));
        let at_least_once = rng.chance(0.2);
        Plan {
            plugin: rng.index(self.setting.pods.len()),
            location,
            port,
            start,
            expire,
            priority: rng.below(3) as i32,
            at_least_once,
            backoff_limit: if at_least_once {
                rng.range(1, 3) as i32
            } else {
                0
            },
            deadline_s: rng.chance(0.05).then_some(1),
            suspend: rng.chance(0.01),
        }
    }

    pub fn users(&mut self) {
        // What has ended is deleted after a while.
        while let Some((at, name, uid)) = self.finished.front().cloned()
            && at + 500 * MS < self.now
        {
            self.finished.pop_front();
            if self
                .server
                .objects
                .get(&name)
                .is_some_and(|job| uid_of(job) == uid)
            {
                self.delete(name);
            }
        }
        if self.calm {
            return;
        }
        self.at(5 * MS, SimEvent::Users);
        // Rushes and lulls.
        let tide = 1.0 + ((self.now as f64) / 7e6).sin();
        let most = (self.setting.crowd as f64 * tide) as usize;
        let mut made = 0;
        while self.open < most && made < 40 {
            made += 1;
            let plan = self.a_plan();
            let name = self.create(&plan);
            if plan.suspend {
                self.count("jobs suspended");
            }
            let faults = self.setting.faults.clone();
            if self.fault("jobs suspended", faults.suspended) {
                let commit = self.server.suspend(name, true);
                self.committed(commit);
            }
            let other = self.rng.below(u64::from(self.names)) as u32;
            let other = self
                .server
                .objects
                .range(other..)
                .next()
                .map(|(name, _)| *name);
            let Some(other) = other else { continue };
            if self.fault("jobs cancelled", faults.cancelled) {
                let commit = self.server.cancel(other);
                self.committed(commit);
            } else if self.fault("jobs suspended", faults.suspended) {
                let commit = self.server.suspend(other, true);
                self.committed(commit);
            } else if self.fault("jobs made anew", faults.recreated) {
                self.delete(other);
                let plan = self.a_plan();
                self.create_as(other, &plan);
            }
        }
        if self.rng.chance(0.1) {
            self.resume_all();
        }
    }

    pub fn resume_all(&mut self) {
        let held: Vec<u32> = self
            .server
            .objects
            .iter()
            .filter(|(_, job)| job.spec.suspend)
            .map(|(name, _)| *name)
            .collect();
        for name in held {
            let commit = self.server.suspend(name, false);
            self.committed(commit);
        }
    }
}
