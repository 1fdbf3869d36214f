//! Convolution with bias, `same` size, stride 1: weights `(out, in, k, k)` as PyTorch keeps them.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{
    CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape as Dims, Tensor, bail,
};
use candle_nn::{Init, VarBuilder};

use super::correlate::correlate;
use super::kernel::{self, Shape};
use super::written::{Blank, written};
use super::{Boundary, crew, gpu, values};

/// How the weights of a convolution start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// He-normal: standard deviation `sqrt(2 / (in * k * k))`, zero bias.
    He,
    /// All zero: the layer changes nothing until it is trained.
    Zero,
}

/// A convolution `(B, H, W, in) -> (B, H, W, out)`.
#[derive(Debug)]
pub struct Conv {
    weight: Tensor,
    bias: Tensor,
    k: usize,
    boundary: Boundary,
    /// Weights that are not trained are packed once.
    packed: OnceLock<Arc<Vec<f32>>>,
    /// In what a GPU multiplies.
    precision: DType,
    matrix: OnceLock<Tensor>,
}

impl Conv {
    /// Builds or loads `weight (cout, cin, k, k)` and `bias (cout)` below `vb`, f32; `k` is 1 or 3. The
    /// type of `vb` is in what a GPU multiplies.
    ///
    /// # Errors
    /// When a weight is missing or has another shape, or `k` is neither 1 nor 3.
    pub fn new(
        cin: usize,
        cout: usize,
        k: usize,
        boundary: Boundary,
        start: Start,
        vb: VarBuilder,
    ) -> Result<Self> {
        if k != 1 && k != 3 {
            bail!("a kernel of {k} x {k}; 1 and 3 are supported");
        }
        let init = match start {
            Start::He => Init::Randn { mean: 0.0, stdev: (2.0 / (cin * k * k) as f64).sqrt() },
            Start::Zero => Init::Const(0.0),
        };
        let weight = vb.get_with_hints_dtype((cout, cin, k, k), "weight", init, DType::F32)?;
        let bias = vb.get_with_hints_dtype(cout, "bias", Init::Const(0.0), DType::F32)?;
        let (packed, matrix) = (OnceLock::new(), OnceLock::new());
        Ok(Self { weight, bias, k, boundary, packed, precision: vb.dtype(), matrix })
    }

    /// Convolves `(B, H, W, cin)`; gradients reach the input, the weight and the bias.
    ///
    /// # Errors
    /// When the channels differ or the tensor is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, false)
    }

    /// [`Conv::forward`] and `max(0, y)` in one pass.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward_relu(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, true)
    }

    fn apply(&self, x: &Tensor, relu: bool) -> Result<Tensor> {
        let x = x.contiguous()?;
        if gpu::wanted(&x) {
            let expected = self.weight.dim(1)?;
            if x.dim(3)? != expected {
                bail!("a convolution of {expected} channels cannot take {:?}", x.dims());
            }
            let weights = [&self.weight, &self.matrix()?, &self.bias];
            return gpu::conv(&x, weights, self.boundary, relu);
        }
        if self.weight.track_op() {
            return self.train(&x, relu);
        }
        let packed = Some(self.frozen()?);
        let op = Convolve { k: self.k, boundary: self.boundary, relu, packed };
        x.apply_op3(&self.weight, &self.bias, op)
    }

    /// The forward pass under weights that may change between calls.
    pub(super) fn train(&self, x: &Tensor, relu: bool) -> Result<Tensor> {
        let op = Convolve { k: self.k, boundary: self.boundary, relu, packed: None };
        x.contiguous()?.apply_op3(&self.weight, &self.bias, op)
    }

    /// The weights as a GPU multiplies by them, made once where they are not trained.
    fn matrix(&self) -> Result<Tensor> {
        if self.weight.track_op() {
            return gpu::matrix(&self.weight, self.precision);
        }
        if let Some(matrix) = self.matrix.get() {
            return Ok(matrix.clone());
        }
        let matrix = gpu::matrix(&self.weight, self.precision)?;
        Ok(self.matrix.get_or_init(|| matrix).clone())
    }

    fn frozen(&self) -> Result<Arc<Vec<f32>>> {
        if let Some(packed) = self.packed.get() {
            return Ok(Arc::clone(packed));
        }
        let (cout, cin, k, _) = self.weight.dims4()?;
        let w: Vec<f32> = self.weight.flatten_all()?.to_vec1()?;
        let shape = Shape { rows: 0, columns: 0, cin, cout, k };
        let packed = Arc::new(kernel::pack(&shape, |o, i, tap| w[(o * cin + i) * k * k + tap]));
        Ok(Arc::clone(self.packed.get_or_init(|| packed)))
    }
}

struct Convolve {
    k: usize,
    boundary: Boundary,
    relu: bool,
    packed: Option<Arc<Vec<f32>>>,
}

