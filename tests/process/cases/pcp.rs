//! Controller plugins: real ones over our Python runtime, with jobs of an operator that stands for
//! the real one.

use crate::pod::{PATIENCE, Pod, memory_kib, processor_time, until};
use crate::queue::{Job, Stands};
use crate::setup::{POD_IPV4, Setup};
use patchbay_protocol::session::Phase;
use patchbay_protocol::session::exit::How;
use rustix::process::Signal;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

/// A worker at this address, as soon as it is let in.
pub async fn worker(from: &str, to: &str, port: u16) -> TcpStream {
    let (from, to): (std::net::IpAddr, std::net::IpAddr) =
        (from.parse().unwrap(), to.parse().unwrap());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let socket = if to.is_ipv4() {
            TcpSocket::new_v4().unwrap()
        } else {
            TcpSocket::new_v6().unwrap()
        };
        socket.bind((from, 0).into()).unwrap();
        match socket.connect((to, port).into()).await {
            Ok(stream) => return stream,
            Err(error) => assert!(
                tokio::time::Instant::now() < deadline,
                "connecting to {to}:{port}: {error}"
            ),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a job.
pub async fn job(pod: &Pod, uid: &str, what: &str, wanted: impl Fn(&Job) -> bool) -> Job {
    match pod.queue.wait(uid, PATIENCE, wanted).await {
        Some(job) => job,
        None => panic!("waited in vain until {what}: {:?}", pod.queue.job(uid)),
    }
}

async fn over(pod: &Pod, uid: &str) -> Job {
    job(pod, uid, "it is over", |job| {
        matches!(job.stands, Stands::Succeeded | Stands::Failed)
    })
    .await
}

/// A ready plugin that does steps.
async fn steps(setup: Setup) -> Pod {
    let mut pod = Pod::start(setup).await;
    pod.ready().await;
    pod
}

/// Submits one step.
fn step(pod: &Pod, what: &str, argument: &str) -> String {
    pod.queue
        .submit("step", &[("What", what), ("Argument", argument)])
}

/// Lets a step that waits go on.
fn go(pod: &Pod) {
    std::fs::write(pod.path("work/go"), "").unwrap();
}

async fn holds(pod: &Pod) {
    let path = pod.path("work/holding");
    until("the plugin has the job", || path.exists().then_some(())).await;
}

/// The uids of the jobs that plugin processes got, in order.
fn diary(pod: &Pod) -> Vec<String> {
    let text = pod.text("work/diary");
    text.lines().map(str::to_owned).collect()
}

pub async fn pcp_05_a_plugin_of_the_guides_shape_answers_one_job_with_nothing() {
    answers_with_nothing(Setup::steps("Sample"), "fetch", "Target").await;
}

pub async fn the_guides_own_plugin_answers_one_job_with_nothing() {
    let Some(file) = std::env::var_os("SAMPLE_PLUGIN") else {
        println!("skipped: SAMPLE_PLUGIN names no file");
        return;
    };
    let setup = Setup::controller(PathBuf::from(file));
    answers_with_nothing(setup, "wget", "Target IP Address").await;
}

async fn answers_with_nothing(setup: Setup, command: &str, input: &str) {
    let port = setup.port();
    let mut pod = Pod::start(setup).await;
    let instance = pod.ready().await;
    assert_eq!(instance.commands.len(), 1);
    assert_eq!(instance.commands[0].name, command);
    let text = port.to_string();
    let other = pod
        .queue
        .submit_to(command, &[(input, "http://192.0.2.1/")], "192.0.2.9", &text);
    let uid = pod
        .queue
        .submit_to(command, &[(input, "http://192.0.2.2/")], "127.0.0.1", &text);
    let _worker = worker("127.0.0.1", POD_IPV4, port).await;
    let done = over(&pod, &uid).await;
    assert_eq!(done.stands, Stands::Succeeded);
    assert_eq!(done.rows.len(), 1);
    assert!(done.rows[0].data.is_empty() && done.rows[0].is_text);
    // A second worker of the same client finds nothing more; the other client's job is untouched.
    let _second = worker("127.0.0.1", POD_IPV4, port).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(pod.queue.job(&other).stands, Stands::Ready);
    assert_eq!(pod.queue.job(&uid).rows.len(), 1);
    assert_eq!(pod.ready().await.restarts, 0);
}

pub async fn pcp_06_start_takes_arguments_or_none() {
    // Steps has none; Place takes any.
    steps(Setup::steps("Steps")).await;
    steps(Setup::steps("Place").env("FORM", "text")).await;
}

pub async fn pcp_07_a_client_given_as_accept_gave_it_finds_its_job() {
    place("tuple", "10.1.2.3").await;
}

pub async fn pcp_08_a_client_given_as_text_and_number_finds_its_job() {
    place("text", "10.1.2.3").await;
}

pub async fn pcp_09_a_mapped_client_finds_its_job() {
    place("mapped", "10.1.2.3").await;
}

pub async fn a_client_with_a_zone_finds_its_job() {
    place("sixth", "fe80::1").await;
}

async fn place(form: &str, location: &str) {
    let pod = steps(Setup::steps("Place").env("FORM", form)).await;
    let port = if form == "sixth" { "" } else { "10000" };
    let wrong_port = pod.queue.submit_to("go", &[], location, "010000");
    let other = pod.queue.submit_to("go", &[], "10.1.2.4", port);
    let uid = pod.queue.submit_to("go", &[], location, port);
    let done = over(&pod, &uid).await;
    assert_eq!(
        (done.stands, done.texts()),
        (Stands::Succeeded, vec!["here".to_owned()])
    );
    assert_eq!(pod.queue.job(&other).stands, Stands::Ready);
    if !port.is_empty() {
        assert_eq!(pod.queue.job(&wrong_port).stands, Stands::Ready);
    }
}

pub async fn pcp_21_a_job_of_a_killed_plugin_is_lost_after_the_grace_and_never_given_again() {
    let mut pod = steps(Setup::steps("Steps").quick()).await;
    let first = pod.history.last().unwrap().start_id.clone();
    let uid = step(&pod, "die", "");
    let lost = over(&pod, &uid).await;
    assert_eq!(
        (lost.stands, lost.reason.as_str()),
        (Stands::Failed, "PluginLost")
    );
    assert!(lost.message.contains("signal 9"), "{}", lost.message);
    pod.wait("another process", |instance| {
        instance.phase() == Phase::Ready && instance.start_id != first
    })
    .await;
    let next = step(&pod, "echo", "alive");
    assert_eq!(over(&pod, &next).await.stands, Stands::Succeeded);
    assert_eq!(diary(&pod), [uid.clone(), next]);
    assert_eq!(pod.queue.job(&uid).attempt, 1);
}

pub async fn pcp_23_a_killed_sidecar_costs_no_job_and_doubles_no_row() {
    let mut pod = steps(Setup::steps("Steps")).await;
    let before = pod.history.last().unwrap().start_id.clone();
    let uid = step(&pod, "parts", "");
    job(&pod, &uid, "the first part is stored", |job| {
        job.rows.len() == 1
    })
    .await;
    pod.replace_sidecar(Signal::KILL).await;
    let after = pod.ready().await;
    assert_eq!(after.start_id, before, "the plugin was taken over");
    assert_eq!(after.commands.len(), 1, "its commands are known again");
    go(&pod);
    let done = over(&pod, &uid).await;
    assert_eq!(done.stands, Stands::Succeeded);
    assert_eq!(done.texts(), ["one", "two", "three", "four"]);
    assert_eq!(done.attempt, 1);
    assert_eq!(diary(&pod), [uid]);
}

pub async fn pcp_25_output_keeps_its_kind() {
    let pod = steps(Setup::steps("Steps")).await;
    let done = over(&pod, &step(&pod, "kinds", "")).await;
    assert_eq!(done.texts(), ["42.42", "666", "True", "[0, 255]"]);
    let kinds: Vec<bool> = done.rows.iter().map(|row| row.is_text).collect();
    assert_eq!(kinds, [true, true, true, false]);
}

pub async fn pcp_26_output_of_nothing_is_refused_and_the_job_stays() {
    let pod = steps(Setup::steps("Steps")).await;
    let uid = step(&pod, "nothing", "");
    let path = pod.path("work/refused");
    until("both were refused", || path.exists().then_some(())).await;
    assert_eq!(pod.text("work/refused"), "Pending");
    let held = pod.queue.job(&uid);
    assert!(matches!(held.stands, Stands::Claimed | Stands::Running) && held.rows.is_empty());
    go(&pod);
    assert_eq!(over(&pod, &uid).await.texts(), ["still mine"]);
}

pub async fn pcp_27_five_mebibytes_arrive_whole() {
    const BYTES: usize = 5 << 20;
    let pod = steps(Setup::steps("Steps")).await;
    let before = memory_kib(pod.sidecar(), "Rss");
    let done = over(&pod, &step(&pod, "big", &BYTES.to_string())).await;
    assert_eq!((done.stands, done.rows.len()), (Stands::Succeeded, 1));
    assert_eq!(done.rows[0].data, b"0123456789abcde\n".repeat(BYTES / 16));
    let after = memory_kib(pod.sidecar(), "Rss");
    assert!(
        after < before + 24 * 1024,
        "memory went from {before} to {after} KiB"
    );
}

pub async fn pcp_28_parts_arrive_in_their_order() {
    let pod = steps(Setup::steps("Steps")).await;
    let uid = step(&pod, "parts", "");
    job(&pod, &uid, "it runs", |job| job.stands == Stands::Running).await;
    go(&pod);
    let done = over(&pod, &uid).await;
    assert_eq!(done.texts(), ["one", "two", "three", "four"]);
    assert_eq!(
        done.path,
        [Stands::Claimed, Stands::Running, Stands::Succeeded]
    );
}

pub async fn pcp_29_an_error_fails_the_job() {
    let pod = steps(Setup::steps("Steps")).await;
    let failed = over(&pod, &step(&pod, "fail", "x")).await;
    assert_eq!(
        (failed.stands, failed.reason.as_str()),
        (Stands::Failed, "PluginError")
    );
    assert_eq!(failed.texts(), ["x"]);
}

pub async fn pcp_30_an_answer_after_an_error_is_late() {
    let pod = steps(Setup::steps("Steps")).await;
    let uid = step(&pod, "fail_then_answer", "x");
    let failed = job(&pod, &uid, "both rows are stored", |job| {
        job.rows.len() == 2
    })
    .await;
    assert_eq!(failed.stands, Stands::Failed);
    assert_eq!(failed.texts(), ["x", "too late"]);
    assert!(!failed.rows[0].is_late && failed.rows[1].is_late);
}

pub async fn pcp_33_optional_inputs_are_always_there() {
    let pod = steps(Setup::steps("Steps")).await;
    let uid = step(&pod, "tell", "me");
    let told = over(&pod, &uid).await;
    let told: Value = serde_json::from_slice(&told.rows[0].data).unwrap();
    let command = &told["job"]["JobCommand"];
    assert_eq!(command["OptionalInputs"], Value::Array(vec![]));
    assert_eq!(command["CommandName"], "step");
    assert_eq!(command["Inputs"][1]["Value"], "me");
    assert_eq!(told["arguments"], serde_json::json!([["tell", "me"], []]));
    assert_eq!(told["job"]["id"], uid.as_str());
}

pub async fn pcp_34_no_commands_show_as_a_placeholder_and_a_warning() {
    let mut pod = Pod::start(Setup::steps("Empty")).await;
    let instance = pod.ready().await;
    assert_eq!(instance.commands.len(), 1);
    assert_eq!(instance.commands[0].name, "Functionality Error");
    assert!(!instance.commands[0].output);
    let warnings = instance.warnings.join("\n");
    assert!(warnings.contains("Functionality Error"), "{warnings}");
}

pub async fn pcp_38_a_level_of_syslog_starts() {
    let pod = steps(Setup::steps("Steps").env("LOGLEVEL", "INFORMATIONAL")).await;
    let done = over(&pod, &step(&pod, "level", "")).await;
    assert_eq!(done.texts(), ["20"], "INFO is 20");
}

pub async fn pcp_39_telemetry_without_a_target_is_nothing() {
    let pod = steps(Setup::steps("Steps")).await;
    let inputs = [("What", "telemetry"), ("Argument", "")];
    let uid = pod.queue.submit_to("step", &inputs, "192.0.2.5", "");
    let done = over(&pod, &uid).await;
    assert_eq!(done.texts(), [r#"[null, null, "TypeError"]"#]);
    let log = pod.text("launcher.err");
    assert!(
        log.contains("no target") && log.contains("192.0.2.77"),
        "{log}"
    );
}

pub async fn pcp_40_sigterm_runs_stop() {
    let mut pod = steps(Setup::steps("Steps")).await;
    let uid = step(&pod, "hold", "");
    holds(&pod).await;
    pod.terminate_launcher();
    assert_eq!(pod.launcher_exit_code().await, Some(0));
    assert!(pod.path("work/stopped").exists(), "_stop was run");
    // Nobody will answer; the job follows its policy.
    let lost = over(&pod, &uid).await;
    assert_eq!(
        (lost.stands, lost.reason.as_str()),
        (Stands::Failed, "PluginLost")
    );
}

pub async fn pcp_41_a_restarted_plugin_answers_what_it_recovered() {
    // The grace counts from the end of the process.
    let setup = Setup::steps("Steps")
        .quick()
        .with(|config| config.jobs.recover_seconds = 30);
    let pod = steps(setup).await;
    let uid = step(&pod, "track_and_die", "");
    let done = over(&pod, &uid).await;
    assert_eq!(done.stands, Stands::Succeeded);
    assert_eq!(done.texts(), ["answered by the next process"]);
    assert_eq!(done.attempt, 1);
    assert_eq!(diary(&pod), [uid]);
}

pub async fn pcp_43_a_loop_without_sleep_costs_little() {
    const SPAN: Duration = Duration::from_secs(10);
    let pod = steps(Setup::steps("Steps")).await;
    // The plugin asks as often as it can; answers come later and later.
    sleep(Duration::from_secs(3)).await;
    let (before, asks) = (processor_time(pod.sidecar()), pod.queue.asks());
    sleep(SPAN).await;
    let used = processor_time(pod.sidecar()) - before;
    let asked = pod.queue.asks() - asks;
    assert!(
        used < SPAN * 5 / 100,
        "the sidecar used {used:?} in {SPAN:?}"
    );
    assert!((5..=60).contains(&asked), "{asked} asks in {SPAN:?}");
    // A job that comes is not late for it.
    let begin = std::time::Instant::now();
    over(&pod, &step(&pod, "echo", "")).await;
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
}

pub async fn a_plugin_without_work_or_workers_costs_nothing() {
    const SPAN: Duration = Duration::from_secs(6);
    let pod = steps(Setup::steps("Empty")).await;
    sleep(Duration::from_secs(4)).await;
    let before = processor_time(pod.sidecar());
    sleep(SPAN).await;
    let used = processor_time(pod.sidecar()) - before;
    assert!(used < SPAN / 100, "the sidecar used {used:?} in {SPAN:?}");
}

pub async fn the_environment_is_what_a_plugin_of_the_family_expects() {
    let setup = Setup::steps("Steps")
        .env("PLUGIN_NAME", "the-users-own")
        .env("PLUGIN_OWN", "stays")
        .env("PORT", "1");
    let port = setup.port().to_string();
    let pod = steps(setup).await;
    let told = over(&pod, &step(&pod, "environment", "")).await;
    let told: Value = serde_json::from_slice(&told.rows[0].data).unwrap();
    let expected = serde_json::json!({
        "PORT": port,
        "RETHINK_HOST": "127.0.0.1",
        "STAGE": "TESTING",
        "PLUGIN_NAME": "the-users-own",
        "PLUGIN_OWN": "stays",
        "PLUGIN": null,
        "LOGLEVEL": null,
    });
    assert_eq!(told, expected);

    let setup = Setup::steps("Steps").with(|config| {
        if let patchbay_protocol::pod_config::FamilyConfig::PcpController(family) =
            &mut config.protocol
        {
            family.class_name = Some("Steps".into());
        }
    });
    let pod = steps(setup).await;
    let told = over(&pod, &step(&pod, "environment", "")).await;
    let told: Value = serde_json::from_slice(&told.rows[0].data).unwrap();
    assert_eq!(
        (&told["PLUGIN"], &told["PLUGIN_NAME"]),
        (&"Steps".into(), &"plugin".into())
    );
}

pub async fn a_job_in_hand_is_answered_before_a_stop() {
    let setup = Setup::steps("Steps").with(|config| config.shutdown.drain_seconds = 30);
    let mut pod = steps(setup).await;
    let uid = step(&pod, "hold", "");
    holds(&pod).await;
    pod.terminate_launcher();
    pod.wait("the stop", |instance| instance.phase() == Phase::Stopping)
        .await;
    let next = step(&pod, "echo", "never given");
    go(&pod);
    assert_eq!(over(&pod, &uid).await.texts(), ["held"]);
    assert_eq!(pod.launcher_exit_code().await, Some(0));
    assert_eq!(diary(&pod), [uid]);
    assert_eq!(pod.queue.job(&next).stands, Stands::Ready);
}

pub async fn a_plugin_that_returns_is_started_again_and_told() {
    let mut pod = steps(Setup::steps("Steps")).await;
    assert_eq!(
        over(&pod, &step(&pod, "return", "")).await.texts(),
        ["the last one"]
    );
    let ended = pod.failure().await;
    assert!(
        ended.message.contains("of its own will"),
        "{}",
        ended.message
    );
    assert!(ended.commands.is_empty());
    let exit = ended.last_exit.unwrap();
    assert_eq!(
        (exit.how, exit.ended_by.as_str()),
        (Some(How::Code(0)), "Itself")
    );
}

pub async fn a_plugin_that_never_starts_is_told_what_to_call() {
    let setup = Setup::steps("Steps").with(|config| {
        if let patchbay_protocol::pod_config::FamilyConfig::PcpController(family) =
            &mut config.protocol
        {
            family.start_timeout_seconds = 1;
        }
    });
    let silent = Setup {
        command: [
            "python3",
            "-c",
            "import time; print('hello', flush=True); time.sleep(1000)",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..setup
    };
    let mut pod = Pod::start(silent).await;
    let failed = pod.failure().await;
    assert_eq!(failed.reason, "StartTimeout");
    assert!(
        failed.message.contains("src.controller_plugin"),
        "{}",
        failed.message
    );

    let missing = Setup::controller(PathBuf::from("/nowhere/Missing.py"));
    let mut pod = Pod::start(missing).await;
    let failed = pod.failure().await;
    assert_eq!(failed.reason, "ExitedEarly");
    assert!(
        failed.message.contains("exit code 99") && failed.message.contains("Missing.py"),
        "{}",
        failed.message
    );
}

pub async fn answers_wait_for_a_sidecar_that_is_away() {
    let mut pod = steps(Setup::steps("Steps")).await;
    let uid = step(&pod, "hold", "");
    holds(&pod).await;
    pod.end_sidecar(Signal::KILL).await;
    go(&pod);
    // The plugin answers meanwhile, again and again.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(pod.queue.job(&uid).stands, Stands::Claimed);
    pod.start_sidecar().await;
    let done = over(&pod, &uid).await;
    assert_eq!(
        (done.stands, done.texts()),
        (Stands::Succeeded, vec!["held".to_owned()])
    );
    assert_eq!(pod.ready().await.restarts, 0);
}

/// An address of this machine that stands for a client.
pub fn client(last: u8) -> String {
    Ipv4Addr::new(127, 88, 0, last).to_string()
}
