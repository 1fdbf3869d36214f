//! The sums over pairs of values that scores are made of.
//!
//! They run in four lanes, of every fourth pair, and then over the lanes: with any instructions the
//! same to the bit.

/// Sums that do not wait for one another.
const LANES: usize = 4;

/// The sums over all pairs `(p, o)` of two planes of one size of whose values both are finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moments {
    /// Pairs whose `o` is finite.
    pub(crate) observed: i64,
    /// Of those, pairs whose `p` is finite too.
    pub(crate) scored: i64,
    /// Over these, the sums of `e = p - o`, `|e|`, `e^2`, `p`, `o`, `p^2`, `o^2`, `p o`.
    pub(crate) sums: [f64; 8],
}

/// The place of the sum of `|e|`.
#[cfg(target_arch = "x86_64")]
const ABSOLUTE: usize = 1;
/// The places of the sums of `o` and `o^2`.
const OBSERVED: [usize; 2] = [4, 6];

/// A plane `o` that others are held against, with what all pairs share.
pub(crate) struct Observed<'a> {
    values: &'a [f32],
    /// Where all its values are finite, the sums of `o` and `o^2`.
    whole: Option<[f64; 2]>,
}

impl<'a> Observed<'a> {
    /// The plane of these values.
    pub(crate) fn new(values: &'a [f32]) -> Self {
        let own = masked(values, values, &[]);
        let whole = own.observed == values.len() as i64;
        Self { values, whole: whole.then(|| OBSERVED.map(|at| own.sums[at])) }
    }

    /// Its values.
    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The moments of the plane `p` beside it; `next` is what will be looked at then.
    pub(crate) fn moments(&self, p: &[f32], next: &[f32]) -> Moments {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && let Some(own) = self.whole
        {
            // SAFETY: the processor has the feature, as just asked.
            #[allow(unsafe_code)]
            let mut whole = unsafe { avx2::<false>(p, self.values, next) };
            // One value that is not finite makes this sum so too; seldom there is one, and
            // looking for it takes as long as the sums.
            if whole.sums[ABSOLUTE].is_finite() {
                OBSERVED.iter().zip(own).for_each(|(at, sum)| whole.sums[*at] = sum);
                return whole;
            }
        }
        masked(p, self.values, next)
    }
}

fn masked(p: &[f32], o: &[f32], _next: &[f32]) -> Moments {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature, as just asked.
        #[allow(unsafe_code)]
        return unsafe { avx2::<true>(p, o, _next) };
    }
    portable(p, o)
}

/// Lays the last pairs out in lanes, filled up with what no sum counts.
fn rest(p: &[f32], o: &[f32], nothing: f32) -> [[f32; LANES]; 2] {
    let mut last = [[nothing; LANES]; 2];
    last[0][..p.len()].copy_from_slice(p);
    last[1][..o.len()].copy_from_slice(o);
    last
}

