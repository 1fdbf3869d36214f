//! What a PhysicNet is made of: one value that a checkpoint carries.

use physicnet_stream::{Cadence, Error, Result, Variable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cropping::{Transform, View, is_rain_rate};
use crate::layers::Boundary;

/// The furthest that a ceiling may look, in pixels: its cost grows with it.
const FURTHEST: usize = 64;

/// One channel of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariableConfig {
    /// Its name in the data.
    pub name: String,
    /// Its unit in the data.
    #[serde(default)]
    pub units: String,
    /// How it is transformed for the network.
    pub transform: Transform,
    /// Thresholds, rising, in the unit of the data, at which the served forecast keeps the
    /// chosen expert's area: a pixel that the classical flow carries above one stays above it,
    /// and any other stays below, never on it. Between them the network is free. Least expected error
    /// shrinks areas; this keeps warnings where motion puts them, at the error of the network.
    #[serde(default)]
    pub keep: Vec<f64>,
    /// The served forecast is nowhere higher than the highest value of the chosen expert's field
    /// within so many pixels: rain comes from somewhere. A network that meets rates which it has
    /// not seen in training says any number at all. Without it there is no such bound.
    #[serde(default)]
    pub ceiling: Option<usize>,
}

impl VariableConfig {
    /// What suits a variable of the data: rain rates are skewed, and warnings are given at
    /// 0.1, 1 and 5 mm/h; the rest is standardised.
    pub fn for_variable(variable: &Variable) -> Self {
        let (keep, ceiling) = match is_rain_rate(&variable.units) {
            true => (vec![0.1, 1.0, 5.0], Some(3)),
            false => (Vec::new(), None),
        };
        let transform = Transform::for_units(&variable.units);
        Self {
            name: variable.name.clone(),
            units: variable.units.clone(),
            transform,
            keep,
            ceiling,
        }
    }
}

/// Which member of the expert bank the network starts from: untrained, the forecast equals it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expert {
    /// The newest frame stays.
    Persistence,
    /// The newest frame is carried along the classical optical flow.
    #[default]
    Advection,
}

/// What the codebook does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// No codes.
    None,
    /// Codes describe each frame; the forecast does not see them.
    #[default]
    Tap,
    /// The forecast sees only the codes.
    Hard,
}

/// Which head is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Serve {
    /// The head with the least expected error.
    #[default]
    Mean,
    /// The head that keeps area and intensity.
    Sharp,
}

/// The network's parts, sizes and units. Defaults are those of `base`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The channels, in order. Training fills an empty list from its data.
    pub variables: Vec<VariableConfig>,
    /// How the domain continues past its border.
    pub boundary: Boundary,
    /// Frames in a window, at least 2.
    pub history: usize,
    /// Leads of a forecast.
    pub horizon: usize,
    /// The cadence it was trained at; training fills it from its data.
    pub cadence: Option<Cadence>,
    /// Averaging of the global view: 1 sees every pixel, 2 halves the resolution of everything
    /// but the warp (for frames of 256 x 256 and more).
    pub global_scale: usize,
    /// Channels of the encoder's skip.
    pub skip: usize,
    /// How many of the newest frames' skips the fusion sees: 2 shows it the tendency of every
    /// pixel, for fields that change without moving.
    pub skips: usize,
    /// Channels of a latent vector.
    pub latent: usize,
    /// Channels of the experts' trunk.
    pub hidden: usize,
    /// Residual blocks of the trunk.
    pub rounds: usize,
    /// Channels of the fusion.
    pub decoder: usize,
    /// The codebook.
    pub quantization: Quantization,
    /// Entries of the codebook.
    pub codes: usize,
    /// How far from its code a latent must lie to be doubted, where few others of the window near it do;
    /// `physicnet calibrate --faults` measures it. Without it a frame is believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<f32>,
    /// The expert that the network corrects.
    pub expert: Expert,
    /// How many frames back a linear autoregression along the motion looks, for fields that
    /// change on their way; 0 for none. Training starts it from the least squares of its data.
    pub tendency: usize,
    /// Whether the network corrects the flow.
    pub learned_flow: bool,
    /// Whether the fusion gates the carried field.
    pub gate: bool,
    /// Whether the fusion adds a residual.
    pub residual: bool,
    /// Whether there is a second, sharp head.
    pub sharp: bool,
    /// Whether the network knows where it is: for forcing that is fixed in space, on whole frames.
    pub position: bool,
    /// Whether local views refine the global forecast.
    pub local: bool,
    /// The side of the local views that training cuts, in pixels; 0 trains on whole frames. The
    /// stream takes the whole frame in one pass, which is the same function.
    pub local_view: usize,
    /// The head that is served.
    pub serve: Serve,
    /// The share of the chosen expert's field in the served forecast, at the first and the last lead;
    /// linear in between.
    pub ramp: [f32; 2],
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            variables: Vec::new(),
            boundary: Boundary::Open,
            history: 4,
            horizon: 12,
            cadence: None,
            global_scale: 1,
            skip: 16,
            skips: 1,
            latent: 16,
            hidden: 96,
            rounds: 2,
            decoder: 32,
            quantization: Quantization::Tap,
            codes: 256,
            faults: None,
            expert: Expert::Advection,
            tendency: 0,
            learned_flow: true,
            gate: true,
            residual: true,
            sharp: false,
            position: false,
            local: false,
            local_view: 0,
            serve: Serve::Mean,
            ramp: [0.0, 0.0],
        }
    }
}

