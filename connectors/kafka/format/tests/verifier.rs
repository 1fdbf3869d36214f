//! The verifier of the `flatbuffers` crate accepts what we write.

use flatbuffers::{
    ForwardsUOffset, InvalidFlatbuffer, Vector, Verifiable, Verifier, VerifierOptions,
};

use super::super::{forecast as write_forecast, frame as write_frame};
use super::*;

type Text<'a> = ForwardsUOffset<&'a str>;
type Vectors<'a, T> = ForwardsUOffset<Vector<'a, T>>;
type Tables<'a, T> = Vectors<'a, ForwardsUOffset<T>>;

/// A table as its schema says: slots by their place in the vtable, and which must be there.
macro_rules! table {
    ($table:ident { $($name:ident: $type:ty = $slot:literal $required:literal,)* }) => {
        struct $table;
        impl Verifiable for $table {
            fn run_verifier(v: &mut Verifier, at: usize) -> Result<(), InvalidFlatbuffer> {
                let table = v.visit_table(at)?;
                $(let table = table.visit_field::<$type>(stringify!($name), $slot, $required)?;)*
                table.finish();
                Ok(())
            }
        }
    };
}

table!(Da00 {
    source_name: Text = 4 true,
    timestamp: i64 = 6 false,
    data: Tables<Array> = 8 true,
});
table!(Array {
    name: Text = 4 true,
    unit: Text = 6 false,
    label: Text = 8 false,
    source: Text = 10 false,
    data_type: i8 = 12 false,
    axes: Vectors<Text> = 14 false,
    shape: Vectors<i64> = 16 true,
    data: Vectors<u8> = 18 true,
});
table!(Ad00 {
    source_name: Text = 4 true,
    id: i32 = 6 false,
    timestamp: i64 = 8 false,
    dimensions: Vectors<i64> = 10 true,
    data_type: i8 = 12 false,
    data: Vectors<u8> = 14 true,
    attributes: Tables<Attribute> = 16 false,
});
table!(Attribute {
    name: Text = 4 true,
    description: Text = 6 false,
    source: Text = 8 false,
    data_type: i8 = 10 false,
    data: Vectors<u8> = 12 true,
});

fn verify(format: Format, bytes: &[u8]) -> Result<(), InvalidFlatbuffer> {
    let options = VerifierOptions::default();
    let mut verifier = Verifier::new(&options, bytes);
    match format {
        Format::Da00 => <ForwardsUOffset<Da00>>::run_verifier(&mut verifier, 0),
        _ => <ForwardsUOffset<Ad00>>::run_verifier(&mut verifier, 0),
    }
}

#[test]
fn it_accepts_what_we_write() {
    let mut random = Random(5);
    for grid in [rain(), wind(), weather()] {
        let sensor = sensor(grid.clone());
        for format in [Format::Da00, Format::Ad00] {
            let frame = frame(&grid, &mut random);
            let bytes = write_frame(format, &frame, &sensor).unwrap();
            verify(format, &bytes).unwrap_or_else(|why| panic!("{format:?} frame: {why}"));
            let forecast = forecast(&grid, 3, &mut random);
            let bytes = write_forecast(format, &forecast, &sensor).unwrap();
            verify(format, &bytes).unwrap_or_else(|why| panic!("{format:?} forecast: {why}"));
        }
    }
}

#[test]
fn we_follow_all_that_it_accepts() {
    // Of the spoilt goldens, those that it holds for well-formed are refused by us only for what
    // they say, never for where it lies.
    let mut accepted = 0;
    for (_, golden) in GOLDENS {
        for at in 0..golden.len() {
            for flip in [0x01, 0x10, 0xff] {
                let mut bytes = golden.to_vec();
                bytes[at] ^= flip;
                if verify(Format::Da00, &bytes).is_ok() {
                    let said = read(Format::Da00, &bytes, &weather()).err().unwrap_or_default();
                    assert!(!said.contains("outside"), "byte {at} ^ {flip:#x}: {said}");
                    accepted += 1;
                }
            }
        }
    }
    assert!(accepted > 2_000, "{accepted}");
}
