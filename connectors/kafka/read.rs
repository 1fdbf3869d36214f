//! The consumer of one worker's partitions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use physicnet_stream::{Error, Frame, Position, Result, Resume, Stop};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::cluster::LARGEST;
use super::config::{From, stamp};
use super::lag::Attending;
use super::topics::{Decoder, Topics};

/// How long brokers may take to say where a partition begins and ends.
const ASK: Duration = Duration::from_secs(15);
/// Offsets of a window this close are read in one go.
const NEAR: i64 = 256;
/// How many frames all partitions of a source together may have waiting, within [`AHEAD`].
const FRAMES: usize = 256;
/// The least and the most that they have, in bytes: under the least, small frames come in too many
/// fetches; over the most, a fetch is memory that the allocator asks the system for every time.
const AHEAD: [usize; 2] = [4 << 20, 24 << 20];
/// What a fetch brings of a partition in any case, in bytes.
const LEAST: usize = 64 << 10;
/// And at most: more than the largest message, less than librdkafka's largest answer.
const MOST: usize = 72 << 20;
/// How long a partition may be without a leader at a start.
const ELECTION: Duration = Duration::from_secs(30);
/// Before asking again.
const BREATH: Duration = Duration::from_millis(500);
/// How often trouble is told.
const TELL: Duration = Duration::from_secs(10);
/// What asking again does not mend.
const LASTING: [RDKafkaErrorCode; 3] = [
    RDKafkaErrorCode::GroupAuthorizationFailed,
    RDKafkaErrorCode::TopicAuthorizationFailed,
    RDKafkaErrorCode::UnknownTopicOrPartition,
];

/// How much a consumer asks for, in bytes.
#[derive(Debug, PartialEq)]
struct Ahead {
    /// A partition is asked for more when less than this is waiting.
    waiting: usize,
    /// What a fetch brings of a partition, at most.
    fetch: usize,
    /// What a fetch brings of all, at most.
    together: usize,
}

impl Ahead {
    /// For frames of so many bytes in so many partitions.
    ///
    /// Half is on its way while the other half is worked on. A fetch ends in the middle of a frame,
    /// and what it has of that one is thrown away: so it has room for one at the least, and is a
    /// little more than half of a partition's share.
    fn new(frame: usize, partitions: usize) -> Self {
        let message = frame.saturating_add(frame / 16 + (4 << 10));
        let [least, most] = AHEAD;
        let total = message.saturating_mul(FRAMES).clamp(least, most);
        let half = |share: usize| share / 32 * 17;
        let share = total / partitions.max(1);
        let fetch = half(share).max(message).clamp(LEAST, MOST);
        let waiting = (share - half(share)).max(LEAST / 2);
        Self { waiting, fetch, together: half(total).max(fetch) }
    }
}

impl Topics {
    /// A consumer among those for `partitions`, told of their `ends` or not.
    fn consumer(&self, partitions: usize, ends: bool) -> Result<BaseConsumer> {
        let Ahead { waiting, fetch, together } = Ahead::new(self.frame_bytes(), partitions);
        let [waiting, fetch, together] =
            [waiting >> 10, fetch, together].map(|number| number.to_string());
        let cluster = &self.config.cluster;
        let settings = [
            ("group.id", &*self.group),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", if ends { "true" } else { "false" }),
            ("isolation.level", "read_committed"),
            // What was asked for and is not there any more is told, not passed over.
            ("auto.offset.reset", "error"),
            ("queued.max.messages.kbytes", &*waiting),
            ("fetch.message.max.bytes", &*fetch),
            ("fetch.max.bytes", &*together),
            // Of producers; but a fetch may not be less.
            (LARGEST, "1000000"),
            // The default waits for a second when enough is waiting: large frames would starve.
            ("fetch.queue.backoff.ms", "2"),
            // A broker keeps a fetch of partitions without news so long, and nothing else can be
            // asked for meanwhile: those that had enough waiting would run dry behind idle ones.
            ("fetch.wait.max.ms", "20"),
        ];
        let made = cluster.client(&settings)?.create();
        made.map_err(|e| cluster.error("consumer", e))
    }

