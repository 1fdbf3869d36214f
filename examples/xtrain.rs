#![allow(missing_docs, clippy::all)]
use physicnet::train::*;
fn main() -> anyhow::Result<()> {
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    let path = std::env::args().nth(1).unwrap();
    let config: TrainConfig = serde_yaml_ng::from_str(&std::fs::read_to_string(&path)?)?;
    let s = train(&config, &Default::default(), &mut |t| println!("{t}"))?;
    println!("{s:?}");
    Ok(())
}
