//! How a checkpoint's weights are stored. Once read they are f32.

use std::fmt;

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use physicnet_stream::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the weights in a file are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    /// As they are.
    #[default]
    F32,
    /// Half the size: 11 significant bits, up to 65504.
    F16,
    /// Half the size: 8 significant bits, as far as f32 goes.
    Bf16,
}

impl Stored {
    /// Whether nothing is rounded.
    pub fn is_f32(&self) -> bool {
        *self == Self::F32
    }

    /// That of the weights of a file; where they are of several, the one that holds them all.
    pub(super) fn of(file: &SafeTensors) -> Self {
        let all = |dtype| file.iter().all(|(_, view)| view.dtype() == dtype);
        match file.iter().next().map(|(_, view)| view.dtype()) {
            Some(Dtype::F16) if all(Dtype::F16) => Self::F16,
            Some(Dtype::BF16) if all(Dtype::BF16) => Self::Bf16,
            _ => Self::F32,
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The weight of this name as it is stored.
    ///
    /// # Errors
    /// When it is larger than what this can hold.
    pub(super) fn store(self, name: &str, weight: &Tensor) -> Result<Tensor> {
        let most = match self {
            Self::F32 => f32::INFINITY,
            Self::F16 => 65504.0,
            // All but the sign and the last bit of the exponent.
            Self::Bf16 => f32::from_bits(0x7f7f_0000),
        };
        let fail = |error: candle_core::Error| Error::new(name, error);
        let values: Vec<f32> = weight.flatten_all().and_then(|all| all.to_vec1()).map_err(fail)?;
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        if largest > most {
            let why = format!(
                "{largest:?} is beyond the {most:?} that {self} holds; store the weights as f32 \
                 (`weights` of a training file)"
            );
            return Err(Error::new(name, why));
        }
        weight.to_dtype(self.dtype()).map_err(fail)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dtype().as_str())
    }
}

/// A weight that is stored, as f32; or what is wrong with it.
pub(super) fn read(view: &TensorView) -> std::result::Result<Tensor, String> {
    if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Err(format!("is {:?}, not F32, F16 or BF16", view.dtype()));
    }
    let read = || {
        let weight = view.load(&Device::Cpu)?.to_dtype(DType::F32)?;
        let sum: f32 = weight.sqr()?.sum_all()?.to_scalar()?;
        Ok((weight, sum))
    };
    let (weight, sum) = read().map_err(|error: candle_core::Error| format!("is odd: {error}"))?;
    if sum.is_finite() { Ok(weight) } else { Err("is not finite".to_owned()) }
}
