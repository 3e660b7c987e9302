//! `voxmask-crop-patches`: see [`voxmask::steps::CropPatches`].

fn main() -> std::process::ExitCode {
    voxmask::cli::main::<voxmask::steps::CropPatches>()
}
