//! The arrays of a store as its metadata describes them, consolidated where it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use physicnet_stream::{Error, Result};
use serde_json::{Map, Value};
use zarrs::array::{
    Array, ArrayBytes, ArrayError, ArrayMetadata, ArrayShardedExt, ArrayShardedReadableExt,
    ArrayShardedReadableExtCache, CodecError, CodecOptions,
};
use zarrs::storage::{ReadableStorageTraits, StorageError};

use super::decode::{Kind, Unpack, numbers};
use super::foreign::foreign;
use super::place::{self, Place, ROOT};
use super::time::{Encoding, unit_nanoseconds};

/// What a store holds: its arrays by name. Where metadata is consolidated, that is the truth: in
/// a store that grows, arrays are resized before their new length is published there.
pub(super) struct Store {
    name: String,
    arrays: BTreeMap<String, Value>,
    place: Arc<dyn Place>,
    /// The root's metadata as it was read: what a store that grows changes when it has grown,
    /// if it is consolidated.
    pub(super) root: Vec<u8>,
    /// Whether its metadata is consolidated. While xarray appends, it is not.
    pub(super) consolidated: bool,
}

/// One array, open for reading.
pub(super) struct Stored {
    /// `store.zarr/name`, for errors.
    what: String,
    array: Array<dyn ReadableStorageTraits>,
    place: Arc<dyn Place>,
    shards: ArrayShardedReadableExtCache,
    /// The names of its dims; empty where it has none.
    pub(super) dims: Vec<String>,
    /// Its length along each dim.
    pub(super) shape: Vec<u64>,
    /// The shape of what is decoded at once: a chunk, or an inner chunk of a shard.
    pub(super) chunk: Vec<u64>,
    /// Its attributes.
    pub(super) attributes: Map<String, Value>,
    kind: Option<Kind>,
    datetime: Option<Encoding>,
    v2: bool,
}

/// Why there is nothing to be had of a chunk.
#[derive(Debug)]
pub(super) enum Unread {
    /// The store does not hand it out: what it holds is not known, and may be asked for again.
    Withheld(Error),
    /// What the store holds there makes no sense.
    Corrupt(Error),
}

impl Unread {
    /// What is said of either.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Withheld(error) | Self::Corrupt(error) => error,
        }
    }
}

