//! A call of one of the kernels.

#![cfg_attr(not(any(test, feature = "cuda")), expect(dead_code, reason = "only those are told"))]

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};

use crate::layers::Boundary;

/// The gradients of one or two inputs, from them, the result and its gradient.
pub(super) type Back = fn(&Call, &[&Tensor], &Tensor, &Tensor) -> Result<[Option<Tensor>; 2]>;

/// Which kernel, with what numbers, for what.
#[derive(Clone)]
pub(super) struct Call {
    /// Its name in kernels.cu.
    pub(super) kernel: &'static str,
    /// Batch, rows, columns and channels of what it takes.
    pub(super) of: [usize; 4],
    /// A number more, which the kernel explains.
    pub(super) other: usize,
    pub(super) boundary: Boundary,
    pub(super) threads: usize,
    /// The result's dimensions.
    pub(super) out: Vec<usize>,
    /// Whether it is of whole numbers, u32.
    pub(super) whole: bool,
    /// Without it no gradient passes.
    pub(super) back: Option<Back>,
}

impl Call {
    /// A thread for each value of a result of these dimensions.
    pub(super) fn new(kernel: &'static str, of: [usize; 4], out: &[usize]) -> Self {
        let (threads, out) = (out.iter().product(), out.to_vec());
        let boundary = Boundary::Open;
        Self { kernel, of, other: 0, boundary, threads, out, whole: false, back: None }
    }

    /// The result for one to three inputs, f32.
    pub(super) fn on(self, inputs: &[&Tensor]) -> Result<Tensor> {
        let sizes = inputs.iter().map(|input| input.elem_count());
        if sizes.chain([self.out.iter().product()]).any(|size| i32::try_from(size).is_err()) {
            let dims = self.of;
            bail!("{dims:?} is more than one call computes; say a smaller `batch`");
        }
        let all = inputs.iter().map(|input| input.contiguous()).collect::<Result<Vec<_>>>()?;
        match (&all[..], self.back) {
            ([a], None) => a.apply_op1_no_bwd(&self),
            ([a, b], None) => a.apply_op2_no_bwd(b, &self),
            ([a, b, c], None) => a.apply_op3_no_bwd(b, c, &self),
            ([a], Some(_)) => a.apply_op1(self),
            ([a, b], Some(_)) => a.apply_op2(b, self),
            _ => bail!("{} cannot be called with {} tensors", self.kernel, all.len()),
        }
    }

    fn gradients(
        &self,
        inputs: &[&Tensor],
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        match self.back {
            Some(back) => back(self, inputs, result, gradient),
            None => Ok([None, None]),
        }
    }

    /// What every kernel is told before its tensors.
    fn numbers(&self) -> [i32; 7] {
        let [batch, rows, columns, channels] = self.of;
        let periodic = usize::from(self.boundary == Boundary::Periodic);
        // They fit: each divides a size that does, or is a side.
        [self.threads, batch, rows, columns, channels, self.other, periodic].map(|n| n as i32)
    }

    #[cfg(test)]
    fn cpu(&self, inputs: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let values = |&(storage, layout)| crate::layers::values(storage, layout);
        let inputs = inputs.iter().map(values).collect::<Result<Vec<_>>>()?;
        let shape = Shape::from(&self.out[..]);
        let bytes = super::host::answer(self.kernel, self.numbers(), &inputs, shape.elem_count());
        let (words, _) = bytes.as_chunks::<4>();
        let storage = match self.whole {
            true => CpuStorage::U32(words.iter().map(|word| u32::from_ne_bytes(*word)).collect()),
            false => CpuStorage::F32(words.iter().map(|word| f32::from_ne_bytes(*word)).collect()),
        };
        Ok((storage, shape))
    }

    #[cfg(not(test))]
    fn cpu(&self, _: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        bail!("{} is a kernel for a GPU", self.kernel)
    }

    #[cfg(feature = "cuda")]
    fn gpu(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        match self.whole {
            true => self.launch::<u32>(inputs),
            false => self.launch::<f32>(inputs),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn gpu(&self, _: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        bail!("{}: this program was built without CUDA", self.kernel)
    }

    #[cfg(feature = "cuda")]
    fn launch<T>(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)>
    where
        T: candle_core::cuda_backend::CudaDType
            + candle_core::cuda_backend::cudarc::driver::DeviceRepr
            + candle_core::cuda_backend::cudarc::driver::ValidAsZeroBits,
    {
        use candle_core::backend::BackendStorage;
        use candle_core::cuda_backend::WrapErr;
        use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};

        const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
        let shape = Shape::from(&self.out[..]);
        let device = inputs[0].0.device().clone();
        let kernel = device.get_or_load_custom_func(self.kernel, "physicnet", PTX)?;
        let mut views = Vec::new();
        for (storage, layout) in inputs {
            // Contiguous, as `on` made it.
            views.push(storage.as_cuda_slice::<f32>()?.slice(layout.start_offset()..));
        }
        // Zeros, as one kernel adds to what is there.
        let mut out = device.alloc_zeros::<T>(shape.elem_count())?;
        let numbers = self.numbers();
        let mut call = kernel.builder();
        numbers.iter().for_each(|number| {
            call.arg(number);
        });
        // Where there are fewer, a kernel does not look at the others.
        (0..3).for_each(|at| {
            call.arg(&views[at.min(views.len() - 1)]);
        });
        call.arg(&mut out);
        if self.threads > 0 {
            let grid = LaunchConfig::for_num_elems(self.threads as u32);
            // SAFETY: the arguments are those of every kernel in kernels.cu, in their order, and each
            // reads and writes where the numbers say that there is something: the tests run them so
            // under a sanitizer.
            #[allow(unsafe_code)]
            unsafe { call.launch(grid) }.w()?;
        }
        drop(call);
        Ok((CudaStorage::wrap_cuda_slice(out, device), shape))
    }
}

impl CustomOp1 for Call {
    fn name(&self) -> &'static str {
        self.kernel
    }

    fn cpu_fwd(&self, a: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(a, l)])
    }

    fn cuda_fwd(&self, a: &CudaStorage, l: &Layout) -> Result<(CudaStorage, Shape)> {
        self.gpu(&[(a, l)])
    }

    fn bwd(&self, a: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.gradients(&[a], result, gradient).map(|[a, _]| a)
    }
}

impl CustomOp2 for Call {
    fn name(&self) -> &'static str {
        self.kernel
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        l1: &Layout,
        b: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(a, l1), (b, l2)])
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        l1: &Layout,
        b: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.gpu(&[(a, l1), (b, l2)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(&[a, b], result, gradient).map(|[a, b]| (a, b))
    }
}

impl CustomOp3 for Call {
    fn name(&self) -> &'static str {
        self.kernel
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        l1: &Layout,
        b: &CpuStorage,
        l2: &Layout,
        c: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(a, l1), (b, l2), (c, l3)])
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        l1: &Layout,
        b: &CudaStorage,
        l2: &Layout,
        c: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.gpu(&[(a, l1), (b, l2), (c, l3)])
    }
}
