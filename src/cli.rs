//! The only `main`: flags and JSON in, a step run, a report out, an exit code.

mod endings;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::error::{Error, Result};
use crate::step::{Context, Device, FileArgument, FileKind, Step};
use crate::{file, memory, network, report};

/// Runs one step as an executable: parses the command line, runs, reports.
pub fn main<S: Step>() -> ExitCode {
    // SAFETY: nothing before this starts a thread.
    unsafe { network::session::forbid_telemetry() };
    memory::keep_pages();
    let done = endings::handle(S::COHORT).and_then(|()| run::<S>(std::env::args_os().collect()));
    match done {
        Ok(code) => {
            endings::give_way();
            code
        }
        Err(error) => {
            endings::claim();
            // Not through tracing: `--quiet` never hides why a run failed.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(&error)
        }
    }
}

/// Flags that every executable has; they say how to run, never what to do.
#[derive(Args)]
struct Common {
    /// JSON file with the configuration, or a report whose configuration is to be used again; flags win over it.
    #[arg(long, value_name = "FILE.json", help_heading = COMMON)]
    config: Option<PathBuf>,
    /// Write the report here; `-` is standard output.
    #[arg(long, value_name = "FILE.json", help_heading = COMMON)]
    report: Option<PathBuf>,
    /// Threads to use at most [default: as many as this process may].
    #[arg(long, value_name = "N", help_heading = COMMON)]
    threads: Option<std::num::NonZeroUsize>,
    /// Where networks run [default: auto].
    #[arg(long, value_enum, value_name = "DEVICE", help_heading = COMMON)]
    device: Option<Device>,
    /// Replace outputs that exist.
    #[arg(long, help_heading = COMMON)]
    overwrite: bool,
    /// Say nothing on stderr but errors.
    #[arg(long, help_heading = COMMON)]
    quiet: bool,
}

/// Flags of steps that work on many scans; they say how to run, never what to do.
#[derive(Args, Default)]
struct Cohort {
    /// Memory to use at most, such as `4G` or `800M` [default: four fifths of what is free].
    #[arg(long, value_name = "BYTES", help_heading = COMMON)]
    memory: Option<Bytes>,
    /// Keep what is finished in the output folder and do the rest.
    #[arg(long, help_heading = COMMON)]
    resume: bool,
}

/// A number of bytes: `4G`, `800M`, `4294967296`; a letter stands for powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes(u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("a number of bytes such as 4G or 800M is wanted, got {text:?}");
        let upper = text.trim().to_uppercase();
        let upper = upper
            .strip_suffix("IB")
            .or(upper.strip_suffix('B'))
            .unwrap_or(&upper);
        let split = upper
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(upper.len());
        let (number, unit) = upper.split_at(split);
        let factor: u64 = match unit {
            "" => 1,
            "K" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            "T" => 1 << 40,
            _ => return Err(wrong()),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let bytes = number * factor as f64;
        // A float is exact beyond any memory there is.
        if (1.0..=2_f64.powi(53)).contains(&bytes) {
            Ok(Self(bytes as u64))
        } else {
            Err(wrong())
        }
    }
}

const COMMON: &str = "Common flags";
const PRINT_SCHEMA: &str = "print-schema";

fn run<S: Step>(arguments: Vec<OsString>) -> Result<ExitCode> {
    let matches = match command::<S>().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(stop) => {
            let _ = stop.print();
            return Ok(ExitCode::from(u8::try_from(stop.exit_code()).unwrap_or(2)));
        }
    };
    if let Some(which) = matches.get_one::<String>(PRINT_SCHEMA) {
        print_schema::<S>(which)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bug = |e: clap::Error| Error::Bug(e.to_string());
    let common = Common::from_arg_matches(&matches).map_err(bug)?;
    let cohort = match S::COHORT {
        true => Cohort::from_arg_matches(&matches).map_err(bug)?,
        false => Cohort::default(),
    };
    let config = configuration::<S>(common.config.as_deref(), &matches)?;
    run_step::<S>(&config, &common, &cohort)
}

