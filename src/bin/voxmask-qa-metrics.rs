//! `voxmask-qa-metrics`: see [`voxmask::steps::QaMetrics`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::steps::QaMetrics>()
}
