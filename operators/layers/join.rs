//! Channels side by side, and sums: what lies between two layers.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};

use super::written::{Blank, put, written};
use super::{crew, gpu, values};

/// What a value costs that is copied, in multiply-adds of a convolution.
const VALUE: usize = 10;

/// The channels of all `parts (..., C)` side by side, on every idle core.
///
/// # Errors
/// When the parts differ in another dimension than the last.
pub fn join<T: AsRef<Tensor>>(parts: &[T]) -> Result<Tensor> {
    let parts: Vec<&Tensor> = parts.iter().map(AsRef::as_ref).collect();
    let Some(first) = parts.first() else { bail!("there is nothing to join") };
    let last = first.rank().saturating_sub(1);
    let before = |part: &Tensor| part.dims().split_last().map(|(c, before)| (*c, before.to_vec()));
    let Some((_, size)) = before(first) else { bail!("numbers have no channels") };
    let alike = |part: &&Tensor| before(part).is_some_and(|(_, other)| other == size);
    if !parts.iter().all(alike) || parts.iter().any(|part| part.track_op() || gpu::wanted(part)) {
        return Tensor::cat(&parts, last);
    }
    let parts: Vec<_> = parts.iter().map(|part| part.contiguous()).collect::<Result<_>>()?;
    let held: Vec<_> = parts.iter().map(Tensor::storage_and_layout).collect();
    let planes = held.iter().map(|(storage, layout)| match &**storage {
        Storage::Cpu(storage) => values(storage, layout),
        _ => bail!("channels are joined on one device"),
    });
    let planes = planes.collect::<Result<Vec<_>>>()?;
    let depths: Vec<usize> = parts.iter().map(|part| part.dim(last)).collect::<Result<_>>()?;
    let (pixels, depth) = (size.iter().product::<usize>(), depths.iter().sum::<usize>());
    let copy = |first: usize, y: &mut [Blank]| {
        for (pixel, y) in (first..).zip(y.chunks_exact_mut(depth.max(1))) {
            let mut rest = y;
            for (plane, &c) in planes.iter().zip(&depths) {
                let (to, others) = rest.split_at_mut(c);
                put(to, plane[pixel * c..][..c].iter().copied());
                rest = others;
            }
        }
    };
    let count = pixels * depth;
    // SAFETY: every pixel of every part is copied.
    #[allow(unsafe_code)]
    let y = unsafe { written(count, |y| crew::rows(y, depth, count * VALUE, copy)) };
    Tensor::from_vec(y, [size, vec![depth]].concat(), first.device())
}

/// `a + b`, on every idle core.
///
/// # Errors
/// When the shapes differ.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    plus(a, b, false)
}

/// `max(0, a + b)`, in one pass.
///
/// # Errors
/// When the shapes differ.
pub(crate) fn sum_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    plus(a, b, true)
}

fn plus(a: &Tensor, b: &Tensor, relu: bool) -> Result<Tensor> {
    if [a, b].iter().any(|x| x.track_op() || gpu::wanted(x)) {
        let sum = (a + b)?;
        return if relu { sum.relu() } else { Ok(sum) };
    }
    a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &Plus { relu })
}

struct Plus {
    relu: bool,
}

impl CustomOp2 for Plus {
    fn name(&self) -> &'static str {
        "plus"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (values(s1, l1)?, values(s2, l2)?);
        if l1.dims() != l2.dims() {
            bail!("{:?} and {:?} have no sum", l1.dims(), l2.dims());
        }
        let add = |first: usize, y: &mut [Blank]| {
            let pairs = a[first..].iter().zip(&b[first..]);
            if self.relu {
                put(y, pairs.map(|(a, b)| (a + b).max(0.0)));
            } else {
                put(y, pairs.map(|(a, b)| a + b));
            }
        };
        // SAFETY: there are as many pairs as places.
        #[allow(unsafe_code)]
        let y = unsafe { written(a.len(), |y| crew::rows(y, 1, a.len() * VALUE, add)) };
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }
}
