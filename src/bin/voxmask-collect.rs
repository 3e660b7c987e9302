//! `voxmask-collect`: see [`voxmask::steps::Collect`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::steps::Collect>()
}
