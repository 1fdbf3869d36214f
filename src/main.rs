//! The command.

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    without_a_pool();
    physicnet::cli::main()
}

/// Starts this process again with candle's pool of threads off, unless it is told how large to be.
///
/// The pool shares out element-wise operations of large tensors and waits by spinning. Beside
/// workers of our own it takes a core away from them and gives no time back: a quarter of a job's
/// processor time. Candle asks the environment alone. Training has no such workers, and keeps it.
#[cfg(unix)]
fn without_a_pool() {
    use std::os::unix::process::CommandExt;

    const SIZE: &str = "CANDLE_NUM_THREADS";
    let told = ["RAYON_NUM_THREADS", SIZE].iter().any(|name| std::env::var_os(name).is_some());
    let mut arguments = std::env::args_os();
    let Some(name) = arguments.next().filter(|_| !told) else { return };
    let arguments: Vec<_> = arguments.collect();
    if arguments.first().is_some_and(|command| command == "train") {
        return;
    }
    // Under another loader the program's own name is not the file that runs.
    let own = std::path::Path::new(&name).file_name().map(std::ffi::OsStr::to_owned);
    let program = std::env::current_exe().ok();
    if let Some(program) = program.filter(|program| program.file_name() == own.as_deref()) {
        // It returns only where that fails: then the job runs with the pool.
        let _ =
            std::process::Command::new(program).arg0(name).args(arguments).env(SIZE, "1").exec();
    }
}
