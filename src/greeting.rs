//! How the processes of a cluster meet, before timely connects them.
//!
//! Timely waits for the others for ever, says little about it, and takes for granted that all are
//! alike. So every process first sends a line about itself to process 0, at the address where
//! timely's connections come in later, and gets one back: it begins, or why it does not.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use physicnet_stream::{SensorId, Stop};
use serde::{Deserialize, Serialize};

use crate::engine::Cluster;

/// How often whoever waits looks around.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a stranger at the door may take for its line.
const LINE: Duration = Duration::from_secs(2);
/// After so long it is said for whom it waits, and again after twice as long.
const PATIENCE: Duration = Duration::from_secs(3);
const BEGIN: &str = "begin";

/// What the processes of one job have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Worker threads of each process.
    pub(crate) workers: usize,
    /// How many processes there are. How each calls the others' addresses is its own affair.
    pub(crate) processes: usize,
    /// The sensors that have a name from the start, in order.
    pub(crate) sensors: Vec<SensorId>,
}

/// The line of a process other than the first.
#[derive(Serialize, Deserialize)]
struct Hello {
    physicnet: usize,
    job: Job,
}

/// Waits until all processes of `cluster` are there and do the same `job`; false where `stop` asks
/// before that.
///
/// # Errors
/// When this process's address cannot be listened at, or the processes disagree.
pub(crate) fn meet(cluster: &Cluster, job: &Job, stop: &Stop) -> Result<bool> {
    match cluster.process {
        0 => receive(cluster, job, stop),
        process => call(&cluster.hosts[0], process, job, stop),
    }
}

/// Says who is waited for, now and then.
struct Patience {
    next: Instant,
    wait: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { next: Instant::now() + PATIENCE, wait: PATIENCE }
    }

    fn waited(&mut self, say: impl FnOnce()) {
        if Instant::now() >= self.next {
            say();
            self.wait *= 2;
            self.next = Instant::now() + self.wait;
        }
        std::thread::sleep(GLANCE);
    }
}

/// Process 0: hears every other one.
fn receive(cluster: &Cluster, job: &Job, stop: &Stop) -> Result<bool> {
    let own = &cluster.hosts[0];
    let listener = TcpListener::bind(own).with_context(|| {
        format!("hosts: process 0 cannot listen at {own}; is another job there?")
    })?;
    listener.set_nonblocking(true)?;
    let mut there = BTreeMap::<usize, TcpStream>::new();
    let mut patience = Patience::new();
    while !stop.stopped() {
        match listener.accept() {
            Ok((stream, _)) => {
                // Whoever says something else is a stranger, and no reason to end.
                let Some((process, theirs)) = heard(&stream) else { continue };
                if there.get(&process).is_some_and(alive) {
                    answer(&stream, &format!("process {process} is there already; see `process`"));
                    continue;
                }
                if let Some(why) = unlike(job, process, &theirs) {
                    there.values().chain([&stream]).for_each(|other| answer(other, &why));
                    bail!(why);
                }
                there.insert(process, stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                there.retain(|_, stream| alive(stream));
                if there.len() + 1 == cluster.hosts.len() {
                    // Nobody who begins finds this door open instead of timely's.
                    drop(listener);
                    there.values().for_each(|stream| answer(stream, BEGIN));
                    return Ok(true);
                }
                patience.waited(|| {
                    let hosts = cluster.hosts.iter().enumerate().skip(1);
                    let missing = hosts.filter(|(process, _)| !there.contains_key(process));
                    let missing: Vec<_> =
                        missing.map(|(process, host)| format!("{process} at {host}")).collect();
                    tracing::info!("waiting for process {}", missing.join(", process "));
                });
            }
            // One who has gone again before he was let in.
            Err(_) => std::thread::sleep(GLANCE),
        }
    }
    Ok(false)
}

/// Another process: calls process 0 until it answers.
fn call(first: &str, process: usize, job: &Job, stop: &Stop) -> Result<bool> {
    let hello = Hello { physicnet: process, job: job.clone() };
    let hello = serde_json::to_string(&hello)? + "\n";
    let mut patience = Patience::new();
    let mut wait = || {
        patience.waited(|| tracing::info!("waiting for process 0 at {first}"));
    };
    while !stop.stopped() {
        let Some(mut stream) = connect(first) else {
            wait();
            continue;
        };
        stream.set_read_timeout(Some(GLANCE))?;
        if stream.write_all(hello.as_bytes()).is_err() {
            wait();
            continue;
        }
        let (mut stream, mut line) = (BufReader::new(stream), Vec::new());
        while !stop.stopped() {
            match stream.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => {
                    let line = String::from_utf8_lossy(&line);
                    return match line.trim_end() {
                        BEGIN => Ok(true),
                        why => Err(anyhow!("{why}")),
                    };
                }
                Err(error) if is_late(&error) => wait(),
                // It has gone again; it may come back.
                _ => break,
            }
        }
        wait();
    }
    Ok(false)
}

/// A connection to process 0, where there is one; an address that is not answered holds up
/// whoever wants to stop no longer than a line.
fn connect(first: &str) -> Option<TcpStream> {
    let mut addresses = first.to_socket_addrs().ok()?;
    addresses.find_map(|address| TcpStream::connect_timeout(&address, LINE).ok())
}

/// The line that a process sends. A stranger who says nothing, or one byte after another, holds
/// nobody up for longer than a line may take.
fn heard(mut stream: &TcpStream) -> Option<(usize, Job)> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(GLANCE)).ok()?;
    let (mut line, mut some, end) = (Vec::new(), [0; 4096], Instant::now() + LINE);
    while !line.ends_with(b"\n") {
        // No line of ours is longer, however many sensors it names.
        if Instant::now() >= end || line.len() > 64 << 20 {
            return None;
        }
        match stream.read(&mut some) {
            Ok(0) => return None,
            Ok(count) => line.extend_from_slice(&some[..count]),
            Err(error) if is_late(&error) => {}
            Err(_) => return None,
        }
    }
    let hello: Hello = serde_json::from_slice(&line).ok()?;
    Some((hello.physicnet, hello.job))
}

/// Why `process`, which does `theirs`, cannot join.
fn unlike(job: &Job, process: usize, theirs: &Job) -> Option<String> {
    let lacks = |a: &Job, b: &Job| {
        let absent = a.sensors.iter().find(|id| !b.sensors.contains(id));
        absent.map(|id| format!("no sensor {id}"))
    };
    let (what, its, ours) = if job.processes != theirs.processes {
        ("hosts", theirs.processes.to_string(), job.processes.to_string())
    } else if job.workers != theirs.workers {
        ("workers", theirs.workers.to_string(), job.workers.to_string())
    } else if let Some(absent) = lacks(job, theirs) {
        ("sensors", absent, "it".to_owned())
    } else {
        ("sensors", "it".to_owned(), lacks(theirs, job)?)
    };
    Some(format!(
        "{what}: process {process} has {its}, process 0 has {ours}; give every process of a cluster \
         the same job, hosts and workers, and start them again"
    ))
}

fn answer(mut stream: &TcpStream, what: &str) {
    // Who has gone needs no answer.
    let _ = writeln!(stream, "{what}");
}

/// Whether the other end is still there; it says nothing after its line.
fn alive(stream: &TcpStream) -> bool {
    let mut nothing = [0];
    stream.set_nonblocking(true).is_ok()
        && matches!(stream.peek(&mut nothing), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
