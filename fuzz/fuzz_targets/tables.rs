//! Any bytes as the lists that a cohort comes with: a sample sheet, and a ledger.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxmask::file::csv::Table;
use voxmask::ledger;
use voxmask_fuzz::{MemoryFile, no_bug};

fuzz_target!(|bytes: &[u8]| {
    let file = MemoryFile::new(bytes);
    if let Some(table) = no_bug(Table::read(file.path())) {
        assert!(table.records.iter().all(|record| record.len() == table.names.len()));
        let _ = table.column("scan");
    }
    no_bug(ledger::read(file.path()));
});