fn run_step<S: Step>(config: &S::Config, common: &Common, cohort: &Cohort) -> Result<ExitCode> {
    log_to_stderr(common.quiet, S::COHORT);
    let context = context(common, cohort)?;
    check_files(&S::files(config), common.report.as_deref(), &context)?;
    S::validate(config)?;
    for output in S::files(config).iter().filter_map(output_folder) {
        file::drafts::remove_abandoned(output);
    }
    let clock = report::Clock::start();
    let result = S::run(config, &context)?;
    let missed = S::missed(config, &result);
    let left_out = S::left_out(&result);
    if let Some(path) = &common.report {
        let run = clock.stop(&context);
        let envelope = report::envelope::<S>(config, result, run, |file, path| {
            let mut digest = report::digest(file, path)?;
            if S::COHORT {
                // Folders and tables of a cohort are often named after a patient or a hospital.
                file.role.clone_into(&mut digest.name);
            }
            Ok(digest)
        })?;
        write_report(path, &envelope, context.overwrite || context.resume)?;
    }
    for threshold in &missed {
        let _ = writeln!(std::io::stderr(), "missed: {threshold}");
    }
    if let Some(error) = left_out {
        return Err(error);
    }
    Ok(ExitCode::from(u8::from(!missed.is_empty())))
}

/// The command line of a step: its configuration's flags, then the common ones.
///
/// Every flag is optional to clap, since the JSON file may hold what a flag does not; what is still
/// missing is refused by [`check_files`]. Defaults come from `Default`, never from clap.
pub fn command<S: Step>() -> Command {
    let mut command =
        Command::new(format!("voxmask-{}", S::NAME)).version(env!("CARGO_PKG_VERSION"));
    command = S::Config::augment_args_for_update(command);
    command = show_defaults::<S>(command);
    // The doc comments of the two structs would overwrite the text if it came before them.
    if S::COHORT {
        command = Cohort::augment_args(command);
    }
    let command = Common::augment_args(command)
        .about(S::ABOUT)
        .long_about(None);
    command.arg(
        Arg::new(PRINT_SCHEMA)
            .long(PRINT_SCHEMA)
            .value_name("WHICH")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("config")
            .value_parser(PossibleValuesParser::new(["config", "report"]))
            .action(ArgAction::Set)
            .help("Print the JSON schema of the configuration, or of the report, and stop")
            .help_heading(COMMON),
    )
}

fn show_defaults<S: Step>(command: Command) -> Command {
    let Ok(Value::Object(defaults)) = serde_json::to_value(S::Config::default()) else {
        return command;
    };
    command.mut_args(|argument| {
        let Some(shown) = defaults
            .get(argument.get_id().as_str())
            .and_then(shown_default)
        else {
            return argument;
        };
        let help = argument
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        argument.help(format!("{help} [default: {shown}]"))
    })
}

fn shown_default(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(shown_default).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

/// Most bytes of a configuration file; a report of a large cohort is taken as well.
const LARGEST_CONFIG: u64 = 1 << 28;

fn configuration<S: Step>(path: Option<&Path>, matches: &ArgMatches) -> Result<S::Config> {
    let mut config = path.map_or_else(|| Ok(S::Config::default()), read_configuration::<S>)?;
    config
        .update_from_arg_matches(matches)
        .map_err(|e| Error::Config(e.to_string()))?;
    Ok(config)
}

fn read_configuration<S: Step>(path: &Path) -> Result<S::Config> {
    let text = file::read_at_most(path, LARGEST_CONFIG).map_err(|e| Error::unreadable(path, e))?;
    let wrong = |why: String| Error::Config(format!("{}: {why}", path.display()));
    let mut value: Value = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    if let Some(step) = value.get("step").and_then(Value::as_str) {
        if step != S::NAME {
            return Err(wrong(format!("is a report of {step}, not of {}", S::NAME)));
        }
        value = value.get("config").cloned().unwrap_or(Value::Null);
    }
    serde_json::from_value(value).map_err(|e| wrong(e.to_string()))
}

fn context(common: &Common, cohort: &Cohort) -> Result<Context> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = common.threads.map_or(available, usize::from);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|e| Error::TryAgain(format!("cannot start {threads} threads: {e}")))?;
    Ok(Context {
        device: common.device.unwrap_or_default(),
        threads,
        overwrite: common.overwrite,
        memory: cohort.memory.map(|bytes| bytes.0),
        resume: cohort.resume,
        quiet: common.quiet,
    })
}

fn check_files(files: &[FileArgument], report: Option<&Path>, context: &Context) -> Result<()> {
    let overwrite = context.overwrite || context.resume;
    for file in files {
        match file.path {
            None if file.required => return Err(missing_flag(file.key)),
            None => {}
            Some(path) => match file.kind {
                FileKind::Input => check_input(path, false)?,
                FileKind::InputFolder => check_input(path, true)?,
                FileKind::Output => check_output(path, files, overwrite)?,
                FileKind::OutputFolder => check_output_folder(path, context)?,
            },
        }
    }
    let report = report.filter(|path| *path != Path::new("-"));
    report.map_or(Ok(()), |path| check_output(path, files, overwrite))?;
    let written = |file: &&FileArgument| file.kind == FileKind::Output;
    let outputs = files.iter().filter(written).filter_map(|file| file.path);
    check_distinct(&outputs.chain(report).collect::<Vec<_>>())
}

