//! What a run takes from the checkpoint that it begins from, and what it remembers of it.

use physicnet_operators::model::Provenance;

use super::*;

#[test]
fn a_checkpoint_remembers_what_it_began_from() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(40, false);
    let first = config(folder.path(), &frames, "first");
    run(&first);
    let path = first.out.join("last.safetensors");
    let known = Checkpoint::load(&path).unwrap();

    // A wider decoder: the weights that it touches begin anew.
    let mut second = config(folder.path(), &frames, "second");
    (second.init_from, second.learning_rate) = (Some(path.clone()), 1e-3);
    second.model.decoder = 16;
    let stop = Stop::default();
    let asked = stop.clone();
    train(&second, &stop, &mut |told| {
        if told.step == 2 {
            asked.stop();
        }
    })
    .unwrap();
    second.resume = true;
    run(&second);
    let child = Checkpoint::load(&second.out.join("last.safetensors")).unwrap();
    let Provenance { learning_rate, loss, parent, .. } = &child.provenance;
    assert_eq!(*learning_rate, Some(1e-3));
    let loss: LossConfig = serde_json::from_value(loss.clone().unwrap()).unwrap();
    assert_eq!(loss, second.loss);
    let parent = parent.as_deref().unwrap();
    let data = vec![first.data[0].path.display().to_string()];
    assert_eq!((&*parent.id, &parent.path), (&*known.id, &path.display().to_string()));
    assert_eq!((&parent.data, &parent.parent), (&data, &None));
    let [taken, of] = parent.taken;
    assert!(0 < taken && taken < of && of == child.weights.len(), "{taken} of {of}");
    let told = crate::inspect::inspect(&second.out.join("best.safetensors"), &[], None, None, None)
        .unwrap();
    for word in [&*known.id, "learning_rate: 0.001", "soft_csi", &data[0]] {
        assert!(told.contains(word), "{word}: {told}");
    }

    // A child of the child knows both.
    let mut third = config(folder.path(), &frames, "third");
    third.init_from = Some(second.out.join("last.safetensors"));
    third.model.decoder = 16;
    third.steps = 1;
    run(&third);
    let grandchild = Checkpoint::load(&third.out.join("last.safetensors")).unwrap();
    let parent = grandchild.provenance.parent.unwrap();
    assert_eq!((parent.id.as_str(), parent.taken), (&*child.id, [of, of]));
    assert_eq!(parent.parent.unwrap().id, *known.id);
}

#[test]
fn a_checkpoint_of_which_nothing_fits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), &frames(40, false), "out");
    let path = folder.path().join("other.safetensors");
    // Twice as wide everywhere: what fits by chance is a bias here and there.
    let model = ModelConfig {
        hidden: 32,
        latent: 8,
        skip: 16,
        decoder: 16,
        codes: 32,
        sharp: false,
        local: false,
        ..model()
    };
    Checkpoint::untrained(&model).unwrap().save(&path).unwrap();
    config.init_from = Some(path);
    for refused in [suits(&config), train(&config, &Stop::default(), &mut |_| ()).map(drop)] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("init_from") && error.contains("other.safetensors"), "{error}");
        assert!(error.contains("fits the network"), "{error}");
    }
}

#[test]
fn a_checkpoint_from_before_parents_were_kept_loads_with_its_id() {
    let text = r#"{"version": "0.1.0", "data": ["a.zarr"], "grid": [16, 16], "steps": 4,
                   "seed": 0, "validation": {"mae_mean": 0.5}}"#;
    let old: Provenance = serde_json::from_str(text).unwrap();
    assert_eq!((old.learning_rate, &old.loss, &old.parent), (None, &None, &None));
    // What was not known is not made up: written again, it is the same text.
    let again = serde_json::to_value(&old).unwrap();
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
}