    /// Where the partitions begin that `known` says nothing of.
    ///
    /// # Errors
    /// When the brokers do not say.
    pub(super) fn begin(&self, known: &Resume) -> Result<Vec<(Arc<str>, u64)>> {
        let consumer = self.consumer(1, false)?;
        let mut begin = Vec::new();
        for ((topic, partition), log) in &self.partitions {
            if known.next.contains_key(log) {
                continue;
            }
            let failed = |e| self.config.unanswered(topic, *partition, e);
            let (low, high) = consumer.fetch_watermarks(topic, *partition, ASK).map_err(failed)?;
            // A partition that came later was never read: all of it is new.
            let grown = self
                .partitions
                .iter()
                .any(|((other, _), log)| other == topic && known.next.contains_key(log));
            let offset = match self.config.start()? {
                _ if grown => low,
                From::Earliest => low,
                From::Latest => high,
                From::Time(time) => {
                    let mut asked = TopicPartitionList::new();
                    let stamp = Offset::Offset(stamp(time));
                    asked.add_partition_offset(topic, *partition, stamp).map_err(failed)?;
                    let told = consumer.offsets_for_times(asked, ASK).map_err(failed)?;
                    let told = told.elements();
                    let first = told.first();
                    first.map_or(Ok(()), |element| element.error()).map_err(failed)?;
                    match first.map(|element| element.offset()) {
                        Some(Offset::Offset(offset)) => offset,
                        _ => high,
                    }
                }
            };
            begin.push((Arc::clone(log), offset.max(0) as u64));
        }
        Ok(begin)
    }

    /// The topic and the partition of a log.
    fn place(&self, log: &str) -> Option<&(String, i32)> {
        self.partitions.iter().find(|(_, name)| &***name == log).map(|(place, _)| place)
    }
}

struct Queue {
    place: (String, i32),
    /// What came before the queue was made, or what an epoch had no place for.
    held: VecDeque<Frame>,
    rest: PartitionQueue<DefaultConsumerContext>,
}

/// Reads frames as they come.
pub(super) struct Reader {
    topics: Arc<Topics>,
    consumer: Arc<BaseConsumer>,
    /// What comes from each partition, so that none has to wait behind another.
    queues: Vec<Queue>,
    decoder: Decoder,
    /// The partitions that have not come to their end, where an end is wanted.
    open: BTreeSet<(String, i32)>,
    told: Option<Instant>,
    /// Who wants to know how far it is.
    attending: Option<Attending>,
}

impl Reader {
    /// A reader of `share` from where `resume` says, that calls `wake` when something comes.
    pub(super) fn open(
        topics: &Arc<Topics>,
        share: &[(String, i32)],
        resume: &Resume,
        stop: &Stop,
        wake: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let cluster = &topics.config.cluster;
        let mut consumer = topics.consumer(topics.partitions.len(), !topics.config.follow)?;
        let mut from = TopicPartitionList::new();
        for (topic, partition) in share {
            let log = &topics.partitions[&(topic.clone(), *partition)];
            let failed = |e| topics.config.unanswered(topic, *partition, e);
            let next = resume.start(log).unwrap_or(0) as i64;
            let ends = ask(stop, || consumer.fetch_watermarks(topic, *partition, ASK));
            let (low, high) = ends.map_err(failed)?;
            if next < low {
                let gone = low - next;
                tracing::error!("{log}: {gone} messages were deleted before they were read");
            } else if next > high {
                let why = format!(
                    "ends at {high}, before offset {next} where the job goes on: was it made \
                     anew? Give the job another `name` to begin anew as well"
                );
                return Err(Error::new(format!("partition {log}"), why));
            }
            let next = Offset::Offset(next.max(low));
            from.add_partition_offset(topic, *partition, next).map_err(failed)?;
        }
        consumer.set_nonempty_callback(wake.clone());
        consumer.assign(&from).map_err(|e| cluster.error("assigning partitions", e))?;
        let consumer = Arc::new(consumer);
        let mut queues = Vec::new();
        for (topic, partition) in share {
            let gone = || Error::new(format!("partition {topic}/{partition}"), "has no queue");
            let mut rest = consumer.split_partition_queue(topic, *partition).ok_or_else(gone)?;
            rest.set_nonempty_callback(wake.clone());
            let place = (topic.clone(), *partition);
            queues.push(Queue { place, held: VecDeque::new(), rest });
        }
        let open = share.iter().cloned().collect();
        let decoder = Decoder::new(topics, resume);
        let attending = topics.lag.attend(&consumer, &from);
        let topics = Arc::clone(topics);
        Ok(Self { topics, consumer, queues, decoder, open, told: None, attending })
    }

    /// How many partitions it reads.
    pub(super) fn partitions(&self) -> usize {
        self.queues.len()
    }

