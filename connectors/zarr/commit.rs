//! One sensor's forecast store: appended to in commits that are seen whole or not at all.
//!
//! ```text
//! data chunks ─► chunks of the coordinates ─► arrays' metadata ─► root with consolidated metadata
//! ```
//!
//! What lies behind the consolidated length is invisible, so a crash leaves nothing torn, and the
//! next start removes it. Nothing but the root says what is committed.
//!
//! A revised forecast takes the place of the one before it, array by array, its revision last: a
//! crash leaves the older revision's number, and the next start writes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use physicnet_stream::{Error, Forecast, Result, Sensor, format_time};
use serde_json::{Map, Value, json};

use super::encode::{Field, bytes, root};
use super::forecasts::{LENGTH, Layout, OLDER, Unit, flag};
use super::place::{AT_ONCE, Writing, shown};
use super::places::Places;
use super::progress::{Progress, read_root};
use super::store::{Store, Unread};

/// A forecast store, for its one writer.
pub(super) struct ForecastStore {
    files: Box<dyn Writing>,
    layout: Layout,
    /// How far the job is that writes it.
    progress: Option<Progress>,
    path: PathBuf,
    /// Where each reference time lies in the store.
    places: Places,
    /// The coordinates along time, by their chunk: the last one, and what a commit changes.
    rows: BTreeMap<u64, Vec<Row>>,
}

/// What a forecast has of the coordinates along time.
#[derive(Clone, Copy)]
struct Row {
    time: i64,
    revision: i32,
    missing: f32,
    /// The place among the layout's models.
    model: i32,
    /// The flag of what is served.
    serving: i32,
}

impl ForecastStore {
    /// Opens the store at `path`, which `files` holds, for forecasts such as `first`, and undoes
    /// what a crash has left of a commit. A new store comes into being with its first commit.
    ///
    /// # Errors
    /// When something else is at `path`: a directory of other things, or forecasts of another
    /// layout.
    pub(super) fn open(
        path: &Path,
        files: Box<dyn Writing>,
        sensor: &Sensor,
        first: &Forecast,
        products: &[String],
        nanoseconds: bool,
    ) -> Result<Self> {
        let mut store = Self {
            layout: Layout::new(sensor, first, products, Unit::choose(nanoseconds, first))?,
            files,
            progress: None,
            path: path.to_owned(),
            places: Places::default(),
            rows: BTreeMap::new(),
        };
        match read_root(store.files.place())? {
            Some(root) => store.recover(path, &root)?,
            None => store.clear(path)?,
        }
        Ok(store)
    }

    /// Goes on from what is committed.
    fn recover(&mut self, path: &Path, root: &Value) -> Result<()> {
        let what = shown(path);
        let other = |why: String| Error::new(&what, format!("{why}; choose another path"));
        self.progress = Progress::of(root);
        if self.progress.is_none() {
            return Err(other("was not written by PhysicNet".into()));
        }
        let arrays = &root["consolidated_metadata"]["metadata"];
        // Older stores are by one model and have no coordinate for it, nor for what is served.
        let told = arrays["model"]["attributes"]["flag_meanings"].as_str();
        let models = told.or(root["attributes"]["model"].as_str()).unwrap_or_default();
        self.layout.models = models.split_whitespace().map(Arc::from).collect();
        let held = arrays["time"]["shape"][0].as_u64().unwrap_or(0);
        self.layout.unit = Unit::of(arrays["time"]["attributes"]["units"].as_str());
        let says_serving = !arrays["serving"].is_null();
        for field in self.layout.fields(held) {
            let (mut expected, found) = (field.metadata(), &arrays[&field.name]);
            let lacks = match field.name.as_str() {
                "model" => told.is_none(),
                "serving" => !says_serving,
                _ => false,
            };
            let beside = &found["attributes"]["coordinates"];
            if OLDER.iter().any(|older| beside == older) {
                expected["attributes"]["coordinates"] = beside.clone();
            }
            if !lacks && expected != *found {
                let why = "holds forecasts of another grid, horizon or cadence, or other products";
                let (there, here) = (&found["shape"], &expected["shape"]);
                let shapes =
                    if there == here { String::new() } else { format!(", {there} for {here}") };
                return Err(other(format!("{why}: array {} differs{shapes}", field.name)));
            }
        }
        let (open, unit) = (Store::open(path)?, self.layout.unit.nanoseconds());
        for at in 0..held.div_ceil(LENGTH) {
            let times = self.chunk(&open, "time", at, None)?;
            let count = (held - at * LENGTH).min(LENGTH) as usize;
            let times = values(&times, i64::from_ne_bytes).take(count);
            times.for_each(|time| self.places.push(time.saturating_mul(unit)));
        }
        if let Some(last) = self.last() {
            self.load(&open, last)?;
        }
        // A root that the writer before has sent may come yet: it is to find another one than that
        // which it goes on from, or it would tell of what is about to be removed.
        if let Some(token) = self.files.token() {
            let mut root = root.clone();
            root["attributes"]["physicnet"]["writer"] = json!(token);
            self.files.publish(&bytes(&root))?;
        }
        self.trim()
    }

