//! Any bytes as gzip: both readers agree with each other, and with another one where it takes the file.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use voxmask::file::gzip;

/// More is not unpacked.
const MOST: u64 = 1 << 22;

fuzz_target!(|bytes: &[u8]| {
    let mut content = Vec::new();
    let read = gzip::Members::new(bytes).take(MOST).read_to_end(&mut content);
    assert!(content.len() as u64 <= gzip::most_inflated(bytes.len() as u64));
    if read.is_ok() && (content.len() as u64) < MOST {
        let mut all = vec![0; content.len()];
        if gzip::inflate_exact(bytes, &mut all) {
            assert_eq!(all, content);
        }
        let mut other = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(bytes);
        if reader.read_to_end(&mut other).is_ok() {
            assert_eq!(other, content);
        }
        let mut again = Vec::new();
        gzip::write_member(&mut again, &[&content], 6).expect("room in memory");
        assert!(gzip::inflate_exact(&again, &mut all) && all == content);
    }
});
