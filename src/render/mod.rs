//! Pictures of fields: rows of panels under one colour scale, as PNG.

mod colour;
mod font;
mod picture;

pub use colour::Shade;
pub use picture::{Panel, Picture, Row, draw};
