//! Arrays of a Zarr v3 store as they are written: metadata as xarray reads it, chunks as bytes.

use std::sync::Arc;

use physicnet_stream::{Error, Result};
use serde_json::{Map, Value, json};
use zarrs::array::{
    Array, ArrayBytes, ArrayMetadata, ArrayToBytesCodecTraits, CodecOptions,
    chunk_shape_to_array_shape,
};
use zarrs::storage::store::MemoryStore;

/// How the chunks of an array are compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Compression {
    /// zstd, level 1.
    Zstd,
    /// blosc: bytes of equal place together, then zstd. Smaller for smooth fields.
    Blosc,
}

/// One array to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    /// Zarr v3's name of the type.
    pub(super) data_type: &'static str,
    pub(super) fill: Value,
    pub(super) dims: Vec<String>,
    pub(super) shape: Vec<u64>,
    pub(super) chunk: Vec<u64>,
    pub(super) compression: Compression,
    pub(super) attributes: Map<String, Value>,
}

impl Field {
    /// An f32 field, NaN where nothing was written.
    pub(super) fn f32(name: &str, dims: &[&str], shape: &[u64], chunk: &[u64]) -> Self {
        Self::new(name, "float32", json!("NaN"), dims, shape, chunk)
    }

    /// An array of any type.
    pub(super) fn new(
        name: &str,
        data_type: &'static str,
        fill: Value,
        dims: &[&str],
        shape: &[u64],
        chunk: &[u64],
    ) -> Self {
        Self {
            name: name.to_owned(),
            data_type,
            fill,
            dims: dims.iter().map(|dim| (*dim).to_owned()).collect(),
            shape: shape.to_vec(),
            chunk: chunk.iter().map(|n| (*n).max(1)).collect(),
            compression: Compression::Zstd,
            attributes: Map::new(),
        }
    }

    /// With a text attribute, unless it is empty.
    pub(super) fn text(mut self, key: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.attributes.insert(key.to_owned(), json!(value));
        }
        self
    }

    /// With an attribute of numbers.
    pub(super) fn list(mut self, key: &str, values: Vec<i64>) -> Self {
        self.attributes.insert(key.to_owned(), json!(values));
        self
    }

    /// With blosc instead of zstd.
    pub(super) fn blosc(mut self) -> Self {
        self.compression = Compression::Blosc;
        self
    }

    /// The array's `zarr.json`.
    pub(super) fn metadata(&self) -> Value {
        let width = match self.data_type {
            "float64" | "int64" => 8,
            _ => 4,
        };
        let compression = match self.compression {
            Compression::Zstd => {
                json!({"name": "zstd", "configuration": {"level": 1, "checksum": false}})
            }
            Compression::Blosc => json!({"name": "blosc", "configuration": {
                "cname": "zstd", "clevel": 5, "shuffle": "shuffle",
                "typesize": width, "blocksize": 0,
            }}),
        };
        json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": self.shape,
            "data_type": self.data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self.fill,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                compression,
            ],
            "attributes": self.attributes,
            "dimension_names": self.dims,
            "storage_transformers": [],
        })
    }

    /// The file of the chunk at `place`, within the store.
    pub(super) fn key(&self, place: &[u64]) -> String {
        place.iter().fold(format!("{}/c", self.name), |key, at| format!("{key}/{at}"))
    }

    /// The file of the first chunk at `at` of the first dim, within the store.
    pub(super) fn first(&self, at: u64) -> String {
        let mut place = vec![0; self.shape.len()];
        if let Some(first) = place.first_mut() {
            *first = at;
        }
        self.key(&place)
    }

    /// The bytes of a chunk's file, from the values of the whole chunk in this machine's order.
    ///
    /// # Errors
    /// When zarrs refuses the metadata or the length.
    pub(super) fn encode(&self, values: Vec<u8>) -> Result<Vec<u8>> {
        let fail = |e: &dyn std::fmt::Display| Error::new(&self.name, e);
        let metadata: ArrayMetadata =
            serde_json::from_value(self.metadata()).map_err(|e| fail(&e))?;
        let array = Array::new_with_metadata(Arc::new(MemoryStore::new()), "/a", metadata)
            .map_err(|e| fail(&e))?;
        let shape = array.chunk_shape(&vec![0; self.shape.len()]).map_err(|e| fail(&e))?;
        debug_assert_eq!(chunk_shape_to_array_shape(&shape), self.chunk);
        let options = CodecOptions::default().with_concurrent_target(1);
        let encoded = array
            .codecs()
            .encode(
                ArrayBytes::new_flen(values),
                &shape,
                array.data_type(),
                array.fill_value(),
                &options,
            )
            .map_err(|e| fail(&e))?;
        Ok(encoded.into_owned())
    }
}

/// The root's `zarr.json`, with all metadata inline: what makes the arrays visible at once.
pub(super) fn root<'a>(
    attributes: &Map<String, Value>,
    fields: impl IntoIterator<Item = &'a Field>,
) -> Value {
    let arrays: Map<String, Value> =
        fields.into_iter().map(|field| (field.name.clone(), field.metadata())).collect();
    json!({
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": false,
            "metadata": arrays,
        },
    })
}

/// A JSON file's bytes.
pub(super) fn bytes(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Numbers as bytes in this machine's order, to hand to [`Field::encode`].
macro_rules! native {
    ($values:expr) => {
        $values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>()
    };
}
pub(super) use native;
