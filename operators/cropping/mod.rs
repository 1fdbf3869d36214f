//! Stage 1, cropping: from a frame in physical units to the views that the encoders see.
//!
//! ```text
//! Frame (channel, y, x) ──► transform ──► pad to whole latents ──► Cropped { global, local }
//! ```

mod operator;
mod transform;
mod view;

pub use operator::{Crop, Viewed};
pub use transform::{Transform, is_rain_rate};
pub use view::{Cropped, Extent, View, crop, fill_missing, model_input};
