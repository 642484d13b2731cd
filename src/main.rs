//! The `recsync` program: arguments, logging, exit code.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    recsync::cli::main(std::env::args_os()).into()
}
