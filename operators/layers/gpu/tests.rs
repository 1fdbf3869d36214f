//! Each layer as a GPU computes it beside the form for the CPU: values and gradients, of random shapes.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;

use super::*;
use crate::layers::{self, Boundary, Conv, Start};

type Layer = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// A layer over some inputs.
pub(crate) struct Case {
    /// What it is.
    pub(crate) name: String,
    inputs: Vec<Tensor>,
    layer: Layer,
}

impl Case {
    /// Its result on a device, then the gradient of each input that has one.
    pub(crate) fn told(&self, device: &Device) -> Vec<Vec<f32>> {
        let var = |input: &Tensor| Var::from_tensor(&input.to_device(device).unwrap()).unwrap();
        let vars: Vec<Var> = self.inputs.iter().map(var).collect();
        let inputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let out = (self.layer)(&inputs).unwrap().to_dtype(DType::F32).unwrap();
        let weights = Draw(7).field(out.dims(), 1.0).to_device(device).unwrap();
        let gradients = (&out * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1().unwrap();
        let each = vars.iter().filter_map(|var| gradients.get(var)).map(flat);
        std::iter::once(flat(&out)).chain(each).collect()
    }
}

/// Asserts that two lists of values are the same but for `tolerance` of the largest of each.
pub(crate) fn alike(name: &str, found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (part, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{name}, part {part}");
        let largest = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        for (at, (a, b)) in found.iter().zip(expected).enumerate() {
            let near = (a - b).abs() <= tolerance * largest;
            assert!(near, "{name}, part {part} (0 is the result), value {at}: {a}, not {b}");
        }
    }
}

/// SplitMix64.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 1 to `most`.
    fn size(&mut self, most: u64) -> usize {
        1 + (self.next() % most) as usize
    }

    /// Values between `-scale` and `scale`.
    pub(crate) fn field(&mut self, dims: &[usize], scale: f32) -> Tensor {
        let mut value = || scale * ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0);
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| value()).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }
}

/// Every layer on shapes drawn anew `rounds` times.
pub(crate) fn cases(rounds: usize) -> Vec<Case> {
    let mut draw = Draw(1);
    let mut all = Vec::new();
    for (round, boundary) in
        (0..rounds).flat_map(|round| [Boundary::Open, Boundary::Periodic].map(|b| (round, b)))
    {
        let [b, h, w, c] = [3, 11, 11, 9].map(|most| draw.size(most));
        let mut add = |what: &str, inputs: Vec<Tensor>, layer: Layer| {
            let shapes: Vec<_> = inputs.iter().map(Tensor::dims).collect();
            all.push(Case { name: format!("{what} {boundary:?} {shapes:?}"), inputs, layer });
        };
        let (k, cout) = (if round % 3 == 0 { 1 } else { 3 }, draw.size(20));
        let inputs = vec![
            draw.field(&[b, h, w, c], 1.0),
            draw.field(&[cout, c, k, k], 1.0),
            draw.field(&[cout], 1.0),
        ];
        let conv = move |t: &[Tensor]| {
            let weights = [("weight", &t[1]), ("bias", &t[2])];
            let weights = weights.map(|(name, t)| (name.to_owned(), t.clone())).into();
            let vb = VarBuilder::from_tensors(weights, DType::F32, t[1].device());
            Conv::new(c, cout, k, boundary, Start::He, vb)
        };
        add("conv", inputs.clone(), Box::new(move |t| conv(t)?.forward(&t[0])));
        add("conv and relu", inputs, Box::new(move |t| conv(t)?.forward_relu(&t[0])));

        let r = draw.size(4);
        let coarse = draw.field(&[b, h, w, c], 1.0);
        let fine = draw.field(&[b, h * r, w * r, c], 1.0);
        let folded = draw.field(&[b, h, w, c * r * r], 1.0);
        add("pool", vec![fine.clone()], Box::new(move |t| layers::avg_pool(&t[0], r)));
        add("fold", vec![fine], Box::new(move |t| layers::pixel_unshuffle(&t[0], r)));
        add("unfold", vec![folded], Box::new(move |t| layers::pixel_shuffle(&t[0], r)));
        let up = move |t: &[Tensor]| layers::upsample_bilinear(&t[0], r, boundary);
        add("upsample", vec![coarse.clone()], Box::new(up));

        let leads = draw.size(3);
        let flow = draw.field(&[b, h, w, 2 * leads], 4.0);
        // Where values arrive from the border itself, the gradient counts.
        let flow = if round % 4 == 0 { flow.zeros_like().unwrap() } else { flow };
        let warp = move |t: &[Tensor]| layers::warp(&t[0], &t[1], boundary);
        add("warp", vec![coarse, flow], Box::new(warp));

        let (rows, codes) = (draw.field(&[b * h * w, c], 1.0), draw.field(&[cout, c], 1.0));
        add("code", vec![rows, codes], Box::new(|t| layers::nearest_code(&t[0], &t[1])));
    }
    all
}

