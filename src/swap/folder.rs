//! The folder between a job and those who ask it for another model.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use physicnet_stream::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
    /// The job whose folder it is.
    pub job: Option<String>,
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
    /// How often the trial was begun: again after a start, but not for ever.
    #[serde(default)]
    pub begun: u32,
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

/// The folder of a job. It is made when something is first written into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    path: PathBuf,
    job: String,
}

impl Folder {
    /// The folder at `path` of the job that is called `job`.
    pub fn new(path: &Path, job: &str) -> Self {
        Self { path: path.to_owned(), job: job.to_owned() }
    }

    /// Where the copy of a model lies.
    pub fn model(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}.safetensors"))
    }

    /// How things stand.
    ///
    /// # Errors
    /// When the file is not one of ours, or another job's.
    pub fn state(&self) -> Result<State> {
        let state: State = self.read("state.json")?.unwrap_or_default();
        match state.job.as_ref().filter(|job| **job != self.job) {
            Some(other) => {
                Err(self.error(format!("is the folder of job {other}; give {} its own", self.job)))
            }
            None => Ok(state),
        }
    }

    /// Asks for a model; when that was, which is what the answer bears.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn ask(&self, request: &Request) -> Result<u64> {
        self.write("request.json", request)
    }

    /// The request that lies there, and when it was made.
    pub(super) fn request(&self) -> Option<(u64, Result<Request>)> {
        let asked = self.asked().ok().flatten()?;
        let gone = || self.error("request.json is gone already");
        Some((asked, self.read("request.json").and_then(|request| request.ok_or_else(gone))))
    }

    /// When the request was made that lies there.
    pub(super) fn asked(&self) -> Result<Option<u64>> {
        match std::fs::metadata(self.path.join("request.json")).and_then(|m| m.modified()) {
            Ok(modified) => Ok(Some(nanoseconds(modified))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Removes the request of this time, if it is the one that lies there.
    pub(super) fn forget(&self, asked: u64) -> Result<()> {
        if self.asked()? == Some(asked) {
            let gone = std::fs::remove_file(self.path.join("request.json"));
            gone.map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    pub(super) fn tell(&self, state: &State) -> Result<()> {
        let state = State { job: Some(self.job.clone()), ..state.clone() };
        self.write("state.json", &state).map(drop)
    }

    /// Keeps a copy of a model: its own file may be trained over. A copy that is there may be older
    /// than what `calibrate` wrote into the file: the id does not tell.
    pub(super) fn keep(&self, id: &str, bytes: &[u8]) -> Result<()> {
        if std::fs::read(self.model(id)).is_ok_and(|kept| kept == bytes) {
            return Ok(());
        }
        self.put(&format!("{id}.safetensors"), bytes).map(drop)
    }

    /// Removes the copies of all models but these. One that stays goes another time.
    pub(super) fn clear(&self, but: &[&str]) {
        for path in std::fs::read_dir(&self.path).into_iter().flatten().flatten().map(|e| e.path())
        {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let model = path.extension().is_some_and(|extension| extension == "safetensors");
            if model && !but.contains(&&*stem) {
                _ = std::fs::remove_file(&path);
            }
        }
    }

    /// The one who may answer: a job that takes over from another waits until that one has ended.
    ///
    /// # Errors
    /// When another one has it, or the folder is not to be had.
    pub(super) fn lock(&self) -> Result<File> {
        let opened = std::fs::create_dir_all(&self.path).and_then(|()| File::open(&self.path));
        let folder = opened.map_err(|error| self.error(error))?;
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => {
                Err(self.error("another job attends to it; until that ends none is swapped here"))
            }
            // Where the system locks no folders, there is one job as far as anyone knows.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(folder),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let text = match std::fs::read_to_string(self.path.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error(error)),
        };
        // Of a list, serde would take the fields by their order here.
        let told = serde_json::from_str::<Map<String, Value>>(&text);
        let told = told.and_then(|object| T::deserialize(Value::Object(object)));
        told.map(Some).map_err(|error| self.error(format!("{name}: {error}")))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<u64> {
        let text = serde_json::to_string_pretty(value).map_err(|error| self.error(error))?;
        self.put(name, format!("{text}\n").as_bytes())
    }

    /// Replaces a file, whole or not at all; when that was.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<u64> {
        let new = self.path.join(format!("{name}.new"));
        let put = || -> std::io::Result<u64> {
            std::fs::create_dir_all(&self.path)?;
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            let modified = file.metadata()?.modified()?;
            std::fs::rename(&new, self.path.join(name))?;
            Ok(nanoseconds(modified))
        };
        put().map_err(|error| self.error(format!("cannot write {name}: {error}")))
    }

    fn error(&self, why: impl std::fmt::Display) -> Error {
        Error::new(format!("model.control: {}", self.path.display()), why)
    }
}

/// Nanoseconds since 1970.
fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_object() {
        let at = tempfile::tempdir().unwrap();
        let folder = Folder::new(at.path(), "job");
        let read = |text: &str| {
            std::fs::write(at.path().join("request.json"), text).unwrap();
            folder.request().unwrap().1
        };
        let request = Request { checkpoint: "new.safetensors".into(), shadow_for: 100 };
        assert_eq!(read(r#"{"checkpoint": "new.safetensors"}"#).unwrap(), request);
        for wrong in [r#"["new.safetensors", 5]"#, "[]", r#"{"checkpoint": "a", "shadow": 5}"#] {
            let told = read(wrong).unwrap_err().to_string();
            assert!(told.contains("request.json: "), "{told}");
        }
    }
}
