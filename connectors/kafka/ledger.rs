//! One transaction after another: forecasts, dead letters and progress, all or nothing.
//!
//! ```text
//! claim: fence the older instance ─► read the progress ─► say who we are
//! commit: begin ─► messages, progress ─► commit ──┬─► done
//!            ▲                                    ├─► abort, and again
//!            └──── claim again, unless it had been committed or another instance took over
//! ```
//!
//! When a broker fails in the middle of a commit, nobody knows what became of it until the
//! progress is read: every transaction leaves its number there.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use physicnet_stream::{Error, Failure, Mark, Result, Resume, Stop, Time};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};
use rdkafka::util::Timeout;
use serde::{Deserialize, Serialize};

use super::config::{Delivery, KafkaSink};
use super::fence;
use super::limits::Limits;
use super::mirror::Mirror;
use super::producer::{Lost, Sender, arrived, producer, send, settle};
use super::progress::{Author, Progress};
use super::topics::Topics;

/// The bytes of messages that the client, which copies them, may hold at a time.
const AHEAD: usize = 2 << 20;
/// How long messages may be under way where no transaction binds them.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before trying again.
const BREATH: Duration = Duration::from_millis(500);
/// How long an instance that was fenced waits for another one to say that it took over.
const TAKEOVER: Duration = Duration::from_secs(5);
/// How often trouble is told.
const TELL: Duration = Duration::from_secs(10);

/// What follows from a progress that has gone.
const ANEW: &str = "it told where the job goes on: started again, the job begins anew and says again \
                    what it has said";

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) topic: String,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, String)>,
    /// Of a forecast.
    pub(super) reference_time: Option<Time>,
}

impl Letter {
    /// What it brings, without what brokers add.
    pub(super) fn bytes(&self) -> usize {
        let said = self.headers.iter().map(|(name, value)| name.len() + value.len());
        let content = [&self.key, &self.payload].into_iter().flatten().map(Vec::len);
        content.chain(said).sum()
    }
}

/// What one epoch adds to a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// A forecast or a dead letter.
    Letter(Letter),
    /// What a frame changes in the progress.
    Mark(Mark),
}

/// The names that a job goes by.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) transactional_id: String,
    pub(super) dead_letters: String,
    pub(super) progress: String,
}

impl Names {
    pub(super) fn new(config: &KafkaSink, job: &str) -> Self {
        let name = |said: &Option<String>, usual: &str| {
            said.clone().unwrap_or_else(|| format!("physicnet.{job}.{usual}"))
        };
        Self {
            transactional_id: format!("physicnet.{job}"),
            dead_letters: name(&config.dead_letters, "dead-letters"),
            progress: name(&config.progress, "progress"),
        }
    }
}

/// The one writer of a job's topics.
pub struct Claim {
    config: KafkaSink,
    names: Names,
    producer: Sender,
    author: Author,
    mirror: Mirror,
    limits: Limits,
    /// Dropped, it ends the watch for newer instances.
    _watch: Option<mpsc::Sender<()>>,
}

/// How an attempt failed.
enum Trouble {
    /// Nothing is committed, and the producer can go on.
    Aborted {
        error: KafkaError,
        /// Which messages were refused for the size of their batch: letters, then records.
        too_large: BTreeSet<usize>,
    },
    /// Nobody knows, and the producer is of no more use.
    Lost(KafkaError),
}

