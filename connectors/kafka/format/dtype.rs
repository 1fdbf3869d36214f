//! The types of array elements, and numbers of any of them as others.

use std::borrow::Cow;

/// The type of an array's elements; little-endian in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float32,
    Float64,
    /// UTF-8 bytes.
    Text,
}

use Dtype::*;

impl Dtype {
    /// As both schemas count them: from 1 in `da00`, whose 0 is no type, from 0 in `ad00`.
    pub(super) const ORDER: [Self; 11] =
        [Int8, Uint8, Int16, Uint16, Int32, Uint32, Int64, Uint64, Float32, Float64, Text];

    /// Bytes an element.
    pub(super) fn size(self) -> usize {
        match self {
            Int8 | Uint8 | Text => 1,
            Int16 | Uint16 => 2,
            Int32 | Uint32 | Float32 => 4,
            Int64 | Uint64 | Float64 => 8,
        }
    }

    /// As the schemas call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Int8 => "int8",
            Uint8 => "uint8",
            Int16 => "int16",
            Uint16 => "uint16",
            Int32 => "int32",
            Uint32 => "uint32",
            Int64 => "int64",
            Uint64 => "uint64",
            Float32 => "float32",
            Float64 => "float64",
            Text => "c_string",
        }
    }
}

/// The elements of an array.
#[derive(Clone, Debug)]
pub(super) enum Values<'a> {
    /// As in the message: little-endian.
    Bytes(Dtype, Cow<'a, [u8]>),
    /// A field on its way out, so that nothing is copied before it is written.
    F32(&'a [f32]),
}

impl Values<'_> {
    pub(super) fn text(text: &str) -> Values<'static> {
        Values::Bytes(Text, Cow::Owned(text.as_bytes().to_vec()))
    }

    pub(super) fn i32(value: i32) -> Values<'static> {
        Values::Bytes(Int32, Cow::Owned(value.to_le_bytes().to_vec()))
    }

    pub(super) fn f32(value: f32) -> Values<'static> {
        Values::Bytes(Float32, Cow::Owned(value.to_le_bytes().to_vec()))
    }

    pub(super) fn i64s(values: &[i64]) -> Values<'static> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Values::Bytes(Int64, Cow::Owned(bytes))
    }

    pub(super) fn f64s(values: &[f64]) -> Values<'static> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Values::Bytes(Float64, Cow::Owned(bytes))
    }

    pub(super) fn dtype(&self) -> Dtype {
        match self {
            Self::Bytes(dtype, _) => *dtype,
            Self::F32(_) => Float32,
        }
    }

    /// The bytes in a message that are the values, as f32, little-endian.
    pub(super) fn verbatim(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(Float32, Cow::Borrowed(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// How many bytes they take in a message.
    pub(super) fn bytes_len(&self) -> usize {
        match self {
            Self::Bytes(_, bytes) => bytes.len(),
            Self::F32(values) => size_of_val(*values),
        }
    }

    /// Writes them into as many bytes as they take.
    pub(super) fn copy_to(&self, to: &mut [u8]) {
        match self {
            Self::Bytes(_, bytes) => to.copy_from_slice(bytes),
            Self::F32(values) => {
                for (to, value) in to.as_chunks_mut().0.iter_mut().zip(*values) {
                    *to = value.to_le_bytes();
                }
            }
        }
    }

    /// The text they spell; `None` for numbers, or what is not UTF-8.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Bytes(Text, bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Integers as they are; `None` for other types, or beyond int64.
    pub(super) fn to_i64(&self) -> Option<Vec<i64>> {
        let Self::Bytes(dtype, bytes) = self else { return None };
        Some(match dtype {
            Int8 => read(bytes, |b| i8::from_le_bytes(b).into()),
            Uint8 => read(bytes, |b| u8::from_le_bytes(b).into()),
            Int16 => read(bytes, |b| i16::from_le_bytes(b).into()),
            Uint16 => read(bytes, |b| u16::from_le_bytes(b).into()),
            Int32 => read(bytes, |b| i32::from_le_bytes(b).into()),
            Uint32 => read(bytes, |b| u32::from_le_bytes(b).into()),
            Int64 => read(bytes, i64::from_le_bytes),
            Uint64 => {
                let wide = read(bytes, u64::from_le_bytes);
                return wide.into_iter().map(|value| i64::try_from(value).ok()).collect();
            }
            Float32 | Float64 | Text => return None,
        })
    }

    /// Numbers as f64, the nearest where they are not; `None` for text.
    pub(super) fn to_f64(&self) -> Option<Vec<f64>> {
        let (dtype, bytes) = match self {
            Self::Bytes(dtype, bytes) => (dtype, bytes),
            Self::F32(values) => return Some(values.iter().map(|v| f64::from(*v)).collect()),
        };
        Some(numbers!(f64, dtype, bytes))
    }

    /// Numbers as f32, the nearest where they are not (infinite beyond its range); `None` for text.
    pub(super) fn to_f32(&self) -> Option<Vec<f32>> {
        let (dtype, bytes) = match self {
            Self::Bytes(dtype, bytes) => (dtype, bytes),
            Self::F32(values) => return Some(values.to_vec()),
        };
        Some(numbers!(f32, dtype, bytes))
    }
}

/// Numbers of any type, cast as `as` does: to the nearest.
macro_rules! numbers {
    ($to:ty, $dtype:expr, $bytes:expr) => {
        match $dtype {
            Int8 => read($bytes, |b| i8::from_le_bytes(b) as $to),
            Uint8 => read($bytes, |b| u8::from_le_bytes(b) as $to),
            Int16 => read($bytes, |b| i16::from_le_bytes(b) as $to),
            Uint16 => read($bytes, |b| u16::from_le_bytes(b) as $to),
            Int32 => read($bytes, |b| i32::from_le_bytes(b) as $to),
            Uint32 => read($bytes, |b| u32::from_le_bytes(b) as $to),
            Int64 => read($bytes, |b| i64::from_le_bytes(b) as $to),
            Uint64 => read($bytes, |b| u64::from_le_bytes(b) as $to),
            Float32 => read($bytes, |b| f32::from_le_bytes(b) as $to),
            Float64 => read($bytes, |b| f64::from_le_bytes(b) as $to),
            Text => return None,
        }
    };
}
use numbers;

fn read<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|chunk| number(*chunk)).collect()
}
