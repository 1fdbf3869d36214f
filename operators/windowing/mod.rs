//! Between quantization and the experts, windowing: the last `history` encoded frames of a
//! sensor, ending at the reference time. Windows hold latents, not frames.

mod faults;
mod operator;

pub use operator::{Flow, Slot, Window, Windowed};
