//! NumPy's file format, as much of it as patches need.

use std::io::{self, Write};

use crate::volume::Shape;

/// Writes an array with the axes (i, j, k), `i` fastest: NumPy loads it with that shape, in Fortran
/// order, without turning anything.
///
/// `descr` is NumPy's name of the type: `<f4` or `|u1`; `bytes` are the values.
///
/// # Source
/// NumPy Enhancement Proposal 1, «A simple file format for NumPy arrays», version 1.0.
pub(super) fn write(
    writer: &mut dyn Write,
    descr: &str,
    shape: Shape,
    bytes: &[u8],
) -> io::Result<()> {
    let [i, j, k] = shape;
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': True, 'shape': ({i}, {j}, {k}), }}");
    // Magic, version and length take 10 bytes, the line end one; the values start at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(io::Error::other)?;
    writer.write_all(b"\x93NUMPY\x01\x00")?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(header.as_bytes())?;
    writer.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_padded_and_names_the_shape() {
        let mut file = Vec::new();
        write(&mut file, "|u1", [3, 2, 1], &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = std::str::from_utf8(&file[10..10 + length]).unwrap();
        assert!(header.contains("'fortran_order': True, 'shape': (3, 2, 1)"));
        assert_eq!(&file[10 + length..], [1, 2, 3, 4, 5, 6]);
    }
}
