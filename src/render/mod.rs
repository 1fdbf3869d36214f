//! Pictures: fields in rows of panels under one colour scale, or charts of lines, as PNG; blocks in
//! a terminal.

mod axis;
mod chart;
mod colour;
mod file;
mod font;
mod picture;
mod terminal;

pub use axis::{AxisOf, Scale, short};
pub use chart::{Chart, Curve, plot};
pub use colour::{Shade, named};
pub use file::{Pixels, png, shaded};
pub use picture::{Panel, Picture, Row, draw};
pub use terminal::{blocks, resized};
