//! Logging of long-running processes, to stderr.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::failure::{Exit, Failure};

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// openraft logs every heartbeat at level info, so by default only its errors are logged.
const LEVEL_DEFAULT: &str = "info,openraft=error";

/// The flags for the level and format of logs.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// Format of log lines.
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum, default_value = "auto")]
    log_format: LogFormat,
    /// Log level: error, warn, info, debug or trace; also per crate, such as
    /// info,quorate_raft=debug.
    #[arg(long, env = "QUORATE_LOG_LEVEL", default_value = LEVEL_DEFAULT, value_parser = filter)]
    log_level: String,
}

impl LogArgs {
    /// Starts logging to stderr.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        let filter = EnvFilter::try_new(&self.log_level).map_err(|error| {
            Failure::new(Exit::Usage, format!("unknown log level '{}'", self.log_level)).cause(error)
        })?;
        let terminal = std::io::stderr().is_terminal();
        let builder =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
        let started = if is_json(self.log_format, terminal) {
            builder.json().flatten_event(true).try_init()
        } else {
            builder.try_init()
        };
        started.map_err(|error| Failure::new(Exit::Other, "cannot start logging").cause(error))
    }
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

fn filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_text_for_people_and_json_for_programs() {
        assert!(!is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Auto, false));
        assert!(!is_json(LogFormat::Text, false));
        assert!(is_json(LogFormat::Json, true));
    }

    #[test]
    fn levels_per_crate_parse() {
        assert!(filter("info,quorate_raft=debug").is_ok());
        assert!(filter("quorate_raft=loud").is_err());
    }
}
