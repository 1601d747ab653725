//! What a plugin leaves behind. As PID 1 the launcher inherits every orphan of its container;
//! those of a plugin that ended must not meet the next start.

use rustix::process::{Pid, Signal, getpid, kill_process};
use std::fs;

/// Kills every orphan that was handed to us and counts those that still live. Their own children
/// become ours with their death, so that repeating it reaches everything.
///
/// Processes that somebody put into the container from outside (`kubectl exec`) have no parent
/// here and are left alone.
pub(crate) fn kill_orphans() -> usize {
    if getpid() != Pid::INIT {
        return 0;
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    let mut alive = 0;
    for entry in processes.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read(entry.path().join("stat")) else {
            continue;
        };
        if is_living_orphan(&String::from_utf8_lossy(&stat))
            && let Some(pid) = Pid::from_raw(pid)
        {
            alive += 1;
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    alive
}

/// Reads `/proc/<pid>/stat`: the name in parentheses may hold anything, state and parent follow.
fn is_living_orphan(stat: &str) -> bool {
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = fields.split(' ');
    let state = fields.next();
    let parent = fields.next();
    parent == Some("1") && !matches!(state, Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_living_children_of_pid_one_are_orphans() {
        assert!(is_living_orphan("7 (a) b) S 1 7 7 0"));
        assert!(!is_living_orphan("7 (sh) Z 1 7 7 0"));
        assert!(!is_living_orphan("7 (sh) S 0 7 7 0"));
        assert!(!is_living_orphan("7 (sh) S 12 7 7 0"));
        assert!(!is_living_orphan("nonsense"));
    }
}
