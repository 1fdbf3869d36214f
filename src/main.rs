//! The command.

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    settle();
    physicnet::cli::main()
}

/// Starts this process again under what candle and the allocator ask the environment alone for,
/// where they are not told already.
///
/// candle's pool of threads shares out element-wise operations of large tensors and waits by spinning.
/// Beside workers of our own it takes a core away from them and gives no time back: a quarter of a
/// job's processor time. Training has no such workers, and keeps it.
///
/// glibc gives the memory of large tensors back to the system when one is dropped, and the next one
/// is asked for page by page: a tenth of a training's processor time, a twentieth of a job's where
/// frames are large, nothing where they are small (docs/speed.md).
#[cfg(unix)]
fn settle() {
    use std::os::unix::process::CommandExt;

    const POOL: [&str; 2] = ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"];
    // The largest that glibc takes, and as much as the tensors of a large frame together.
    const KEPT: [(&str, &str); 2] =
        [("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "268435456")];
    // Some loaders take variables away again, from a program with capabilities say.
    const ONCE: &str = "PHYSICNET_SETTLED";
    let told = |name: &str| std::env::var_os(name).is_some();
    if told(ONCE) {
        return;
    }
    let mut arguments = std::env::args_os();
    let Some(name) = arguments.next() else { return };
    let arguments: Vec<_> = arguments.collect();
    let trains = arguments.first().is_some_and(|command| command == "train");
    let pool = (!trains && !POOL.into_iter().any(told)).then_some((POOL[0], "1"));
    let kept = KEPT.into_iter().filter(|(name, _)| cfg!(target_env = "gnu") && !told(name));
    let mut missing: Vec<_> = pool.into_iter().chain(kept).collect();
    if missing.is_empty() {
        return;
    }
    missing.push((ONCE, "1"));
    // Under another loader the program's own name is not the file that runs.
    let own = std::path::Path::new(&name).file_name().map(std::ffi::OsStr::to_owned);
    let program = std::env::current_exe().ok();
    if let Some(program) = program.filter(|program| program.file_name() == own.as_deref()) {
        // It returns only where that fails: then it runs as it was begun.
        let _ = std::process::Command::new(program).arg0(name).args(arguments).envs(missing).exec();
    }
}
