#![no_main]
//! Any bytes as a `ad00` message.

use physicnet_connectors::kafka::format::Format;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| physicnet_fuzz::read(Format::Ad00, bytes));