impl Store {
    /// Lists the arrays of the store at `path`.
    ///
    /// # Errors
    /// When there is no Zarr group there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = place::shown(path);
        if let Some(why) = foreign(path) {
            return Err(Error::new(name, why));
        }
        if path.is_file() {
            return Err(Error::new(name, "is a file; a Zarr store is a folder"));
        }
        let place = place::open(path)?;
        let parse = |key: &str, bytes: &[u8]| -> Result<Value> {
            let wrong = |e| Error::new(place.name(key), format!("is not JSON: {e}"));
            serde_json::from_slice(bytes).map_err(wrong)
        };
        let json = |key: &str| -> Result<Option<Value>> {
            place.get(key)?.map(|bytes| parse(key, &bytes)).transpose()
        };
        let mut arrays = BTreeMap::new();
        let bytes = place.get(ROOT)?;
        let v3 = bytes.as_ref().map(|bytes| parse(ROOT, bytes)).transpose()?;
        let mut root = bytes.unwrap_or_default();
        if let Some(root) = &v3 {
            if root["node_type"] == "array" {
                return Err(Error::new(name, "is a single array; name the group that holds it"));
            }
            if let Some(listed) = root["consolidated_metadata"]["metadata"].as_object() {
                let listed = listed.iter().filter(|(_, meta)| meta["node_type"] == "array");
                arrays.extend(listed.map(|(name, meta)| (name.clone(), meta.clone())));
            }
        } else if let Some(bytes) = place.get(".zmetadata")? {
            let listed = parse(".zmetadata", &bytes)?;
            root = bytes;
            let listed = listed["metadata"].as_object().cloned().unwrap_or_default();
            for (key, meta) in &listed {
                if let Some(name) = key.strip_suffix("/.zarray") {
                    let attributes = listed.get(&format!("{name}/.zattrs"));
                    arrays.insert(name.to_owned(), v2(meta.clone(), attributes.cloned()));
                }
            }
        }
        let consolidated = !arrays.is_empty();
        if arrays.is_empty() {
            for array in place.list()?.folders {
                if let Some(meta) = json(&format!("{array}/zarr.json"))? {
                    if meta["node_type"] == "array" {
                        arrays.insert(array, meta);
                    }
                } else if let Some(meta) = json(&format!("{array}/.zarray"))? {
                    let attributes = json(&format!("{array}/.zattrs"))?;
                    arrays.insert(array, v2(meta, attributes));
                }
            }
        }
        if arrays.is_empty() && v3.is_none() && place.get(".zgroup")?.is_none() {
            if !path.is_dir() && place.list()?.names().next().is_none() {
                return Err(Error::new(name, "is not there; look at how it is spelt"));
            }
            return Err(Error::new(name, "holds no Zarr group (no zarr.json, no .zgroup)"));
        }
        Ok(Self { name, arrays, place, root, consolidated })
    }

    /// The path of the store.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The names of all arrays, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.keys().map(String::as_str)
    }

    /// Opens an array by name; `None` where there is none of that name.
    ///
    /// # Errors
    /// When zarrs cannot make sense of its metadata (an unknown codec, say).
    pub(super) fn array(&self, name: &str) -> Result<Option<Stored>> {
        let Some(meta) = self.arrays.get(name) else { return Ok(None) };
        let what = format!("{}/{name}", self.name);
        let fail = |e: &dyn std::fmt::Display| Error::new(&what, format!("cannot be read: {e}"));
        let v2 = meta["zarr_format"] == 2;
        let metadata: ArrayMetadata = serde_json::from_value(meta.clone()).map_err(|e| fail(&e))?;
        let chunks = Arc::clone(&self.place).chunks()?;
        let array = Array::new_with_metadata(chunks, &format!("/{name}"), metadata)
            .map_err(|e| fail(&e))?;
        let attributes = meta["attributes"].as_object().cloned().unwrap_or_default();
        let names = if v2 { &attributes_dims(&attributes) } else { &meta["dimension_names"] };
        let texts = names.as_array().into_iter().flatten();
        let dims = texts.map(|d| d.as_str().unwrap_or_default().to_owned()).collect();
        let list =
            if v2 { &meta["chunks"] } else { &meta["chunk_grid"]["configuration"]["chunk_shape"] };
        let lengths = |list: &Value| -> Option<Vec<u64>> {
            list.as_array()?.iter().map(|n| n.as_u64().filter(|n| *n > 0)).collect()
        };
        let chunk = match array.effective_subchunk_shape() {
            Some(inner) => inner.iter().map(|n| n.get()).collect(),
            None => lengths(list).ok_or_else(|| fail(&"its chunks are not regular"))?,
        };
        let data_type = if v2 { &meta["dtype"] } else { &meta["data_type"] };
        Ok(Some(Stored {
            what,
            shape: array.shape().to_vec(),
            shards: ArrayShardedReadableExtCache::new(&array),
            array,
            place: Arc::clone(&self.place),
            dims,
            chunk,
            attributes,
            kind: data_type.as_str().and_then(Kind::parse),
            datetime: datetime(data_type),
            v2,
        }))
    }
}

/// The shape of v2 metadata as [`ArrayMetadata`] wants it, with the attributes inside.
fn v2(mut meta: Value, attributes: Option<Value>) -> Value {
    if let Some(attributes) = attributes {
        meta["attributes"] = attributes;
    }
    meta
}

fn attributes_dims(attributes: &Map<String, Value>) -> Value {
    attributes.get("_ARRAY_DIMENSIONS").cloned().unwrap_or_default()
}

