//! What topics take: a message that is larger does not go out as it is, and is told instead.
//!
//! Brokers hold a batch of messages against `max.message.bytes` when it comes, compressed as it is
//! sent. So a size is known to be too large only when a message of that size was refused alone.

use std::collections::BTreeMap;

use physicnet_stream::{Error, Result, format_time};

use super::cluster::Cluster;
use super::ledger::Letter;

/// What the topics of a ledger were found to refuse.
pub(super) struct Limits {
    cluster: Cluster,
    dead_letters: String,
    /// Whether larger messages than one that was refused may yet be taken.
    compressed: bool,
    refused: BTreeMap<String, Refused>,
}

/// A size that a topic, or our client for it, refused.
#[derive(Clone, Copy)]
struct Refused {
    /// The smallest of those messages, in bytes.
    bytes: usize,
    bounds: Bounds,
}

/// What bounds the messages of a topic, in bytes.
#[derive(Clone, Copy)]
struct Bounds {
    /// What the topic takes, where the brokers say.
    topic: Option<usize>,
    /// What our client sends.
    client: Option<usize>,
}

impl Bounds {
    /// Those that a message of `bytes` was refused by. The client refuses what is larger than its
    /// bound; a topic may do so before, as brokers add some bytes of their own.
    fn against(self, bytes: usize) -> Self {
        let client = self.client.filter(|most| bytes > *most);
        Self { topic: self.topic.filter(|most| client.is_none() || bytes > *most), client }
    }

    fn least(self) -> Option<usize> {
        self.topic.into_iter().chain(self.client).min()
    }

    /// What to raise.
    fn advice(self) -> &'static str {
        match (self.topic, self.client) {
            (_, None) => "raise its max.message.bytes",
            (None, Some(_)) => "raise message.max.bytes in the sink's `cluster.properties`",
            (Some(_), Some(_)) => {
                "raise its max.message.bytes, and message.max.bytes in the sink's \
                 `cluster.properties`,"
            }
        }
    }
}

impl Limits {
    pub(super) fn new(cluster: &Cluster, dead_letters: &str) -> Result<Self> {
        let client = cluster.client(&[])?;
        let plain = |key| client.get(key).is_none_or(|codec| codec == "none");
        let compressed = !["compression.type", "compression.codec"].into_iter().all(plain);
        let (cluster, dead_letters) = (cluster.clone(), dead_letters.to_owned());
        Ok(Self { cluster, dead_letters, compressed, refused: BTreeMap::new() })
    }

    /// Puts what goes out in the place of what would be refused again, without asking.
    pub(super) fn heed(&self, letters: &mut [Letter]) {
        let (mut first, mut others) = (None, 0);
        for letter in letters.iter_mut().filter(|letter| letter.payload.is_some()) {
            let refused = self.refused.get(&letter.topic).filter(|_| !self.compressed);
            let Some(refused) = refused.filter(|refused| refused.bytes <= letter.bytes()) else {
                continue;
            };
            if let Some(lost) = self.replace(letter, *refused) {
                others += usize::from(first.is_some());
                first.get_or_insert(lost);
            }
        }
        if let Some(lost) = first {
            tell(&lost, others);
        }
    }

    /// Puts what goes out in the place of a letter that was refused alone.
    ///
    /// # Errors
    /// When nothing is left to be left out.
    pub(super) fn exceeded(&mut self, letter: &mut Letter) -> Result<()> {
        let known = self.refused.get(&letter.topic);
        let bounds = match known {
            Some(refused) => refused.bounds,
            None => Bounds {
                topic: self.cluster.largest_taken(&letter.topic),
                client: self.cluster.largest_sent(),
            },
        };
        let refused = Refused { bytes: letter.bytes(), bounds };
        let least = self.refused.entry(letter.topic.clone()).or_insert(refused);
        least.bytes = least.bytes.min(refused.bytes);
        if letter.payload.is_none() && letter.key.is_none() {
            let bounds = bounds.against(refused.bytes);
            let (most, advice) = (most(bounds.least()), bounds.advice());
            let why = format!("takes no more than {most}; {advice} and start the job again");
            return Err(Error::new(format!("topic {}", letter.topic), why));
        }
        if let Some(lost) = self.replace(letter, refused) {
            tell(&lost, 0);
        }
        Ok(())
    }

