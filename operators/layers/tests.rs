//! Each layer against a slow obvious version and against finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;

use super::*;

pub(super) fn wave(dims: &[usize], seed: f32) -> Tensor {
    let count: usize = dims.iter().product();
    let data: Vec<f32> = (0..count).map(|k| ((k as f32 + seed) * 0.737).sin()).collect();
    Tensor::from_vec(data, dims, &Device::Cpu).unwrap()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "value {i}: {a} is not {b}");
    }
}

/// Compares every gradient of `sum(f(inputs) * weights)` with central differences, probing
/// some values of each input.
fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let out = f(&tensors).unwrap();
    let weights = wave(out.dims(), 11.0);
    let loss = |out: &Tensor| (out * &weights).unwrap().sum_all().unwrap();
    let gradients = loss(&out).backward().unwrap();
    // In f64, so that the difference of two large sums keeps its digits.
    let total = |inputs: &[Tensor]| -> f64 {
        let out = flat(&f(inputs).unwrap());
        out.iter().zip(flat(&weights)).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
    };
    for (which, var) in vars.iter().enumerate() {
        let gradient = flat(gradients.get(var).unwrap_or_else(|| panic!("input {which}: none")));
        let values = flat(&inputs[which]);
        for at in (0..values.len()).step_by((values.len() / 23).max(1)) {
            let moved = |step: f32| {
                let mut values = values.clone();
                values[at] += step;
                let mut all = inputs.to_vec();
                all[which] = Tensor::from_vec(values, inputs[which].dims(), &Device::Cpu).unwrap();
                total(&all)
            };
            let step = 1e-2;
            let slope = ((moved(step) - moved(-step)) / (2.0 * f64::from(step))) as f32;
            let given = gradient[at];
            assert!(
                (given - slope).abs() <= 2e-2 * (1.0 + slope.abs()),
                "input {which}, value {at}: gradient {given}, difference {slope}"
            );
        }
    }
}

pub(super) fn conv(weight: &Tensor, bias: &Tensor, boundary: Boundary) -> Conv {
    let tensors = [("weight", weight), ("bias", bias)];
    let tensors = tensors.into_iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let (cout, cin, k, _) = weight.dims4().unwrap();
    Conv::new(cin, cout, k, boundary, Start::He, vb).unwrap()
}

/// The definition, in f64.
fn slow_conv(x: &Tensor, weight: &Tensor, bias: &Tensor, boundary: Boundary) -> Vec<f32> {
    let (b, h, w, cin) = x.dims4().unwrap();
    let (cout, _, k, _) = weight.dims4().unwrap();
    let (x, weight, bias) = (flat(x), flat(weight), flat(bias));
    let mut out = Vec::new();
    for n in 0..b {
        for (y, column) in (0..h).flat_map(|y| (0..w).map(move |c| (y, c))) {
            for o in 0..cout {
                let mut sum = f64::from(bias[o]);
                for (ky, kx) in (0..k).flat_map(|a| (0..k).map(move |b| (a, b))) {
                    let row = boundary.index((y + ky) as isize - (k / 2) as isize, h);
                    let col = boundary.index((column + kx) as isize - (k / 2) as isize, w);
                    for i in 0..cin {
                        let v = f64::from(x[((n * h + row) * w + col) * cin + i]);
                        sum += v * f64::from(weight[((o * cin + i) * k + ky) * k + kx]);
                    }
                }
                out.push(sum as f32);
            }
        }
    }
    out
}

const SHAPES: [[usize; 5]; 9] = [
    // batch, rows, columns, channels in, channels out
    [1, 1, 1, 1, 1],
    [1, 3, 3, 3, 3],
    [3, 5, 7, 2, 10],
    [1, 8, 8, 8, 8],
    [2, 7, 5, 17, 33],
    [3, 2, 9, 6, 20],
    [1, 16, 16, 16, 16],
    [2, 6, 4, 33, 24],
    [1, 40, 33, 5, 9],
];

#[test]
fn convolution_is_its_definition() {
    for [b, h, w, cin, cout] in SHAPES {
        for k in [1, 3] {
            for boundary in [Boundary::Open, Boundary::Periodic] {
                let x = wave(&[b, h, w, cin], 0.0);
                let (weight, bias) = (wave(&[cout, cin, k, k], 3.0), wave(&[cout], 5.0));
                let layer = conv(&weight, &bias, boundary);
                let expected = slow_conv(&x, &weight, &bias, boundary);
                close(&flat(&layer.forward(&x).unwrap()), &expected, 1e-5);
                let positive: Vec<f32> = expected.iter().map(|v| v.max(0.0)).collect();
                close(&flat(&layer.forward_relu(&x).unwrap()), &positive, 1e-5);
            }
        }
    }
}

