//! The command line of `village`: parsing, dispatch, exit codes.
//!
//! One file per command under `cli/`. Every command but `up`, `join`, `config`, `policy`, `constitution`, `security`, `bench` and the offline ones of `log`, `moderate` and `dlp` is a client of a
//! running village over
//! HTTP, so it works the same on this machine and on another one. What `up` and `join` share is `serve` (one node in this
//! process) and `options`; `up --nodes` is `fleet` (nodes in processes of their own).

mod agents;
mod ask;
mod bench;
mod case;
mod client;
mod cluster;
mod config;
mod constitution;
mod dlp;
mod dsar;
mod failure;
mod fleet;
mod jobs;
mod join;
mod key;
mod keys;
mod ledger;
mod log;
mod login;
mod memory;
mod moderate;
mod options;
mod output;
mod policy;
mod security;
mod send;
mod serve;
mod status;
mod tenant;
mod token;
mod top;
mod typed;
mod up;
mod user;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

pub use self::failure::{Exit, Failure};

/// What a command returns: nothing, or the failure that sets the exit code.
pub type Outcome = Result<(), Failure>;

const FIRST_STEPS: &str = "First steps:
  village up                                start a village in ./village-data
  village memory add ~/notes                let it read a folder (in a second terminal)
  village ask sage \"how do I ...?\"          get an answer with its sources

More than one node:
  village up --nodes 3                      three nodes on this machine
  village token new                         the line that lets another machine join
  village cluster status                    who is there and what is not well

Exit codes: 0 ok, 1 failed, 2 usage, 3 refused, 4 unavailable, 78 the transparency log does not verify.";

/// A village of actors on your machine: agents that answer from your own files, with sources.
#[derive(Debug, Parser)]
#[command(name = "village", version, propagate_version = true, after_help = FIRST_STEPS, max_term_width = 110)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command understands.
#[derive(Debug, Args)]
pub struct Global {
    /// Data directory of the village on this machine [default: ./village-data].
    #[arg(long, global = true, env = "VILLAGE_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address of the village to talk to [default: the one that runs in the data directory].
    #[arg(long, global = true, env = "VILLAGE_URL", value_name = "URL")]
    pub url: Option<String>,
    /// File with the API key [default: admin.key in the data directory, else what `village login` got]; the variable
    /// `VILLAGE_KEY` holds a key itself.
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Global {
    /// Where the village of this machine keeps its address and its key.
    fn data(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("./village-data"))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a village and serve until Ctrl-C.
    Up(up::Up),
    /// Start a node that joins the village of another machine.
    Join(join::Join),
    /// What lets another node join.
    #[command(subcommand)]
    Token(token::Token),
    /// The nodes of the village.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Log in: the other commands then act for you where no key is given.
    Login(login::Login),
    /// End the login.
    Logout(login::Logout),
    /// The accounts of people, programs and agents.
    #[command(subcommand)]
    User(user::User),
    /// API keys, for programs.
    #[command(subcommand)]
    Key(key::Key),
    /// Who shares the village.
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Ask an agent; the answer names its sources.
    Ask(ask::Ask),
    /// Send a message to any actor.
    Send(send::Send),
    /// Put documents into the village memory and search it.
    #[command(subcommand)]
    Memory(memory::Memory),
    /// Who lives in the village.
    Agents(agents::Agents),
    /// How the village is.
    Status(status::Status),
    /// Watch nodes and kinds live.
    Top(top::Top),
    /// Long operations.
    Jobs(jobs::Jobs),
    /// Accounts and transfers: who owes whom.
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// The transparency log: what was done and denied, provable to anyone.
    #[command(subcommand)]
    Log(log::Log),
    /// The keys that personal data is sealed with.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// What is kept of a person: shown, erased, proven to be erased.
    #[command(subcommand)]
    Dsar(dsar::Dsar),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(config::Config),
    /// Who may do what: look at policies, ask them, test them; no village is needed.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// What texts may say: judge one, measure and train the judge, and the public report.
    #[command(subcommand)]
    Moderate(moderate::Moderate),
    /// Personal and secret data in texts: find it, take it out.
    #[command(subcommand)]
    Dlp(dlp::Dlp),
    /// Secrets that lie in a tree of files; no village is needed.
    #[command(subcommand)]
    Security(security::Security),
    /// What followed from verdicts on content.
    #[command(subcommand)]
    Case(case::Case),
    /// Have a verdict on your content looked at again.
    Appeal(case::Appeal),
    /// The rules that bind everybody; no village is needed.
    #[command(subcommand)]
    Constitution(constitution::Constitution),
    /// Measure this machine.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print the version.
    Version,
}

/// Parses the arguments, runs the command and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too: they are no failure and go to standard output.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return code.into();
        }
    };
    let json = cli.global.json;
    match run(cli) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            output::complain(&failure, json);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let Cli { global, command } = cli;
    match command {
        Command::Up(up) => block_on(up.run(&global)),
        Command::Join(join) => block_on(join.run(&global)),
        Command::Login(login) => block_on(login.run(&global)),
        Command::Logout(logout) => block_on(logout.run(&global)),
        Command::User(user) => block_on(user.run(&global)),
        Command::Key(key) => block_on(key.run(&global)),
        Command::Tenant(tenant) => block_on(tenant.run(&global)),
        Command::Token(token) => block_on(token.run(&global)),
        Command::Cluster(cluster) => block_on(cluster.run(&global)),
        Command::Config(config) => config.run(&global),
        Command::Policy(policy) => block_on(policy.run(&global)),
        Command::Constitution(constitution) => constitution.run(&global),
        Command::Moderate(moderate) => block_on(moderate.run(&global)),
        Command::Dlp(dlp) => block_on(dlp.run(&global)),
        Command::Security(security) => security.run(&global),
        Command::Case(case) => block_on(case.run(&global)),
        Command::Appeal(appeal) => block_on(appeal.run(&global)),
        Command::Bench(bench) => block_on(bench.run(&global)),
        Command::Ledger(ledger) => block_on(ledger.run(&global)),
        Command::Log(log) => block_on(log.run(&global)),
        Command::Keys(keys) => block_on(keys.run(&global)),
        Command::Dsar(dsar) => block_on(dsar.run(&global)),
        Command::Version => {
            version(&global);
            Ok(())
        }
        Command::Ask(ask) => block_on(ask.run(&global)),
        Command::Send(send) => block_on(send.run(&global)),
        Command::Memory(memory) => block_on(memory.run(&global)),
        Command::Agents(agents) => block_on(agents.run(&global)),
        Command::Status(status) => block_on(status.run(&global)),
        Command::Top(top) => block_on(top.run(&global)),
        Command::Jobs(jobs) => block_on(jobs.run(&global)),
    }
}

/// Runs a command on worker threads. What still blocks a thread at the end is not waited for.
fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot start worker threads: {error}")))?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

fn version(global: &Global) {
    let version = env!("CARGO_PKG_VERSION");
    if global.json {
        output::json(&serde_json::json!({ "name": "village", "version": version }));
    } else {
        output::say(format_args!("village {version}"));
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(!leaf || command.get_name() == "version" || help.contains("village"), "{path}: no example");
            for child in command.get_subcommands() {
                walk(child, &format!("{path} {}", child.get_name()));
            }
        }
        walk(&Cli::command(), "village");
    }

    #[test]
    fn global_options_are_taken_after_the_command() {
        let cli = Cli::try_parse_from(["village", "status", "--json", "--url", "http://127.0.0.1:1"]).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.url.as_deref(), Some("http://127.0.0.1:1"));
    }
}