    /// Reads chunk `at` of a coordinate along time; where there is none, `absent` is every entry.
    fn chunk(&self, open: &Store, name: &str, at: u64, absent: Option<&[u8]>) -> Result<Vec<u8>> {
        let array = open.array(name)?;
        let chunk = array.map(|array| array.chunk(&[at]).map_err(Unread::error));
        let chunk = chunk.transpose()?.flatten();
        let absent = || absent.map(|fill| fill.repeat(LENGTH as usize));
        let why = || Error::new(shown(&self.path), format!("lost chunk {at} of {name}"));
        chunk.or_else(absent).ok_or_else(why)
    }

    /// Reads chunk `at` of the coordinates along time.
    fn load(&mut self, open: &Store, at: u64) -> Result<()> {
        let chunk = |name: &str| self.chunk(open, name, at, None);
        // Of what an older store holds these have no chunks, but their fill value.
        let flags = |name: &str| self.chunk(open, name, at, Some(&[0; 4]));
        let (times, revisions, missing) = (chunk("time")?, chunk("revision")?, chunk("missing")?);
        let (models, servings) = (flags("model")?, flags("serving")?);
        let rows = values(&times, i64::from_ne_bytes)
            .zip(values(&revisions, i32::from_ne_bytes))
            .zip(values(&missing, f32::from_ne_bytes))
            .zip(values(&models, i32::from_ne_bytes))
            .zip(values(&servings, i32::from_ne_bytes))
            .map(|((((time, revision), missing), model), serving)| Row {
                time,
                revision,
                missing,
                model,
                serving,
            });
        let count = (self.length() - at * LENGTH).min(LENGTH) as usize;
        self.rows.insert(at, rows.take(count).collect());
        Ok(())
    }

    /// The coordinates of the forecast at `place`.
    fn row(&mut self, place: usize) -> Result<&mut Row> {
        let at = place as u64 / LENGTH;
        if !self.rows.contains_key(&at) {
            self.load(&Store::open(&self.path)?, at)?;
        }
        let rows = self.rows.get_mut(&at);
        let row = rows.and_then(|rows| rows.get_mut(place % LENGTH as usize));
        row.ok_or_else(|| Error::new(shown(&self.path), format!("lost chunk {at} of time")))
    }

    /// The last chunk of the coordinates along time.
    fn last(&self) -> Option<u64> {
        self.length().checked_sub(1).map(|last| last / LENGTH)
    }

    /// Removes what a first commit has left that did not come to its end.
    fn clear(&mut self, path: &Path) -> Result<()> {
        let names: Vec<_> = self.layout.fields(0).into_iter().map(|field| field.name).collect();
        let found = self.files.place().list()?;
        if let Some(stranger) = found.names().find(|name| !names.contains(name)) {
            let why = format!("is not a Zarr store and holds {stranger}; choose another path");
            return Err(Error::new(shown(path), why));
        }
        found.names().try_for_each(|name| self.files.remove(name))
    }

