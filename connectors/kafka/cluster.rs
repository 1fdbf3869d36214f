//! Which brokers, and how to be let in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use physicnet_stream::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{ClientConfig, ClientContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::property::{Property, properties};

/// How long a broker is asked before it counts as out of reach.
const ASK: Duration = Duration::from_secs(15);
/// How often to ask for topics to be made.
const ASKED: usize = 3;
/// The property that says how large messages the client sends.
pub(super) const LARGEST: &str = "message.max.bytes";
/// How long a client's complaints are waited for.
const SERVE: Duration = Duration::from_millis(200);

/// A Kafka cluster.
///
/// ```yaml
/// brokers: "kafka-1:9093,kafka-2:9093"
/// tls: {ca: ca.pem}
/// sasl: {mechanism: scram_sha_512, username: radar, password_file: /run/secrets/kafka}
/// properties: {client.rack: north}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Encryption; absent, the connection is in the clear.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Who we are; absent, nobody in particular.
    #[serde(default)]
    pub sasl: Option<Sasl>,
    /// Any property of librdkafka; these have the last word.
    #[serde(default, deserialize_with = "properties")]
    #[schemars(with = "BTreeMap<String, Property>")]
    pub properties: BTreeMap<String, String>,
}

/// Encryption of the connection. `{}` trusts what the system trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificates to trust, PEM; absent, the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM, where the brokers want one.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// A file that holds the key's password.
    pub key_password_file: Option<PathBuf>,
}

/// Authentication by name and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is shown to the broker.
    pub mechanism: Mechanism,
    /// The name.
    pub username: String,
    /// The password, e.g. `${KAFKA_PASSWORD}`.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Instead: a file that holds the password. A line feed at its end is not part of it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// In the clear within the connection: with TLS only.
    Plain,
    /// Salted challenge and response over SHA-256.
    #[serde(rename = "scram_sha_256")]
    ScramSha256,
    /// Salted challenge and response over SHA-512.
    #[serde(rename = "scram_sha_512")]
    ScramSha512,
}

/// A word that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// A topic of messages as large as brokers may be told to take: forecasts have many leads. With
/// as many partitions as the broker makes, unless said.
pub(super) fn large(name: &str, partitions: Option<i32>) -> NewTopic<'_> {
    NewTopic::new(name, partitions.unwrap_or(-1), TopicReplication::Fixed(-1))
        .set("max.message.bytes", "67108864")
}

/// A topic whose newest record of every key is kept, and little else: it is read at every start.
pub(super) fn compacted(name: &str) -> NewTopic<'_> {
    NewTopic::new(name, 1, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", "16777216")
        .set("min.cleanable.dirty.ratio", "0.1")
}

