//! The command line: one file a subcommand, each with its `Args` and `run`.
//!
//! **Invariant:** human text and `--json` go to stdout, logs and errors to stderr; the exit code is
//! an [`Exit`].
//! **May not:** do what a library module can do; a command says what is wanted and shows what came.
#![forbid(unsafe_code)]

mod check;
mod confirm;
mod conflicts;
mod demo;
mod health;
mod identity;
mod init;
mod log;
mod named;
mod out;
mod peer;
mod reload;
mod rescan;
mod run;
mod share;
mod show;
mod status;
mod trash;
mod verify;
mod wait;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::{self, ConfigError};

/// Where the config is if neither `--config` nor `RECSYNC_CONFIG` says.
const CONFIG_FILE: &str = "/etc/recsync/recsync.toml";

/// How a command ends: a part of the contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Well = 0,
    /// The answer is no: differences, unhealthy, an invalid config.
    No = 1,
    /// It could not be done or could not be asked: usage, I/O, no daemon, no peer.
    CouldNot = 2,
    /// Ctrl-C, for a command that has to put something in order first. Others leave the signal to
    /// the kernel, and the shell makes 130 of it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Keeps directories of call recordings the same on all nodes, within a fraction of a second.
#[derive(Debug, clap::Parser)]
#[command(name = "recsync", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The config file [default: RECSYNC_CONFIG, else /etc/recsync/recsync.toml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or a list such as
    /// `info,recsync::net=debug`
    #[arg(long, value_name = "LEVEL", global = true, default_value = "info")]
    log_level: log::Level,
    /// How it is logged [default: journal under systemd, else text]
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<log::Format>,
}

impl Global {
    /// Returns the config file to use: `--config`, else `RECSYNC_CONFIG`, else the system's.
    pub fn config_file(&self) -> PathBuf {
        let named = self.config.clone().or_else(|| {
            std::env::var_os("RECSYNC_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from)
        });
        named.unwrap_or_else(|| CONFIG_FILE.into())
    }

    /// Returns the control socket of the node whose config it is: where a command asks the daemon.
    ///
    /// # Errors
    /// If the config cannot be read; mistakes in it are no matter here.
    pub fn control(&self) -> Result<PathBuf, ConfigError> {
        config::control(&self.config_file())
    }

    /// Returns how to call `recsync` with the same config, for a hint that can be pasted.
    fn invocation(&self) -> String {
        match &self.config {
            Some(file) => format!("recsync --config {}", out::shell_word(&file.to_string_lossy())),
            None => "recsync".to_owned(),
        }
    }
}

/// The commands, in the order of `--help`.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(init::Args),
    Identity(identity::Args),
    Peer(peer::Args),
    Share(share::Args),
    Check(check::Args),
    Run(run::Args),
    Verify(verify::Args),
    Status(status::Args),
    Health(health::Args),
    Wait(wait::Args),
    Confirm(confirm::Args),
    Trash(trash::Args),
    Conflicts(conflicts::Args),
    Rescan(rescan::Args),
    Reload(reload::Args),
    Demo(demo::Args),
}

fn dispatch(global: &Global, command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Init(args) => init::run(global, args),
        Command::Identity(args) => identity::run(global, args),
        Command::Peer(args) => peer::run(global, args),
        Command::Share(args) => share::run(global, args),
        Command::Check(args) => check::run(global, args),
        Command::Run(args) => run::run(global, args),
        Command::Verify(args) => verify::run(&global.control()?, args),
        Command::Status(args) => status::run(&global.control()?, args),
        Command::Health(args) => match global.control() {
            Ok(control) => health::run(&control, args),
            Err(error) => health::unhealthy(&[error.to_string()]),
        },
        Command::Wait(args) => wait::run(&global.control()?, args),
        Command::Confirm(args) => confirm::run(&global.control()?, args),
        Command::Conflicts(args) => conflicts::run(&global.control()?, args),
        Command::Trash(args) => trash::run(&global.control()?, args),
        Command::Rescan(args) => rescan::run(&global.control()?, args),
        Command::Reload(args) => reload::run(&global.control()?, args),
        Command::Demo(args) => demo::run(&args),
    }
}

/// Runs the program with its arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            // `--help` and `--version` come this way too, and go to stdout.
            let told = usage.print();
            return if usage.use_stderr() || told.is_err() { Exit::CouldNot } else { Exit::Well };
        }
    };
    log::start(&cli.global);
    dispatch(&cli.global, cli.command).unwrap_or_else(|error| report(&error))
}

/// Tells an error on stderr and returns what it means to a script.
fn report(error: &anyhow::Error) -> Exit {
    let closed = error.downcast_ref::<io::Error>();
    if closed.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        // The reader of our output has had enough (`| head`): no news to anyone.
        return Exit::CouldNot;
    }
    // If stderr is gone too, the exit code is all that is left to say.
    let _told = writeln!(io::stderr(), "recsync: {error:#}");
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Invalid(_)) => Exit::No,
        _ => Exit::CouldNot,
    }
}
