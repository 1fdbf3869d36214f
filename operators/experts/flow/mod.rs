//! Dense optical flow on the CPU, and how it carries a field forward.
//!
//! ```text
//! newest, previous --intensity--> plane pyramid --search--> densify --refine--> v --displacements--> D_1..D_L
//! ```
//!
//! The method is the inverse search of Kroeger et al. (2016, arXiv 1603.03590) with a variational
//! refinement in the manner of Brox et al. (2004). Plain `f32` slices, the same bits every time: the
//! estimate is one thread's work, and idle cores help to follow the paths of the leads.
//! Nothing here knows of networks, frames or the dataflow.

mod advect;
mod estimate;
mod intensity;
mod plane;
mod refine;
mod search;
#[cfg(test)]
mod tests;

pub use advect::{advect, displacements};
pub use estimate::{FlowConfig, estimate, estimate_with};
pub use intensity::{pair_intensity, rain_intensity};