#[test]
fn convolution_has_its_gradients() {
    for [b, h, w, cin, cout] in SHAPES {
        for k in [1, 3] {
            for boundary in [Boundary::Open, Boundary::Periodic] {
                let inputs =
                    [wave(&[b, h, w, cin], 0.0), wave(&[cout, cin, k, k], 3.0), wave(&[cout], 5.0)];
                check_gradients(&inputs, |t| {
                    // A layer over the probed tensors themselves.
                    conv(&t[1], &t[2], boundary).train(&t[0], false)
                });
            }
        }
    }
}

#[test]
fn a_fused_relu_stops_the_same_gradients() {
    for boundary in [Boundary::Open, Boundary::Periodic] {
        let inputs = [wave(&[2, 5, 6, 4], 0.0), wave(&[9, 4, 3, 3], 3.0), wave(&[9], 5.0)];
        let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
        let layer = conv(vars[1].as_tensor(), vars[2].as_tensor(), boundary);
        let weights = wave(&[2, 5, 6, 9], 2.0);
        let both = [
            layer.train(vars[0].as_tensor(), true).unwrap(),
            layer.train(vars[0].as_tensor(), false).unwrap().relu().unwrap(),
        ];
        let [fused, apart] =
            both.map(|out| (out * &weights).unwrap().sum_all().unwrap().backward().unwrap());
        for var in &vars {
            close(&flat(fused.get(var).unwrap()), &flat(apart.get(var).unwrap()), 1e-5);
        }
    }
}

/// Small enough for an interpreter, who sees what is read and was never written; here that is NaN.
#[test]
fn kernels_write_all_the_memory_they_are_handed() {
    let whole = |what: &str, x: Tensor| assert!(flat(&x).iter().all(|v| v.is_finite()), "{what}");
    // Less than a tile and more than one, blocks of channels that are full, half and neither.
    for ([b, h, w, c], cout) in [([1, 1, 2, 3], 20), ([2, 3, 5, 1], 11)] {
        let (x, coarse) = (wave(&[b, h, w, c], 0.0), wave(&[b, h, w, 1], 2.0));
        let code = wave(&[b * h * w, c], 2.0);
        for (boundary, k) in [(Boundary::Open, 1), (Boundary::Open, 3), (Boundary::Periodic, 3)] {
            let layer = conv(&wave(&[cout, c, k, k], 3.0), &wave(&[cout], 5.0), boundary);
            let flow = (wave(&[b, h, w, 4], 4.0) * 2.3).unwrap();
            crew::cut(3, || {
                whole("convolution", layer.forward(&x).unwrap());
                whole("convolution", layer.forward_relu(&x).unwrap());
                whole("warp", warp(&x, &flow, boundary).unwrap());
                for r in [2, 3] {
                    let fine = upsample_bilinear(&x, r, boundary).unwrap();
                    let folded = pixel_unshuffle(&fine, r).unwrap();
                    whole("folding", pixel_shuffle(&folded, r).unwrap());
                    let base = upsample_bilinear(&coarse, r, boundary).unwrap();
                    whole("onto", onto(&base, &coarse, r, boundary).unwrap());
                    whole("gate", gated(&coarse, &fine, &fine, r, boundary).unwrap());
                    whole("join", join(&[&fine, &base, &fine]).unwrap());
                    whole("sum", sum(&fine, &fine).unwrap());
                    whole("sum", sum_relu(&fine, &fine).unwrap());
                }
            });
            let trained = Var::from_tensor(&x).unwrap();
            let out = layer.train(trained.as_tensor(), true).unwrap();
            let gradients = out.sum_all().unwrap().backward().unwrap();
            whole("gradient", gradients.get(&trained).unwrap().clone());
        }
        assert_eq!(nearest_code(&code, &code).unwrap().dims1().unwrap(), b * h * w);
    }
}

#[test]
fn a_sample_does_not_know_its_batch() {
    let x = wave(&[5, 7, 9, 13], 0.0);
    for k in [1, 3] {
        let layer = conv(&wave(&[21, 13, k, k], 1.0), &wave(&[21], 2.0), Boundary::Open);
        let whole = layer.forward(&x).unwrap();
        for i in 0..5 {
            let alone = layer.forward(&x.narrow(0, i, 1).unwrap()).unwrap();
            assert_eq!(flat(&alone), flat(&whole.narrow(0, i, 1).unwrap()));
        }
    }
}

