//! The ledger of a cohort: a line of JSON for every scan that was worked on, added to and never
//! rewritten. It says what was done, when, with which version, and the digests of what went in and
//! came out; no path, no file name, no text of a header.
//!
//! Each line holds the digest of the line before it, so that a line that was changed, taken out or
//! put in shows. `voxmask-prepare` writes it, `voxmask-collect --verify` checks it against the files.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;

/// Name and version of the layout of a line.
pub const SCHEMA: &str = "ledger/1";

/// What is `previous` in the first line.
pub const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Layout of the line: `ledger/1`.
    pub schema: String,
    /// SHA-256 of the line before this one, without its line end; zeros in the first.
    pub previous: String,
    /// What was done: the name of an executable without its prefix.
    pub step: String,
    /// Version of voxmask.
    pub version: String,
    /// When it was done, UTC, RFC 3339, to the second.
    pub when: String,
    /// SHA-256 of the configuration without its paths, as compact JSON with sorted keys.
    pub config_sha256: String,
    /// SHA-256 of the weights of every network that was used.
    pub networks: Vec<String>,
    /// What was read.
    pub inputs: Vec<Content>,
    /// What was written; empty when nothing was.
    pub outputs: Vec<Content>,
    /// 0, or the exit code that says why nothing was written.
    pub exit_code: u8,
}

/// A file or folder, known by its content alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// What it holds: `image`, `foreground_mask`, …
    pub role: String,
    /// SHA-256 in hexadecimal; of a folder as [`file::folder::sha256`] has it.
    pub sha256: String,
}

/// A ledger that is open for more lines; locked, so that two runs cannot write into one folder.
pub struct Ledger {
    file: File,
    previous: String,
}

impl Ledger {
    /// Opens a ledger, or begins one. The rest of a line that a killed run left unfinished goes.
    ///
    /// # Errors
    /// Exit 75 while another run has it open, 73 when it cannot be written, 65 when its lines do not
    /// follow from each other.
    pub fn open(path: &Path) -> Result<Self> {
        let unwritable = |e| Error::unwritable(path, e);
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true);
        let mut file = options.open(path).map_err(unwritable)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let path = path.display();
            Error::TryAgain(format!(
                "{path}: another run is writing here; wait for its end"
            ))
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(unwritable)?;
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(unwritable)?;
            file.seek(SeekFrom::End(0)).map_err(unwritable)?;
        }
        let (_, previous) = parse(path, &text[..whole])?;
        Ok(Self { file, previous })
    }

    /// Adds a line; `previous` is filled in here.
    ///
    /// # Errors
    /// Exit 73.
    pub fn append(&mut self, path: &Path, entry: Entry) -> Result<()> {
        let previous = self.previous.clone();
        let entry = Entry { previous, ..entry };
        let mut line = serde_json::to_string(&entry).map_err(|e| Error::Bug(e.to_string()))?;
        self.previous = file::sha256_of_bytes(line.as_bytes());
        line.push('\n');
        // One write, so that a reader sees whole lines.
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|e| file::unwritable(path, &e))
    }
}

/// Now, as a line's `when` has it.
pub fn now() -> String {
    crate::report::timestamp(SystemTime::now())
}

/// Digest of a configuration that holds no paths, for `config_sha256`.
pub fn config_sha256(config: &serde_json::Map<String, serde_json::Value>) -> String {
    let sorted: std::collections::BTreeMap<_, _> = config.iter().collect();
    file::sha256_of_bytes(serde_json::json!(sorted).to_string().as_bytes())
}

/// Reads a ledger and checks that every line follows from the one before it.
///
/// # Errors
/// Exit 66 when it cannot be read; 65, with the number of the line, when it is no ledger or a line
/// was changed, taken out or put in.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read(path).map_err(|e| Error::unreadable(path, e))?;
    parse(path, &text).map(|(entries, _)| entries)
}

/// The lines, and the digest of the last.
fn parse(path: &Path, text: &[u8]) -> Result<(Vec<Entry>, String)> {
    let mut previous = FIRST.to_owned();
    let mut entries = Vec::new();
    for (n, line) in text.split(|&b| b == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let wrong = |why: &str| Error::unusable(path, format!("line {}: {why}", n + 1));
        let entry: Entry =
            serde_json::from_slice(line).map_err(|e| wrong(&format!("is no entry: {e}")))?;
        if entry.schema != SCHEMA {
            return Err(wrong("is of a layout that this voxmask does not know"));
        }
        if entry.previous != previous {
            return Err(wrong(
                "does not follow from the line before it; one was changed",
            ));
        }
        previous = file::sha256_of_bytes(line);
        entries.push(entry);
    }
    Ok((entries, previous))
}

