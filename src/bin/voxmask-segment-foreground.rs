//! `voxmask-segment-foreground`: see [`voxmask::steps::SegmentForeground`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::steps::SegmentForeground>()
}
