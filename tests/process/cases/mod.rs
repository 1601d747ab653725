//! The cases. Each name is a sentence; the numbered ones follow the conformance list.

mod failures;
mod handshake;
mod output;
mod pcp;
mod services;
mod stories;
mod tls;
mod workers;

use crate::pod::Pod;
use crate::setup::Setup;
use patchbay_protocol::session::Instance;
use std::pin::Pin;

/// One test.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub story: fn() -> Pin<Box<dyn Future<Output = ()>>>,
}

macro_rules! cases {
    ($($module:ident::$name:ident,)+) => {
        vec![$(Case { name: stringify!($name), story: || Box::pin($module::$name()) }),+]
    };
}

/// The conformance cases 1 to 28.
pub fn numbered() -> Vec<Case> {
    cases![
        handshake::case_01_a_plain_line_is_ready,
        handshake::case_02_the_highest_common_version_is_negotiated,
        handshake::case_03_carriage_return_and_spaces_are_passed_over,
        handshake::case_04_further_fields_are_ignored,
        handshake::case_05_tcp_only_on_loopback,
        handshake::case_06_netrpc_is_unsupported,
        handshake::case_07_another_core_version_is_refused,
        handshake::case_08_another_application_version_is_refused,
        handshake::case_09_a_bad_address_is_refused,
        handshake::case_10_a_banner_is_no_handshake_unless_skipped,
        handshake::case_11_an_endless_line_is_no_handshake_and_costs_no_memory,
        handshake::case_12_a_line_without_end_times_out_or_ends_early,
        handshake::case_13_a_line_may_come_byte_by_byte,
        failures::case_14_the_same_end_has_the_same_reason_every_time,
        failures::case_15_a_silent_plugin_times_out_and_is_gone,
        failures::case_16_four_ways_not_to_start_have_four_hints,
        failures::case_17_a_wrong_cookie_is_named,
        failures::case_18_the_environment_is_what_the_contract_says,
        tls::case_19_auto_mtls_with_old_and_new_plugins,
        tls::case_20_a_certificate_field_that_does_not_fit_is_named,
        tls::case_21_nobody_can_stand_in_for_plugin_or_host,
        tls::case_22_auto_mtls_with_python,
        tls::case_23_explicit_tls_checks_authority_and_name,
        services::case_24_a_plugin_without_any_service_of_the_library_is_ready,
        services::case_25_a_silent_plugin_is_ready_at_once,
        output::case_26_output_arrives_whole_and_never_blocks_the_plugin,
        services::case_27_health_decides_readiness_and_restarts,
        services::case_28_large_messages_pass_and_limits_are_the_plugins,
    ]
}

/// Jobs of PCP controller plugins. Names that begin with `pcp_` and a number are conformance cases of
/// the PCP job queue.
pub fn jobs() -> Vec<Case> {
    cases![
        pcp::pcp_05_a_plugin_of_the_guides_shape_answers_one_job_with_nothing,
        pcp::the_guides_own_plugin_answers_one_job_with_nothing,
        pcp::pcp_06_start_takes_arguments_or_none,
        pcp::pcp_07_a_client_given_as_accept_gave_it_finds_its_job,
        pcp::pcp_08_a_client_given_as_text_and_number_finds_its_job,
        pcp::pcp_09_a_mapped_client_finds_its_job,
        pcp::a_client_with_a_zone_finds_its_job,
        pcp::pcp_21_a_job_of_a_killed_plugin_is_lost_after_the_grace_and_never_given_again,
        pcp::pcp_23_a_killed_sidecar_costs_no_job_and_doubles_no_row,
        pcp::pcp_25_output_keeps_its_kind,
        pcp::pcp_26_output_of_nothing_is_refused_and_the_job_stays,
        pcp::pcp_27_five_mebibytes_arrive_whole,
        pcp::pcp_28_parts_arrive_in_their_order,
        pcp::pcp_29_an_error_fails_the_job,
        pcp::pcp_30_an_answer_after_an_error_is_late,
        pcp::pcp_33_optional_inputs_are_always_there,
        pcp::pcp_34_no_commands_show_as_a_placeholder_and_a_warning,
        pcp::pcp_38_a_level_of_syslog_starts,
        pcp::pcp_39_telemetry_without_a_target_is_nothing,
        pcp::pcp_40_sigterm_runs_stop,
        pcp::pcp_41_a_restarted_plugin_answers_what_it_recovered,
        pcp::pcp_43_a_loop_without_sleep_costs_little,
        pcp::a_plugin_without_work_or_workers_costs_nothing,
        pcp::the_environment_is_what_a_plugin_of_the_family_expects,
        pcp::a_job_in_hand_is_answered_before_a_stop,
        pcp::a_plugin_that_returns_is_started_again_and_told,
        pcp::a_plugin_that_never_starts_is_told_what_to_call,
        pcp::answers_wait_for_a_sidecar_that_is_away,
        workers::two_workers_of_two_families_get_their_own_jobs,
        workers::a_worker_is_the_same_one_for_the_next_sidecar,
        workers::a_killed_plugin_listens_again_at_once,
        workers::a_plugin_that_listens_everywhere_is_told,
    ]
}

/// What else only processes show.
pub fn stories() -> Vec<Case> {
    cases![
        stories::a_killed_sidecar_is_replaced_and_the_plain_plugin_lives_on,
        stories::a_killed_sidecar_is_replaced_and_the_auto_mtls_plugin_lives_on,
        stories::a_sidecar_that_is_asked_to_go_loses_no_call,
        stories::the_go_client_finds_every_kind_of_call_working,
        stories::a_stock_host_attaches_and_leaves_the_plugin_running,
        stories::a_wrong_checksum_starts_nothing_and_a_right_one_the_plugin,
        stories::the_end_of_a_pod_is_a_drain_and_a_shutdown,
        stories::a_plugin_that_hangs_in_its_shutdown_is_killed,
        stories::idle_processes_are_small,
    ]
}

/// How a plugin fails that is never ready.
async fn failure_of(setup: Setup) -> Instance {
    Pod::start(setup).await.failure().await
}

/// Whether a plugin fails for this reason, with all these words in the message.
async fn fails(setup: Setup, reason: &str, words: &[&str]) -> Instance {
    let instance = failure_of(setup).await;
    assert_eq!(instance.reason, reason, "{}", instance.message);
    for word in words {
        assert!(
            instance.message.contains(word),
            "{word:?} is not in {:?}",
            instance.message
        );
    }
    instance
}
