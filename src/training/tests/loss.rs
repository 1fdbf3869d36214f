//! What a step lowers, against its definition and against differences.

use super::*;

/// One pixel row with its outputs set by hand.
fn outputs(values: Vec<f32>) -> Outputs {
    let field = Tensor::from_vec(values, (1, 1, 4, 1), &Device::Cpu).unwrap();
    Outputs {
        mean: field.clone(),
        global: None,
        sharp: Some(field.clone()),
        warped: field.clone(),
        chosen: field,
        displacement: Tensor::zeros((1, 1, 4, 2), candle_core::DType::F32, &Device::Cpu).unwrap(),
        correction: None,
        commitment: None,
        latent: None,
    }
}

fn sample(target: Vec<f32>, weight: Vec<f32>) -> Sample {
    let field = |v: Vec<f32>| Tensor::from_vec(v, (1, 1, 4, 1), &Device::Cpu).unwrap();
    let window = Planes::new(&frames(5, false), &model()).sample(&model(), false, String::new());
    Sample { target: field(target), weight: field(weight), ..window.unwrap() }
}

#[test]
fn the_loss_counts_what_was_measured() {
    let model = ModelConfig { horizon: 1, ..model() };
    let settings = LossConfig { thresholds: vec![0.5], ..LossConfig::default() };
    let loss = Loss::new(&settings, &model, &[1.0], 1.0).unwrap();
    let values = vec![1.0, 0.0, 0.9, 50.0];
    let sample = sample(vec![0.5, 0.0, 1.0, 0.0], vec![1.0, 1.0, 1.0, 0.0]);
    let told = loss.of(&outputs(values.clone()), &sample).unwrap();
    let parts: BTreeMap<_, _> = told.parts.into_iter().collect();
    assert!((parts["mean"] - 0.6 / 3.0).abs() < 1e-6);
    let sure = |v: f32| 1.0 / (1.0 + (-(f64::from(v) - 0.5) / 0.2).exp());
    let [a, b, c] = [values[0], values[1], values[2]].map(sure);
    let (hits, either) = (a + c, a + 1.0 - a + b + c + 1.0 - c);
    let expected = 1.0 - (hits + 1.0) / (either + 1.0);
    assert!((parts["csi"] - expected).abs() < 1e-5, "{} {expected}", parts["csi"]);

    let var = candle_core::Var::from_vec(values.clone(), (1, 1, 4, 1), &Device::Cpu).unwrap();
    let slope = loss.soft_csi(var.as_tensor(), &sample).unwrap().backward().unwrap();
    let slope: Vec<f32> = slope.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    for at in 0..4 {
        let moved = |step: f32| {
            let mut values = values.clone();
            values[at] += step;
            let field = Tensor::from_vec(values, (1, 1, 4, 1), &Device::Cpu).unwrap();
            loss.soft_csi(&field, &sample).unwrap().to_scalar::<f32>().unwrap()
        };
        let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((slope[at] - difference).abs() < 1e-3, "{at}: {} {difference}", slope[at]);
    }
    assert_eq!(slope[3], 0.0);
}

