//! `voxmask-resample`: see [`voxmask::steps::Resample`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::steps::Resample>()
}