/// numpy's datetime64 as v2 (`<M8[ns]`) and v3 spell it.
fn datetime(data_type: &Value) -> Option<Encoding> {
    if let Some(text) = data_type.as_str() {
        let unit = text.trim_start_matches(['<', '>']).strip_prefix("M8[")?.strip_suffix(']')?;
        return Encoding::since_1970(unit, 1);
    }
    let configuration = &data_type["configuration"];
    let known = data_type["name"] == "numpy.datetime64";
    let scale = configuration["scale_factor"].as_i64().unwrap_or(1);
    known.then(|| Encoding::since_1970(configuration["unit"].as_str()?, scale)).flatten()
}

impl Stored {
    /// An error about this array.
    pub(super) fn error(&self, why: impl std::fmt::Display) -> Error {
        Error::new(&self.what, why)
    }

    /// Its name within the store.
    pub(super) fn name(&self) -> &str {
        self.what.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it holds numbers.
    pub(super) fn is_numeric(&self) -> bool {
        self.kind.is_some()
    }

    /// A text attribute; empty where there is none.
    pub(super) fn text(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).and_then(Value::as_str).unwrap_or_default()
    }

    /// How its values unpack.
    ///
    /// # Errors
    /// When it does not hold numbers, or its packing makes no sense.
    pub(super) fn unpack(&self) -> Result<Unpack> {
        let kind = self.kind.ok_or_else(|| self.error("does not hold numbers"))?;
        let fill = match self.array.metadata() {
            ArrayMetadata::V2(meta) => serde_json::to_value(&meta.fill_value).ok(),
            ArrayMetadata::V3(_) => None,
        };
        Unpack::parse(kind, &self.attributes, fill.as_ref()).map_err(|e| self.error(e))
    }

    /// The stored fill value as a number.
    pub(super) fn fill(&self) -> f64 {
        let bytes = self.array.fill_value().as_ne_bytes();
        self.kind.and_then(|kind| kind.floats(bytes).first().copied()).unwrap_or(f64::NAN)
    }