impl Claim {
    /// Makes this the one instance of the job: an older one can commit nothing any more. Says
    /// where the job goes on.
    ///
    /// # Errors
    /// When the topics or the settings are not as they should be, or `stop` asks.
    pub(super) fn new(
        config: &KafkaSink,
        names: &Names,
        sources: &[Arc<Topics>],
        mirror: Mirror,
        stop: &Stop,
    ) -> Result<(Self, Resume)> {
        let instance = RandomState::new().hash_one(std::process::id());
        let limits = Limits::new(&config.cluster, &names.dead_letters)?;
        let (mut told, mut tries) = (None, 0);
        loop {
            match Self::attempt(config, names, sources, instance) {
                Ok((producer, resume)) => {
                    let (config, names) = (config.clone(), names.clone());
                    let author = Author::new(instance, 0);
                    let mut claim =
                        Self { config, names, producer, author, mirror, limits, _watch: None };
                    // Of a partition where nothing comes as well.
                    claim.mirror.commit(&resume);
                    return Ok((claim, resume));
                }
                // Two that start at once fence one another; one of them is the last.
                Err(Start::Kafka(error)) if tries < 60 => {
                    tries += 1;
                    tell(&mut told, &format!("{}: {error}", config.cluster.brokers));
                    std::thread::sleep(BREATH);
                }
                Err(Start::Kafka(error)) => return Err(config.cluster.error("starting", error)),
                Err(Start::Away(error)) if tries < 60 => {
                    tries += 1;
                    tell(&mut told, &error.to_string());
                    std::thread::sleep(BREATH);
                }
                Err(Start::Told(error) | Start::Away(error)) => return Err(error),
            }
            if stop.stopped() {
                return Err(Error::new("starting", "was interrupted"));
            }
        }
    }

    fn attempt(
        config: &KafkaSink,
        names: &Names,
        sources: &[Arc<Topics>],
        instance: u64,
    ) -> Result<(Sender, Resume), Start> {
        let producer = producer(config, names)?;
        let exactly = config.delivery == Delivery::ExactlyOnce;
        if exactly {
            producer.init_transactions(Duration::from_secs(30))?;
        }
        // Only now can no other instance change what is read.
        let mut resume = Progress::read(&config.cluster, &names.progress)?.resume;
        // Where a partition begins is written down before it is read: `latest` means once.
        let mut begun = Resume::default();
        for topics in sources {
            begun.next.extend(topics.begin(&resume).map_err(Start::Away)?);
        }
        if exactly {
            producer.begin_transaction()?;
        }
        let author = Author::new(instance, 0);
        for (key, value) in Progress::records(&author, &begun)? {
            let record = BaseRecord::with_opaque_to(&names.progress, 0).partition(0);
            send(&producer, record.key(&key).payload(&value))?;
        }
        arrived(&producer, 0, Duration::from_secs(30))?;
        if exactly {
            producer.commit_transaction(Duration::from_secs(30))?;
        }
        resume.next.append(&mut begun.next);
        Ok((producer, resume))
    }

    /// Looks from now on whether a newer instance has started, and reports it to `failure`.
    ///
    /// # Errors
    /// When it cannot be looked for.
    pub(super) fn watch(&mut self, failure: &Failure) -> Result<()> {
        let (cluster, instance) = (&self.config.cluster, self.author.instance);
        self._watch = Some(fence::watch(cluster, &self.names, instance, failure.clone())?);
        Ok(())
    }

    /// Commits `entries`, however long the brokers take.
    ///
    /// # Errors
    /// When another instance of the job has taken over, or a message cannot be sent at all.
    pub(super) fn commit(&mut self, entries: Vec<Entry>) -> Result<()> {
        let (mut letters, mut changed) = (Vec::new(), Resume::default());
        for entry in entries {
            match entry {
                Entry::Letter(letter) => letters.push(letter),
                Entry::Mark(mark) => changed.apply(mark),
            }
        }
        self.author.transaction += 1;
        let (mut told, mut singly) = (None, false);
        loop {
            self.limits.heed(&mut letters);
            let records = Progress::records(&self.author, &changed)?;
            match self.attempt_commit(&letters, &records, singly) {
                Ok(()) => break,
                // Of several in a batch nobody says which one it is.
                Err(Trouble::Aborted { too_large, .. }) if too_large.len() > 1 && !singly => {
                    singly = true;
                }
                Err(Trouble::Aborted { error, too_large }) => {
                    let refused = too_large.first().and_then(|at| letters.get_mut(*at));
                    if let Some(letter) = refused {
                        self.limits.exceeded(letter)?;
                        continue;
                    }
                    if let Some(why) = lasting(&error) {
                        return Err(Error::new(self.topics(), format!("{error}: {why}")));
                    }
                    if unknown(&error) {
                        self.there()?;
                    }
                    tell(
                        &mut told,
                        &format!("a transaction was aborted and is tried again: {error}"),
                    );
                    std::thread::sleep(BREATH);
                }
                Err(Trouble::Lost(error)) => {
                    tell(&mut told, &format!("a transaction came to nothing we know: {error}"));
                    if self.reclaim(&mut told)? {
                        break;
                    }
                }
            }
        }
        self.mirror.commit(&changed);
        Ok(())
    }

