//! Stage 2, encoding: each frame becomes latents, once, whatever the history is.

mod net;
mod operator;

pub(crate) use net::LOCAL;
pub use net::{Encoder, Features};
pub(crate) use operator::encode;
pub use operator::{Encode, Encoded};
