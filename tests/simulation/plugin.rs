//! The plugin process of a pod: workers that ask for jobs, do them, and give rows of output. What
//! its client library promises holds here too: a request, or a row, that got no answer is repeated
//! with its id.

use crate::faults::Broken;
use crate::pod::Caller;
use crate::random::Rng;
use crate::world::{MS, SECOND, SimEvent, World};
use patchbay_launcher::control::StartId;
use patchbay_sidecar::jobs::claims::entry::{Digest, Entry, RowEnd};
use patchbay_sidecar::jobs::claims::event::{
    ClaimId, Event, Filter, RequestId, Room, RowAnswer, RowGiven, RowId, RowOwner,
};
use std::collections::VecDeque;

#[derive(Default)]
pub struct Plugin {
    pub start: u64,
    pub alive: bool,
    pub workers: Vec<Worker>,
    /// Jobs that the next process will go on with, as it has them in its tracker.
    tracked: Vec<Work>,
}

pub struct Worker {
    pub filter: Filter,
    doing: Doing,
    /// Grows whenever it begins to wait for something else.
    turn: u64,
}

enum Doing {
    Resting,
    Asking { request: RequestId, connected: bool },
    Working(Work),
}

/// A job in the plugin's hands.
#[derive(Clone, Debug)]
pub struct Work {
    uid: String,
    rows: VecDeque<GivenRow>,
    starts: bool,
}

#[derive(Clone, Debug)]
struct GivenRow {
    id: RowId,
    end: RowEnd,
    bytes: u64,
}

/// A call of a plugin that is called.
pub struct CallState {
    uid: String,
    rows: VecDeque<GivenRow>,
}

impl Plugin {
    /// Which worker waits for the answer to this request.
    pub fn asking(&self, request: RequestId) -> Option<usize> {
        self.workers.iter().position(|worker| {
            matches!(worker.doing, Doing::Asking { request: r, connected: true } if r == request)
        })
    }

    pub fn any_asking(&self) -> Option<usize> {
        self.workers.iter().position(|worker| {
            matches!(
                worker.doing,
                Doing::Asking {
                    connected: true,
                    ..
                }
            )
        })
    }

    /// The process dies. Of some jobs it has a record outside of itself.
    pub fn die(&mut self, rng: &mut Rng) {
        for worker in std::mem::take(&mut self.workers) {
            if let Doing::Working(work) = worker.doing
                && rng.chance(0.5)
            {
                self.tracked.push(work);
            }
        }
    }

    /// Nothing is left.
    pub fn forget(&mut self) {
        self.workers.clear();
        self.tracked.clear();
    }
}

impl World {
    fn rows(&mut self, partial: u64) -> VecDeque<GivenRow> {
        let count = if self.rng.chance(0.2) {
            self.rng.below(partial + 1)
        } else {
            0
        };
        let mut rows = VecDeque::new();
        for row in 0..=count {
            let end = match row == count {
                false => RowEnd::More,
                true if self.rng.chance(0.9) => RowEnd::Succeeded,
                true => RowEnd::Failed {
                    reason: "PluginError".to_owned(),
                    message: "it went wrong".to_owned(),
                },
            };
            let bytes = if self.rng.chance(0.1) {
                100
            } else {
                self.rng.below(32)
            };
            rows.push_back(GivenRow {
                id: RowId(self.rng.wide()),
                end,
                bytes,
            });
        }
        if self.rng.chance(0.02) {
            // After the end: a late one.
            rows.push_back(GivenRow {
                id: RowId(self.rng.wide()),
                end: RowEnd::More,
                bytes: 3,
            });
        }
        rows
    }

    pub fn plugin_start(&mut self, pod: usize) {
        let known = &self.pods[pod];
        if known.gone || known.program.alive {
            return;
        }
        if known.sidecar.is_none() {
            // Only a sidecar starts it.
            let wait = self.rng.range(50 * MS, 300 * MS);
            return self.at(wait, SimEvent::PluginStart { pod });
        }
        let count = known.workers;
        let clients = self.setting.clients.clone();
        let ports = self.setting.ports.clone();
        let program = &mut self.pods[pod].program;
        program.start += 1;
        program.alive = true;
        program.workers.clear();
        let start = program.start;
        let tracked = std::mem::take(&mut program.tracked);
        for worker in 0..count {
            // The first asks for everything, so that no job waits for nobody.
            let location = match worker {
                0 => None,
                _ if self.rng.chance(0.3) => None,
                _ => pick(&mut self.rng, &clients),
            };
            let port = match worker {
                0 => None,
                _ if self.rng.chance(0.7) => None,
                _ => pick(&mut self.rng, &ports),
            };
            let filter = Filter {
                client: location,
                port,
            };
            let worker = Worker {
                filter,
                doing: Doing::Resting,
                turn: 0,
            };
            self.pods[pod].program.workers.push(worker);
        }
        for (worker, mut work) in tracked.into_iter().enumerate() {
            if worker < count {
                // The new process gives the rest under new names.
                for row in &mut work.rows {
                    row.id = RowId(self.rng.wide());
                }
                self.pods[pod].program.workers[worker].doing = Doing::Working(work);
            }
        }
        self.plugin_runs(pod, StartId(start));
        for worker in 0..count {
            let wait = self.rng.range(0, 20 * MS);
            self.wait(pod, worker, wait);
        }
    }