#[test]
fn tiny_planes_do_not_know_their_batch_either() {
    // Planes below, at and above the pixels of a tile, whose last tiles overlap.
    for (rows, columns, cout) in [(1, 2, 16), (2, 3, 9), (7, 1, 8), (3, 3, 24), (1, 13, 40)] {
        let x = wave(&[3, rows, columns, 7], 0.0);
        let layer = conv(&wave(&[cout, 7, 3, 3], 1.0), &wave(&[cout], 2.0), Boundary::Periodic);
        let whole = layer.forward(&x).unwrap();
        for i in 0..3 {
            let alone = layer.forward(&x.narrow(0, i, 1).unwrap()).unwrap();
            assert_eq!(flat(&alone), flat(&whole.narrow(0, i, 1).unwrap()));
        }
    }
}

#[test]
fn what_is_not_a_number_passes_the_fused_relu() {
    let layer = conv(&wave(&[9, 2, 1, 1], 1.0), &wave(&[9], 2.0), Boundary::Open);
    let x = (wave(&[1, 3, 3, 2], 0.0) * f64::NAN).unwrap();
    assert!(flat(&layer.forward_relu(&x).unwrap()).iter().all(|v| v.is_nan()));
}

#[test]
fn wrong_shapes_and_kinds_are_errors() {
    let layer = conv(&wave(&[4, 2, 3, 3], 1.0), &wave(&[4], 2.0), Boundary::Open);
    assert!(layer.forward(&wave(&[1, 3, 3, 3], 0.0)).is_err());
    let wide = wave(&[1, 3, 3, 2], 0.0).to_dtype(DType::F64).unwrap();
    assert!(layer.forward(&wide).unwrap_err().to_string().contains("f32"));
    assert!(warp(&wave(&[1, 3, 3, 1], 0.0), &wave(&[1, 3, 3, 3], 0.0), Boundary::Open).is_err());
    assert!(avg_pool(&wave(&[1, 4, 4, 1], 0.0), 0).is_err());
    assert!(nearest_code(&wave(&[3, 2], 0.0), &wave(&[3, 4], 0.0)).is_err());
}

#[test]
fn folding_moves_each_value_once() {
    // Batch, folded rows and columns, channels; one has as many of each.
    for (r, [n, h, w, c]) in [
        (2, [2, 2, 3, 1]),
        (2, [1, 3, 1, 3]),
        (3, [3, 1, 2, 2]),
        (2, [1, 2, 2, 4]),
        (4, [1, 1, 1, 4]),
    ] {
        let x = wave(&[n, h * r, w * r, c], 0.0);
        let folded = pixel_unshuffle(&x, r).unwrap();
        let values = flat(&x);
        let mut expected = Vec::new();
        for (b, y, column) in
            (0..n).flat_map(|b| (0..h).flat_map(move |y| (0..w).map(move |x| (b, y, x))))
        {
            for (k, dy, dx) in
                (0..c).flat_map(|k| (0..r).flat_map(move |dy| (0..r).map(move |dx| (k, dy, dx))))
            {
                let row = (b * h * r + y * r + dy) * w * r + column * r + dx;
                expected.push(values[row * c + k]);
            }
        }
        assert_eq!(flat(&folded), expected);
        assert_eq!(flat(&pixel_shuffle(&folded, r).unwrap()), values);
        check_gradients(std::slice::from_ref(&x), |t| pixel_unshuffle(&t[0], r));
        check_gradients(&[folded], |t| pixel_shuffle(&t[0], r));
    }
    assert!(pixel_unshuffle(&wave(&[1, 5, 4, 1], 0.0), 2).is_err());
}

#[test]
fn pooling_averages() {
    for (r, [n, h, w, c]) in [
        (2, [2, 3, 2, 3]),
        (2, [1, 1, 5, 1]),
        (3, [3, 2, 1, 2]),
        (1, [1, 3, 3, 3]),
        (2, [1, 2, 2, 4]),
    ] {
        let x = wave(&[n, h * r, w * r, c], 0.0);
        let v = flat(&x);
        let mut expected = Vec::new();
        for (b, y, column) in
            (0..n).flat_map(|b| (0..h).flat_map(move |y| (0..w).map(move |x| (b, y, x))))
        {
            for k in 0..c {
                let cell = (0..r).flat_map(|dy| (0..r).map(move |dx| (dy, dx)));
                let values = cell.map(|(dy, dx)| {
                    let row = b * h * r + y * r + dy;
                    f64::from(v[(row * w * r + column * r + dx) * c + k])
                });
                expected.push((values.sum::<f64>() / (r * r) as f64) as f32);
            }
        }
        close(&flat(&avg_pool(&x, r).unwrap()), &expected, 1e-6);
        check_gradients(&[x], |t| avg_pool(&t[0], r));
    }
}