impl Cluster {
    /// A cluster without locks at `brokers`.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), tls: None, sasl: None, properties: BTreeMap::new() }
    }

    /// What librdkafka is told, with `settings` under the user's own properties.
    pub(super) fn client(&self, settings: &[(&str, &str)]) -> Result<ClientConfig> {
        let Self { brokers, tls, sasl, properties } = self;
        if brokers.is_empty() {
            return Err(Error::new("cluster.brokers", "is empty; write host:port"));
        }
        if !cfg!(feature = "tls") {
            let wants_tls = tls.is_some().then_some("cluster.tls");
            let scram = sasl.as_ref().is_some_and(|sasl| sasl.mechanism != Mechanism::Plain);
            let wants_tls = wants_tls.or(scram.then_some("cluster.sasl.mechanism"));
            if let Some(key) = wants_tls {
                let why = "this program was built without TLS; build it with `--features tls` \
                           (it needs OpenSSL's development files, e.g. libssl-dev)";
                return Err(Error::new(key, why));
            }
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        // A frame of some MiB is one message; brokers and topics have the say.
        config.set(LARGEST, "67108864").set("client.id", "physicnet");
        // After a minute without any broker, librdkafka 2.12 would forget those that it knows;
        // a consumer was then seen to fetch nothing any more.
        config.set("metadata.recovery.strategy", "none");
        let protocol = match (tls, sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(Tls { ca, certificate, key, key_password_file }) = tls {
            let files = [
                ("ssl.ca.location", "ca", ca),
                ("ssl.certificate.location", "certificate", certificate),
                ("ssl.key.location", "key", key),
            ];
            for (property, name, file) in files {
                if let Some(file) = file {
                    // librdkafka's own words for a file that is not there name no key.
                    std::fs::metadata(file).map_err(|e| {
                        Error::new(format!("cluster.tls.{name}: {}", file.display()), e)
                    })?;
                    config.set(property, file.to_string_lossy());
                }
            }
            if let Some(file) = key_password_file {
                config.set("ssl.key.password", secret("cluster.tls.key_password_file", file)?);
            }
        }
        if let Some(Sasl { mechanism, username, password, password_file }) = sasl {
            let mechanism = match mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            let password = match (password, password_file) {
                (Some(Secret(password)), None) => password.clone(),
                (None, Some(file)) => secret("cluster.sasl.password_file", file)?,
                _ => {
                    let why = "give either `password`, e.g. ${KAFKA_PASSWORD}, or `password_file`";
                    return Err(Error::new("cluster.sasl", why));
                }
            };
            config.set("sasl.mechanism", mechanism);
            config.set("sasl.username", username).set("sasl.password", password);
        }
        settings.iter().for_each(|(key, value)| _ = config.set(*key, *value));
        properties.iter().for_each(|(key, value)| _ = config.set(key, value));
        Ok(config)
    }

    /// What the brokers say of `topic`, or of all topics.
    pub(super) fn metadata(&self, topic: Option<&str>) -> Result<Metadata> {
        // Asked by a consumer: a producer's question makes the topic at brokers that allow it.
        let made = self.client(&[])?.create_with_context(Complaint::default());
        let consumer: BaseConsumer<Complaint> = made.map_err(|e| self.error("client", e))?;
        consumer.fetch_metadata(topic, ASK).map_err(|error| {
            let begun = Instant::now();
            while begun.elapsed() < SERVE {
                // The complaints, which go to the context. There are no messages.
                drop(consumer.poll(SERVE / 10));
            }
            match consumer.context().worst() {
                Some(why) => Error::new(format!("Kafka at {}", self.brokers), why),
                None => self.error("asking for topics", error),
            }
        })
    }

    /// How many partitions `topic` has; `None` where it is not there.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<usize>> {
        use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
        let metadata = self.metadata(Some(topic))?;
        let known = metadata.topics().iter().find(|known| known.name() == topic);
        match known.map(|known| (known.error(), known.partitions().len())) {
            None | Some((None, 0)) => Ok(None),
            Some((None, count)) => Ok(Some(count)),
            Some((Some(code), _)) => match RDKafkaErrorCode::from(code) {
                UnknownTopic | UnknownTopicOrPartition => Ok(None),
                code => Err(Error::new(format!("topic {topic} at {}", self.brokers), code)),
            },
        }
    }

    /// Makes those of `topics` that are not there.
    pub(super) fn make(&self, topics: &[NewTopic]) -> Result<()> {
        let mut missing = Vec::new();
        for topic in topics {
            // Asked first: who may not make topics can still use those that others made.
            if self.partitions(topic.name)?.is_none() {
                missing.push(topic);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let admin: AdminClient<DefaultClientContext> =
            self.client(&[])?.create().map_err(|e| self.error("client", e))?;
        let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK));
        let mut tries = 1..ASKED;
        let made = loop {
            let made = admin.create_topics(missing.iter().copied(), &options);
            match futures_executor::block_on(made) {
                // Brokers that have just answered are there: they have a bad moment.
                Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))
                    if tries.next().is_some() => {}
                told => break told,
            }
        };
        for told in made.map_err(|e| self.error("making topics", e))? {
            match told {
                Ok(topic) => tracing::info!("topic {topic} made"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(Error::new(format!("topic {topic}"), format!("{code}; make it")));
                }
            }
        }
        Ok(())
    }

    /// The bytes of the largest message that our client sends.
    pub(super) fn largest_sent(&self) -> Option<usize> {
        self.client(&[]).ok()?.get(LARGEST)?.parse().ok()
    }

    /// The bytes of the largest message that `topic` takes, where the brokers say.
    pub(super) fn largest_taken(&self, topic: &str) -> Option<usize> {
        let admin: AdminClient<DefaultClientContext> = self.client(&[]).ok()?.create().ok()?;
        let options = AdminOptions::new().request_timeout(Some(ASK));
        let asked = [ResourceSpecifier::Topic(topic)];
        let told = futures_executor::block_on(admin.describe_configs(&asked, &options)).ok()?;
        let told = told.into_iter().next()?.ok()?;
        told.get("max.message.bytes")?.value.as_deref()?.parse().ok()
    }

    /// `error` with the brokers' names.
    pub(super) fn error(&self, doing: &str, error: KafkaError) -> Error {
        Error::new(format!("Kafka at {}: {doing}", self.brokers), error)
    }
}

