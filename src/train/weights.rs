//! Weights as plain numbers, and the network that they make.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use physicnet_operators::model::{ModelConfig, PhysicNet};

use super::rng::{Rng, key_of};

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weight {
    /// Its dims.
    pub(crate) shape: Vec<usize>,
    /// Its values, row-major.
    pub(crate) values: Vec<f32>,
}

/// All tensors of a network by `state_dict` name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Weights(pub(crate) BTreeMap<String, Weight>);

impl Weights {
    /// The start of a network: a function of the seed and of each weight's name.
    pub(crate) fn initial(config: &ModelConfig, seed: u64) -> Result<Self> {
        let made = Arc::new(Mutex::new(BTreeMap::new()));
        let backend = Seeded { seed, made: Arc::clone(&made) };
        let vb = VarBuilder::from_backend(Box::new(backend), DType::F32, Device::Cpu);
        PhysicNet::new(config, vb)?;
        let made = made.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self(made.clone()))
    }

    /// Zeros of the same shapes.
    pub(crate) fn zeros(&self) -> Self {
        let zero =
            |w: &Weight| Weight { shape: w.shape.clone(), values: vec![0.0; w.values.len()] };
        Self(self.0.iter().map(|(name, weight)| (name.clone(), zero(weight))).collect())
    }

    /// As tensors.
    pub(crate) fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let tensor = |w: &Weight| Tensor::from_slice(&w.values, w.shape.as_slice(), &Device::Cpu);
        self.0.iter().map(|(name, weight)| Ok((name.clone(), tensor(weight)?))).collect()
    }

    /// From tensors.
    pub(crate) fn from_tensors(tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let weight = |tensor: &Tensor| -> Result<Weight> {
            let values = tensor.flatten_all()?.to_vec1()?;
            Ok(Weight { shape: tensor.dims().to_vec(), values })
        };
        let all = tensors.iter().map(|(name, tensor)| Ok((name.clone(), weight(tensor)?)));
        Ok(Self(all.collect::<Result<_>>()?))
    }

    /// A network of these weights, and the variables in it by name. Variables are new in every
    /// step, so whatever a layer remembers of its weights is never that of a step before.
    pub(crate) fn network(
        &self,
        config: &ModelConfig,
    ) -> Result<(PhysicNet, BTreeMap<String, Var>)> {
        let var = |w: &Weight| Var::from_slice(&w.values, w.shape.as_slice(), &Device::Cpu);
        let vars: BTreeMap<String, Var> = (self.0.iter())
            .map(|(name, weight)| Ok((name.clone(), var(weight)?)))
            .collect::<Result<_>>()?;
        let tensors: HashMap<String, Tensor> =
            vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        Ok((PhysicNet::new(config, vb)?, vars))
    }

    /// A network that only forecasts.
    pub(crate) fn frozen(&self, config: &ModelConfig) -> Result<PhysicNet> {
        let tensors = self.tensors()?.into_iter().collect();
        PhysicNet::new(config, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    }
}

/// Makes weights as they are asked for, each from its own generator: candle's own cannot be
/// seeded on a CPU.
struct Seeded {
    seed: u64,
    made: Arc<Mutex<BTreeMap<String, Weight>>>,
}

impl SimpleBackend for Seeded {
    fn get(&self, s: Shape, name: &str, h: Init, _: DType, dev: &Device) -> Result<Tensor> {
        let mut rng = Rng::keyed(&[self.seed, key_of(name)]);
        let normal = |rng: &mut Rng, mean: f64, stdev: f64| mean + stdev * rng.normal();
        let uniform = |rng: &mut Rng, lo: f64, up: f64| lo + (up - lo) * rng.uniform();
        let mut one = || match h {
            Init::Const(value) => value,
            Init::Randn { mean, stdev } => normal(&mut rng, mean, stdev),
            Init::Uniform { lo, up } => uniform(&mut rng, lo, up),
            Init::Kaiming { dist, fan, non_linearity } => {
                let stdev = non_linearity.gain() / (fan.for_shape(&s) as f64).sqrt();
                match dist {
                    NormalOrUniform::Normal => normal(&mut rng, 0.0, stdev),
                    NormalOrUniform::Uniform => {
                        let bound = 3_f64.sqrt() * stdev;
                        uniform(&mut rng, -bound, bound)
                    }
                }
            }
        };
        let values: Vec<f32> = (0..s.elem_count()).map(|_| one() as f32).collect();
        let tensor = Tensor::from_slice(&values, s.clone(), dev)?;
        let weight = Weight { shape: s.dims().to_vec(), values };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), weight);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: a weight is made with its shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
