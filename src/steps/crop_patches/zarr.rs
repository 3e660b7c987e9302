//! Zarr version 3, as much of it as patches need: a group with two arrays of one chunk a patch.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::file;
use crate::file::gzip;
use crate::volume::Shape;

/// Level of gzip for masks, which have long runs.
const LEVEL: u32 = 6;

/// How the chunks of an array are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// As they are: intensities are noise, which gzip makes little smaller in a lot of time.
    Plain,
    /// Gzipped.
    Gzip,
}

/// Writes the group's own file, and `attributes` with it.
pub(super) fn write_group(folder: &Path, attributes: Value) -> Result<()> {
    let group = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
    write_metadata(folder, &group)
}

/// Writes the file that says what an array holds: `count` patches of the axes (i, j, k), `i` fastest
/// in each chunk.
///
/// # Source
/// Zarr core specification, version 3.0: «Array metadata», the codecs `transpose`, `bytes`, `gzip`.
pub(super) fn write_array(
    folder: &Path,
    data_type: &str,
    (count, [i, j, k]): (usize, Shape),
    chunks: Chunks,
) -> Result<()> {
    let endian = if cfg!(target_endian = "little") {
        "little"
    } else {
        "big"
    };
    let mut codecs = vec![
        json!({"name": "transpose", "configuration": {"order": [0, 3, 2, 1]}}),
        json!({"name": "bytes", "configuration": {"endian": endian}}),
    ];
    if chunks == Chunks::Gzip {
        codecs.push(json!({"name": "gzip", "configuration": {"level": LEVEL}}));
    }
    let array = json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": [count, i, j, k],
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, i, j, k]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": codecs,
        "dimension_names": ["patch", "i", "j", "k"],
        "attributes": {},
    });
    write_metadata(folder, &array)
}

fn write_metadata(folder: &Path, metadata: &Value) -> Result<()> {
    std::fs::create_dir(folder).map_err(|e| Error::unwritable(folder, e))?;
    let text = serde_json::to_string_pretty(metadata).map_err(|e| Error::Bug(e.to_string()))?;
    file::write_whole(&folder.join("zarr.json"), false, |writer| {
        writeln!(writer, "{text}")
    })
}

/// Writes patch `n` of an array.
pub(super) fn write_chunk(folder: &Path, n: usize, bytes: &[u8], chunks: Chunks) -> Result<()> {
    let path = folder.join(format!("c.{n}.0.0.0"));
    file::write_whole(&path, false, |writer| match chunks {
        Chunks::Plain => writer.write_all(bytes),
        Chunks::Gzip => gzip::write_member(writer, &[bytes], LEVEL),
    })
}
