//! An ensemble around the served forecast, for the cost of drawing it.
//!
//! ```text
//! forecasts ────┐        what came ─► ranks by lead and kind of pixel ─► curves ─┐
//!               ├─► by epoch, per sensor                                         ├─► dressed forecasts ─► members
//! observations ─┘        forecasts of the epoch ─────────────────────────────────┘
//! ```
//!
//! Where the motion is not quite right, what is forecast nearby may come: the values around a pixel
//! are its distribution to begin with (the neighbourhood method of Theis, Hense and Damrath 2005,
//! *Meteorological Applications* 12, 257). How often what came lay between which of them, or how far beyond, is
//! counted over the verified forecasts of the same sensor, by lead and by kind of pixel, and the
//! distribution is corrected by it (Hamill and Colucci 1997, *Monthly Weather Review* 125, 1312). How far around
//! is best is learnt as well, from "the pixel alone" on. So every pixel by itself is as sure as
//! forecasts have been right. A member takes at each pixel the quantile of a field of noise that
//! neighbours in space and lead share.

mod around;
mod draw;
mod dresser;
mod noise;
mod operator;
mod quantile;
mod ranks;
mod sample;

pub use draw::members;
pub use dresser::{Dresser, EnsembleConfig, Known};
pub(crate) use noise::mixed;
pub use operator::{Dress, Dressed};
pub use quantile::Quantile;

#[cfg(test)]
mod tests;
