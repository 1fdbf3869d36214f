//! The command.

fn main() -> std::process::ExitCode {
    physicnet::cli::main()
}