    /// A forecast that does not go out is told by a dead letter, and returned in words. A dead
    /// letter loses its value, which still lies where it was read; then its key.
    fn replace(&self, letter: &mut Letter, Refused { bounds, .. }: Refused) -> Option<String> {
        let bytes = letter.bytes();
        let header = |name: &str, value: String| (name.to_owned(), value);
        let Some(reference_time) = letter.reference_time.take() else {
            let left_out = letter.payload.take().or_else(|| letter.key.take());
            let bytes = left_out.map_or(0, |bytes| bytes.len());
            let why = format!("{bytes} bytes, too large for the topic");
            letter.headers.push(header("left_out", why));
            return None;
        };
        let topic = std::mem::replace(&mut letter.topic, self.dead_letters.clone());
        let sensor = String::from_utf8_lossy(letter.key.as_deref().unwrap_or_default());
        let reference_time = format_time(reference_time);
        let bounds = bounds.against(bytes);
        let (limit, advice) = (bounds.least(), bounds.advice());
        let detail = format!(
            "the forecast has {bytes} bytes, and topic {topic} takes {}: {advice} and start the \
             job again",
            most(limit)
        );
        let lost = format!("{sensor} from {reference_time}: {detail}");
        letter.headers = vec![
            header("reason", "too_large".to_owned()),
            header("detail", detail),
            header("sensor", sensor.into_owned()),
            header("reference_time", reference_time),
            header("topic", topic),
            header("bytes", bytes.to_string()),
        ];
        letter.headers.extend(limit.map(|limit| header("limit", limit.to_string())));
        letter.payload = None;
        Some(lost)
    }
}

fn most(limit: Option<usize>) -> String {
    limit.map_or("less".to_owned(), |limit| format!("{limit}"))
}

fn tell(lost: &str, others: usize) {
    let others = if others > 0 { format!(" ({others} others likewise)") } else { String::new() };
    tracing::error!("a forecast is lost, {lost}{others}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_forecast_names_the_property_that_binds() {
        let advice = |topic, client: usize, bytes| {
            let mut limits = Limits::new(&Cluster::new("a:1"), "dead").unwrap();
            let refused = Refused { bytes, bounds: Bounds { topic, client: Some(client) } };
            limits.refused.insert("out".into(), refused);
            let mut letter = Letter {
                topic: "out".into(),
                key: None,
                payload: Some(vec![0; bytes]),
                headers: Vec::new(),
                reference_time: Some(0),
            };
            limits.heed(std::slice::from_mut(&mut letter));
            assert_eq!((&*letter.topic, letter.payload), ("dead", None));
            let header = |name: &str| {
                let found = letter.headers.iter().find(|(known, _)| known == name);
                found.map_or("", |(_, value)| value)
            };
            let (_, advice) = header("detail").split_once(": ").unwrap();
            (header("limit").parse().ok(), advice.to_owned())
        };
        let again = " and start the job again";
        let topic = format!("raise its max.message.bytes{again}");
        let client = "message.max.bytes in the sink's `cluster.properties`";
        let both = format!("raise its max.message.bytes, and {client},{again}");
        let client = format!("raise {client}{again}");
        // Brokers count a little more than the client.
        assert_eq!(advice(Some(100), 500, 99), (Some(100), topic.clone()));
        assert_eq!(advice(Some(100), 500, 101), (Some(100), topic.clone()));
        assert_eq!(advice(None, 500, 200), (None, topic));
        assert_eq!(advice(Some(500), 100, 200), (Some(100), client.clone()));
        assert_eq!(advice(None, 100, 200), (Some(100), client));
        assert_eq!(advice(Some(100), 100, 200), (Some(100), both));
    }
}
