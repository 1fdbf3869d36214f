//! Which worker owns a sensor.

use crate::SensorId;

/// A hash of the sensor's name that is the same in every process and every run (FNV-1a, 64 bit,
/// with a final mix), so that one worker owns a sensor's state.
pub fn route(sensor: &SensorId) -> u64 {
    let fnv = sensor.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // FNV's low bits are weak and workers are chosen by a remainder.
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}