/// Where an output folder's drafts lie: a killed run may have left one.
fn output_folder<'a>(file: &FileArgument<'a>) -> Option<&'a Path> {
    let path = file.path.filter(|_| file.kind == FileKind::OutputFolder);
    path.map(file::folder_of)
}

fn check_distinct(outputs: &[&Path]) -> Result<()> {
    for (n, path) in outputs.iter().enumerate() {
        if outputs[..n].contains(path) {
            return Err(Error::Config(format!(
                "{}: is named for two outputs; choose another name for one",
                path.display()
            )));
        }
    }
    Ok(())
}

fn missing_flag(key: &str) -> Error {
    let flag = key.replace('_', "-");
    Error::Config(format!(
        "--{flag} is missing (or \"{key}\" in the --config file)"
    ))
}

fn check_input(path: &Path, folder: bool) -> Result<()> {
    let found = std::fs::metadata(path).map_err(|e| Error::unreadable(path, e))?;
    if found.is_dir() == folder {
        return Ok(());
    }
    let kind = if folder {
        std::io::Error::new(std::io::ErrorKind::NotADirectory, "is a file, not a folder")
    } else {
        std::io::Error::new(std::io::ErrorKind::IsADirectory, "is a folder, not a file")
    };
    Err(Error::unreadable(path, kind))
}

fn check_output(path: &Path, files: &[FileArgument], overwrite: bool) -> Result<()> {
    let inputs = files.iter().filter(|f| f.kind == FileKind::Input);
    for input in inputs.filter_map(|f| f.path) {
        if same_file(path, input) {
            return Err(Error::Config(format!(
                "{}: is an input as well as an output; choose another output",
                path.display()
            )));
        }
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if !parent.unwrap_or(Path::new(".")).is_dir() {
        return Err(Error::unwritable(
            path,
            "its folder does not exist; make it first",
        ));
    }
    if path.is_dir() {
        return Err(Error::unwritable(path, "is a folder"));
    }
    if path.exists() && !overwrite {
        return Err(Error::unwritable(
            path,
            "exists already; use --overwrite to replace it",
        ));
    }
    Ok(())
}

fn check_output_folder(path: &Path, context: &Context) -> Result<()> {
    if path.exists() && !path.is_dir() {
        return Err(Error::unwritable(path, "is a file, not a folder"));
    }
    let filled = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if filled && !context.overwrite && !context.resume {
        return Err(Error::unwritable(
            path,
            "is a folder with files in it; use --overwrite to replace them",
        ));
    }
    Ok(())
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn print_schema<S: Step>(which: &str) -> Result<()> {
    let schema = match which {
        "report" => report::schema::<S>(),
        _ => schemars::schema_for!(S::Config),
    };
    print_json(&schema)
}

fn write_report(path: &Path, envelope: &impl serde::Serialize, overwrite: bool) -> Result<()> {
    if path == Path::new("-") {
        return print_json(envelope);
    }
    let text = serde_json::to_string_pretty(envelope).map_err(|e| Error::Bug(e.to_string()))?;
    file::write_whole(path, overwrite, |writer| writeln!(writer, "{text}"))
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Bug(e.to_string()))?;
    writeln!(std::io::stdout(), "{text}").map_err(|e| Error::unwritable(Path::new("-"), e))
}

/// What is odd in a file's header is said under the file's name; a cohort keeps names out of its log and
/// says it in its reports.
fn log_to_stderr(quiet: bool, cohort: bool) {
    let level = if quiet {
        LevelFilter::ERROR
    } else {
        LevelFilter::INFO
    };
    // ONNX Runtime's own log is for its developers.
    let mut ours = Targets::new().with_target("voxmask", level);
    if cohort {
        ours = ours.with_target("voxmask::volume", LevelFilter::OFF);
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time();
    tracing_subscriber::registry().with(ours).with(lines).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_with_a_letter_or_without() {
        let read = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0).ok();
        assert_eq!(read("4G"), Some(4 << 30));
        assert_eq!(read("1.5 GiB"), Some(3 << 29));
        assert_eq!(read("800mb"), Some(800 << 20));
        assert_eq!(read("123"), Some(123));
        for wrong in ["", "G", "-1G", "0", "4X", "nan", "1e30"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