    /// The stored bytes of the chunk at `place`, in this machine's order; `None` where the store
    /// does not hold it.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub(super) fn chunk(&self, place: &[u64]) -> Result<Option<Vec<u8>>, Unread> {
        // Parallelism lives above: a decoder that spreads out would fight the workers.
        let options = CodecOptions::default().with_concurrent_target(1);
        let bytes: Option<ArrayBytes<'static>> = if self.shards.array_is_sharded() {
            // A shard does not tell which of its chunks were left out, but a chunk that is all
            // fill value is what writers leave out.
            let inner: Result<ArrayBytes<'static>, _> =
                self.array.retrieve_subchunk_opt(&self.shards, place, &options);
            let fill = self.array.fill_value();
            inner.map(|bytes| Some(bytes).filter(|bytes| !bytes.is_fill_value(fill)))
        } else {
            self.array.retrieve_chunk_if_exists_opt(place, &options)
        }
        .map_err(|e| {
            let error = self.error(format!("chunk {place:?}: {e}"));
            // Who decodes a part of a shard asks the store, too.
            let (ArrayError::StorageError(asked)
            | ArrayError::CodecError(CodecError::StorageError(asked))) = &e
            else {
                return Unread::Corrupt(error);
            };
            match asked {
                // Of a shard that is shorter than it says.
                StorageError::InvalidByteRangeError(_) => Unread::Corrupt(error),
                _ => Unread::Withheld(error),
            }
        })?;
        let fixed = bytes.map(|bytes| bytes.into_fixed().map(|raw| raw.into_owned()));
        fixed.transpose().map_err(|e| Unread::Corrupt(self.error(e)))
    }

    /// Whether it pays to say beforehand which chunks will be asked for.
    pub(super) fn reads_ahead(&self) -> bool {
        // Of a shard, parts are read.
        self.place.is_far() && !self.shards.array_is_sharded()
    }

    /// Begins to read the chunks at `places`.
    pub(super) fn ahead(&self, places: &[Vec<u64>]) {
        let key = |place: &Vec<u64>| self.array.chunk_key(place).as_str().to_owned();
        self.place.ahead(places.iter().map(key).collect());
    }

    /// All of it, in this machine's order.
    fn everything(&self) -> Result<Vec<u8>> {
        let options = CodecOptions::default().with_concurrent_target(1);
        let all = self.array.subset_all();
        let bytes: ArrayBytes<'static> =
            self.array.retrieve_array_subset_opt(&all, &options).map_err(|e| self.error(e))?;
        Ok(bytes.into_fixed().map_err(|e| self.error(e))?.into_owned())
    }

    /// All values of a coordinate, unpacked in f64; `None` where they are not numbers.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn coordinate(&self) -> Result<Option<Vec<f64>>> {
        let Some(kind) = self.kind else { return Ok(None) };
        let first = |key: &str, otherwise| {
            let number = self.attributes.get(key).and_then(numbers);
            number.and_then(|n| n.first().copied()).unwrap_or(otherwise)
        };
        let (scale, offset) = (first("scale_factor", 1.0), first("add_offset", 0.0));
        let values = kind.floats(&self.everything()?);
        Ok(Some(values.into_iter().map(|v| v * scale + offset).collect()))
    }

    /// Whether this is a time coordinate by its units or type.
    pub(super) fn is_time(&self) -> bool {
        self.shape.len() == 1 && (self.datetime.is_some() || self.text("units").contains(" since "))
    }

    /// All spans of time, in nanoseconds: a coordinate whose units are `hours` or the like.
    ///
    /// # Errors
    /// When they cannot be read, or their units are no span of time.
    pub(super) fn spans(&self) -> Result<Vec<i64>> {
        let unit = unit_nanoseconds(self.text("units")).ok_or_else(|| {
            let units = self.text("units");
            self.error(format!("its units, \"{units}\", are no span of time; write e.g. seconds"))
        })?;
        let values = self.coordinate()?.ok_or_else(|| self.error("does not hold numbers"))?;
        Ok(values.into_iter().map(|value| (value * unit as f64).round() as i64).collect())
    }

    /// The time that an entry says which nobody has written yet.
    pub(super) fn unwritten_time(&self) -> Option<i64> {
        if let Some(encoding) = self.datetime {
            return encoding.decode(self.fill() as i64);
        }
        let calendar = self.attributes.get("calendar").and_then(Value::as_str);
        Encoding::parse(self.text("units"), calendar).ok()?.decode_float(self.fill())
    }

    /// All times; `i64::MIN` for one that is not set or lies outside of what i64 can hold.
    ///
    /// # Errors
    /// When they cannot be read, or their units or calendar are not understood.
    pub(super) fn times(&self) -> Result<Vec<i64>> {
        const NAT: i64 = i64::MIN;
        if let Some(encoding) = self.datetime {
            let stored = Kind::I64.integers(&self.everything()?).unwrap_or_default();
            let decode = |t: i64| if t == NAT { NAT } else { encoding.decode(t).unwrap_or(NAT) };
            return Ok(stored.into_iter().map(decode).collect());
        }
        let calendar = self.attributes.get("calendar").and_then(Value::as_str);
        let encoding = Encoding::parse(self.text("units"), calendar).map_err(|e| self.error(e))?;
        let kind = self.kind.ok_or_else(|| self.error("does not hold numbers"))?;
        let mut marks = self.attributes.get("_FillValue").and_then(numbers).unwrap_or_default();
        if self.v2 {
            // Version 2 marks a missing time with the array's own fill value, unless that is the
            // zero which every writer leaves there.
            marks.extend(Some(self.fill()).filter(|fill| *fill != 0.0));
        }
        let bytes = self.everything()?;
        Ok(match kind.integers(&bytes) {
            Some(stored) => stored
                .into_iter()
                .map(|t| match encoding.decode(t) {
                    Some(time) if t != NAT && !marks.contains(&(t as f64)) => time,
                    _ => NAT,
                })
                .collect(),
            None => kind
                .floats(&bytes)
                .into_iter()
                .map(|t| match encoding.decode_float(t) {
                    Some(time) if !marks.contains(&t) => time,
                    _ => NAT,
                })
                .collect(),
        })
    }
}
