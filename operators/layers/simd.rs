//! Compiles a kernel for the widest vector unit that the processor has.

/// A loop nest that is worth compiling twice. `run` must be `#[inline(always)]`, so that it is
/// compiled with the features of its caller.
pub(crate) trait Kernel {
    /// Runs it; `FMA` says whether a fused multiply-add is one instruction.
    fn run<const FMA: bool>(self);
}

/// Runs `kernel` under AVX2 and FMA where the processor has them.
pub(crate) fn run(kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has the features, as just asked.
        #[allow(unsafe_code)]
        return unsafe { avx2(kernel) };
    }
    // Every aarch64 fuses; elsewhere `mul_add` would be a library call.
    kernel.run::<{ cfg!(target_arch = "aarch64") }>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(kernel: impl Kernel) {
    kernel.run::<true>();
}

/// `a * b + c`, in one rounding where that is one instruction.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Whether one vector holds sixteen values.
#[inline(always)]
pub(super) fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