#[test]
fn a_gpus_kernels_say_what_the_cpus_say() {
    for case in cases(24) {
        let expected = case.told(&Device::Cpu);
        assert_eq!(expected.len() > 1, !case.name.starts_with("code"));
        let found = everywhere(|| case.told(&Device::Cpu));
        alike(&case.name, &found, &expected, 1e-5);
    }
}

#[test]
fn the_librarys_convolution_is_the_same() {
    let mut draw = Draw(2);
    for boundary in [Boundary::Open, Boundary::Periodic] {
        for [b, h, w, cin, cout] in [[1, 1, 1, 1, 1], [2, 7, 5, 3, 9], [3, 2, 9, 4, 2]] {
            let (x, weight) =
                (draw.field(&[b, h, w, cin], 1.0), draw.field(&[cout, cin, 3, 3], 1.0));
            let none = Tensor::zeros(cout, DType::F32, &Device::Cpu).unwrap();
            let flat = |x: Tensor| vec![x.flatten_all().unwrap().to_vec1().unwrap()];
            let weights = [&weight, &matrix(&weight, DType::F32).unwrap(), &none];
            let expected = flat(conv(&x, weights, boundary, false).unwrap());
            let found = flat(super::conv::by_library(&x, &weight, boundary).unwrap());
            alike("conv", &found, &expected, 1e-5);
        }
    }
}

#[test]
fn a_way_around_the_domain_leads_back() {
    for side in [1, 7, 41, 49, 55] {
        let image = Draw(6).field(&[1, 1, side, 1], 1.0);
        for turns in [-2.0, -1.0, 1.0, 3.0] {
            let way = Tensor::full(turns * side as f32, (1, 1, side, 1), &Device::Cpu).unwrap();
            let flow = Tensor::cat(&[&way, &way.zeros_like().unwrap()], 3).unwrap();
            let back = warp(&image, &flow, Boundary::Periodic).unwrap();
            let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(&back), values(&image), "{turns} times around {side}");
        }
    }
}

#[test]
fn what_is_not_finite_is_treated_alike() {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 0.5];
    let dims = |c: usize| [1, 2, 3, c];
    let image = Draw(3).field(&dims(2), 1.0);
    let flow = Tensor::from_vec(odd.repeat(2), &dims(2), &Device::Cpu).unwrap();
    let values = Tensor::from_vec(odd.repeat(2), &dims(2), &Device::Cpu).unwrap();
    let (weight, bias) = (Draw(4).field(&[3, 2, 1, 1], 1.0), Draw(5).field(&[3], 1.0));
    for boundary in [Boundary::Open, Boundary::Periodic] {
        let told = || {
            let warped = layers::warp(&image, &flow, boundary).unwrap();
            let weights = [("weight", &weight), ("bias", &bias)];
            let weights = weights.map(|(name, t)| (name.to_owned(), t.clone())).into();
            let vb = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
            let layer = Conv::new(2, 3, 1, boundary, Start::He, vb).unwrap();
            let seen = layer.forward_relu(&values).unwrap();
            [warped, seen].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let ([warped, seen], [expected, kept]) = (everywhere(told), told());
        alike("warp", &[warped], &[expected], 1e-5);
        let unknown = |values: Vec<f32>| values.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
        assert_eq!(unknown(seen), unknown(kept));
    }
}

#[test]
fn of_equal_codes_the_first_is_the_nearest() {
    let codes = Draw(8).field(&[5, 3], 1.0);
    let twice = Tensor::cat(&[&codes, &codes], 0).unwrap();
    let found = nearest_code(&codes, &twice).unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(found, [0, 1, 2, 3, 4]);
}
