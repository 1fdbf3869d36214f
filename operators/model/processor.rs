//! What computes a network: the CPU or GPUs.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use physicnet_stream::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What computes a network, as files say it: `auto`, `cpu`, `cuda:0`, or `cuda:0,1` for workers
/// that take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Processor {
    /// The GPUs that answer, one worker after the other, where the program was built with CUDA;
    /// else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// These GPUs, one worker after the other. There is at least one.
    Cuda(Vec<usize>),
}

impl Processor {
    /// Whether it is left to the program.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    /// The device of the worker with this index, with a stream of its own on a GPU.
    ///
    /// # Errors
    /// When the program was built without CUDA, or the GPU does not answer.
    pub fn device(&self, worker: usize) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(gpus) => open(gpus[worker % gpus.len()]),
            Self::Auto => match count() {
                0 => Ok(Device::Cpu),
                gpus => Ok(open(worker % gpus).unwrap_or_else(|error| {
                    tracing::warn!("{error}. The CPU computes in its place");
                    Device::Cpu
                })),
            },
        }
    }

    /// Checks that every GPU that is named answers.
    ///
    /// # Errors
    /// As [`Processor::device`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Auto | Self::Cpu => Ok(()),
            Self::Cuda(gpus) => gpus.iter().try_for_each(|&gpu| open(gpu).map(drop)),
        }
    }
}

/// How many GPUs answer.
fn count() -> usize {
    #[cfg(feature = "cuda")]
    {
        use candle_core::cuda_backend::cudarc::driver::CudaContext;
        CudaContext::device_count().map_or(0, |count| usize::try_from(count).unwrap_or(0))
    }
    #[cfg(not(feature = "cuda"))]
    0
}

fn open(gpu: usize) -> Result<Device> {
    let fail = |why: String| Err(Error::new("device", format!("cuda:{gpu}: {why}")));
    if !cfg!(feature = "cuda") {
        return fail(
            "this program was built without CUDA; say `cpu` or `auto`, or build it with \
                     `--features cuda`"
                .into(),
        );
    }
    match Device::new_cuda_with_stream(gpu) {
        Ok(device) => {
            tracing::info!("GPU {gpu} computes");
            Ok(device)
        }
        Err(error) => {
            // candle may put a backtrace behind it.
            let error = error.to_string();
            let why = error.lines().next().unwrap_or_default();
            fail(format!("no such GPU answers: {why}; {} do", count()))
        }
    }
}

impl FromStr for Processor {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let gpus = |list: &str| list.split(',').map(|gpu| gpu.parse().ok()).collect();
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => text.strip_prefix("cuda:").and_then(gpus).map(Self::Cuda).ok_or_else(|| {
                format!("{text:?} is no device; say `auto`, `cpu`, `cuda:0`, or `cuda:0,1`")
            }),
        }
    }
}

impl TryFrom<String> for Processor {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(gpus) => {
                let gpus: Vec<String> = gpus.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", gpus.join(","))
            }
        }
    }
}

impl From<Processor> for String {
    fn from(processor: Processor) -> Self {
        processor.to_string()
    }
}

impl JsonSchema for Processor {
    fn schema_name() -> Cow<'static, str> {
        "Processor".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What computes a network: `auto`, `cpu`, `cuda:0`, or `cuda:0,1` for \
                            workers that take turns.",
            "type": "string",
            "pattern": "^(auto|cpu|cuda:[0-9]+(,[0-9]+)*)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_file_says() {
        for (text, gpus) in [("cuda:0", vec![0]), ("cuda:2,0", vec![2, 0])] {
            assert_eq!(text.parse(), Ok(Processor::Cuda(gpus)));
            assert_eq!(text.parse::<Processor>().unwrap().to_string(), text);
        }
        for wrong in ["", "gpu", "cuda", "cuda:", "cuda:a", "cuda:0,", "cuda:-1", "CPU"] {
            let error = wrong.parse::<Processor>().unwrap_err();
            assert!(error.contains("say `auto`"), "{error}");
        }
        for plain in [Processor::Auto, Processor::Cpu] {
            assert_eq!(plain.to_string().parse(), Ok(plain.clone()));
            plain.check().unwrap();
        }
        assert!(Processor::Cpu.device(3).unwrap().is_cpu());
    }

    #[test]
    fn a_gpu_that_is_not_there_is_named() {
        let error = Processor::Cuda(vec![0, 4096]).check().unwrap_err().to_string();
        assert!(error.starts_with("device: cuda:"), "{error}");
        if !cfg!(feature = "cuda") {
            assert!(error.contains("built without CUDA"), "{error}");
            assert!(Processor::Auto.device(0).unwrap().is_cpu());
        }
    }
}