impl ModelConfig {
    /// A model without weights, for these variables: its forecast is the chosen expert's, and
    /// nothing is encoded for it.
    pub fn classical(variables: Vec<VariableConfig>) -> Self {
        Self {
            variables,
            learned_flow: false,
            gate: false,
            residual: false,
            quantization: Quantization::None,
            ..Self::default()
        }
    }

    /// Pixels of the frame per latent cell.
    pub fn stride(&self) -> usize {
        4 * self.global_scale.max(1)
    }

    /// Whether anything is learned; without it the forecast is the chosen expert's.
    pub fn learns(&self) -> bool {
        self.learned_flow || self.gate || self.residual || self.sharp || self.local
    }

    /// Whether frames are encoded at all.
    pub fn encodes(&self) -> bool {
        self.learns() || self.quantization != Quantization::None
    }

    /// The share of the chosen expert's field at lead `k` (from 0), by the ramp.
    pub fn ramp_at(&self, k: usize) -> f32 {
        let along = if self.horizon > 1 { k as f32 / (self.horizon - 1) as f32 } else { 0.0 };
        self.ramp[0] + (self.ramp[1] - self.ramp[0]) * along
    }

    /// Checks what no single field can say.
    ///
    /// # Errors
    /// Names the field that does not fit and what would.
    pub fn check(&self) -> Result<()> {
        let fail = |field: &str, why: String| Err(Error::new(format!("model.{field}"), why));
        if self.variables.is_empty() {
            return fail("variables", "name at least one channel".into());
        }
        if self.history < 2 {
            return fail("history", format!("{} frames; motion needs at least 2", self.history));
        }
        if !(1..=self.history).contains(&self.skips) {
            return fail("skips", format!("{}; choose 1 to `history`", self.skips));
        }
        let furthest = match self.expert {
            Expert::Persistence => self.history - 1,
            Expert::Advection => self.horizon.min(self.history - 1),
        };
        if self.tendency > furthest {
            return fail("tendency", format!("{}; choose 0 to {furthest}", self.tendency));
        }
        if self.horizon == 0 {
            return fail("horizon", "a forecast needs at least one lead".into());
        }
        if !matches!(self.global_scale, 1 | 2) {
            return fail("global_scale", format!("{}; choose 1 or 2", self.global_scale));
        }
        if self.codes < 2 || self.codes > 65_536 {
            return fail("codes", format!("{}; choose 2 to 65536", self.codes));
        }
        if let Some(far) = self.faults.filter(|far| !(0.0..f32::INFINITY).contains(far)) {
            return fail("faults", format!("{far}; a distance is 0 or more"));
        }
        for variable in &self.variables {
            let key =
                |e: Error| Error::new(format!("model.variables.transform of {}", variable.name), e);
            variable.transform.check().map_err(key)?;
            let rising = variable.keep.windows(2).all(|pair| pair[0] < pair[1]);
            if !rising || variable.keep.iter().any(|t| !t.is_finite()) {
                let why = format!("{:?} of {}; thresholds rise", variable.keep, variable.name);
                return fail("variables.keep", why);
            }
        }
        for (field, size) in [
            ("skip", self.skip),
            ("latent", self.latent),
            ("hidden", self.hidden),
            ("decoder", self.decoder),
        ] {
            if size == 0 || size > 4096 {
                return fail(field, format!("{size} channels; choose 1 to 4096"));
            }
        }
        for variable in &self.variables {
            if let Some(reach) = variable.ceiling.filter(|&reach| reach > FURTHEST) {
                let why = format!("{reach} pixels of {}; choose 0 to {FURTHEST}", variable.name);
                return fail("variables.ceiling", why);
            }
        }
        let least = 2 * View::HALO + 2;
        if self.local_view > 0 && (self.local_view < least || !self.local_view.is_multiple_of(2)) {
            let why = format!("{}; choose 0 or an even side from {least} on", self.local_view);
            return fail("local_view", why);
        }
        if self.ramp.iter().any(|a| !(0.0..=1.0).contains(a)) {
            return fail("ramp", format!("{:?}; shares lie between 0 and 1", self.ramp));
        }
        if self.serve == Serve::Sharp && !self.sharp {
            return fail("serve", "sharp is served but `sharp: true` is not set".into());
        }
        if self.learns() && !self.residual && (self.sharp || self.local) {
            return fail("residual", "the sharp and the local part build on it; set it".into());
        }
        Ok(())
    }

    /// Whether frames of this size fit the model's boundary.
    ///
    /// # Errors
    /// A periodic domain cannot be padded, so its sides must be whole latents.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        let stride = self.stride();
        if self.boundary == Boundary::Periodic
            && !(height.is_multiple_of(stride) && width.is_multiple_of(stride))
        {
            let why = format!(
                "{height} x {width} pixels; a periodic domain needs multiples of {stride}: cut the \
                         data, or say `boundary: open`"
            );
            return Err(Error::new("frame size", why));
        }
        if height < 4 || width < 4 {
            return Err(Error::new("frame size", format!("{height} x {width}; at least 4 x 4")));
        }
        Ok(())
    }
}
