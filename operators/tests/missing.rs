//! Missing pixels, from a frame to its forecasts.

use super::*;

#[test]
fn missing_pixels_stay_where_they_are() {
    for (height, width, boundary) in
        [(24, 24, Boundary::Open), (25, 31, Boundary::Periodic), (19, 22, Boundary::Open)]
    {
        let checkpoint = shaken(&ModelConfig { boundary, ..small(1) });
        let catalogue = catalogue(&[("a", height, width)], 1);
        let sensor = &catalogue.get(&"a".into()).unwrap();
        let mut frames: Vec<_> = (0..4).map(|step| frame(sensor, step)).collect();
        // One pixel is never measured; others now and then, which another frame of the window mends.
        let never = 5 * width + 7;
        for (step, frame) in frames.iter_mut().enumerate() {
            frame.data[never] = f32::NAN;
            frame.data[100 + step] = f32::INFINITY;
        }
        frames.last_mut().unwrap().data[300] = f32::NAN;
        let forecasts = stream(&checkpoint, &catalogue, frames, 1, 4, 1);
        assert_eq!(forecasts.len(), 2);
        for forecast in forecasts {
            for product in &forecast.products {
                for plane in product.data.chunks_exact(height * width) {
                    let missing: Vec<_> =
                        (0..plane.len()).filter(|&pixel| !plane[pixel].is_finite()).collect();
                    assert_eq!(missing, [never], "{}", product.name);
                }
            }
            assert!(forecast.missing > 0.0);
        }
    }
}

/// A hole changes what is said near it, and far away no more than the estimate of motion, which goes
/// from coarse to fine and so has seen it.
#[test]
fn a_hole_is_hardly_seen_from_far_away() {
    let (height, width, hole) = (48, 160, 20 * 160 + 12);
    let checkpoint = shaken(&small(1));
    let catalogue = catalogue(&[("a", height, width)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    let whole: Vec<_> = (0..3).map(|step| frame(sensor, step)).collect();
    let mut holed = whole.clone();
    for frame in &mut holed {
        for pixel in [hole, hole + 1, hole + width] {
            frame.data[pixel] = f32::NAN;
        }
    }
    let [whole, holed] =
        [whole, holed].map(|frames| stream(&checkpoint, &catalogue, frames, 1, 4, 1).remove(0));
    let (mut near, mut far) = (0.0_f32, 0.0_f32);
    for (at, (a, b)) in whole.served().data.iter().zip(holed.served().data.iter()).enumerate() {
        let side = if at % width < width / 2 { &mut near } else { &mut far };
        // A missing pixel is no difference.
        *side = side.max((a - b).abs());
    }
    assert!(near > 0.05 && far < near / 100.0, "{near} {far}");
}

/// A sensor in kelvin whose coast is never measured, under the classical expert alone: what comes from
/// there is like the nearest sea, not 0 K.
#[test]
fn without_a_network_what_nobody_measured_is_like_its_neighbours() {
    let (height, width) = (24, 32);
    let catalogue = catalogue(&[("a", height, width)], 1);
    let sensor = &catalogue.get(&"a".into()).unwrap();
    let mut model = ModelConfig::classical(small(1).variables);
    (model.history, model.horizon) = (3, 4);
    model.variables[0].transform = Transform::Standardise { mean: None, std: None };
    let checkpoint = Checkpoint::untrained(&model).unwrap();
    let warm = |step: u64| {
        let mut frame = frame(sensor, step);
        for (at, value) in frame.data.iter_mut().enumerate() {
            *value = if at % width < 9 { f32::NAN } else { 290.0 + value.clamp(-5.0, 5.0) };
        }
        frame
    };
    let forecasts = stream(&checkpoint, &catalogue, (0..5).map(warm).collect(), 1, 4, 1);
    assert!(!forecasts.is_empty());
    for forecast in &forecasts {
        let known: Vec<f32> =
            forecast.served().data.iter().copied().filter(|v| !v.is_nan()).collect();
        assert_eq!(known.len(), 4 * height * (width - 9));
        let least = known.iter().copied().fold(f32::INFINITY, f32::min);
        assert!(least > 280.0, "{least}");
    }
}

/// Where nothing moves, what a frame lacks is what the others say: the forecast does not notice, to the
/// bit, in the stream and in whole windows.
#[test]
fn what_one_frame_lacks_is_recalled_from_another() {
    for (height, width, boundary) in [(21, 34, Boundary::Open), (24, 32, Boundary::Periodic)] {
        let config = ModelConfig { boundary, ..small(2) };
        let checkpoint = shaken(&config);
        let catalogue = catalogue(&[("a", height, width)], 2);
        let sensor = &catalogue.get(&"a".into()).unwrap();
        let still = frame(sensor, 0).data;
        let series = |hole: &dyn Fn(u64, usize, usize) -> bool| -> Vec<Frame> {
            let one = |step: u64| {
                let mut frame = frame(sensor, step);
                frame.data.clone_from(&still);
                for (at, value) in frame.data.iter_mut().enumerate() {
                    if hole(step, at / width % height, at % width) {
                        *value = f32::NAN;
                    }
                }
                frame
            };
            (0..4).map(one).collect()
        };
        let served = |frames: Vec<Frame>| -> Vec<Vec<u32>> {
            let told = stream(&checkpoint, &catalogue, frames, 1, 4, 1);
            let bits = |forecast: &Forecast| {
                forecast.served().data.iter().map(|value| value.to_bits()).collect()
            };
            told.iter().map(bits).collect()
        };
        let whole = served(series(&|_, _, _| false));
        assert_eq!(whole.len(), 2);
        // Every cell has a missing pixel, or a neighbour that has.
        let rows = |step, row, _| step == 1 && row % 5 == 0;
        assert!(served(series(&rows)) == whole, "{boundary:?}");
        assert!(served(series(&|step, _, _| step == 1)) == whole, "{boundary:?}");

        let net = checkpoint.network(&Device::Cpu).unwrap();
        let (history, side) = (config.history, 32);
        let wave = |count: usize| (0..count).map(|k| (k as f32 * 0.7).sin()).collect::<Vec<_>>();
        let one = Tensor::from_vec(wave(side * side * 2), (1, 1, side, side, 2), &Device::Cpu);
        let frames = one.unwrap().repeat((1, history, 1, 1, 1)).unwrap();
        let flow = Tensor::from_vec(wave(side * side * 2), (1, side, side, 2), &Device::Cpu);
        let flow = flow.unwrap();
        let mask = |hole: bool| {
            let known = |at: usize| {
                let (t, row) = (at / 2 / side / side, at / 2 / side % side);
                if hole && t == 1 && row % 5 == 0 { 0.0 } else { 1.0_f32 }
            };
            let all: Vec<f32> = (0..history * side * side * 2).map(known).collect();
            Tensor::from_vec(all, (1, history, side, side, 2), &Device::Cpu).unwrap()
        };
        let mean = |hole: bool| -> Vec<f32> {
            let (frames, flow) = (frames.clone(), flow.clone());
            let told = net.forward(&Batch { frames, mask: mask(hole), flow, view: None }).unwrap();
            told.mean.flatten_all().unwrap().to_vec1().unwrap()
        };
        assert_eq!(mean(true), mean(false), "{boundary:?}");
    }
}
