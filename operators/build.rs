//! Compiles the kernels for NVIDIA GPUs, where the program is built for these.

use std::path::PathBuf;
use std::process::Command;

/// What it is written in, and what candle compiles its own kernels with.
const SOURCE: &str = "layers/gpu/kernels.cu";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let said = |variable| std::env::var(variable).ok();
    if said("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    let out = PathBuf::from(said("OUT_DIR").expect("cargo says where")).join("kernels.ptx");
    let home = said("CUDA_HOME").map(|home| format!("{home}/bin/nvcc"));
    let compiler = said("NVCC").or(home).unwrap_or("nvcc".to_owned());
    // The driver compiles it again for what it finds, if that is as new.
    let oldest = said("CUDA_COMPUTE_CAP").unwrap_or("80".to_owned());
    let done = Command::new(&compiler)
        .args(["-ptx", &format!("-arch=compute_{oldest}"), SOURCE, "-o"])
        .arg(out)
        .status();
    match done {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{compiler} cannot compile {SOURCE}: {status}"),
        Err(error) => panic!("{compiler}: {error}; name NVIDIA's compiler by NVCC or CUDA_HOME"),
    }
}
