//! Who writes a store of objects: an object beside it, made where there is none and renewed while
//! its holder lives.
//!
//! Clocks of different machines are not compared. Who wants a lease watches it: one that does not
//! change for long enough is of a writer that is gone. On the same machine the system knows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use object_store::UpdateVersion;
use physicnet_stream::{Error, Result};
use serde::{Deserialize, Serialize};

use super::TAKEOVER;
use super::runtime::{begin, wait};
use super::site::{Put, Site};

/// How often a lease is renewed.
const BEAT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 20_000 });
/// A lease that was not renewed for so long is free.
const SILENCE: Duration = Duration::from_millis(if cfg!(test) { 1_000 } else { 60_000 });
/// How often it is looked at by who waits for it.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });
/// What follows the store's name.
const SUFFIX: &str = ".lease";

/// The right to write a store, until it is dropped.
pub(super) struct Lease {
    held: Arc<Held>,
}

struct Held {
    /// Where the lease lies.
    site: Site,
    state: Mutex<State>,
}

struct State {
    record: Record,
    version: UpdateVersion,
    renewed: Instant,
    /// Who has it now, if that is somebody else.
    lost: Option<String>,
    /// Whether it was given back.
    over: bool,
}

/// What a lease says.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    /// For people.
    holder: String,
    /// No other holder's.
    token: String,
    /// How often it was renewed.
    beat: u64,
    /// The process, where it can be looked up.
    process: Option<Process>,
}

/// A process, for those who see the same ones.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Process {
    /// This start of this machine, and the processes that are seen from there.
    machine: String,
    id: u32,
    /// When it began: ids come again.
    began: String,
}

impl Lease {
    /// Takes the lease of the store at `site`, or waits for who has it to end.
    ///
    /// # Errors
    /// When another one is writing, naming it, or where the store keeps no conditions.
    pub(super) fn take(site: &Site) -> Result<Self> {
        let site = site.beside(SUFFIX);
        let record = Record::new();
        let begun = Instant::now();
        let mut seen: Option<(Record, Instant)> = None;
        let mut alive = false;
        loop {
            let Some((bytes, version)) = get(&site)? else {
                match put(&site, &record, None)? {
                    Put::Done(version) => return Self::keep(site, record, version),
                    Put::Refused => continue,
                }
            };
            // What is no lease of ours is read as one that nobody renews.
            let other: Record = serde_json::from_slice(&bytes).unwrap_or_else(|_| Record {
                holder: "nobody that is known".to_owned(),
                token: String::new(),
                beat: 0,
                process: None,
            });
            alive |= seen.as_ref().is_some_and(|(known, _)| *known != other);
            let since = match &seen {
                Some((known, since)) if *known == other => *since,
                _ => Instant::now(),
            };
            seen = Some((other.clone(), since));
            let gone = match other.process.as_ref().and_then(Process::lives) {
                Some(lives) => {
                    alive |= lives;
                    !lives
                }
                None => since.elapsed() > SILENCE,
            };
            if gone {
                match put(&site, &record, Some(version))? {
                    Put::Done(version) => return Self::keep(site, record, version),
                    Put::Refused => continue,
                }
            }
            if alive && begun.elapsed() > TAKEOVER {
                let why = format!(
                    "is being written by {}; end that one, or choose another path (its lease is {})",
                    other.holder,
                    site.name("")
                );
                let store = site.name("");
                return Err(Error::new(store.trim_end_matches(SUFFIX), why));
            }
            sleep(LOOK);
        }
    }