/// What of a ledger's outputs is still there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Verification {
    /// Lines of the ledger.
    pub entries: usize,
    /// Outputs that were found with the same content.
    pub found: usize,
    /// Outputs that no file or folder has the content of: changed or gone.
    pub missing: Vec<Content>,
}

/// Compares the outputs that a ledger speaks of with the files in a folder and below. Of the lines
/// about one input, the last that wrote anything counts.
///
/// # Errors
/// Exit 66 when a file cannot be read.
pub fn verify(entries: &[Entry], folder: &Path) -> Result<Verification> {
    let there = file::folder::digests(folder)?;
    let mut verification = Verification {
        entries: entries.len(),
        ..Verification::default()
    };
    let mut seen = BTreeSet::new();
    for entry in entries.iter().rev().filter(|entry| entry.exit_code == 0) {
        if !seen.insert((&entry.step, &entry.inputs)) {
            continue;
        }
        for output in &entry.outputs {
            if there.contains(&output.sha256) {
                verification.found += 1;
            } else {
                verification.missing.push(output.clone());
            }
        }
    }
    Ok(verification)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(input: &str, output: &str) -> Entry {
        let content = |role: &str, text: &str| Content {
            role: role.to_owned(),
            sha256: file::sha256_of_bytes(text.as_bytes()),
        };
        Entry {
            schema: SCHEMA.to_owned(),
            previous: String::new(),
            step: "prepare".to_owned(),
            version: "0.1.0".to_owned(),
            when: now(),
            config_sha256: config_sha256(&serde_json::Map::new()),
            networks: Vec::new(),
            inputs: vec![content("image", input)],
            outputs: vec![content("foreground_mask", output)],
            exit_code: 0,
        }
    }

    fn ledger(lines: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut ledger = Ledger::open(&path).unwrap();
        for (input, output) in lines {
            ledger.append(&path, entry(input, output)).unwrap();
        }
        (folder, path)
    }

    #[test]
    fn lines_follow_from_each_other_over_several_runs() {
        let (_folder, path) = ledger(&[("a", "1"), ("b", "2")]);
        let mut again = Ledger::open(&path).unwrap();
        again.append(&path, entry("c", "3")).unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].previous, FIRST);
        let text = std::fs::read_to_string(&path).unwrap();
        let second = text.lines().nth(1).unwrap();
        assert_eq!(
            entries[2].previous,
            file::sha256_of_bytes(second.as_bytes())
        );
    }

    #[test]
    fn a_changed_or_missing_line_is_named() {
        let (_folder, path) = ledger(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let refused = |text: String| {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!(error.exit_code(), 65);
            error.to_string()
        };
        let changed = text.replacen("\"exit_code\":0", "\"exit_code\":65", 1);
        assert!(refused(changed).contains("line 2"));
        assert!(refused([lines[0], lines[2]].join("\n")).contains("line 2"));
        assert!(refused(lines[1..].join("\n")).contains("line 1"));
        assert!(refused("{}".to_owned()).contains("line 1"));
    }

    #[test]
    fn the_rest_of_a_line_goes_and_a_second_writer_waits() {
        let (_folder, path) = ledger(&[("a", "1")]);
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"schema\": \"led")).unwrap();
        let mut open = Ledger::open(&path).unwrap();
        let error = Ledger::open(&path).err().unwrap();
        assert_eq!(error.exit_code(), 75);
        open.append(&path, entry("b", "2")).unwrap();
        assert_eq!(read(&path).unwrap().len(), 2);
    }

    #[test]
    fn outputs_are_found_by_content_and_the_last_line_counts() {
        let (folder, path) = ledger(&[("a", "old"), ("a", "new"), ("b", "gone")]);
        std::fs::create_dir(folder.path().join("below")).unwrap();
        std::fs::write(folder.path().join("below/x"), "new").unwrap();
        let found = verify(&read(&path).unwrap(), folder.path()).unwrap();
        assert_eq!((found.entries, found.found), (3, 1));
        assert_eq!(found.missing, entry("b", "gone").outputs);
    }
}
