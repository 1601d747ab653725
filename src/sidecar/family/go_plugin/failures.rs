//! How a plugin of this family can fail to start, in the words of the catalogue and a sentence for
//! people.

use patchbay_launcher::control::Exit;
use patchbay_protocol::escape::printable;
use patchbay_protocol::pod_config::GoPluginConfig;
use patchbay_protocol::reason::Reason;

use crate::family::EarlyExit;
use crate::instance::failure::{Failure, MAX_QUOTE, exit_text, hint, with_lines};

/// The process ended before its handshake line.
pub(super) fn exited_early(settings: &GoPluginConfig, early: &EarlyExit<'_>) -> Failure {
    let EarlyExit {
        exit,
        partial,
        wrote_to_stdout,
        stderr,
    } = *early;
    let tells_of_cookie = || {
        let said = stderr.join("\n").to_lowercase();
        said.contains("is a plugin") || said.contains("magic cookie")
    };
    if exit == Exit::Code(1) && !wrote_to_stdout && tells_of_cookie() {
        let text = format!(
            "the plugin says that it was not started by its host: the cookie {} is missing or has another value. \
             Set protocol.goPlugin.cookie to what the plugin's documentation says",
            printable(settings.cookie_key.as_bytes(), MAX_QUOTE)
        );
        return Failure::new(Reason::CookieRejected, with_lines(text, stderr));
    }
    let text = match partial {
        Some(line) => format!(
            "the plugin ended with {} right after the line {} on stdout, which has no line end. {}",
            exit_text(exit),
            printable(line, MAX_QUOTE),
            hint(exit, wrote_to_stdout)
        ),
        None => format!(
            "the plugin ended with {} before it announced an address. {}",
            exit_text(exit),
            hint(exit, wrote_to_stdout)
        ),
    };
    Failure::new(Reason::ExitedEarly, with_lines(text, stderr))
}

/// There was no handshake line in time.
pub(super) fn start_timed_out(seconds: u32, wrote_to_stdout: bool, stderr: &[String]) -> Failure {
    let shape = if wrote_to_stdout {
        ""
    } else {
        " and wrote no whole line to stdout"
    };
    let text = format!(
        "the plugin was started but announced no address within {seconds} s{shape}. It may be slow, wait on stdin, \
         or print its handshake without flushing or without a line end"
    );
    Failure::new(Reason::StartTimeout, with_lines(text, stderr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::failure::MAX_MESSAGE;
    use crate::instance::tests::{config, go_plugin};

    fn early(exit: Exit, wrote_to_stdout: bool, stderr: &[String]) -> Failure {
        let early = EarlyExit {
            exit,
            partial: None,
            wrote_to_stdout,
            stderr,
        };
        exited_early(go_plugin(&mut config(1)), &early)
    }

    #[test]
    fn a_cookie_notice_counts_only_with_exit_code_one_and_an_empty_stdout() {
        let said =
            ["This binary is a plugin. These are not meant to be executed directly.".to_owned()];
        let reason = |exit, wrote| early(exit, wrote, &said).reason;
        assert_eq!(reason(Exit::Code(1), false), Reason::CookieRejected);
        assert_eq!(reason(Exit::Code(1), true), Reason::ExitedEarly);
        assert_eq!(reason(Exit::Code(2), false), Reason::ExitedEarly);
        assert_eq!(early(Exit::Code(1), false, &[]).reason, Reason::ExitedEarly);
    }

    #[test]
    fn messages_name_signal_and_keep_the_newest_lines_within_the_limit() {
        let lines: Vec<String> = (0..20)
            .map(|n| format!("{n}-{}", "x".repeat(200)))
            .collect();
        let failure = early(Exit::Signal(11), false, &lines);
        assert!(failure.message.contains("signal 11 (SIGSEGV)"));
        assert!(failure.message.contains("19-xxx") && !failure.message.contains("10-xxx"));
        assert!(failure.message.len() <= MAX_MESSAGE);
        let long = early(Exit::Code(0), false, &["y".repeat(4000)]);
        assert!(long.message.contains("yyy") && long.message.len() <= MAX_MESSAGE);
    }
}