    /// Renews it from now on.
    fn keep(site: Site, record: Record, version: UpdateVersion) -> Result<Self> {
        // A store that keeps no conditions would let another writer in as well.
        if let Put::Done(_) = put(&site, &Record { beat: 1, ..record.clone() }, None)? {
            let why = "the store does not keep `If-None-Match: *`, so writers cannot be told \
                       apart; write to another one";
            return Err(Error::new(site.name(""), why));
        }
        let renewed = Instant::now();
        let state = State { record, version, renewed, lost: None, over: false };
        let held = Arc::new(Held { site, state: Mutex::new(state) });
        let renewing = Arc::clone(&held);
        begin(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                if renewing.state.lock().unwrap_or_else(PoisonError::into_inner).over {
                    return;
                }
                // What fails is tried again; who writes looks at how long ago it succeeded.
                if let Err(error) = renew(&renewing).await {
                    tracing::warn!(%error, "a lease was not renewed; trying again");
                }
            }
        })?;
        Ok(Self { held })
    }

    /// Whether it is still held.
    ///
    /// # Errors
    /// When another writer has it, or that cannot be made sure.
    pub(super) fn check(&self) -> Result<()> {
        let late = {
            let state = self.held.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.lost.is_none() && state.renewed.elapsed() > SILENCE / 2
        };
        if late {
            let held = Arc::clone(&self.held);
            wait(async move { renew(&held).await })??;
        }
        let state = self.held.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.lost {
            None => Ok(()),
            Some(holder) => {
                let why = format!("was lost to {holder}, which writes the store now");
                Err(Error::new(self.held.site.name(""), why))
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = {
            let mut state = self.held.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.over = true;
            state.lost.is_none()
        };
        // Without the lock, for which a renewal may wait.
        if held {
            let site = self.held.site.clone();
            // Otherwise it is free a while later.
            let _ = wait(async move { site.remove("").await });
        }
    }
}

async fn renew(held: &Held) -> Result<()> {
    let (record, version) = {
        let state = held.state.lock().unwrap_or_else(PoisonError::into_inner);
        let record = Record { beat: state.record.beat + 1, ..state.record.clone() };
        (record, state.version.clone())
    };
    let put = held.site.put_over("", record.bytes(), Some(version)).await?;
    let (version, lost) = match put {
        Put::Done(version) => (Some(version), None),
        Put::Refused => {
            let there = held.site.get("", None).await?;
            let read = |(bytes, version): (Vec<u8>, _)| {
                Some((serde_json::from_slice::<Record>(&bytes).ok()?, version))
            };
            match there.and_then(read) {
                // An earlier renewal, whose answer was lost.
                Some((there, version)) if there.token == record.token => (Some(version), None),
                Some((there, _)) => (None, Some(there.holder)),
                None => (None, Some("nobody that is known".to_owned())),
            }
        }
    };
    let mut state = held.state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(version) = version {
        (state.record, state.version, state.renewed) = (record, version, Instant::now());
    }
    state.lost = lost;
    Ok(())
}

fn get(site: &Site) -> Result<Option<(Vec<u8>, UpdateVersion)>> {
    let site = site.clone();
    wait(async move { site.get("", None).await })?
}

fn put(site: &Site, record: &Record, version: Option<UpdateVersion>) -> Result<Put> {
    let (site, bytes) = (site.clone(), record.bytes());
    wait(async move { site.put_over("", bytes, version).await })?
}

impl Record {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = std::process::id();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let host = host.or_else(|| std::env::var("HOSTNAME").ok());
        let host = host.map_or_else(|| "a host without a name".to_owned(), |h| h.trim().to_owned());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            holder: format!("process {id} on {host}"),
            token: format!("{host}-{id}-{now}-{count}"),
            beat: 0,
            process: Process::of(id),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        // Strings and numbers alone: it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Process {
    /// The process `id`, where the system tells of it.
    fn of(id: u32) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let seen = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name of the program, in brackets, may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        // One that has ended may stay listed until its parent asks for it.
        let ended = fields.next().is_some_and(|state| ["Z", "X"].contains(&state));
        let began = fields.nth(18).filter(|_| !ended)?.to_owned();
        Some(Self { machine: format!("{} {}", boot.trim(), seen.display()), id, began })
    }

    /// Whether it lives; `None` where that cannot be seen from here.
    fn lives(&self) -> Option<bool> {
        let own = Self::of(std::process::id())?;
        (own.machine == self.machine).then(|| Self::of(self.id).is_some_and(|now| now == *self))
    }
}