    /// Takes every array back to the committed length.
    fn trim(&mut self) -> Result<()> {
        let length = self.length();
        for field in self.layout.fields(length) {
            self.files.restore(&format!("{}/zarr.json", field.name), &bytes(&field.metadata()))?;
            if field.dims[0] != "time" {
                continue;
            }
            // A commit writes chunks in their order, so what it left has no hole wider than what
            // is written at once; removed from the end, it stays so if this is not finished.
            let held = length.div_ceil(field.chunk[0]);
            let mut end = held;
            loop {
                let next: Vec<_> = (end..end + AT_ONCE).map(|at| field.first(at)).collect();
                let found = self.files.exist(&next)?;
                let Some(last) = found.iter().rposition(|found| *found) else { break };
                end += last as u64 + 1;
            }
            (held..end).rev().try_for_each(|at| self.files.remove(&field.first(at)))?;
        }
        self.last().map_or(Ok(()), |at| {
            let coordinates = self.coordinates(at)?;
            coordinates.iter().try_for_each(|(key, bytes)| self.files.restore(key, bytes))
        })
    }

    /// Takes in `forecasts` as one commit: a reader sees all new ones or none. Those that the
    /// store holds already, in the same or a later revision, are left out.
    ///
    /// # Errors
    /// When the disk refuses, or a forecast is not like the others. Then this store must not be
    /// used again, but opened anew.
    pub(super) fn commit(&mut self, forecasts: &[Forecast]) -> Result<()> {
        let (mut news, mut revised, mut changed) = (false, false, BTreeMap::new());
        // A repeat is of what the root tells of. What comes later is news, whatever stands there:
        // a clock that was set back makes another forecast of the same reference time.
        let told = self.progress.map_or(0, |known| known.next);
        for forecast in forecasts {
            let known = self.places.find(forecast.reference_time);
            let held = match known.filter(|_| forecast.offset < told) {
                Some(place) => self.row(place)?.revision >= forecast.revision as i32,
                None => false,
            };
            if !held {
                revised |= known.is_some();
                let place = known.unwrap_or(self.places.len());
                self.remember(forecast, place)?;
                // Puts of one key may overtake one another: of several revisions the last is put.
                changed.insert(place, forecast);
            }
            // A crash may have left a revision whose frame the root does not tell of.
            if !held || self.progress.is_none_or(|known| known.next <= forecast.offset) {
                self.progress = Some(Progress::after(forecast));
                news = true;
            }
        }
        let Some(progress) = self.progress.filter(|_| news) else { return Ok(()) };
        for (place, forecast) in &changed {
            self.put(forecast, *place)?;
        }
        // A revision's number says that its values are there.
        self.files.flush()?;
        let mut numbers = Vec::new();
        for at in changed.keys().map(|place| *place as u64 / LENGTH).collect::<BTreeSet<_>>() {
            let mut coordinates = self.coordinates(at)?;
            numbers.extend(coordinates.pop());
            for (key, bytes) in coordinates {
                self.files.put(&key, &bytes)?;
            }
        }
        if revised {
            self.files.flush()?;
        }
        for (key, bytes) in numbers {
            self.files.put(&key, &bytes)?;
        }
        let fields = self.layout.fields(self.length());
        for field in &fields {
            // What does not grow is written once.
            self.files.restore(&format!("{}/zarr.json", field.name), &bytes(&field.metadata()))?;
        }
        for (key, bytes) in self.layout.fixed()? {
            self.files.restore(&key, &bytes)?;
        }
        // All of it is there before the root tells of it.
        self.files.publish(&bytes(&root(&self.attributes(progress), &fields)))?;
        // The next ones go into the last chunk; whatever else is wanted is read again.
        self.rows = self.rows.split_off(&self.last().unwrap_or_default());
        Ok(())
    }

