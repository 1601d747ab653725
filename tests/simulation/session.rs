//! Sessions between leaders and sidecars: streams in order, with delays, that break with whatever
//! is under way, and whose two ends find that out at different times.

use crate::pod::ClaimMachine;
use crate::world::{MS, SECOND, SimEvent, World};
use patchbay_protocol::session::{LedgerEntry, from_operator, from_sidecar};
use patchbay_reconcile::job::dispatch::Event;
use patchbay_sidecar::jobs::claims::event::{self, SendRow};

/// To a leader.
pub enum Up {
    Hello {
        epoch: String,
        ledger: Vec<LedgerEntry>,
    },
    Message(Box<from_sidecar::Message>),
    /// The pieces of one row.
    Row(Box<SendRow>),
}

/// To a sidecar.
pub type Down = from_operator::Message;

/// A session. Its number is its place in the world, plus one.
pub struct Link {
    pub leader: usize,
    pub pod: usize,
    /// The sidecar's process at the other end.
    pub process: u64,
    pub leader_open: bool,
    pub attached: bool,
    /// Everything that is under way from here on is lost.
    pub cut: bool,
    up_at: u64,
    down_at: u64,
}

impl World {
    pub fn dial(&mut self, leader: usize, pod: usize) {
        if !self.leaders[leader].alive || self.pods[pod].gone {
            return;
        }
        if self.leaders[leader].links.contains_key(&pod) {
            return;
        }
        let term = self.leaders[leader].term;
        let seen = match &self.pods[pod].sidecar {
            Some(sidecar) => sidecar.term,
            None => {
                let wait = self.rng.range(50 * MS, 300 * MS);
                return self.at(wait, SimEvent::Dial { leader, pod });
            }
        };
        if term < seen {
            self.count("sessions refused for their term");
            return self.at(SECOND, SimEvent::Dial { leader, pod });
        }
        self.count("sessions");
        let link = self.links.len();
        let process = self.pods[pod].process;
        self.links.push(Link {
            leader,
            pod,
            process,
            leader_open: true,
            attached: false,
            cut: false,
            up_at: 0,
            down_at: 0,
        });
        self.leaders[leader].links.insert(pod, link);
        let before = self.pods[pod].link.replace(link);
        if let Some(sidecar) = &mut self.pods[pod].sidecar {
            sidecar.term = term;
        }
        if let Some(before) = before {
            // The old end may not know for a long time.
            let wait = self.rng.range(0, 2 * SECOND);
            self.at(wait, SimEvent::LeaderNotices { link: before });
        }
        // It stops listening to the old session first; then it greets, then it says the rest.
        let heard = event::Event::SessionOpened {
            session: link as u64 + 1,
            jobs: true,
        };
        let todo = self.book(pod, heard);
        let ledger = self.pods[pod]
            .sidecar
            .as_ref()
            .map(|s| s.book.ledger())
            .unwrap_or_default();
        let epoch = self.pods[pod].epoch.to_string();
        if self.fault("greetings that take long", self.setting.faults.late_hello) {
            let wait = self.rng.range(200 * MS, 3 * SECOND);
            self.links[link].up_at = self.now + wait;
        }
        self.say_up(link, Up::Hello { epoch, ledger });
        self.act(pod, todo);
    }

    /// Sends something to the leader.
    pub fn say_up(&mut self, link: usize, message: Up) {
        let lag = self.rng.range(100, 1_500);
        let known = &mut self.links[link];
        if known.cut {
            return;
        }
        known.up_at = known.up_at.max(self.now + lag);
        let wait = known.up_at - self.now;
        self.at(
            wait,
            SimEvent::Up {
                link,
                message: Box::new(message),
            },
        );
    }

    /// Sends something to the sidecar.
    pub fn say_down(&mut self, link: usize, message: Down) {
        let mut lag = self.rng.range(100, 1_500);
        if self.fault(
            "answers of a leader that take long",
            self.setting.faults.slow_down,
        ) {
            lag = self.rng.range(10 * MS, SECOND);
        }
        let known = &mut self.links[link];
        if known.cut || !known.leader_open {
            return;
        }
        known.down_at = known.down_at.max(self.now + lag);
        let wait = known.down_at - self.now;
        self.at(
            wait,
            SimEvent::Down {
                link,
                message: Box::new(message),
            },
        );
    }

    pub fn up(&mut self, link: usize, message: Up) {
        let known = &self.links[link];
        if known.cut || !known.leader_open || !self.leaders[known.leader].alive {
            return;
        }
        self.heard_up(link, message);
    }

    pub fn down(&mut self, link: usize, message: Down) {
        let known = &self.links[link];
        let pod = known.pod;
        let same = known.process == self.pods[pod].process && self.pods[pod].sidecar.is_some();
        if known.cut || !same {
            return;
        }
        self.tell(|| format!("down link {link} pod {pod} {message:?}"));
        self.heard_down(pod, link, message);
    }

    pub fn cut(&mut self, link: usize) {
        if self.links[link].cut {
            return;
        }
        self.links[link].cut = true;
        self.tell(|| format!("cut link {link}"));
        let wait = self.rng.range(0, 2 * SECOND);
        self.at(wait, SimEvent::LeaderNotices { link });
        let wait = self.rng.range(0, SECOND);
        self.at(wait, SimEvent::PodNotices { link });
    }

    /// The leader's end is over; it dials again.
    pub fn leader_notices(&mut self, link: usize) {
        let known = &mut self.links[link];
        if !std::mem::replace(&mut known.leader_open, false) {
            return;
        }
        let (leader, pod, attached) = (known.leader, known.pod, known.attached);
        if !self.leaders[leader].alive {
            return;
        }
        self.leaders[leader].links.remove(&pod);
        self.leaders[leader].forget_words(link);
        if attached {
            self.tell_dispatcher(
                leader,
                Event::Detached {
                    session: link as u64 + 1,
                },
            );
        }
        let wait = self.rng.range(MS, 100 * MS);
        self.at(wait, SimEvent::Dial { leader, pod });
    }

    pub fn pod_notices(&mut self, link: usize) {
        let (pod, process) = (self.links[link].pod, self.links[link].process);
        if self.pods[pod].process == process && self.pods[pod].sidecar.is_some() {
            if self.pods[pod].link == Some(link) {
                self.pods[pod].link = None;
            }
            self.handle_claim_event(pod, event::Event::SessionClosed(link as u64 + 1));
        }
    }

    fn heard_down(&mut self, pod: usize, link: usize, message: Down) {
        let session = link as u64 + 1;
        let granted = matches!(message, Down::Grant(_)).then(|| message.clone());
        let mut todo = self.book(pod, event::Event::Down(session, message));
        if let Some(Down::Grant(grant)) = granted {
            self.maybe_take_anyway(pod, &grant, &mut todo);
        }
        self.act(pod, todo);
    }

    /// The claim machine of a pod, if its sidecar runs.
    pub fn book_of(&self, pod: usize) -> Option<&ClaimMachine> {
        self.pods[pod].sidecar.as_ref().map(|sidecar| &sidecar.book)
    }
}
