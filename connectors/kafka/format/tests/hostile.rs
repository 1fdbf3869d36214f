//! Bytes that someone spoilt: never a panic, and what is accepted holds together.

use super::super::{describe, forecast as write_forecast, frame as write_frame, source_name};
use super::*;

/// Reads bytes every way; true where a job of the grid takes them for a frame.
fn read_all(format: Format, bytes: &[u8], grid: &Grid) -> bool {
    source_name(format, bytes);
    if let Ok(said) = describe(format, bytes) {
        assert_eq!(said.data.len(), said.shape.iter().product::<usize>());
    }
    match read(format, bytes, grid) {
        Ok(measured) => {
            assert_eq!(measured.shape, grid.shape());
            assert_eq!(measured.data.len(), measured.shape.iter().product::<usize>());
            true
        }
        Err(why) => {
            assert!(!why.is_empty() && why.len() < 2_000, "{why}");
            false
        }
    }
}

/// Every golden and one of everything that we write, with a grid that it may fit.
fn messages() -> Vec<(Format, Vec<u8>, Grid)> {
    let mut random = Random(7);
    let mut messages: Vec<_> = GOLDENS
        .iter()
        .map(|(name, bytes)| {
            let grid = if matches!(*name, "int16" | "edges") { rain() } else { weather() };
            (Format::Da00, bytes.to_vec(), grid)
        })
        .collect();
    for format in FORMATS {
        for grid in [rain(), wind()] {
            let sensor = sensor(grid.clone());
            let frame = write_frame(format, &frame(&grid, &mut random), &sensor).unwrap();
            messages.push((format, frame, grid.clone()));
            let forecast = forecast(&grid, 2, &mut random);
            messages.push((format, write_forecast(format, &forecast, &sensor).unwrap(), grid));
        }
    }
    messages
}

#[test]
fn every_truncation() {
    for (format, bytes, grid) in messages() {
        for end in 0..bytes.len() {
            let whole = read_all(format, &bytes[..end], &grid);
            // The zero that ends a text in C, and padding, may be missing; no value may.
            assert!(!whole || bytes.len() - end < 8, "{format:?}: {end} of {}", bytes.len());
        }
    }
}

#[test]
fn every_byte_as_every_other() {
    for (format, bytes, grid) in messages() {
        let mut spoilt = bytes.clone();
        for at in 0..bytes.len() {
            for value in 0..=255 {
                spoilt[at] = value;
                read_all(format, &spoilt, &grid);
            }
            spoilt[at] = bytes[at];
        }
    }
}

#[test]
fn every_word_as_the_worst() {
    // Offsets, counts and lengths of 32 and 64 bits that reach or wrap around any bound.
    let worst = [u64::MAX, i64::MAX as u64, i64::MIN as u64, 1 << 32, 0xffff_fffc, 0x7fff_ffff];
    for (format, bytes, grid) in messages() {
        for at in 0..bytes.len().saturating_sub(8) {
            for word in worst {
                for width in [2, 4, 8] {
                    let mut spoilt = bytes.clone();
                    spoilt[at..at + width].copy_from_slice(&word.to_le_bytes()[..width]);
                    read_all(format, &spoilt, &grid);
                }
            }
        }
    }
}

#[test]
fn random_bytes_with_and_without_a_schema() {
    let mut random = Random(11);
    for _ in 0..100_000 {
        let mut bytes: Vec<u8> = (0..random.below(200)).map(|_| random.bits() as u8).collect();
        for schema in [None, Some(b"da00"), Some(b"ad00")] {
            if let (Some(schema), Some(header)) = (schema, bytes.get_mut(..8)) {
                // Small offsets, so that some lead somewhere.
                header.copy_from_slice(&[header[0] % 64, 0, 0, 0, 0, 0, 0, 0]);
                header[4..].copy_from_slice(schema);
            }
            for format in FORMATS {
                assert!(!read_all(format, &bytes, &rain()));
            }
        }
    }
}

#[test]
fn many_offsets_to_one_place_stay_cheap() {
    // A vector of tables whose count says a billion is refused before it is walked.
    let bytes = golden("frame");
    let mut spoilt = bytes.to_vec();
    let root = u32::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    for at in root..bytes.len() - 4 {
        let mut many = spoilt.clone();
        many[at..at + 4].copy_from_slice(&150_u32.to_le_bytes());
        read_all(Format::Da00, &many, &weather());
    }
    spoilt.resize(4 << 20, 0);
    read_all(Format::Da00, &spoilt, &weather());

    // Every label of a message is one text, far longer than all the rest: none is looked at.
    let label = "as long as can be";
    let names: Vec<String> = (0..250).map(|k| format!("v{k}")).collect();
    let labelled = |name| message::Variable { label: label.into(), ..array(name, &[], &[2]) };
    let mut bytes = da00::write(&message(names.iter().map(|n| labelled(n)).collect())).unwrap();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let is_label = |bytes: &[u8], at: usize| bytes[at + 4..].starts_with(label.as_bytes());
    let offsets: Vec<usize> = (0..bytes.len() - 4)
        .filter(|at| {
            let to = at + word(&bytes, *at) as usize;
            to < bytes.len() - 4 && word(&bytes, to) as usize == label.len() && is_label(&bytes, to)
        })
        .collect();
    assert_eq!(offsets.len(), names.len());
    let (long, text) = (16 << 20, bytes.len());
    bytes.extend(u32::to_le_bytes(long));
    bytes.resize(text + 4 + long as usize, b'a');
    for at in offsets {
        bytes[at..at + 4].copy_from_slice(&((text - at) as u32).to_le_bytes());
    }
    let said = read(Format::Da00, &bytes, &weather()).unwrap_err();
    assert_eq!(said, "variable \"v0\": label: 16777216, more than 65536");
}

#[test]
fn the_schema_is_never_guessed() {
    for (bytes, why) in [
        (&b""[..], "0 bytes, too few for a message"),
        (b"1234da0", "7 bytes, too few for a message"),
        (b"\x08\0\0\0ev44\0\0\0\0", "no da00 message: its schema is \"ev44\""),
        (b"{\"source_name\"", "no da00 message: it looks like JSON; is the format json?"),
        (b"\xff\xff\xff\xffda00", "root table: lies outside the message"),
        (b"\x08\0\0\0da00\x09\0\0\0", "root table: lies outside the message"),
    ] {
        assert_eq!(read(Format::Da00, bytes, &rain()).unwrap_err(), why);
        assert_eq!(source_name(Format::Da00, bytes), None);
    }
    let said = read(Format::Ad00, golden("frame"), &weather()).unwrap_err();
    assert_eq!(said, "no ad00 message: its schema is \"da00\"; is the format da00?");
}
