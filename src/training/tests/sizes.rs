//! The sizes of networks that ship.

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use physicnet_operators::model::{ModelConfig, PhysicNet, VariableConfig};
use physicnet_stream::Variable;

use super::super::TrainConfig;

#[test]
fn the_sizes_that_ship_grow_and_the_docs_say_how_large_they_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = include_str!("../../../docs/training.md");
    let mut before = 0;
    for name in ["tiny", "base", "large"] {
        let file = root.join(format!("configs/model/{name}.yaml"));
        let mut model = crate::config::load::<TrainConfig>(&file).unwrap().model;
        let usual = ModelConfig { variables: Vec::new(), ..ModelConfig::default() };
        assert_eq!(name == "base", model == usual, "{name}: {model:?}");
        let rain = Variable { name: "rain".into(), units: "mm/h".into() };
        model.variables = vec![VariableConfig::for_variable(&rain)];
        let map = VarMap::new();
        PhysicNet::new(&model, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
        let count: usize = map.all_vars().iter().map(|var| var.elem_count()).sum();
        assert!(count > 2 * before, "{name} has {count} weights");
        before = count;
        let row = format!("| `{name}` | {count} |");
        assert!(docs.contains(&row), "docs/training.md: no row {row}");
    }
}