#[test]
fn upsampling_interpolates() {
    for boundary in [Boundary::Open, Boundary::Periodic] {
        for (dims, r) in
            [([1, 3, 5, 2], 4), ([2, 1, 1, 1], 2), ([1, 4, 4, 3], 8), ([1, 3, 3, 3], 2)]
        {
            let x = wave(&dims, 0.0);
            let v = flat(&x);
            let [b, h, w, c] = dims;
            let mut expected = Vec::new();
            for (n, y, column) in (0..b)
                .flat_map(|n| (0..h * r).flat_map(move |y| (0..w * r).map(move |x| (n, y, x))))
            {
                let (fy, fx) =
                    ((y as f32 + 0.5) / r as f32 - 0.5, (column as f32 + 0.5) / r as f32 - 0.5);
                for k in 0..c {
                    let at = |dy: isize, dx: isize| {
                        let row = boundary.index(fy.floor() as isize + dy, h);
                        let col = boundary.index(fx.floor() as isize + dx, w);
                        v[((n * h + row) * w + col) * c + k]
                    };
                    let (ty, tx) = (fy - fy.floor(), fx - fx.floor());
                    let upper = at(0, 0) * (1.0 - tx) + at(0, 1) * tx;
                    let lower = at(1, 0) * (1.0 - tx) + at(1, 1) * tx;
                    expected.push(upper * (1.0 - ty) + lower * ty);
                }
            }
            close(&flat(&upsample_bilinear(&x, r, boundary).unwrap()), &expected, 1e-5);
            check_gradients(&[x], |t| upsample_bilinear(&t[0], r, boundary));
        }
    }
}

#[test]
fn warping_carries_backwards() {
    for [n, h, w, c] in [[2, 6, 7, 3], [1, 3, 3, 3], [3, 5, 4, 1], [1, 1, 1, 1]] {
        let image = wave(&[n, h, w, c], 0.0);
        let v = flat(&image);
        let still = wave(&[n, h, w, 4], 0.0).zeros_like().unwrap();
        let still = warp(&image, &still, Boundary::Open).unwrap();
        assert_eq!(flat(&still.narrow(3, c, c).unwrap()), v);
        for boundary in [Boundary::Open, Boundary::Periodic] {
            // Displacements off the pixel grid, where the slope is defined, some past the border.
            let flow = ((wave(&[n, h, w, 4], 4.0) * 2.3).unwrap() + 0.05).unwrap();
            let f = flat(&flow);
            let mut expected = Vec::new();
            for (b, y, x) in
                (0..n).flat_map(|b| (0..h).flat_map(move |y| (0..w).map(move |x| (b, y, x))))
            {
                for lead in 0..2 {
                    let at = ((b * h + y) * w + x) * 4 + 2 * lead;
                    let (mut tx, mut ty) = (x as f32 + f[at], y as f32 + f[at + 1]);
                    if boundary == Boundary::Open {
                        (tx, ty) = (tx.clamp(0.0, (w - 1) as f32), ty.clamp(0.0, (h - 1) as f32));
                    }
                    for k in 0..c {
                        let pixel = |dy: isize, dx: isize| {
                            let row = boundary.index(ty.floor() as isize + dy, h);
                            let col = boundary.index(tx.floor() as isize + dx, w);
                            v[((b * h + row) * w + col) * c + k]
                        };
                        let (sy, sx) = (ty - ty.floor(), tx - tx.floor());
                        let upper = pixel(0, 0) * (1.0 - sx) + pixel(0, 1) * sx;
                        let lower = pixel(1, 0) * (1.0 - sx) + pixel(1, 1) * sx;
                        expected.push(upper * (1.0 - sy) + lower * sy);
                    }
                }
            }
            close(&flat(&warp(&image, &flow, boundary).unwrap()), &expected, 1e-4);
            check_gradients(std::slice::from_ref(&image), |t| warp(&t[0], &flow, boundary));
            let gentle = ((wave(&[n, h, w, 4], 4.0) * 0.3).unwrap() + 0.5).unwrap();
            check_gradients(&[gentle], |t| warp(&image, &t[0], boundary));
        }
        let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38].repeat(n * h * w);
        let wild = Tensor::from_vec(wild, (n, h, w, 4), &Device::Cpu).unwrap();
        for boundary in [Boundary::Open, Boundary::Periodic] {
            let out = flat(&warp(&image, &wild, boundary).unwrap());
            assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn warping_into_planes_gives_the_same_bits() {
    for [h, w, c, leads] in [[1, 1, 1, 1], [3, 5, 2, 3], [4, 37, 1, 10], [6, 32, 3, 2]] {
        let image = wave(&[1, h, w, c], 0.0);
        let flow = (wave(&[1, h, w, 2 * leads], 4.0) * 3.7).unwrap();
        for boundary in [Boundary::Open, Boundary::Periodic] {
            let together = warp(&image, &flow, boundary).unwrap();
            let planes = together.reshape((h * w, leads * c)).unwrap().t().unwrap();
            let expected = flat(&planes.contiguous().unwrap());
            let mut found = vec![f32::NAN; expected.len()];
            warp_planes(&flat(&image), &flat(&flow), [h, w, c], boundary, &mut found);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&expected), "{h} {w} {c} {leads}");
        }
    }
}