/// All parts together, with respect to everything that the network says.
#[test]
fn the_whole_loss_has_its_gradients() {
    let mut model = ModelConfig { horizon: 1, ..model() };
    model.variables[0].transform = Transform::LogRate { floor: 0.1 };
    for error in [ErrorKind::Mae, ErrorKind::Mse] {
        let settings = LossConfig {
            error,
            physical: 0.05,
            soft_csi: 0.5,
            thresholds: vec![0.3, 1.0],
            warp: 0.3,
            smooth: 0.2,
            commitment: 0.25,
            weigh_leads: true,
        };
        let loss = Loss::new(&settings, &model, &[1.3], 0.7).unwrap();
        let sample = sample(vec![0.5, 0.0, 1.1, 0.4], vec![1.0, 1.0, 1.0, 0.0]);
        let fields = [[0.9, 0.31, 0.7, 2.0], [0.2, 0.4, 1.3, 0.1], [0.6, 0.7, 0.2, 0.9]];
        let fields = fields.map(|values| (values.to_vec(), vec![1, 1, 4, 1]));
        let mut inputs = fields.to_vec();
        inputs.push((vec![0.3, 0.8, 1.9, 0.5], vec![1, 1, 4, 1]));
        inputs.push((vec![0.3, -0.8, 1.9, 0.5, -0.4, 0.1, 0.7, -1.2], vec![1, 2, 2, 2]));
        inputs.push((vec![0.37], vec![]));
        let total = |tensors: &[Tensor]| {
            let [mean, global, sharp, warped, correction, commitment] = tensors else { panic!() };
            let out = Outputs {
                mean: mean.clone(),
                global: Some(global.clone()),
                sharp: Some(sharp.clone()),
                warped: warped.clone(),
                chosen: mean.clone(),
                correction: Some(correction.clone()),
                displacement: correction.clone(),
                commitment: Some(commitment.clone()),
                latent: None,
            };
            let losses = loss.of(&out, &sample).unwrap();
            assert_eq!(losses.parts.len(), 9);
            assert_eq!(losses.parts[0].0, "loss");
            losses.total
        };
        let vars = inputs.iter().map(|(values, shape)| {
            candle_core::Var::from_vec(values.clone(), shape.as_slice(), &Device::Cpu).unwrap()
        });
        let vars: Vec<_> = vars.collect();
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let slopes = total(&tensors).backward().unwrap();
        for (which, (values, shape)) in inputs.iter().enumerate() {
            let slope = slopes.get(&vars[which]).unwrap();
            let slope: Vec<f32> = slope.flatten_all().unwrap().to_vec1().unwrap();
            for at in 0..values.len() {
                let moved = |step: f32| {
                    let (mut values, mut all) = (values.clone(), tensors.clone());
                    values[at] += step;
                    all[which] = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
                    total(&all).to_scalar::<f32>().unwrap()
                };
                let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                let near = (slope[at] - difference).abs() <= 1e-2 * (1.0 + difference.abs());
                assert!(near, "input {which}, value {at}: {} {difference}", slope[at]);
            }
        }
    }
}

#[test]
fn physical_errors_are_those_of_the_first_variable_in_its_units() {
    let transforms = [
        Transform::LogRate { floor: 0.1 },
        Transform::Log1p { scale: Some(2.0) },
        Transform::Sqrt { scale: Some(3.0) },
    ];
    let settings = LossConfig { physical: 1.0, ..LossConfig::default() };
    let one = |v: Vec<f32>| Tensor::from_vec(v, (1, 1, 4, 1), &Device::Cpu).unwrap();
    let (said, came) = (vec![0.3, -0.4, 1.2, 0.8], vec![0.5, 0.2, -0.9, 0.7]);
    for transform in transforms {
        let mut model = ModelConfig { horizon: 1, ..model() };
        model.variables[0].transform = transform;
        let physical = |model: &ModelConfig, field: Tensor, sample: &Sample| {
            let loss = Loss::new(&settings, model, &[1.0], 0.5).unwrap();
            let out =
                Outputs { mean: field.clone(), warped: field.clone(), ..outputs(vec![0.0; 4]) };
            let out = Outputs { sharp: None, chosen: field, ..out };
            let parts: BTreeMap<_, _> = loss.of(&out, sample).unwrap().parts.into_iter().collect();
            parts["physical"]
        };
        let alone = sample(came.clone(), vec![1.0, 1.0, 1.0, 0.0]);
        let found = physical(&model, one(said.clone()), &alone);
        let off =
            |(a, b): (&f32, &f32)| f64::from(transform.inverse(*a) - transform.inverse(*b)).powi(2);
        let expected = said[..3].iter().zip(&came).map(off).sum::<f64>() / 3.0 / 0.5;
        assert!((found - expected).abs() < 1e-4 * expected, "{transform:?}: {found} {expected}");

        // A second variable beside it changes nothing.
        model.variables.push(VariableConfig { name: "v".into(), ..model.variables[0].clone() });
        let beside = |values: &[f32], other: f32| {
            let both = values.iter().flat_map(|v| [*v, other]).collect();
            Tensor::from_vec(both, (1, 1, 4, 2), &Device::Cpu).unwrap()
        };
        let (target, weight) = (beside(&came, 9.0), beside(&[1.0, 1.0, 1.0, 0.0], 1.0));
        let both = Sample { target, weight, ..sample(came.clone(), vec![1.0; 4]) };
        let found = physical(&model, beside(&said, -5.0), &both);
        assert!((found - expected).abs() < 1e-4 * expected, "{transform:?}: {found} {expected}");
    }
}
