//! Who writes a store of objects: an object beside it, made where there is none and renewed while
//! its holder lives.
//!
//! Clocks of different machines are not compared. Who wants a lease watches it: one that does not
//! change for long enough is of a writer that is gone. On the same machine the system knows.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use object_store::UpdateVersion;
use physicnet_stream::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::time::{timeout, timeout_at};

use super::TAKEOVER;
use super::runtime::{begin, wait};
use super::site::{Put, Site};

/// How often a lease is renewed.
const BEAT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 20_000 });
/// A lease that was not renewed for so long is free.
pub(super) const SILENCE: Duration = Duration::from_millis(if cfg!(test) { 1_000 } else { 60_000 });
/// How often it is looked at by who waits for it.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });
/// What follows the store's name.
const SUFFIX: &str = ".lease";

/// The right to write a store, until it is dropped.
pub(super) struct Lease {
    held: Arc<Held>,
}

/// A lease as those see it who write under it.
pub(super) struct Held {
    /// Where the lease lies.
    site: Site,
    state: Mutex<State>,
    /// Whose turn it is to renew.
    turn: tokio::sync::Mutex<()>,
}

struct State {
    record: Record,
    version: UpdateVersion,
    /// When the last renewal that succeeded was sent: those who watch saw it no sooner.
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
    fn keep(site: Site, mut record: Record, version: UpdateVersion) -> Result<Self> {
        // A store that keeps no conditions would let another writer in as well.
        let refused = |beat: u64, version: Option<UpdateVersion>, condition: &str| match put(
            &site,
            &Record { beat, ..record.clone() },
            version,
        )? {
            Put::Refused => Ok(()),
            Put::Done(_) => {
                let why = format!(
                    "the store does not keep `{condition}`, so writers cannot be told apart; \
                         write to another one"
                );
                Err(Error::new(site.name(""), why))
            }
        };
        refused(1, None, "If-None-Match: *")?;
        let renewed = Instant::now();
        let now = put(&site, &Record { beat: 1, ..record.clone() }, Some(version.clone()))?;
        let Put::Done(now) = now else {
            let why = "another writer took it the same moment; start again";
            return Err(Error::new(site.name(""), why));
        };
        refused(2, Some(version), "If-Match")?;
        record.beat = 1;
        let state = State { record, version: now, renewed, lost: None, over: false };
        let turn = tokio::sync::Mutex::default();
        let held = Arc::new(Held { site, state: Mutex::new(state), turn });
        let renewing = Arc::clone(&held);
        begin(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                let _turn = renewing.turn.lock().await;
                if renewing.state().over {
                    return;
                }
                // What fails is tried again; who writes looks at how long ago it succeeded.
                if let Err(error) = renewing.renew().await {
                    tracing::warn!(%error, "a lease was not renewed; trying again");
                }
            }
        })?;
        Ok(Self { held })
    }

    /// The lease as those see it who write under it.
    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    /// What no other holder has.
    pub(super) fn token(&self) -> String {
        self.held.state().record.token.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.state().over = true;
        let held = Arc::clone(&self.held);
        let give_back = async move {
            let _turn = held.turn.lock().await;
            // It may be another's by now; just renewed, it is nobody's for a while.
            if held.renew().await? {
                held.site.remove("").await?;
            }
            Result::<()>::Ok(())
        };
        // What is not given back is free a while later.
        let _ = wait(async { timeout(SILENCE / 2, give_back).await });
    }
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when nobody else takes it, with as much again for what is on its way by then.
    fn until(&self) -> Instant {
        self.state().renewed + SILENCE / 2
    }

    /// Does what `put` begins for as long as the lease is held. Where it lapses that is given up,
    /// however often it would have been tried again, and begun anew if the lease can be renewed.
    ///
    /// # Errors
    /// What `put` says; and when another writer has the lease, or that cannot be made sure.
    pub(super) async fn during<T, F: Future<Output = Result<T>>>(
        &self,
        put: impl Fn() -> F,
    ) -> Result<T> {
        loop {
            self.check().await?;
            let mut going = pin!(put());
            loop {
                let until = self.until();
                match timeout_at(until.into(), &mut going).await {
                    Ok(done) => return done,
                    // It was renewed meanwhile.
                    Err(_) if self.until() > until => {}
                    Err(_) => break,
                }
            }
        }
    }

    /// Makes sure that it is held.
    async fn check(&self) -> Result<()> {
        while !self.is_fresh()? {
            let _turn = self.turn.lock().await;
            if !self.is_fresh()? {
                self.renew().await?;
            }
        }
        Ok(())
    }

    fn is_fresh(&self) -> Result<bool> {
        if let Some(holder) = &self.state().lost {
            let why = format!("was lost to {holder}, which writes the store now");
            return Err(Error::new(self.site.name(""), why));
        }
        Ok(Instant::now() < self.until())
    }

    /// Renews it; false where that has to be tried again, or it is lost.
    async fn renew(&self) -> Result<bool> {
        let (record, version) = {
            let state = self.state();
            let record = Record { beat: state.record.beat + 1, ..state.record.clone() };
            (record, state.version.clone())
        };
        let sent = Instant::now();
        let put = self.site.put_over("", record.bytes(), Some(version)).await?;
        if let Put::Done(version) = put {
            let mut state = self.state();
            (state.record, state.version, state.renewed) = (record, version, sent);
            return Ok(true);
        }
        let there = self.site.get("", None).await?;
        let read = |(bytes, version): (Vec<u8>, _)| {
            Some((serde_json::from_slice::<Record>(&bytes).ok()?, version))
        };
        let mut state = self.state();
        match there.and_then(read) {
            // An earlier renewal, whose answer was lost: who knows when it came.
            Some((there, version)) if there.token == record.token => {
                (state.record, state.version) = (there, version);
            }
            Some((there, _)) => state.lost = Some(there.holder),
            None => state.lost = Some("nobody that is known".to_owned()),
        }
        Ok(false)
    }
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
        let began = began(&stat(id).ok()?)?;
        Some(Self { machine: format!("{} {}", boot.trim(), seen.display()), id, began })
    }

    /// Whether it lives; `None` where that cannot be seen from here.
    fn lives(&self) -> Option<bool> {
        let own = Self::of(std::process::id())?;
        if own.machine != self.machine {
            return None;
        }
        match stat(self.id) {
            Ok(stat) => Some(began(&stat)? == self.began),
            Err(error) => is_gone(&error).then_some(false),
        }
    }
}

/// What the system tells of a process, in one line.
fn stat(id: u32) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
}

/// When a process began, by that line; nothing (but not none) where it has ended, and is listed
/// until its parent asks for it.
fn began(stat: &str) -> Option<String> {
    // The name of the program, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let ended = ["Z", "X"].contains(&fields.next()?);
    let began = fields.nth(18)?;
    Some(if ended { String::new() } else { began.to_owned() })
}

/// Whether there is no such process: whatever else keeps the line from being read says nothing of
/// it, nor does its absence where the system hides the processes of others.
fn is_gone(error: &io::Error) -> bool {
    const NO_SUCH_PROCESS: i32 = 3;
    let absent =
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS);
    absent && Path::new("/proc/1/stat").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_only_where_the_system_says_so() {
        assert!(is_gone(&stat(u32::MAX).unwrap_err()));
        let shut = [io::ErrorKind::PermissionDenied, io::ErrorKind::OutOfMemory];
        assert!(shut.iter().all(|kind| !is_gone(&io::Error::from(*kind))));
        assert_eq!(
            began("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 0").unwrap(),
            "4711"
        );
        assert_eq!(
            began("7 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 0").unwrap(),
            ""
        );
        assert_eq!(began("7 (a"), None);
    }
}
