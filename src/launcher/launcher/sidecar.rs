//! What passes between the launcher and a sidecar.

use super::{Ended, Launcher};
use crate::arguments::Arguments;
use crate::control_socket::{self, Connection, Lost};
use crate::outbox::ROOM;
use crate::process::Running;
use crate::{proxy, start, system};
use patchbay_launcher::control::{Command, Event, Hello, OLDEST, Refusal, Start, State, VERSION};
use rustix::fd::AsFd;
use rustix::process::Signal;
use std::time::Instant;

impl Launcher {
    pub(super) fn accept(&mut self, now: Instant) {
        match control_socket::accept(&self.control) {
            Ok(Some(socket)) => {
                self.open_proxy();
                self.outbox.start_over();
                let hello = Event::Hello(self.hello());
                self.connection = Some(Connection::new(socket, &hello, now));
                self.write(now);
            }
            Ok(None) if !self.intruder_was_told => {
                self.intruder_was_told = true;
                self.note(
                    "a process of this container may not use the control socket",
                    now,
                );
            }
            _ => (),
        }
    }

    fn hello(&self) -> Hello {
        let (state, head) = match (&self.running, &self.ended) {
            (Some(running), _) => (running.state(), running.head().to_vec()),
            (None, Some(ended)) if self.outbox.holds_exit() => {
                (ended.before.clone(), ended.head.clone())
            }
            (
                None,
                Some(Ended {
                    start_id,
                    exit,
                    at_ms,
                    ..
                }),
            ) => {
                let (start_id, exit, at_ms) = (*start_id, *exit, *at_ms);
                (
                    State::Exited {
                        start_id,
                        exit,
                        at_ms,
                    },
                    Vec::new(),
                )
            }
            (None, None) => (State::Idle, Vec::new()),
        };
        Hello {
            oldest: OLDEST,
            newest: VERSION,
            launcher_id: self.launcher_id,
            state,
            head,
            terminating: self.terminating,
        }
    }

    pub(super) fn open_proxy(&mut self) {
        if self.proxy.is_some() {
            return;
        }
        match proxy::open(self.arguments.proxy_address) {
            Ok(listener) => self.proxy = Some(listener),
            Err(error) => {
                let address = self.arguments.proxy_address;
                self.note(&format!("listening on {address}: {error}"), Instant::now());
            }
        }
    }

    pub(super) fn write(&mut self, now: Instant) {
        if let Some(connection) = &mut self.connection {
            let proxy = self.proxy.as_ref().map(AsFd::as_fd);
            if let Err(lost) = connection.write(&mut self.outbox, proxy, now) {
                self.disconnect(&lost, now);
            }
        }
    }

    pub(super) fn read_commands(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        match connection.read() {
            Ok(commands) => {
                for command in commands {
                    self.obey(command);
                }
                if self.outbox.is_flooded() {
                    self.disconnect(&Lost::Flooded, now);
                }
            }
            Err(lost) => self.disconnect(&lost, now),
        }
        self.write(now);
    }

    fn disconnect(&mut self, lost: &Lost, now: Instant) {
        self.connection = None;
        self.alone_since = now;
        self.outbox.shrink(ROOM);
        if !matches!(lost, Lost::Closed) {
            self.note(&lost.to_string(), now);
        }
    }

    fn obey(&mut self, command: Command) {
        let is_running = |running: &&mut Running, start_id| running.start_id == start_id;
        match command {
            Command::Hello { .. } => (),
            Command::Start(order) => self.start(&order),
            Command::Signal { start_id, signal } => {
                let running = self
                    .running
                    .as_mut()
                    .filter(|running| is_running(running, start_id));
                if let (Some(running), Some(signal)) = (running, Signal::from_named_raw(signal)) {
                    running.signal(signal);
                }
            }
            Command::Announced { start_id } => {
                let running = self
                    .running
                    .as_mut()
                    .filter(|running| is_running(running, start_id));
                if let Some(running) = running {
                    running.forget_head();
                    self.outbox.forget_head();
                }
            }
        }
    }

    fn start(&mut self, order: &Start) {
        let start_id = order.start_id;
        let result = if self.terminating || system::stop_requested() {
            Err(Refusal::Terminating)
        } else if self.running.is_some() {
            Err(Refusal::Busy)
        } else {
            let Arguments {
                command,
                arguments,
                run,
                ..
            } = &self.arguments;
            start::start(order, command, arguments, run)
        };
        match result {
            Ok(started) => {
                let running = Running::new(order, started);
                if let State::Running {
                    start_id,
                    pid,
                    started_at_ms,
                } = running.state()
                {
                    self.outbox.push_event(&Event::Started {
                        start_id,
                        pid,
                        started_at_ms,
                    });
                }
                self.running = Some(running);
            }
            Err(refusal) => self
                .outbox
                .push_event(&Event::Refused { start_id, refusal }),
        }
    }
}
