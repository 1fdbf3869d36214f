//! Pictures of fields: rows of panels under one colour scale as PNG, or blocks in a terminal.

mod colour;
mod font;
mod picture;
mod terminal;

pub use colour::Shade;
pub use picture::{Panel, Picture, Row, draw};
pub use terminal::{blocks, resized};