#[test]
fn warping_lines_of_many_samples_is_the_same() {
    // More samples in a line than are worked on together.
    let (wide, far) = (wave(&[1, 3, 11, 1], 0.0), wave(&[1, 3, 11, 6], 3.0));
    for boundary in [Boundary::Open, Boundary::Periodic] {
        let all = warp(&wide, &far, boundary).unwrap();
        for lead in 0..3 {
            let one = warp(&wide, &far.narrow(3, 2 * lead, 2).unwrap(), boundary).unwrap();
            assert_eq!(flat(&all.narrow(3, lead, 1).unwrap()), flat(&one));
        }
        let inside = ((&far * 0.2).unwrap() + 0.5).unwrap();
        check_gradients(&[wide.clone(), inside], |t| warp(&t[0], &t[1], boundary));
    }
    // Where the coordinate is clamped the flow does not matter.
    let away = Var::from_tensor(&(far.ones_like().unwrap() * 50.0).unwrap()).unwrap();
    let out = warp(&wide, away.as_tensor(), Boundary::Open).unwrap();
    let gradients = out.sum_all().unwrap().backward().unwrap();
    assert!(flat(gradients.get(&away).unwrap()).iter().all(|&g| g == 0.0));
}

#[test]
fn the_nearest_code_is_nearest() {
    let (z, book) = (wave(&[50, 5], 0.0), wave(&[17, 5], 0.3));
    let (rows, entries) = (flat(&z), flat(&book));
    let far = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    };
    let expected: Vec<u32> = rows
        .chunks(5)
        .map(|row| {
            let distances: Vec<_> = entries.chunks(5).map(|entry| far(row, entry)).collect();
            (0..17).min_by(|&a, &b| distances[a].total_cmp(&distances[b])).unwrap() as u32
        })
        .collect();
    assert_eq!(nearest_code(&z, &book).unwrap().to_vec1::<u32>().unwrap(), expected);
    let same = wave(&[4, 5], 0.0).ones_like().unwrap();
    assert_eq!(nearest_code(&same, &same).unwrap().to_vec1::<u32>().unwrap(), [0; 4]);
}

#[test]
fn candles_own_operations_around_them_have_gradients() {
    // No value lies on the kinks of relu and abs.
    let (a, b) = (wave(&[2, 3, 5, 4], 0.5), wave(&[2, 3, 5, 2], 9.0));
    check_gradients(&[a.clone(), b.clone()], |t| Tensor::cat(&[&t[0], &t[1]], 3));
    check_gradients(std::slice::from_ref(&a), |t| t[0].relu());
    check_gradients(std::slice::from_ref(&a), |t| candle_nn::ops::sigmoid(&t[0]));
    check_gradients(std::slice::from_ref(&a), |t| t[0].narrow(3, 1, 2));
    check_gradients(std::slice::from_ref(&a), |t| t[0].narrow(0, 1, 1)?.squeeze(0));
    let weight = wave(&[2, 3, 5, 2, 1], 7.0);
    check_gradients(&[a, weight], |t| t[0].reshape((2, 3, 5, 2, 2))?.broadcast_mul(&t[1]));
    check_gradients(&[b], |t| t[0].abs()?.mean_all());
}
