//! `voxmask-segment`: see [`voxmask::steps::Segment`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::steps::Segment>()
}