    /// Fails where a topic is known to have gone that this job writes to: nobody makes it anew
    /// while the job waits for it in silence.
    fn there(&self) -> Result<()> {
        let Self { config, names, .. } = self;
        let made = "started again, the job makes it and goes on; what was in it is lost, no more";
        let written = config.topic.iter().chain([&names.dead_letters]).map(|name| (name, made));
        for (name, then) in [(&names.progress, ANEW)].into_iter().chain(written) {
            // Brokers that do not say so may be away.
            if let Ok(None) = config.cluster.partitions(name) {
                let why = format!("has gone from {}; {then}", config.cluster.brokers);
                return Err(Error::new(format!("topic {name}"), why));
            }
        }
        Ok(())
    }

    fn topics(&self) -> String {
        format!("topic {}", self.config.topic.as_deref().unwrap_or(&self.names.dead_letters))
    }

    /// Sends and commits all of it, or says why not. `singly`, each message is a batch of its own.
    fn attempt_commit(
        &self,
        letters: &[Letter],
        records: &[(String, Vec<u8>)],
        singly: bool,
    ) -> Result<(), Trouble> {
        let producer = &self.producer;
        producer.context().take();
        let exactly = self.config.delivery == Delivery::ExactlyOnce;
        if !exactly {
            // Nothing binds them: the progress may only tell of letters that have arrived.
            let sent = self.send_letters(letters, singly);
            let sent = sent.and_then(|()| arrived(producer, 0, PATIENCE));
            let sent = sent.and_then(|()| self.send_records(letters.len(), records, singly));
            let Err(error) = sent.and_then(|()| arrived(producer, 0, PATIENCE)) else {
                return Ok(());
            };
            // What is still under way would be taken for a part of the next attempt.
            let settled = settle(producer, PATIENCE).is_ok();
            if settled && producer.client().fatal_error().is_none() {
                let too_large = producer.context().take().too_large;
                return Err(Trouble::Aborted { error, too_large });
            }
            return Err(Trouble::Lost(error));
        }
        producer.begin_transaction().map_err(Trouble::Lost)?;
        let sent = self.send_letters(letters, singly);
        let sent = sent.and_then(|()| self.send_records(letters.len(), records, singly));
        let committed = sent.and_then(|()| {
            arrived(producer, 0, Duration::MAX)?;
            loop {
                match producer.commit_transaction(Timeout::Never) {
                    Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
                    told => break told,
                }
            }
        });
        let Err(error) = committed else { return Ok(()) };
        let abort = match &error {
            KafkaError::Transaction(error) => error.txn_requires_abort(),
            _ => true,
        };
        if abort && producer.client().fatal_error().is_none() {
            // Undelivered messages hold up an abort that has to wait for them.
            producer.purge(PurgeConfig::default().queue().inflight());
            let flushed = settle(producer, Duration::from_secs(5));
            if flushed.and_then(|()| producer.abort_transaction(Timeout::Never)).is_ok() {
                // What went wrong with a message says more than that the transaction did.
                let Lost { first, too_large } = producer.context().take();
                return Err(Trouble::Aborted { error: first.unwrap_or(error), too_large });
            }
        }
        Err(Trouble::Lost(error))
    }

