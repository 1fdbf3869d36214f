//! Pictures of fields: rows of panels under one colour scale as PNG, or blocks in a terminal.

mod colour;
mod file;
mod font;
mod picture;
mod terminal;

pub use colour::{Shade, named};
pub use file::{Pixels, png, shaded};
pub use picture::{Panel, Picture, Row, draw};
pub use terminal::{blocks, resized};
