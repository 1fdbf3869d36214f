//! Observations, and those that could not be used.

use serde::{Deserialize, Serialize};

use crate::{SensorId, Time, format_time};

/// One observation: f32 `(channel, y, x)` at a valid time. Missing pixels are NaN.
///
/// Plain data, so that it can cross an exchange between workers and processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Who saw it.
    pub sensor: SensorId,
    /// When it was valid.
    pub valid_time: Time,
    /// Its place among the frames of its sensor in the source, counted from 0: what a restart
    /// seeks to. A source yields the frames of a sensor in the order of their offsets.
    pub offset: u64,
    /// `[channel, y, x]`.
    pub shape: [usize; 3],
    /// The values, row-major in `shape`.
    pub data: Vec<f32>,
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
    /// Its shape is not that of its sensor's grid.
    Misshapen {
        /// `[channel, y, x]` of the grid.
        expected: [usize; 3],
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

/// A frame that was not used, and why. Nothing is lost in silence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reject {
    /// The frame as it came.
    pub frame: Frame,
    /// Why it was not used.
    pub reason: Reason,
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frame { sensor, valid_time, offset, .. } = &self.frame;
        let label = self.reason.label();
        write!(f, "{sensor} frame {offset} ({}): {label}", format_time(*valid_time))
    }
}