    /// Looks at what concerns all partitions. Must come before `next`: a queue does not know
    /// what came before it was made.
    ///
    /// # Errors
    /// When the brokers say that there is nothing to be had.
    pub(super) fn attend(&mut self) -> Result<()> {
        loop {
            match self.consumer.poll(Duration::ZERO) {
                None => return Ok(()),
                Some(Ok(message)) => {
                    let frame = self.decoder.frame(&message);
                    let of = (message.topic(), message.partition());
                    let mut queues = self.queues.iter_mut();
                    if let Some(queue) = queues.find(|q| (&*q.place.0, q.place.1) == of) {
                        queue.held.push_back(frame);
                    }
                }
                // Of a partition that was empty before its queue was made.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    // A source that is not followed has one topic: the number says which it is.
                    self.open.retain(|(_, open)| *open != partition);
                }
                Some(Err(error)) => self.judge(error)?,
            }
        }
    }

    /// The next frame of a partition, if one has come.
    ///
    /// # Errors
    /// When the brokers say that there is nothing to be had.
    pub(super) fn next(&mut self, partition: usize) -> Result<Option<Frame>> {
        let came = self.come(partition)?;
        if let (Some(attending), Some(frame)) = (&self.attending, &came) {
            attending.read(&self.queues[partition].place, frame.offset as i64 + 1);
        }
        Ok(came)
    }

    fn come(&mut self, partition: usize) -> Result<Option<Frame>> {
        let Some(queue) = self.queues.get_mut(partition) else { return Ok(None) };
        if let Some(held) = queue.held.pop_front() {
            return Ok(Some(held));
        }
        loop {
            match self.queues[partition].rest.poll(Duration::ZERO) {
                None => return Ok(None),
                Some(Ok(message)) => return Ok(Some(self.decoder.frame(&message))),
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.open.remove(&self.queues[partition].place);
                }
                Some(Err(error)) => self.judge(error)?,
            }
        }
    }

    /// Takes back the frame that `next` gave last.
    pub(super) fn hold(&mut self, partition: usize, frame: Frame) {
        if let Some(queue) = self.queues.get_mut(partition) {
            if let Some(attending) = &self.attending {
                attending.read(&queue.place, frame.offset as i64);
            }
            queue.held.push_front(frame);
        }
    }

    /// Whether all partitions have come to the end that they had when it was reached.
    pub(super) fn ended(&self) -> bool {
        let all = self.open.is_empty() && self.queues.iter().all(|queue| queue.held.is_empty());
        !self.topics.config.follow && all
    }

    /// Most errors pass; those that do not are for a person.
    fn judge(&mut self, error: KafkaError) -> Result<()> {
        let config = &self.topics.config;
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
            let why = "what comes next in a partition is not there any more: deleted before it was \
                       read, or lost by the brokers; started again, the job says how much";
            return Err(Error::new(format!("topics {:?}", config.topics), why));
        }
        if lasts(&error) {
            // The error does not say which topic it is.
            config.topics.iter().try_for_each(|topic| config.partitions(topic).map(drop))?;
            return Err(config.cluster.error("reading", error));
        }
        if self.told.is_none_or(|told| told.elapsed() > TELL) {
            self.told = Some(Instant::now());
            tracing::warn!("{}", config.cluster.error("reading", error));
        }
        Ok(())
    }
}

/// The frames that rebuild the windows whose newest frame lies in `share`, those of a sensor in
/// the order in which they came: the first of every sensor, then the second, and so on. Just
/// those are decoded.
///
/// # Errors
/// When the brokers do not answer.
pub(super) fn replay(
    topics: &Arc<Topics>,
    share: &[(String, i32)],
    resume: &Resume,
    stop: &Stop,
) -> Result<Vec<Frame>> {
    let mine = |log: &str| topics.place(log).is_some_and(|place| share.contains(place));
    // What comes after the start is read anyway.
    let before = |at: &&Position| resume.start(&at.log).is_none_or(|start| at.offset < start);
    let windows: Vec<(_, Vec<&Position>)> = resume
        .windows
        .iter()
        .filter(|(_, window)| window.last().is_some_and(|newest| mine(&newest.log)))
        .map(|(sensor, window)| (sensor, window.iter().filter(before).collect()))
        .collect();
    let mut wanted = BTreeMap::<(String, i32), BTreeSet<i64>>::new();
    for position in windows.iter().flat_map(|(_, window)| window) {
        if let Some(place) = topics.place(&position.log) {
            wanted.entry(place.clone()).or_default().insert(position.offset as i64);
        }
    }
    let (mut decoder, mut found) = (Decoder::new(topics, resume), BTreeMap::new());
    for ((topic, partition), offsets) in &wanted {
        fetch(&mut decoder, topic, *partition, offsets, stop, &mut found)?;
    }
    let mut frames = Vec::new();
    for (sensor, window) in windows {
        let before = frames.len();
        frames.extend(window.iter().filter_map(|position| found.remove(position)).enumerate());
        if frames.len() - before < window.len() {
            tracing::warn!(%sensor, "some frames of its window are deleted; it starts anew");
        }
    }
    frames.sort_by_key(|(place, _)| *place);
    Ok(frames.into_iter().map(|(_, frame)| frame).collect())
}