fn dims4(layout: &Layout) -> Result<[usize; 4]> {
    match *layout.dims() {
        [a, b, c, d] => Ok([a, b, c, d]),
        ref other => bail!("a convolution takes four dimensions, not {other:?}"),
    }
}

/// Some rows of a plane `(rows, columns, depth)`, with one pixel around them by the boundary.
fn padded(
    plane: &[f32],
    [rows, columns, depth]: [usize; 3],
    some: Range<usize>,
    boundary: Boundary,
    to: &mut Vec<f32>,
) {
    to.clear();
    for y in some.start as isize - 1..=some.end as isize {
        let line = &plane[boundary.index(y, rows) * columns * depth..][..columns * depth];
        let pixel = |x| &line[boundary.index(x, columns) * depth..][..depth];
        to.extend_from_slice(pixel(-1));
        to.extend_from_slice(line);
        to.extend_from_slice(pixel(columns as isize));
    }
}

thread_local! {
    /// A band of a padded plane: the allocator would give and take its pages at every band.
    static PADDED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl CustomOp3 for Convolve {
    fn name(&self) -> &'static str {
        "conv-nhwc"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let [b, rows, columns, cin] = dims4(l1)?;
        let [cout, expected, k, _] = dims4(l2)?;
        if cin != expected || k != self.k || columns == 0 || rows == 0 {
            bail!("a convolution of {expected} channels cannot take {:?}", l1.dims());
        }
        let (x, bias) = (values(s1, l1)?, values(s3, l3)?);
        let shape = Shape { rows, columns, cin, cout, k };
        let packed = match &self.packed {
            Some(packed) => Arc::clone(packed),
            None => {
                let w = values(s2, l2)?;
                Arc::new(kernel::pack(&shape, |o, i, tap| w[(o * cin + i) * k * k + tap]))
            }
        };
        let count = b * rows * columns * cout;
        let some = |first: usize, y: &mut [Blank]| {
            let (mut row, mut rest) = (first, y);
            while !rest.is_empty() {
                // As many rows as stay in the second-level cache, of one image.
                let (n, at) = (row / rows, row % rows);
                let some = shape.band().min(rows - at).min(rest.len() / (columns * cout));
                let (y, others) = rest.split_at_mut(some * columns * cout);
                let image = &x[n * rows * columns * cin..][..rows * columns * cin];
                let band = Shape { rows: some, ..shape };
                if k == 1 {
                    let x = &image[at * columns * cin..][..some * columns * cin];
                    kernel::convolve(x, &band, &packed, bias, self.relu, y);
                } else {
                    PADDED.with_borrow_mut(|plane| {
                        let size = [rows, columns, cin];
                        padded(image, size, at..at + some, self.boundary, plane);
                        kernel::convolve(plane, &band, &packed, bias, self.relu, y);
                    });
                }
                (row, rest) = (row + some, others);
            }
        };
        // SAFETY: every band of rows is convolved.
        #[allow(unsafe_code)]
        let y =
            unsafe { written(count, |y| crew::rows(y, columns * cout, count * cin * k * k, some)) };
        Ok((CpuStorage::F32(y), Dims::from((b, rows, columns, cout))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut gradient = gradient.contiguous()?;
        if self.relu {
            gradient = result.apply_op2_no_bwd(&gradient, &Mask)?;
        }
        let (k, boundary) = (self.k, self.boundary);
        // The first layer's input needs none.
        let dx = x
            .track_op()
            .then(|| gradient.apply_op2_no_bwd(weight, &InputGradient { k, boundary }))
            .transpose()?;
        let cin = weight.dim(1)?;
        let dw = weight
            .track_op()
            .then(|| x.apply_op2_no_bwd(&gradient, &WeightGradient { k, boundary, cin }))
            .transpose()?;
        let cout = weight.dim(0)?;
        let db = bias.track_op().then(|| bias_gradient(&gradient, cout)).transpose()?;
        Ok((dx, dw, db))
    }
}

fn bias_gradient(gradient: &Tensor, cout: usize) -> Result<Tensor> {
    let (storage, layout) = gradient.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else { bail!("a kernel for the CPU") };
    let mut sums = vec![0.0_f32; cout];
    for pixel in values(storage, layout)?.chunks_exact(cout) {
        sums.iter_mut().zip(pixel).for_each(|(sum, g)| *sum += g);
    }
    Tensor::from_vec(sums, cout, gradient.device())
}

/// The gradient where the result is positive, else 0.
struct Mask;

impl CustomOp2 for Mask {
    fn name(&self) -> &'static str {
        "relu-mask"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let pairs = values(s1, l1)?.iter().zip(values(s2, l2)?);
        let masked = pairs.map(|(&y, &g)| if y > 0.0 { g } else { 0.0 }).collect();
        Ok((CpuStorage::F32(masked), l2.shape().clone()))
    }
}

/// `(gradient, weight) -> gradient of the input`.
struct InputGradient {
    k: usize,
    boundary: Boundary,
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv-nhwc-dx"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let [b, rows, columns, cout] = dims4(l1)?;
        let [_, cin, k, _] = dims4(l2)?;
        let (g, w) = (values(s1, l1)?, values(s2, l2)?);
        // The same kernel, taps flipped and channels swapped. Where the border was repeated,
        // the gradient of the padded plane is made and its rim folded back.
        let folded = self.k == 3 && self.boundary == Boundary::Open;
        let rim = if folded { 2 } else { 0 };
        let shape = Shape { rows: rows + rim, columns: columns + rim, cin: cout, cout: cin, k };
        let packed = kernel::pack(&shape, |i, o, tap| w[(o * cin + i) * k * k + k * k - 1 - tap]);
        let (size, result) = (rows * columns * cout, rows * columns * cin);
        let images = g.chunks_exact(size);
        let mut plane = Vec::new();
        let mut convolve = |image: &[f32], dx: &mut [Blank]| {
            let plane = match k {
                1 => image,
                _ if folded => {
                    zero_padded(image, columns, cout, &mut plane);
                    &plane
                }
                _ => {
                    padded(image, [rows, columns, cout], 0..rows, self.boundary, &mut plane);
                    &plane
                }
            };
            kernel::convolve(plane, &shape, &packed, &[], false, dx);
        };
        // SAFETY: every image is convolved.
        #[allow(unsafe_code)]
        let dx = if folded {
            let mut dx = vec![0.0; b * result];
            for (image, dx) in images.zip(dx.chunks_exact_mut(result)) {
                let count = shape.rows * shape.columns * cin;
                let wide = unsafe { written(count, |wide| convolve(image, wide)) };
                fold(&wide, rows, columns, cin, dx);
            }
            dx
        } else {
            let each = |dx: &mut [Blank]| {
                images.zip(dx.chunks_exact_mut(result)).for_each(|(image, dx)| convolve(image, dx));
            };
            unsafe { written(b * result, each) }
        };
        Ok((CpuStorage::F32(dx), Dims::from((b, rows, columns, cin))))
    }
}