    /// Forecasts in the store.
    fn length(&self) -> u64 {
        self.places.len() as u64
    }

    /// Writes one forecast's chunks at `place`.
    fn put(&mut self, forecast: &Forecast, place: usize) -> Result<()> {
        let what = || format!("forecast of {}", format_time(forecast.reference_time));
        let key = [place as u64, 0, 0, 0];
        for (field, values) in self.layout.chunks(forecast).map_err(|e| Error::new(what(), e))? {
            self.files.put(&field.key(&key), &field.encode(values)?)?;
        }
        Ok(())
    }

    /// Remembers the coordinates of a forecast at `place`, one of the store's or the next.
    fn remember(&mut self, forecast: &Forecast, place: usize) -> Result<()> {
        let what = || format!("forecast of {}", format_time(forecast.reference_time));
        let unit = self.layout.unit.nanoseconds();
        if forecast.reference_time % unit != 0 {
            let why = "is not on whole seconds and the store began with those that were; set \
                       `nanoseconds: true` and choose another path";
            return Err(Error::new(what(), why));
        }
        let (revision, missing) = (forecast.revision as i32, forecast.missing);
        let models = &mut self.layout.models;
        let model = models.iter().position(|known| *known == forecast.model).unwrap_or_else(|| {
            models.push(Arc::clone(&forecast.model));
            models.len() - 1
        });
        let row = Row {
            time: forecast.reference_time / unit,
            revision,
            missing,
            model: model as i32,
            serving: flag(forecast.serving),
        };
        if place == self.places.len() {
            self.places.push(forecast.reference_time);
            self.rows.entry(place as u64 / LENGTH).or_default().push(row);
        } else {
            *self.row(place)? = row;
        }
        Ok(())
    }

    /// Chunk `at` of each coordinate along time, the revision last: it says that the rest is there.
    fn coordinates(&self, at: u64) -> Result<Vec<(String, Vec<u8>)>> {
        let rows = self.rows.get(&at).map_or(&[][..], Vec::as_slice);
        let padded = |field: &Field, mut values: Vec<u8>, fill: &[u8]| {
            while values.len() < LENGTH as usize * fill.len() {
                values.extend_from_slice(fill);
            }
            Ok((field.key(&[at]), field.encode(values)?))
        };
        let [time, revision, missing, model, serving] = self.layout.along_time(self.length());
        Ok(vec![
            padded(&time, column(rows, |row| row.time.to_ne_bytes()), &i64::MIN.to_ne_bytes())?,
            padded(
                &missing,
                column(rows, |row| row.missing.to_ne_bytes()),
                &f32::NAN.to_ne_bytes(),
            )?,
            padded(&model, column(rows, |row| row.model.to_ne_bytes()), &0_i32.to_ne_bytes())?,
            padded(&serving, column(rows, |row| row.serving.to_ne_bytes()), &0_i32.to_ne_bytes())?,
            padded(
                &revision,
                column(rows, |row| row.revision.to_ne_bytes()),
                &(-1_i32).to_ne_bytes(),
            )?,
        ])
    }

    fn attributes(&self, progress: Progress) -> Map<String, Value> {
        let mut attributes = Map::new();
        attributes.insert("Conventions".into(), json!("CF-1.11"));
        attributes.insert("source".into(), json!("PhysicNet"));
        let newest = self.rows.last_key_value().and_then(|(_, rows)| rows.last());
        let newest = newest.and_then(|row| self.layout.models.get(row.model as usize));
        attributes.insert("model".into(), json!(newest));
        attributes.insert("product".into(), json!(self.layout.served));
        attributes.insert("physicnet".into(), json!({ "progress": progress }));
        attributes
    }
}

/// The bytes of one coordinate.
fn column<const N: usize>(rows: &[Row], of: impl Fn(&Row) -> [u8; N]) -> Vec<u8> {
    rows.iter().flat_map(of).collect()
}

/// The numbers in `bytes`.
fn values<T, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |bytes| read(*bytes))
}
