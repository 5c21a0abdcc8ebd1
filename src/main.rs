//! Arguments, one command, an exit code.

use clap::Parser;
use tl_sweep::cli::Cli;
use tl_sweep::commands;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let styled = commands::styled(cli.common.color);
    match commands::dispatch(cli) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("{}", commands::message(&error, styled));
            commands::exit_code(&error).into()
        }
    }
}
