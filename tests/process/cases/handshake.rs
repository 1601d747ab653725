//! Cases 1 to 13: the line.

use super::fails;
use crate::calls::{proxy, who_am_i};
use crate::pod::{Pod, memory_kib};
use crate::setup::Setup;
use patchbay_protocol::session::Instance;

/// A pod that gets ready and answers a call.
async fn ready(setup: Setup) -> (Pod, Instance) {
    let mut pod = Pod::start(setup).await;
    let instance = pod.ready().await;
    who_am_i(&proxy(pod.proxy()).await).await;
    (pod, instance)
}

pub async fn case_01_a_plain_line_is_ready() {
    let (_pod, instance) = ready(Setup::relay(r"1|{version}|unix|{path}|grpc\n")).await;
    let handshake = instance.handshake.unwrap();
    assert_eq!((handshake.core_version, handshake.app_version), (1, 1));
    assert_eq!(
        (handshake.transport.as_str(), handshake.tls.as_str()),
        ("unix", "None")
    );
}

pub async fn case_02_the_highest_common_version_is_negotiated() {
    let (pod, instance) = ready(Setup::echo()).await;
    assert!(
        pod.text("launcher.out").trim_end().ends_with("|grpc|"),
        "the real line ends so"
    );
    let handshake = instance.handshake.unwrap();
    assert_eq!(handshake.app_version, 5);
    assert_eq!(handshake.offered, [3, 5]);
    let (_pod, instance) = ready(Setup::echo().versions(&[3])).await;
    assert_eq!(instance.handshake.unwrap().app_version, 3);
}

pub async fn case_03_carriage_return_and_spaces_are_passed_over() {
    ready(Setup::relay(r"  1|{version}|unix|{path}|grpc|  \r\n")).await;
}

pub async fn case_04_further_fields_are_ignored() {
    ready(Setup::relay(r"1|{version}|unix|{path}|grpc||true|future\n")).await;
}

pub async fn case_05_tcp_only_on_loopback() {
    let tcp = |line: &str| Setup::relay(line).env("RELAY_LISTEN", "tcp");
    let (_pod, instance) = ready(tcp(r"1|1|tcp|127.0.0.1:{port}|grpc\n")).await;
    assert_eq!(instance.handshake.unwrap().transport, "tcp");
    ready(tcp(r"1|1|tcp|:{port}|grpc\n")).await;
    fails(
        Setup::line("1|1|tcp|10.1.2.3:80|grpc"),
        "BadAddress",
        &["10.1.2.3:80", "loopback"],
    )
    .await;
}

pub async fn case_06_netrpc_is_unsupported() {
    fails(
        Setup::line("1|1|unix|$DIR/x"),
        "ProtocolUnsupported",
        &["netrpc"],
    )
    .await;
    fails(
        Setup::line("1|1|unix|$DIR/x|netrpc"),
        "ProtocolUnsupported",
        &["netrpc"],
    )
    .await;
    fails(
        Setup::line("1|1|unix|$DIR/x|"),
        "ProtocolUnsupported",
        &["empty"],
    )
    .await;
}

pub async fn case_07_another_core_version_is_refused() {
    fails(
        Setup::line("2|1|unix|x|grpc"),
        "CoreVersionUnsupported",
        &["core protocol 2"],
    )
    .await;
    fails(
        Setup::line("abc|1|unix|x|grpc"),
        "CoreVersionUnsupported",
        &["not a number"],
    )
    .await;
}

pub async fn case_08_another_application_version_is_refused() {
    let line = |line| Setup::line(line).versions(&[3, 5]);
    fails(
        line("1|7|unix|$DIR/x|grpc"),
        "AppVersionUnsupported",
        &["version 7", "3, 5"],
    )
    .await;
    fails(
        line("1|x|unix|$DIR/x|grpc"),
        "AppVersionUnsupported",
        &["not a number", "3, 5"],
    )
    .await;
    // A real plugin without a common version answers with its lowest.
    let real = Setup::echo().versions(&[4, 9]);
    fails(real, "AppVersionUnsupported", &["version 3", "4, 9"]).await;
}

pub async fn case_09_a_bad_address_is_refused() {
    for line in [
        "1|1|udp|x|grpc",
        "1|1|UNIX|x|grpc",
        "1|1|unix||grpc",
        "1|1|unix|/etc/x|grpc",
    ] {
        fails(Setup::line(line), "BadAddress", &[]).await;
    }
}

pub async fn case_10_a_banner_is_no_handshake_unless_skipped() {
    fails(
        Setup::line("hello"),
        "NotAHandshake",
        &["`hello`", "skipLines"],
    )
    .await;
    fails(Setup::line(""), "NotAHandshake", &["empty line"]).await;
    let banner = || Setup::echo().env("ECHO_BANNER", "welcome to echo");
    fails(banner(), "NotAHandshake", &["welcome to echo"]).await;
    let (pod, _) = ready(banner().family(|family| family.skip_lines = 1)).await;
    let log = pod.text("sidecar.log");
    assert!(
        log.contains("welcome to echo"),
        "the banner is not logged:\n{log}"
    );
}

pub async fn case_11_an_endless_line_is_no_handshake_and_costs_no_memory() {
    for (script, words) in [
        (
            "head -c 71680 /dev/zero | tr '\\0' x; exec sleep 1000",
            &["too long", "xxxx"][..],
        ),
        (
            "head -c 1048576 /dev/zero; exec sleep 1000",
            &["too long", "\\x00"][..],
        ),
        (
            "printf '\\377\\376 not text\\n'; exec sleep 1000",
            &["\\xff\\xfe not text"][..],
        ),
    ] {
        let mut pod = Pod::start(Setup::shell(script)).await;
        let instance = pod.failure().await;
        assert_eq!(instance.reason, "NotAHandshake", "{}", instance.message);
        for word in words {
            assert!(
                instance.message.contains(word),
                "{word:?} is not in {:?}",
                instance.message
            );
        }
        assert!(instance.message.len() <= 1024);
        let launcher = memory_kib(pod.launcher(), "Anonymous");
        assert!(
            launcher <= 512,
            "the launcher's memory grew to {launcher} KiB"
        );
        let sidecar = memory_kib(pod.sidecar(), "Anonymous");
        assert!(
            sidecar <= 16 * 1024,
            "the sidecar's memory grew to {sidecar} KiB"
        );
    }
}

pub async fn case_12_a_line_without_end_times_out_or_ends_early() {
    let stays = Setup::shell("printf %s \"1|1|unix|$DIR/x|grpc\"; exec sleep 1000").timeout(1);
    fails(stays, "StartTimeout", &["within 1 s", "line end"]).await;
    let ends = Setup::shell("printf %s \"1|1|unix|$DIR/x|grpc\"; exit 0");
    fails(ends, "ExitedEarly", &["1|1|unix|", "exit code 0"]).await;
}

pub async fn case_13_a_line_may_come_byte_by_byte() {
    ready(Setup::relay(r"1|{version}|unix|{path}|grpc\n").env("RELAY_PAUSE", "0.01")).await;
}