/// Reads the messages at `offsets` of a partition.
fn fetch(
    decoder: &mut Decoder,
    topic: &str,
    partition: i32,
    offsets: &BTreeSet<i64>,
    stop: &Stop,
    found: &mut BTreeMap<Position, Frame>,
) -> Result<()> {
    let topics = Arc::clone(&decoder.topics);
    let cluster = &topics.config.cluster;
    let failed = |e| cluster.error(&format!("reading {topic}/{partition} again"), e);
    let consumer = topics.consumer(1, true)?;
    let ends = ask(stop, || consumer.fetch_watermarks(topic, partition, ASK));
    let (low, _) = ends.map_err(failed)?;
    let offsets: Vec<i64> = offsets.range(low..).copied().collect();
    for run in offsets.chunk_by(|a, b| b - a <= NEAR) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, partition, Offset::Offset(first)).map_err(failed)?;
        consumer.assign(&from).map_err(failed)?;
        let mut heard = Instant::now();
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if run.binary_search(&message.offset()).is_ok() {
                        let frame = decoder.frame(&message);
                        found.insert(frame.position(), frame);
                    }
                    if message.offset() >= last {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                // Deleted since the brokers said where the partition begins.
                Some(Err(error))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) =>
                {
                    break;
                }
                Some(Err(error)) => tracing::debug!("{}", failed(error)),
                None => {}
            }
            if heard.elapsed() > 2 * ASK || stop.stopped() {
                let why = "the brokers do not answer";
                return Err(Error::new(format!("partition {topic}/{partition}"), why));
            }
        }
    }
    Ok(())
}

fn lasts(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(|code| LASTING.contains(&code))
}

/// Asks until there is an answer: a job that starts again when a broker has died may come before
/// the new leader of a partition.
fn ask<T>(
    stop: &Stop,
    mut question: impl FnMut() -> Result<T, KafkaError>,
) -> Result<T, KafkaError> {
    let begun = Instant::now();
    loop {
        match question() {
            Err(error) if !lasts(&error) && begun.elapsed() < ELECTION && !stop.stopped() => {
                tracing::debug!("asking again: {error}");
                std::thread::sleep(BREATH);
            }
            told => return told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_holds_whole_frames_and_the_wait_is_bounded() {
        let mib = 1 << 20;
        for frame in [0, 1, 16 << 10, 64 << 10, mib, 8 * mib, 64 * mib] {
            for partitions in [0, 1, 4, 64, 1000] {
                let Ahead { waiting, fetch, together } = Ahead::new(frame, partitions);
                assert!((frame..=MOST).contains(&fetch), "{frame} {partitions}: {fetch}");
                assert!((fetch..=MOST).contains(&together), "{frame} {partitions}");
                // What all may have: the share, or one frame of each.
                let n = partitions.max(1);
                let bound = AHEAD[1].max(2 * frame + n * LEAST) + n * LEAST;
                assert!(n * waiting + together <= bound, "{frame} {partitions}");
            }
        }
        // Three frames of 1 MiB, and not two and most of a third.
        assert_eq!(Ahead::new(mib, 4).fetch / (mib + 1000), 3);
        let small = Ahead::new(16 << 10, 4);
        assert!(4 * small.waiting + small.together < 6 * mib, "{small:?}");
    }

    #[test]
    fn a_partition_without_a_leader_is_asked_again() {
        use RDKafkaErrorCode::{
            LeaderNotAvailable, NotLeaderForPartition, TopicAuthorizationFailed,
        };
        let stop = Stop::default();
        // How often it was asked, and what it came to.
        let answer = |errors: &[RDKafkaErrorCode]| {
            let mut asked = 0;
            let told = ask(&stop, || {
                asked += 1;
                errors.get(asked - 1).map_or(Ok(()), |code| Err(KafkaError::MetadataFetch(*code)))
            });
            (asked, told.err().and_then(|error| error.rdkafka_error_code()))
        };
        assert_eq!(answer(&[LeaderNotAvailable, NotLeaderForPartition]), (3, None));
        let refused = TopicAuthorizationFailed;
        assert_eq!(answer(&[refused]), (1, Some(refused)));
        stop.stop();
        assert_eq!(answer(&[LeaderNotAvailable]), (1, Some(LeaderNotAvailable)));
    }
}