    /// A worker goes on after a while, unless something else happens to it before.
    fn wait(&mut self, pod: usize, worker: usize, wait: u64) {
        let start = self.pods[pod].program.start;
        let Some(known) = self.pods[pod].program.workers.get_mut(worker) else {
            return;
        };
        known.turn += 1;
        let turn = known.turn;
        self.at(
            wait,
            SimEvent::Worker {
                pod,
                start,
                worker,
                turn,
            },
        );
    }

    pub fn worker(&mut self, pod: usize, start: u64, worker: usize, turn: u64) {
        let program = &mut self.pods[pod].program;
        if !program.alive || program.start != start {
            return;
        }
        let Some(known) = program.workers.get_mut(worker).filter(|w| w.turn == turn) else {
            return;
        };
        match &known.doing {
            Doing::Resting => {
                let request = RequestId(self.rng.wide());
                self.request(pod, worker, request);
            }
            Doing::Asking {
                request,
                connected: false,
            } => {
                let request = match self.setting.broken {
                    Some(Broken::RequestIdGivenUp) => RequestId(self.rng.wide()),
                    _ => *request,
                };
                self.request(pod, worker, request);
            }
            Doing::Asking {
                request,
                connected: true,
            } => {
                // Drawn when it was sent: the connection breaks while the request waits.
                let (request, process) = (*request, self.pods[pod].process);
                self.request_broken(pod, worker);
                let wait = self.rng.range(0, 5 * MS);
                self.at(
                    wait,
                    SimEvent::RequestGone {
                        pod,
                        process,
                        request,
                    },
                );
            }
            Doing::Working(_) => self.work(pod, worker),
        }
    }

    fn request(&mut self, pod: usize, worker: usize, request: RequestId) {
        let connected = self.pods[pod].sidecar.is_some();
        let known = &mut self.pods[pod].program.workers[worker];
        known.doing = Doing::Asking { request, connected };
        known.turn += 1;
        let filter = known.filter.clone();
        if !connected {
            let wait = self.rng.range(20 * MS, 200 * MS);
            return self.wait(pod, worker, wait);
        }
        if self.fault(
            "requests that broke while they waited",
            self.setting.faults.request_gone,
        ) {
            let wait = self.rng.range(0, 500 * MS);
            self.wait(pod, worker, wait);
        }
        self.handle_claim_event(pod, Event::Request(request, filter));
    }

    /// The connection of a worker's request is gone; it asks again with the same id.
    pub fn request_broken(&mut self, pod: usize, worker: usize) {
        if let Doing::Asking { connected, .. } = &mut self.pods[pod].program.workers[worker].doing {
            *connected = false;
        }
        let wait = self.rng.range(MS, 100 * MS);
        self.wait(pod, worker, wait);
    }

    /// The sidecar has died.
    pub fn connections_broken(&mut self, pod: usize) {
        for worker in 0..self.pods[pod].program.workers.len() {
            match self.pods[pod].program.workers[worker].doing {
                Doing::Resting => {}
                Doing::Asking { .. } => self.request_broken(pod, worker),
                Doing::Working(_) => {
                    let wait = self.rng.range(MS, 100 * MS);
                    self.wait(pod, worker, wait);
                }
            }
        }
    }

    pub fn answered_nothing(&mut self, pod: usize, request: RequestId) {
        if let Some(worker) = self.pods[pod].program.asking(request) {
            self.pods[pod].program.workers[worker].doing = Doing::Resting;
            let wait = self.rng.range(0, 3 * MS);
            self.wait(pod, worker, wait);
        }
    }

    /// A worker has got a job.
    pub fn got_job(&mut self, pod: usize, _start: u64, worker: usize, entry: &Entry) {
        let rows = self.rows(3);
        let starts = self.rng.chance(0.3);
        let work = Work {
            uid: entry.job_uid.clone(),
            rows,
            starts,
        };
        self.pods[pod].program.workers[worker].doing = Doing::Working(work);
        let wait = self.work_time();
        self.wait(pod, worker, wait);
    }

    fn work_time(&mut self) -> u64 {
        if self.setting.faults.crash > 0.0 && self.rng.chance(0.01) {
            return self.rng.range(0, 3 * SECOND);
        }
        self.rng.range(0, self.setting.work_ms * MS + 1)
    }

    fn caller(&mut self, pod: usize, caller: Caller) -> u64 {
        self.last_caller += 1;
        if let Some(sidecar) = &mut self.pods[pod].sidecar {
            sidecar.callers.insert(self.last_caller, caller);
        }
        self.last_caller
    }

