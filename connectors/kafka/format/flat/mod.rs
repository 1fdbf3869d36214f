//! FlatBuffers without `unsafe`: as much of the encoding as our tables need.
//!
//! A buffer begins with the offset of its root table and four bytes that identify the schema. A
//! table begins with the distance back to its vtable, which says where in the table each field
//! lies. Text and vectors lie elsewhere, found by an offset from the field, after their length.
//!
//! The accessors of the `flatbuffers` crate are `unsafe` behind a verifier that must have run;
//! here every step is checked as it is taken, so there is nothing that could be forgotten.

mod read;
mod write;

pub(super) use read::{Slot, Table, root};
pub(super) use write::{Field, Writer};