fn portable(p: &[f32], o: &[f32]) -> Moments {
    let mut sums = [[0.0_f64; LANES]; 8];
    let (mut observed, mut scored) = ([0_u32; LANES], [0_u32; LANES]);
    let mut add = |p: &[f32; LANES], o: &[f32; LANES]| {
        for lane in 0..LANES {
            let seen = o[lane].is_finite();
            let both = seen & p[lane].is_finite();
            observed[lane] += u32::from(seen);
            scored[lane] += u32::from(both);
            // What is not scored adds nothing.
            let p = if both { f64::from(p[lane]) } else { 0.0 };
            let o = if both { f64::from(o[lane]) } else { 0.0 };
            let e = p - o;
            let terms = [e, e.abs(), e * e, p, o, p * p, o * o, p * o];
            for (sum, term) in sums.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    };
    let ((whole_p, rest_p), (whole_o, rest_o)) = (p.as_chunks(), o.as_chunks());
    whole_p.iter().zip(whole_o).for_each(|(p, o)| add(p, o));
    let [last_p, last_o] = rest(rest_p, rest_o, f32::NAN);
    add(&last_p, &last_o);
    folded(observed, scored, sums)
}

/// How many chunks of [`LANES`] values ahead memory is asked for them: 4 KiB.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 256;
/// Chunks in a line of the cache.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 4;

/// The same with AVX2, which the compiler would spread over the terms instead of over the lanes.
/// Without `MASKED` every value must be finite (if one is not, nor is the sum of `|e|`), and the
/// sums of `o` and `o^2` are left out.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<const MASKED: bool>(p: &[f32], o: &[f32], next: &[f32]) -> Moments {
    use std::arch::x86_64::{
        _CMP_LT_OQ, _MM_HINT_T0, _mm_and_ps, _mm_andnot_ps, _mm_castps_si128, _mm_cmp_ps,
        _mm_prefetch, _mm_set1_ps, _mm_setr_ps, _mm_setzero_si128, _mm_storeu_si128, _mm_sub_epi32,
        _mm256_add_pd, _mm256_andnot_pd, _mm256_cvtps_pd, _mm256_mul_pd, _mm256_set1_pd,
        _mm256_setzero_pd, _mm256_storeu_pd, _mm256_sub_pd,
    };
    let (sign, wide_sign) = (_mm_set1_ps(-0.0), _mm256_set1_pd(-0.0));
    let infinity = _mm_set1_ps(f32::INFINITY);
    let mut sums = [_mm256_setzero_pd(); 8];
    let (mut observed, mut scored) = (_mm_setzero_si128(), _mm_setzero_si128());
    let ((whole_p, rest_p), (whole_o, rest_o)) = (p.as_chunks(), o.as_chunks());
    let [last_p, last_o] = rest(rest_p, rest_o, if MASKED { f32::NAN } else { 0.0 });
    let (count, next) = (whole_p.len(), next.as_chunks::<LANES>().0);
    // A loop, not a closure: that would be called, compiled without the feature.
    for (place, (p, o)) in whole_p.iter().zip(whole_o).chain([(&last_p, &last_o)]).enumerate() {
        // Forecasts have left the cache when they are verified, and the processor itself does not
        // look beyond a page of memory.
        if place % LINE == 0 {
            let at = place + AHEAD;
            let rest = at.checked_sub(count).map(|at| next.as_ptr().wrapping_add(at));
            let ask = rest.unwrap_or(whole_p.as_ptr().wrapping_add(at));
            _mm_prefetch::<_MM_HINT_T0>(ask.cast());
        }
        let mut p = _mm_setr_ps(p[0], p[1], p[2], p[3]);
        let mut o = _mm_setr_ps(o[0], o[1], o[2], o[3]);
        if MASKED {
            let seen = _mm_cmp_ps::<_CMP_LT_OQ>(_mm_andnot_ps(sign, o), infinity);
            let both = _mm_and_ps(seen, _mm_cmp_ps::<_CMP_LT_OQ>(_mm_andnot_ps(sign, p), infinity));
            // True is -1.
            observed = _mm_sub_epi32(observed, _mm_castps_si128(seen));
            scored = _mm_sub_epi32(scored, _mm_castps_si128(both));
            (p, o) = (_mm_and_ps(p, both), _mm_and_ps(o, both));
        }
        let (p, o) = (_mm256_cvtps_pd(p), _mm256_cvtps_pd(o));
        let e = _mm256_sub_pd(p, o);
        let terms = [
            e,
            _mm256_andnot_pd(wide_sign, e),
            _mm256_mul_pd(e, e),
            p,
            o,
            _mm256_mul_pd(p, p),
            _mm256_mul_pd(o, o),
            _mm256_mul_pd(p, o),
        ];
        for (at, (sum, term)) in sums.iter_mut().zip(terms).enumerate() {
            if MASKED || !OBSERVED.contains(&at) {
                *sum = _mm256_add_pd(*sum, term);
            }
        }
    }
    let mut lanes = [[0.0_f64; LANES]; 8];
    for (lanes, sum) in lanes.iter_mut().zip(sums) {
        // SAFETY: four values fit.
        #[allow(unsafe_code)]
        unsafe {
            _mm256_storeu_pd(lanes.as_mut_ptr(), sum);
        }
    }
    let mut counts = [[0_u32; LANES]; 2];
    for (lanes, count) in counts.iter_mut().zip([observed, scored]) {
        // SAFETY: four values fit.
        #[allow(unsafe_code)]
        unsafe {
            _mm_storeu_si128(lanes.as_mut_ptr().cast(), count);
        }
    }
    let [observed, scored] = counts;
    let told = folded(observed, scored, lanes);
    let all = p.len().min(o.len()) as i64;
    if MASKED { told } else { Moments { observed: all, scored: all, ..told } }
}

fn folded(observed: [u32; LANES], scored: [u32; LANES], sums: [[f64; LANES]; 8]) -> Moments {
    let count = |lanes: [u32; LANES]| lanes.iter().map(|&n| i64::from(n)).sum();
    let (observed, scored) = (count(observed), count(scored));
    Moments { observed, scored, sums: sums.map(|lanes| lanes.iter().sum()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of many sizes; one in `holes` is not finite.
    fn plane(count: usize, seed: u64, holes: u64) -> Vec<f32> {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let value = |_| match (draw() % holes, draw() % 3) {
            (0, which) => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][which as usize],
            (_, power) => (draw() % 2000) as f32 * 10_f32.powi(power as i32 * 8 - 9) - 1.0,
        };
        (0..count).map(value).collect()
    }

    #[test]
    fn every_instruction_set_sums_to_the_same_bits() {
        let bits =
            |moments: Moments| (moments.observed, moments.scored, moments.sums.map(f64::to_bits));
        for count in (0..40).chain([1000, 4096]) {
            for holes in [3, 40, u64::MAX] {
                for seed in 0..8 {
                    let p = plane(count, seed, holes);
                    let o = plane(count, seed + 100, if seed % 2 == 0 { holes } else { u64::MAX });
                    let fast = |p: &[f32], o: &[f32]| Observed::new(o).moments(p, o);
                    let expected = bits(portable(&p, &o));
                    assert_eq!(bits(fast(&p, &o)), expected, "{count} {holes} {seed}");
                    assert_eq!(bits(fast(&o, &p)), bits(portable(&o, &p)));
                }
            }
        }
        // What is not one pair's is nothing's: infinities of one sign leave no number behind.
        let (p, o) = (vec![f32::INFINITY; 5], vec![f32::INFINITY; 5]);
        assert_eq!(
            Observed::new(&o).moments(&p, &[]),
            Moments { observed: 0, scored: 0, sums: [0.0; 8] }
        );
    }
}