/// The weight of a complaint by a broker that answers.
const REFUSED: u8 = 2;

/// What a client has to say of its connections: a call that fails only says that none works.
#[derive(Default)]
struct Complaint(Mutex<Option<(u8, String)>>);

impl ClientContext for Complaint {
    fn error(&self, error: KafkaError, reason: &str) {
        let weight = match error.rdkafka_error_code() {
            // That a password is wrong explains that connections break off, not the reverse.
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => REFUSED,
            Some(RDKafkaErrorCode::AllBrokersDown) => 0,
            _ => 1,
        };
        let mut worst = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if worst.as_ref().is_none_or(|(known, _)| *known < weight) {
            *worst = Some((weight, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Complaint {}

impl Complaint {
    fn worst(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(weight, reason)| {
            if weight == REFUSED { reason } else { format!("no broker answers: {reason}") }
        })
    }
}

fn secret(key: &str, file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::new(format!("{key}: {}", file.display()), e))?;
    Ok(text.strip_suffix('\n').map_or(&*text, |t| t.strip_suffix('\r').unwrap_or(t)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_are_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "tell nobody\n").unwrap();
        let sasl = |password: Option<&str>, password_file| Sasl {
            mechanism: Mechanism::Plain,
            username: "radar".into(),
            password: password.map(|p| Secret(p.into())),
            password_file,
        };
        let with = |sasl| Cluster { sasl: Some(sasl), ..Cluster::new("a:1") };
        let cluster = with(sasl(None, Some(file)));
        let config = cluster.client(&[]).unwrap();
        assert_eq!(config.get("sasl.password"), Some("tell nobody"));
        assert_eq!(config.get("security.protocol"), Some("sasl_plaintext"));
        let cluster = with(sasl(Some("tell nobody"), None));
        let printed = format!("{cluster:?} {}", serde_json::to_string(&cluster).unwrap());
        assert!(printed.contains("***") && !printed.contains("nobody"), "{printed}");
        for wrong in [sasl(None, None), sasl(None, Some("absent".into()))] {
            let error = with(wrong).client(&[]).unwrap_err().to_string();
            assert!(error.contains("password_file"), "{error}");
        }
    }

    #[test]
    fn properties_have_the_last_word() {
        let mut cluster = Cluster::new("a:1");
        cluster.properties.insert("linger.ms".into(), "7".into());
        let config = cluster.client(&[("linger.ms", "0"), ("acks", "all")]).unwrap();
        assert_eq!((config.get("linger.ms"), config.get("acks")), (Some("7"), Some("all")));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn a_program_without_tls_says_so() {
        let cluster = Cluster { tls: Some(Tls::default()), ..Cluster::new("a:1") };
        let error = cluster.client(&[]).unwrap_err().to_string();
        assert!(error.contains("--features tls"), "{error}");
    }
}
