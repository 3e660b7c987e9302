//! Writes what a network would see of a scan, as 32-bit floats, channel by channel, the tensor's last
//! axis fastest; prints the tensor's lengths. `tests/nnunet/parity.py` compares it with nnU-Net's.
//!
//! `window_tensor MODEL OUTPUT INPUT...`

use std::path::Path;

use voxmask::error::{Error, Result};
use voxmask::network::windows::WindowNetwork;
use voxmask::step::Context;
use voxmask::volume;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, output, inputs @ ..] = arguments.as_slice() else {
        return Err(Error::Config(
            "window_tensor MODEL OUTPUT INPUT...".to_owned(),
        ));
    };
    let network = WindowNetwork::load(Path::new(model), &Context::default())?;
    let images = inputs
        .iter()
        .map(|path| volume::read_image(Path::new(path), None));
    let tensor = network.tensor(images.collect::<Result<_>>()?)?;
    let values = tensor.channels.iter().flatten();
    let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
    let output = Path::new(output);
    std::fs::write(output, bytes).map_err(|e| Error::unwritable(output, e))?;
    println!("{:?}", tensor.lengths);
    Ok(())
}
