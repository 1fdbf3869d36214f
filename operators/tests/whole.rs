//! The nets together, without a stream.

use super::*;

#[test]
fn a_gradient_reaches_every_weight() {
    let config = ModelConfig {
        sharp: true,
        local: true,
        quantization: Quantization::Hard,
        position: true,
        tendency: 2,
        ..small(2)
    };
    let weights = shaken(&config).weights;
    let map = VarMap::new();
    let net = {
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let net = crate::model::PhysicNet::new(&config, vb).unwrap();
        for (name, var) in map.data().lock().unwrap().iter() {
            var.set(&weights[name]).unwrap();
        }
        net
    };
    let wave = |count: usize, step: f32| -> Vec<f32> {
        (0..count).map(|k| (k as f32 * step).sin()).collect()
    };
    let device = &Device::Cpu;
    let frames = Tensor::from_vec(wave(2 * 3 * 256 * 2, 0.7), (2, 3, 16, 16, 2), device).unwrap();
    let mask = frames.ones_like().unwrap();
    let flow = Tensor::from_vec(wave(2 * 256 * 2, 0.3), (2, 16, 16, 2), device).unwrap();
    let told = net.forward(&Batch { frames, mask, flow, view: None }).unwrap();
    let parts = [told.mean, told.global.unwrap(), told.sharp.unwrap(), told.commitment.unwrap()];
    let square = |part: &Tensor| part.sqr().unwrap().mean_all().unwrap();
    let loss = parts.iter().map(square).reduce(|a, b| (a + b).unwrap()).unwrap();
    let gradients = loss.backward().unwrap();
    for (name, var) in map.data().lock().unwrap().iter() {
        let moved = gradients
            .get(var)
            .map(|g| g.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
        let trained = name != "quantization.codebook";
        assert_eq!(moved.is_some_and(|m| m > 0.0), trained, "{name}: {moved:?}");
    }
}

#[test]
fn tiles_say_what_the_whole_frame_says() {
    for (boundary, global_scale) in
        [(Boundary::Open, 1), (Boundary::Open, 2), (Boundary::Periodic, 1)]
    {
        let config = ModelConfig { local: true, boundary, global_scale, ..small(1) };
        let net = shaken(&config).network(&Device::Cpu).unwrap();
        let wave = |count: usize, step: f32| {
            (0..count).map(|k| (k as f32 * step).sin()).collect::<Vec<_>>()
        };
        let device = &Device::Cpu;
        let frames = Tensor::from_vec(wave(3 * 4096, 0.7), (1, 3, 64, 64, 1), device).unwrap();
        let flow = Tensor::from_vec(wave(2 * 4096, 0.3), (1, 64, 64, 2), device).unwrap();
        let mask = frames.ones_like().unwrap();
        let mut batch = Batch { frames, mask, flow, view: None };
        let bits = |tensor: &Tensor| -> Vec<u32> {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        let whole = net.forward(&batch).unwrap();
        let (refined, global) = (bits(&whole.mean), bits(&whole.global.unwrap()));
        assert_ne!(refined, global);
        let mut covered = vec![false; 64 * 64];
        for (top, left) in (0..4).map(|tile| (tile / 2 * 16, tile % 2 * 16)) {
            batch.view = Some(View { top, left, rows: 48, columns: 48 });
            let told = bits(&net.forward(&batch).unwrap().mean);
            let inside = |at: usize, from: usize| {
                let border = boundary == Boundary::Open;
                let (low, high) = (border && from == 0, border && from == 16);
                (at >= from + 16 || low && at >= from) && (at < from + 32 || high && at < 64)
            };
            for (pixel, covered) in covered.iter_mut().enumerate() {
                let known = inside(pixel / 64, top) && inside(pixel % 64, left);
                let wanted = if known { &refined } else { &global };
                let fields = 2 * pixel..2 * pixel + 2;
                assert_eq!(
                    told[fields.clone()],
                    wanted[fields],
                    "{boundary:?} {top} {left} {pixel}"
                );
                *covered |= known;
            }
        }
        // Together the tiles of an open frame say all of it: one pass is that, without a seam.
        assert_eq!(covered.iter().all(|&c| c), boundary == Boundary::Open);
    }
}

#[test]
fn the_local_level_teaches_the_global_one_nothing() {
    let config = ModelConfig { local: true, ..small(1) };
    let weights = shaken(&config).weights;
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let net = crate::model::PhysicNet::new(&config, vb).unwrap();
    for (name, var) in map.data().lock().unwrap().iter() {
        var.set(&weights[name]).unwrap();
    }
    let wave =
        |count: usize, step: f32| (0..count).map(|k| (k as f32 * step).sin()).collect::<Vec<_>>();
    let device = &Device::Cpu;
    let frames = Tensor::from_vec(wave(3 * 4096, 0.7), (1, 3, 64, 64, 1), device).unwrap();
    let flow = Tensor::from_vec(wave(2 * 4096, 0.3), (1, 64, 64, 2), device).unwrap();
    let mask = frames.ones_like().unwrap();
    let view = Some(View { top: 8, left: 20, rows: 40, columns: 40 });
    let told = net.forward(&Batch { frames, mask, flow, view }).unwrap();
    let gradients = told.mean.sqr().unwrap().mean_all().unwrap().backward().unwrap();
    for (name, var) in map.data().lock().unwrap().iter() {
        let moved = gradients
            .get(var)
            .is_some_and(|g| g.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
        assert_eq!(moved, name.contains("local"), "{name}");
    }
}

#[test]
fn a_tendency_is_seen_along_the_motion() {
    let boundary = Boundary::Periodic;
    let config = ModelConfig { tendency: 2, boundary, ..small(1) };
    let net = Checkpoint::untrained(&config).unwrap().network(&Device::Cpu).unwrap();
    // A pattern that moves one pixel right a step and grows by 1 everywhere.
    let field = |step: usize| {
        let at = |p: usize| ((p % 16 + 16 - step) % 16 * 7 % 5) as f32 + step as f32;
        Tensor::from_vec((0..256).map(at).collect::<Vec<_>>(), (1, 16, 16, 1), &Device::Cpu)
    };
    let [older, old, newest] = [0, 1, 2].map(|step| field(step).unwrap());
    let left: Vec<f32> = (0..512).map(|at| if at % 2 == 0 { -1.0 } else { 0.0 }).collect();
    let flow = Tensor::from_vec(left, (1, 16, 16, 2), &Device::Cpu).unwrap();
    let prior = net.prior(&flow).unwrap();
    let past = [old, older];
    let known = Known { latents: &[], newest: &newest, past: &past, flow: &flow, prior: &prior };
    let terms = net.experts.tendency().unwrap().terms(&known, &prior, 1).unwrap();
    let terms: Vec<f32> = terms.flatten_all().unwrap().to_vec1().unwrap();
    assert!(terms.chunks_exact(2).all(|change| change == [1.0, 2.0]), "{terms:?}");
}

#[test]
fn the_motion_that_is_told_is_the_one_that_is_forecast() {
    // Nothing but the corrected motion is left of this network.
    let config = ModelConfig { gate: false, residual: false, sharp: false, ..small(1) };
    let (checkpoint, sensors) = (shaken(&config), catalogue(&[("a", 18, 21)], 1));
    let sensor = sensors.get(&"a".into()).unwrap();
    let told = timely::execute_directly(move |worker| {
        let net = Rc::new(checkpoint.network(&Device::Cpu).unwrap());
        let (failure, told) = (Failure::default(), Rc::new(std::cell::RefCell::new(Vec::new())));
        let (motions, served) = (Rc::clone(&told), Rc::clone(&told));
        let (mut input, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, frames) = scope.new_input::<Vec<Frame>>();
            let (probe, _) = frames
                .admit(&AdmissionConfig::default(), &sensors, Memory::of(net.config.history))
                .admitted
                .appoint(&net)
                .crop(&sensors, false, &failure)
                .encode(1, &failure)
                .quantize(1, &failure)
                .windows(false, &failure)
                .consult(&Bank::default(), 1, &failure)
                .inspect(move |consulted| {
                    let correction = consulted.carried.correction.as_ref().unwrap();
                    assert!(
                        correction.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
                            > 0.1
                    );
                    motions
                        .borrow_mut()
                        .extend((1..=2).map(|lead| consulted.motion(lead).unwrap()));
                })
                .fuse(&FuseConfig::default(), 1, &failure)
                .inspect(move |forecast| served.borrow_mut().push(forecast.served().data.to_vec()))
                .probe();
            (input, probe)
        });
        let sensor = sensors.get(&"a".into()).unwrap();
        (0..3).for_each(|step| input.send(frame(&sensor, step)));
        input.close();
        worker.step_while(|| !probe.done());
        told.take()
    });
    let [first, second, forecast] = &told[..] else { panic!("{} are told", told.len()) };
    let newest = frame(&sensor, 2).data;
    let mut held = 0;
    for (lead, motion) in [first, second].into_iter().enumerate() {
        let (dx, dy) = motion.split_at(18 * 21);
        for at in 0..18 * 21 {
            let (x, y) = ((at % 21) as f32 - dx[at], (at / 21) as f32 - dy[at]);
            if !(0.0..20.0).contains(&x) || !(0.0..17.0).contains(&y) {
                continue;
            }
            let from = y.floor() as usize * 21 + x.floor() as usize;
            let mix =
                |from: usize| newest[from] + (newest[from + 1] - newest[from]) * (x - x.floor());
            let expected = mix(from) + (mix(from + 21) - mix(from)) * (y - y.floor());
            assert!((forecast[lead * 18 * 21 + at] - expected).abs() < 1e-3, "+{lead} at {at}");
            held += 1;
        }
    }
    assert!(held > 500, "{held}");
}