    fn work(&mut self, pod: usize, worker: usize) {
        if self.pods[pod].sidecar.is_none() {
            let wait = self.rng.range(20 * MS, 200 * MS);
            return self.wait(pod, worker, wait);
        }
        let Doing::Working(work) = &mut self.pods[pod].program.workers[worker].doing else {
            return;
        };
        let uid = work.uid.clone();
        if std::mem::take(&mut work.starts) {
            self.handle_claim_event(pod, Event::Active(0, uid));
            let wait = self.rng.range(0, 5 * MS);
            return self.wait(pod, worker, wait);
        }
        let Some(row) = work.rows.front().cloned() else {
            self.pods[pod].program.workers[worker].doing = Doing::Resting;
            return self.wait(pod, worker, 0);
        };
        // Until its answer, or until the connection breaks.
        self.pods[pod].program.workers[worker].turn += 1;
        let caller = self.caller(pod, Caller::Worker(worker));
        self.give(pod, caller, RowOwner::Job(uid.clone()), &uid, row);
    }

    fn give(&mut self, pod: usize, caller: u64, whose: RowOwner, uid: &str, row: GivenRow) {
        let Some(book) = self.book_of(pod) else {
            return;
        };
        let digest = match book.room(&whose, row.id) {
            Room::Answered(answer) => return self.row_answered(pod, caller, answer),
            Room::Full => return self.row_refused(pod, caller),
            Room::Bytes { digest, .. } => digest,
        };
        if row.end == RowEnd::Succeeded {
            self.judge.done(uid);
        }
        let given = RowGiven {
            caller,
            whose,
            id: row.id,
            text: true,
            spool: None,
            kept: row.bytes,
            given: row.bytes,
            digest: Digest {
                bytes: digest.bytes + row.bytes,
                ..Digest::default()
            },
            end: row.end,
            at_ms: 0,
        };
        self.handle_claim_event(pod, Event::RowGiven(Box::new(given)));
    }

    pub fn row_answered(&mut self, pod: usize, caller: u64, answer: RowAnswer) {
        let Some(sidecar) = &mut self.pods[pod].sidecar else {
            return;
        };
        match sidecar.callers.remove(&caller) {
            Some(Caller::Worker(worker)) => {
                if answer == RowAnswer::Dropped {
                    self.count("rows that nobody wants");
                }
                let Some(known) = self.pods[pod].program.workers.get_mut(worker) else {
                    return;
                };
                let Doing::Working(work) = &mut known.doing else {
                    return;
                };
                work.rows.pop_front();
                let wait = self.work_time() / 4;
                self.wait(pod, worker, wait);
            }
            Some(Caller::Call(claim)) => {
                if let Some(call) = sidecar.calls.get_mut(&claim) {
                    call.rows.pop_front();
                    self.next_step(pod, claim);
                }
            }
            None => {}
        }
    }

    /// A row could not be kept; it is given again.
    pub fn row_refused(&mut self, pod: usize, caller: u64) {
        let Some(sidecar) = &mut self.pods[pod].sidecar else {
            return;
        };
        match sidecar.callers.remove(&caller) {
            Some(Caller::Worker(worker)) => {
                let wait = self.rng.range(MS, 50 * MS);
                self.wait(pod, worker, wait);
            }
            Some(Caller::Call(claim)) => self.next_step(pod, claim),
            None => {}
        }
    }

    /// The plugin is called.
    pub fn got_call(&mut self, pod: usize, claim: ClaimId, entry: &Entry) {
        let rows = self.rows(3);
        let uid = entry.job_uid.clone();
        if let Some(sidecar) = &mut self.pods[pod].sidecar {
            sidecar.calls.insert(claim, CallState { uid, rows });
        }
        self.next_step(pod, claim);
    }

    fn next_step(&mut self, pod: usize, claim: ClaimId) {
        let process = self.pods[pod].process;
        let wait = self.work_time();
        self.at(
            wait,
            SimEvent::CallStep {
                pod,
                process,
                claim,
            },
        );
    }

    pub fn call_step(&mut self, pod: usize, process: u64, claim: ClaimId) {
        if self.pods[pod].process != process {
            return;
        }
        let Some(sidecar) = &mut self.pods[pod].sidecar else {
            return;
        };
        let Some(call) = sidecar.calls.get(&claim) else {
            return;
        };
        let (uid, row) = (call.uid.clone(), call.rows.front().cloned());
        let Some(row) = row else {
            sidecar.calls.remove(&claim);
            return;
        };
        self.handle_claim_event(pod, Event::CallSent(claim));
        if self.pods[pod]
            .sidecar
            .as_ref()
            .is_none_or(|s| !s.calls.contains_key(&claim))
        {
            return;
        }
        let caller = self.caller(pod, Caller::Call(claim));
        self.give(pod, caller, RowOwner::Claim(claim), &uid, row);
    }
}

pub fn pick(rng: &mut Rng, from: &[String]) -> Option<String> {
    if from.is_empty() {
        return None;
    }
    Some(from[rng.index(from.len())].clone())
}
