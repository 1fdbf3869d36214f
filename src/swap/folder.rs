//! The folder between a job and those who ask it for another model.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use physicnet_stream::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What is asked: the file `request.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The checkpoint to change to.
    pub checkpoint: PathBuf,
    /// After how many verified frames, over all sensors, the trial is decided; 0 takes over
    /// without one.
    #[serde(default = "usual")]
    pub shadow_for: u64,
}

fn usual() -> u64 {
    100
}

/// How things stand: the file `state.json`, which the job writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The model that serves, as `MODEL.safetensors` beside this file; `None` before the first
    /// swap: it is the job's own.
    pub serving: Option<Arc<str>>,
    /// Those that have served before it, the last one last.
    pub before: Vec<Arc<str>>,
    /// The trial, while one is on.
    pub trial: Option<Standing>,
    /// What became of the last request.
    pub last: Option<Answer>,
}

/// How a trial stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The candidate.
    pub model: Arc<str>,
    /// The request that it is tried for.
    pub asked: u64,
    /// Frames that have verified it.
    pub frames: u64,
    /// Frames after which it is decided.
    pub shadow_for: u64,
    /// Its mean squared error over that of the model that serves.
    pub error_ratio: Option<f64>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which request: the time of its file, nanoseconds since 1970.
    pub asked: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// In words.
    pub why: String,
}

/// What can become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model serves.
    Taken,
    /// It does not suit the job, or is no model.
    Refused,
    /// The trial was against it.
    Worse,
    /// Another one was asked for before it was decided.
    Superseded,
}

/// The folder, which is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`, made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = Self(path.to_owned());
        std::fs::create_dir_all(path).map_err(|error| folder.error(error))?;
        Ok(folder)
    }

    /// Where the copy of a model lies.
    pub fn model(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.safetensors"))
    }

    /// How things stand.
    ///
    /// # Errors
    /// When the file is not one of ours.
    pub fn state(&self) -> Result<State> {
        Ok(self.read("state.json")?.unwrap_or_default())
    }

    /// Asks for a model; when that was, which is what the answer bears.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn ask(&self, request: &Request) -> Result<u64> {
        self.write("request.json", request)?;
        self.asked()?.ok_or_else(|| self.error("request.json is gone already"))
    }

    /// The request that lies there, and when it was made.
    pub(super) fn request(&self) -> Option<(u64, Result<Request>)> {
        let asked = self.asked().ok().flatten()?;
        let gone = || self.error("request.json is gone already");
        Some((asked, self.read("request.json").and_then(|request| request.ok_or_else(gone))))
    }

    fn asked(&self) -> Result<Option<u64>> {
        let metadata = match std::fs::metadata(self.0.join("request.json")) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(error)),
        };
        let modified = metadata.modified().map_err(|error| self.error(error))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Some(since.as_nanos() as u64))
    }

    pub(super) fn tell(&self, state: &State) -> Result<()> {
        self.write("state.json", state)
    }

    /// Keeps a copy of a model: its own file may be trained over. Others go, but those in `keep`.
    pub(crate) fn keep(&self, id: &str, bytes: &[u8], keep: &[Arc<str>]) -> Result<()> {
        if !self.model(id).exists() {
            self.put(&format!("{id}.safetensors"), bytes)?;
        }
        let entries = std::fs::read_dir(&self.0).map_err(|error| self.error(error))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let model = path.extension().is_some_and(|extension| extension == "safetensors");
            if model && *stem != *id && !keep.iter().any(|kept| **kept == *stem) {
                std::fs::remove_file(&path).map_err(|error| self.error(error))?;
            }
        }
        Ok(())
    }

    /// The one who may answer: a job that takes over from another waits until that one has ended.
    pub(super) fn lock(&self) -> Option<File> {
        let folder = File::open(&self.0).ok()?;
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            // Where the system locks no folders, there is one job as far as anyone knows.
            Ok(()) | Err(TryLockError::Error(_)) => Some(folder),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let text = match std::fs::read_to_string(self.0.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(error)),
        };
        let told = serde_json::from_str(&text);
        told.map(Some).map_err(|error| self.error(format!("{name}: {error}")))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| self.error(error))?;
        self.put(name, format!("{text}\n").as_bytes())
    }

    /// Replaces a file, whole or not at all.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let new = self.0.join(format!("{name}.new"));
        let put = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, self.0.join(name))
        };
        put().map_err(|error| self.error(format!("cannot write {name}: {error}")))
    }

    fn error(&self, why: impl std::fmt::Display) -> Error {
        Error::new(format!("model.control: {}", self.0.display()), why)
    }
}
