//! Observations, and those that could not be used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Position, SensorId, Time, format_time};

/// One observation: f32 `(channel, y, x)` at a valid time. Missing pixels are NaN.
///
/// Plain data, so that it can cross an exchange between workers and processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Who saw it; empty where a message is not used and nobody knows whose it is.
    pub sensor: SensorId,
    /// When it was valid.
    pub valid_time: Time,
    /// Its place in its log (see [`position`](Frame::position)): what a restart seeks to. A
    /// source yields the frames of a log in the order of their offsets.
    pub offset: u64,
    /// `[channel, y, x]`.
    pub shape: [usize; 3],
    /// The values, row-major in `shape`.
    pub data: Vec<f32>,
    /// Read again after a restart: what it led to, forecasts or a reject, is durable.
    pub replay: bool,
    /// Read again after a restart: the verification has taken it in.
    pub scored: bool,
    /// The message that it was decoded from, where it came as one.
    pub record: Option<Box<Record>>,
}

/// A message of a topic as it came, kept until its frame is used or among the dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `topic/partition`.
    pub log: Arc<str>,
    /// Its key, byte for byte.
    pub key: Option<Vec<u8>>,
    /// Its value, byte for byte, but for the pixels if `cut` says so.
    pub payload: Option<Vec<u8>>,
    /// Where in the value the pixels were cut out, because they are those of the frame, bit for
    /// bit and little-endian: a large message is copied once.
    pub cut: Option<usize>,
    /// Why no frame could be made of it, if so.
    pub unfit: Option<Reason>,
}

impl Record {
    /// The value of the message, byte for byte: `data` are the pixels of its frame.
    pub fn value(&self, data: &[f32]) -> Option<Vec<u8>> {
        let rest = self.payload.as_ref()?;
        let Some((before, after)) = self.cut.and_then(|cut| rest.split_at_checked(cut)) else {
            return Some(rest.clone());
        };
        let mut value = Vec::with_capacity(rest.len() + size_of_val(data));
        value.extend_from_slice(before);
        data.iter().for_each(|pixel| value.extend_from_slice(&pixel.to_le_bytes()));
        value.extend_from_slice(after);
        Some(value)
    }
}

impl Frame {
    /// A frame as a source first reads it: the `offset`th of its sensor.
    pub fn new(
        sensor: SensorId,
        valid_time: Time,
        offset: u64,
        shape: [usize; 3],
        data: Vec<f32>,
    ) -> Self {
        let (replay, scored, record) = (false, false, None);
        Self { sensor, valid_time, offset, shape, data, replay, scored, record }
    }

    /// Where it was read: in the partition of its message, else in the series of its sensor.
    pub fn position(&self) -> Position {
        let log = match &self.record {
            Some(record) => Arc::clone(&record.log),
            None => Arc::from(self.sensor.as_str()),
        };
        Position { log, offset: self.offset }
    }
}

/// Why a frame was not used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// The same valid time and the same content as a frame before it: dropped and counted.
    Duplicate,
    /// The valid time of a frame already used, with other content.
    Corrected,
    /// Older than the newest frame of its sensor.
    Late {
        /// The valid time of the newest frame then.
        newest: Time,
    },
    /// So far from the frames around it that its time cannot be right.
    AbsurdTime {
        /// The valid time of the newest frame then.
        newest: Time,
    },
    /// Its shape, or what else it says of its field, is not that of its sensor's grid.
    Misshapen {
        /// What differs.
        why: String,
    },
    /// No sensor of the job has this name.
    UnknownSensor,
    /// The source could not decode it.
    Undecodable {
        /// What the decoder said.
        why: String,
    },
}

impl Reason {
    /// Whether the frame is an observation all the same: it came too late for any window, or again.
    pub fn measured(&self) -> bool {
        matches!(self, Self::Late { .. } | Self::Corrected | Self::Duplicate)
    }

    /// The reason in one word, as metrics and logs label it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Corrected => "corrected",
            Self::Late { .. } => "late",
            Self::AbsurdTime { .. } => "absurd_time",
            Self::Misshapen { .. } => "misshapen",
            Self::UnknownSensor => "unknown_sensor",
            Self::Undecodable { .. } => "undecodable",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Duplicate => write!(f, "the same time and values as a frame before it"),
            Self::Corrected => write!(f, "its time was used already, with other values"),
            Self::Late { newest } => {
                let newest = format_time(*newest);
                write!(f, "not newer than the newest frame, {newest}, to the nearest cadence")
            }
            Self::AbsurdTime { newest } => {
                write!(f, "too far from the newest frame, {}", format_time(*newest))
            }
            Self::UnknownSensor => write!(f, "no sensor of the job has this name"),
            Self::Misshapen { why } | Self::Undecodable { why } => f.write_str(why),
        }
    }
}

/// A frame that was not used, and why. Nothing is lost in silence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// The frame as it came.
    pub frame: Frame,
    /// Why it was not used.
    pub reason: Reason,
}

impl Reject {
    /// Whether it may bear any name: nothing that is kept for each sensor is made for it.
    pub fn is_stranger(&self) -> bool {
        let Frame { record, .. } = &self.frame;
        matches!(self.reason, Reason::UnknownSensor | Reason::Undecodable { .. })
            || record.as_ref().is_some_and(|record| record.unfit.is_some())
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frame { sensor, valid_time, offset, .. } = &self.frame;
        let (label, reason) = (self.reason.label(), &self.reason);
        let time = format_time(*valid_time);
        // Anyone may have named it: in a log it is one word of one line.
        if sensor.as_str().is_empty() {
            write!(f, "{}", self.frame.position().log)?;
        } else if sensor.as_str().contains(char::is_control) {
            write!(f, "{:?}", sensor.as_str())?;
        } else {
            write!(f, "{sensor}")?;
        }
        write!(f, " frame {offset} ({time}): {label}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_is_told_in_one_line() {
        let told = |name: &str| {
            let frame = Frame::new(name.into(), 0, 7, [0; 3], Vec::new());
            Reject { frame, reason: Reason::UnknownSensor }.to_string()
        };
        let rest = " frame 7 (1970-01-01T00:00:00Z): unknown_sensor: no sensor of the job has this \
                    name";
        assert_eq!(told("köln's"), format!("köln's{rest}"));
        assert_eq!(told("a\n\u{1b}[2Jb"), format!(r#""a\n\u{{1b}}[2Jb"{rest}"#));
        let record = Record {
            log: "t/3".into(),
            key: None,
            payload: None,
            cut: None,
            unfit: Some(Reason::Undecodable { why: "no key".into() }),
        };
        let frame = Frame::new("".into(), 0, 7, [0; 3], Vec::new());
        let frame = Frame { record: Some(Box::new(record)), ..frame };
        let reject = Reject { frame, reason: Reason::Misshapen { why: "too small".into() } };
        let told = "t/3 frame 7 (1970-01-01T00:00:00Z): misshapen: too small";
        assert_eq!((reject.to_string().as_str(), reject.is_stranger()), (told, true));
    }

    #[test]
    fn a_value_is_whole_again() {
        let pixels = [1.5, f32::NAN, f32::from_bits(0x7fa0_0001), -0.0];
        let bytes: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        let whole = [&b"before"[..], &*bytes, b"after"].concat();
        let record = |payload: &[u8], cut| Record {
            log: "t/0".into(),
            key: None,
            payload: Some(payload.to_vec()),
            cut,
            unfit: None,
        };
        assert_eq!(record(b"beforeafter", Some(6)).value(&pixels), Some(whole.clone()));
        assert_eq!(record(&whole, None).value(&pixels), Some(whole));
    }
}