/// The plane with two pixels of zeros around it.
fn zero_padded(plane: &[f32], columns: usize, depth: usize, to: &mut Vec<f32>) {
    to.clear();
    let line = (columns + 4) * depth;
    to.resize(2 * line, 0.0);
    for row in plane.chunks_exact(columns * depth) {
        to.resize(to.len() + 2 * depth, 0.0);
        to.extend_from_slice(row);
        to.resize(to.len() + 2 * depth, 0.0);
    }
    to.resize(to.len() + 2 * line, 0.0);
}

/// Adds the rim of a padded plane's gradient onto the pixels that it was copied from.
fn fold(wide: &[f32], rows: usize, columns: usize, depth: usize, to: &mut [f32]) {
    for (y, line) in wide.chunks_exact((columns + 2) * depth).enumerate() {
        let row = Boundary::Open.index(y as isize - 1, rows);
        let to = &mut to[row * columns * depth..][..columns * depth];
        let inner = &line[depth..(columns + 1) * depth];
        to.iter_mut().zip(inner).for_each(|(t, g)| *t += g);
        to[..depth].iter_mut().zip(&line[..depth]).for_each(|(t, g)| *t += g);
        let last = &line[(columns + 1) * depth..];
        to[(columns - 1) * depth..].iter_mut().zip(last).for_each(|(t, g)| *t += g);
    }
}

/// `(input, gradient) -> gradient of the weight`.
struct WeightGradient {
    k: usize,
    boundary: Boundary,
    cin: usize,
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv-nhwc-dw"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let [_, rows, columns, cin] = dims4(l1)?;
        let [_, _, _, cout] = dims4(l2)?;
        let (x, g, k) = (values(s1, l1)?, values(s2, l2)?, self.k);
        debug_assert_eq!(cin, self.cin);
        let shape = Shape { rows, columns, cin, cout, k };
        let taps = k * k;
        let mut sums = vec![0.0; kernel::width(cout) * taps * cin];
        let (mut plane, mut spare) = (Vec::new(), Vec::new());
        let images = x.chunks_exact(rows * columns * cin);
        for (image, g) in images.zip(g.chunks_exact(rows * columns * cout)) {
            if k == 1 {
                correlate(image, g, &shape, &mut spare, &mut sums);
            } else {
                padded(image, [rows, columns, cin], 0..rows, self.boundary, &mut plane);
                correlate(&plane, g, &shape, &mut spare, &mut sums);
            }
        }
        let mut dw = vec![0.0; cout * cin * taps];
        for (c, n) in kernel::blocks(cout) {
            let block = &sums[c * taps * cin..][..n * taps * cin];
            for (at, row) in block.chunks_exact(n).enumerate() {
                let (tap, i) = (at / cin, at % cin);
                for (o, &sum) in (c..cout).zip(row) {
                    dw[(o * cin + i) * taps + tap] = sum;
                }
            }
        }
        Ok((CpuStorage::F32(dw), Dims::from((cout, cin, k, k))))
    }
}
