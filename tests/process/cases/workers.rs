//! External workers of PCP controller plugins: programs that connect to the pod's address and are told
//! apart by their own.

use super::pcp::{client, job, worker};
use crate::pod::Pod;
use crate::programs;
use crate::queue::Stands;
use crate::setup::{POD_IPV4, POD_IPV6, Setup};
use patchbay_protocol::session::Phase;
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The example's plugin: workers get one line with a target and answer with lines.
fn scraper() -> Setup {
    Setup::controller(programs::source("examples/pcp/scraper.py"))
}

/// One line of the plugin's.
async fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    let reading = stream.read_line(&mut text);
    timeout(Duration::from_secs(20), reading)
        .await
        .expect("a line in time")
        .unwrap();
    text.trim_end().to_owned()
}

/// Waits until the job is done, with this answer.
async fn done(pod: &Pod, uid: &str, answer: &str) {
    let done = job(pod, uid, "it is done", |job| {
        job.stands == Stands::Succeeded
    })
    .await;
    let said = done.texts().concat();
    assert!(said.contains(answer), "{said:?}");
}

pub async fn two_workers_of_two_families_get_their_own_jobs() {
    let setup = scraper();
    let port = setup.port();
    let mut pod = Pod::start(setup).await;
    pod.ready().await;
    let clients = [
        (client(1), POD_IPV4),
        (client(2), POD_IPV4),
        ("::1".to_owned(), POD_IPV6),
    ];
    let submitted: Vec<String> = clients
        .iter()
        .map(|(location, _)| {
            let target = format!("http://192.0.2.1/?for={location}");
            pod.queue
                .submit_to("fetch", &[("Target", &target)], location, &port.to_string())
        })
        .collect();
    // In another order than the jobs'.
    for number in [2, 1, 0] {
        let (from, to) = &clients[number];
        let mut stream = BufReader::new(worker(from, to, port).await);
        let target = line(&mut stream).await;
        assert_eq!(target, format!("http://192.0.2.1/?for={from}"));
        let answer = format!("seen by {from}\n\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        done(&pod, &submitted[number], &format!("seen by {from}")).await;
    }
    let rows: Vec<usize> = submitted
        .iter()
        .map(|uid| pod.queue.job(uid).rows.len())
        .collect();
    assert!(rows.iter().all(|rows| *rows >= 1));
}

pub async fn a_worker_is_the_same_one_for_the_next_sidecar() {
    let setup = scraper();
    let port = setup.port();
    let mut pod = Pod::start(setup).await;
    pod.ready().await;
    let first = client(11);
    for from in [&first, &client(12)] {
        let mut stream = BufReader::new(worker(from, POD_IPV4, port).await);
        assert_eq!(line(&mut stream).await, "", "there is no job for it");
    }
    let path = pod.path("private/workers");
    let book = || std::fs::read_to_string(&path).unwrap_or_default();
    let before = book();
    assert_eq!(before.lines().count(), 2);
    pod.replace_sidecar(Signal::KILL).await;
    pod.ready().await;
    let uid = pod
        .queue
        .submit_to("fetch", &[("Target", "x")], &first, &port.to_string());
    let mut stream = BufReader::new(worker(&first, POD_IPV4, port).await);
    assert_eq!(line(&mut stream).await, "x");
    stream.write_all(b"y\n\n").await.unwrap();
    done(&pod, &uid, "y").await;
    assert_eq!(book(), before, "nobody got another address");
}

pub async fn a_killed_plugin_listens_again_at_once() {
    // It sets no SO_REUSEADDR: with a connection of the last process in the kernel's memory, it
    // could not bind its port for a minute.
    let setup = Setup::steps("Sample").quick();
    let port = setup.port();
    let mut pod = Pod::start(setup).await;
    for round in 1..=3 {
        let instance = pod.ready().await;
        assert_eq!(instance.restarts, round - 1, "{}", instance.message);
        let text = port.to_string();
        let uid = pod
            .queue
            .submit_to("fetch", &[("Target", "x")], &client(21), &text);
        let held = worker(&client(21), POD_IPV4, port).await;
        job(&pod, &uid, "it is done", |job| {
            job.stands == Stands::Succeeded
        })
        .await;
        // One that the plugin closes, and one that it has open when it dies.
        let other = worker(&client(22), POD_IPV4, port).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        pod.kill_plugin();
        let start_id = instance.start_id;
        pod.wait("another process", |instance| {
            instance.phase() == Phase::Ready && instance.start_id != start_id
        })
        .await;
        drop((held, other));
    }
}

pub async fn a_plugin_that_listens_everywhere_is_told() {
    let setup = Setup::steps("Open");
    let port = setup.port();
    let mut pod = Pod::start(setup).await;
    let instance = pod
        .wait("the warning", |instance| !instance.warnings.is_empty())
        .await;
    assert!(
        instance.warnings[0].contains("straight from the kernel"),
        "{:?}",
        instance.warnings
    );
    let mut stream = worker(&client(31), POD_IPV4, port).await;
    let mut told = String::new();
    stream.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, client(31));
}
