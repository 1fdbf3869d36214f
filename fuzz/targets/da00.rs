#![no_main]
//! Any bytes as a `da00` message.

use physicnet_connectors::kafka::format::Format;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| physicnet_fuzz::read(Format::Da00, bytes));
