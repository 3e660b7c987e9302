//! `voxmask-prepare`: see [`voxmask::cohort`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::cohort::Prepare>()
}
