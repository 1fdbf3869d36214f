//! Stored numbers as physical ones: types, packing, and what counts as missing.

use physicnet_stream::{Error, Result};
use serde_json::{Map, Value};

/// The stored types that are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl Kind {
    /// Reads a v3 name (`float32`) or a v2 one (`<f4`); `None` where it is not a number.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name.trim_start_matches(['<', '>', '|', '=']) {
            "bool" | "b1" => Self::Bool,
            "int8" | "i1" => Self::I8,
            "int16" | "i2" => Self::I16,
            "int32" | "i4" => Self::I32,
            "int64" | "i8" => Self::I64,
            "uint8" | "u1" => Self::U8,
            "uint16" | "u2" => Self::U16,
            "uint32" | "u4" => Self::U32,
            "uint64" | "u8" => Self::U64,
            "float16" | "f2" => Self::F16,
            "float32" | "f4" => Self::F32,
            "float64" | "f8" => Self::F64,
            _ => return None,
        })
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// Every value in `bytes` (of this machine's byte order) as f64.
    pub(super) fn floats(self, bytes: &[u8]) -> Vec<f64> {
        macro_rules! read {
            ($t:ty) => {
                bytes
                    .as_chunks::<{ size_of::<$t>() }>()
                    .0
                    .iter()
                    .map(|b| <$t>::from_ne_bytes(*b) as f64)
                    .collect()
            };
        }
        match self {
            Self::Bool | Self::U8 => bytes.iter().map(|b| f64::from(*b)).collect(),
            Self::I8 => read!(i8),
            Self::I16 => read!(i16),
            Self::I32 => read!(i32),
            Self::I64 => read!(i64),
            Self::U16 => read!(u16),
            Self::U32 => read!(u32),
            Self::U64 => read!(u64),
            Self::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| half(u16::from_ne_bytes(*b))).collect()
            }
            Self::F32 => read!(f32),
            Self::F64 => read!(f64),
        }
    }

    /// Every value as an i64, for integer times; `None` for floats.
    pub(super) fn integers(self, bytes: &[u8]) -> Option<Vec<i64>> {
        match self {
            Self::I64 | Self::U64 => {
                Some(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_ne_bytes(*b)).collect())
            }
            kind if kind.is_float() => None,
            kind => Some(kind.floats(bytes).into_iter().map(|v| v as i64).collect()),
        }
    }
}

/// An IEEE 754 half as f64.
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + mantissa / 1024.0) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// How the stored values of a variable become physical ones.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unpack {
    kind: Kind,
    /// Stored values that mean "not measured"; compared before unpacking.
    missing: Vec<f64>,
    /// `value = stored * scale + offset`; `None`: as stored.
    packing: Option<(f64, f64)>,
}

impl Unpack {
    /// Reads CF's `_FillValue`, `missing_value`, `scale_factor` and `add_offset`. In version 2
    /// the array's own fill value is the `_FillValue`.
    ///
    /// # Errors
    /// When one of them is not a number, naming it.
    pub(super) fn parse(
        kind: Kind,
        attributes: &Map<String, Value>,
        v2_fill: Option<&Value>,
    ) -> Result<Self> {
        let number = |key: &str| match attributes.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let why = || Error::new(format!("attribute {key}"), format!("{value}: no number"));
                numbers(value).and_then(|n| n.first().copied()).map(Some).ok_or_else(why)
            }
        };
        let (scale, offset) = (number("scale_factor")?, number("add_offset")?);
        let packing = (scale.is_some() || offset.is_some())
            .then(|| (scale.unwrap_or(1.0), offset.unwrap_or(0.0)));
        let marks = [attributes.get("_FillValue"), attributes.get("missing_value"), v2_fill];
        let missing = marks.into_iter().flatten().filter_map(numbers).flatten();
        // A mark that was written for f32 data may come with the digits of an f64.
        let missing = missing.map(|m| if kind == Kind::F32 { f64::from(m as f32) } else { m });
        Ok(Self { kind, missing: missing.collect(), packing })
    }

    /// The physical values of stored bytes; NaN where missing.
    pub(super) fn values(&self, bytes: &[u8]) -> Vec<f32> {
        let marks = self.missing.iter().any(|m| !m.is_nan());
        if self.kind == Kind::F32 && self.packing.is_none() && !marks {
            return bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b)).collect();
        }
        self.kind.floats(bytes).into_iter().map(|stored| self.value(stored)).collect()
    }

    fn value(&self, stored: f64) -> f32 {
        if self.missing.contains(&stored) {
            return f32::NAN;
        }
        match self.packing {
            Some((scale, offset)) => (stored * scale + offset) as f32,
            None => stored as f32,
        }
    }

    /// What a chunk that is not there holds, its stored fill value being `fill`: see
    /// [`Absent::Auto`](super::Absent).
    pub(super) fn absent(&self, fill: f64) -> f32 {
        let value = self.value(fill);
        let packed = self.packing.is_some() && !self.kind.is_float();
        if packed && value != 0.0 { f32::NAN } else { value }
    }

    /// The physical value of the stored fill value.
    pub(super) fn fill(&self, fill: f64) -> f32 {
        self.value(fill)
    }
}

/// The numbers that an attribute can stand for: a number, a few, a float's name, or xarray's
/// base64 of a little-endian f64.
pub(super) fn numbers(value: &Value) -> Option<Vec<f64>> {
    Some(match value {
        Value::Number(number) => vec![number.as_f64()?],
        Value::Bool(flag) => vec![f64::from(u8::from(*flag))],
        Value::Array(list) => list.iter().filter_map(numbers).flatten().collect(),
        Value::String(text) => vec![match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            text => match text.parse() {
                Ok(number) => number,
                Err(_) => f64::from_le_bytes(base64(text)?.try_into().ok()?),
            },
        }],
        _ => return None,
    })
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attributes_are_numbers_in_many_spellings() {
        assert!(numbers(&json!("AAAAAAAA+H8=")).unwrap()[0].is_nan());
        assert_eq!(numbers(&json!([-32768])), Some(vec![-32768.0]));
        assert_eq!(numbers(&json!("-Infinity")), Some(vec![f64::NEG_INFINITY]));
        assert_eq!(numbers(&json!({})), None);
    }

    #[test]
    fn packed_integers_unpack_after_the_fill_test() {
        let attributes = json!({"scale_factor": 0.5, "add_offset": 280.0, "_FillValue": -1});
        let unpack = Unpack::parse(Kind::I16, attributes.as_object().unwrap(), None).unwrap();
        let bytes: Vec<u8> = [4_i16, -1, 0].into_iter().flat_map(i16::to_ne_bytes).collect();
        let values = unpack.values(&bytes);
        assert_eq!((values[0], values[2]), (282.0, 280.0));
        assert!(values[1].is_nan());
        assert!(unpack.absent(0.0).is_nan(), "never written, so not measured");
    }

    #[test]
    fn absent_zeros_are_dry() {
        let attributes = json!({"scale_factor": 0.01, "_FillValue": -1});
        let unpack = Unpack::parse(Kind::I16, attributes.as_object().unwrap(), None).unwrap();
        assert_eq!(unpack.absent(0.0), 0.0);
    }

    #[test]
    fn halves() {
        assert_eq!([0x3c00, 0xc000, 0x0001].map(half), [1.0, -2.0, 2f64.powi(-24)]);
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f64::NEG_INFINITY);
    }
}