    fn send_letters(&self, letters: &[Letter], singly: bool) -> Result<(), KafkaError> {
        for (at, letter) in letters.iter().enumerate() {
            let Letter { topic, key, payload, headers, .. } = letter;
            let room = if singly { 0 } else { AHEAD.saturating_sub(letter.bytes()) };
            arrived(&self.producer, room, Duration::MAX)?;
            let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, at);
            record.key = key.as_deref();
            record.payload = payload.as_deref();
            if !headers.is_empty() {
                let owned = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                    all.insert(Header { key, value: Some(value) })
                });
                record = record.headers(owned);
            }
            send(&self.producer, record)?;
        }
        Ok(())
    }

    /// Sends the records, which are counted from `first`.
    fn send_records(
        &self,
        first: usize,
        records: &[(String, Vec<u8>)],
        singly: bool,
    ) -> Result<(), KafkaError> {
        for (at, (key, value)) in records.iter().enumerate() {
            if singly {
                arrived(&self.producer, 0, Duration::MAX)?;
            }
            let record = BaseRecord::with_opaque_to(&self.names.progress, first + at).partition(0);
            send(&self.producer, record.key(key).payload(value))?;
        }
        Ok(())
    }

    /// After a transaction whose end nobody knows: a new producer, and whether it was committed.
    fn reclaim(&mut self, told: &mut Option<Instant>) -> Result<bool> {
        if self.config.delivery == Delivery::AtLeastOnce {
            self.producer = producer(&self.config, &self.names)?;
            return Ok(false);
        }
        let begun = Instant::now();
        loop {
            // A newer instance fences first and says so next: give it the time to.
            let known = self.last_author();
            match &known {
                Ok(Some(last)) if last.instance != self.author.instance => {
                    return Err(fence::taken_over(&self.names.transactional_id));
                }
                // Somebody has made it anew: what we would add to it tells half.
                Ok(None) => {
                    let why = format!("has lost its records; {ANEW}");
                    return Err(Error::new(format!("topic {}", self.names.progress), why));
                }
                Ok(_) if begun.elapsed() > TAKEOVER => {
                    let made = producer(&self.config, &self.names).map_err(Start::from);
                    let ready = made.and_then(|producer| {
                        producer.init_transactions(Duration::from_secs(30))?;
                        Ok(producer)
                    });
                    match ready {
                        Ok(producer) => {
                            self.producer = producer;
                            // Nothing changes any more: now it is known.
                            match self.last_author() {
                                Ok(Some(last)) if last.instance == self.author.instance => {
                                    return Ok(last.transaction == self.author.transaction);
                                }
                                Ok(_) => {}
                                Err(error) => tell(told, &error.to_string()),
                            }
                        }
                        Err(Start::Told(error) | Start::Away(error)) => return Err(error),
                        Err(Start::Kafka(error)) => tell(told, &error.to_string()),
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    self.there()?;
                    tell(told, &error.to_string());
                }
            }
            std::thread::sleep(BREATH);
        }
    }

    /// Who wrote last, if the progress has any records.
    fn last_author(&self) -> Result<Option<Author>> {
        Ok(Progress::read(&self.config.cluster, &self.names.progress)?.author)
    }
}

/// Why a claim failed.
enum Start {
    /// The brokers are not ready, or another instance was faster.
    Kafka(KafkaError),
    /// The brokers do not answer.
    Away(Error),
    /// Trying again is no help.
    Told(Error),
}

impl From<KafkaError> for Start {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

impl From<Error> for Start {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// Whether it may be that a topic has gone.
fn unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| {
        [UnknownPartition, UnknownTopic, UnknownTopicOrPartition].contains(&code)
    })
}

/// What a person has to do about an error that trying again does not mend.
fn lasting(error: &KafkaError) -> Option<&'static str> {
    use RDKafkaErrorCode::{
        ClusterAuthorizationFailed, InvalidRequiredAcks, InvalidTopic, MessageSizeTooLarge,
        TopicAuthorizationFailed, TransactionalIdAuthorizationFailed,
    };
    match error.rdkafka_error_code()? {
        MessageSizeTooLarge => Some("raise the max.message.bytes of the progress"),
        TopicAuthorizationFailed | ClusterAuthorizationFailed => Some("allow this user to write"),
        TransactionalIdAuthorizationFailed => Some("allow this user the transactional id"),
        InvalidTopic | InvalidRequiredAcks => Some("mend the settings"),
        _ => None,
    }
}

/// Tells of trouble now and then.
fn tell(told: &mut Option<Instant>, trouble: &str) {
    if told.is_none_or(|told| told.elapsed() > TELL) {
        *told = Some(Instant::now());
        tracing::warn!("Kafka: {trouble}");
    }
}
