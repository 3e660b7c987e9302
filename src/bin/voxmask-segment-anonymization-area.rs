//! `voxmask-segment-anonymization-area`: see [`voxmask::steps::SegmentAnonymizationArea`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::steps::SegmentAnonymizationArea>()
}
