//! Memory for results that is not cleared before a kernel writes them.

use std::mem::MaybeUninit;

/// A value that nobody has written yet.
pub(super) type Blank = MaybeUninit<f32>;

/// `count` values as `write` writes them.
///
/// # Safety
/// `write` has to write each of them.
#[allow(unsafe_code)]
pub(super) unsafe fn written(count: usize, write: impl FnOnce(&mut [Blank])) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    let blank = &mut values.spare_capacity_mut()[..count];
    // What a kernel leaves out stands out in its test; an interpreter sees it anyway.
    if cfg!(all(test, not(miri))) {
        blank.fill(Blank::new(f32::NAN));
    }
    write(blank);
    // SAFETY: there is room for them, and the caller has them written.
    unsafe { values.set_len(count) };
    values
}

/// Writes values one after another, as many as there is room for.
#[inline(always)]
pub(super) fn put(to: &mut [Blank], values: impl IntoIterator<Item = f32>) {
    to.iter_mut().zip(values).for_each(|(to, value)| {
        to.write(value);
    });
}
