//! Tables of comma- or tab-separated values.

use std::io::{self, Write};
use std::path::Path;

use csv_core::{ReadRecordResult, Reader};

use crate::error::{Error, Result};

/// A table that was read: names of the columns, and records that have one field for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub names: Vec<String>,
    /// Records.
    pub records: Vec<Vec<String>>,
}

impl Table {
    /// Reads a table of comma-separated values; spaces round a field are left out.
    ///
    /// # Errors
    /// Exit 66 when it cannot be read, 65 when it is no UTF-8 or a record has another number of
    /// fields than the first.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => Error::unusable(path, "is no table in UTF-8"),
            _ => Error::unreadable(path, e),
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut records = records(text.as_bytes());
        if records.is_empty() {
            return Err(Error::unusable(
                path,
                "is empty; its first line names the columns",
            ));
        }
        let names = records.remove(0);
        let wrong = records
            .iter()
            .position(|record| record.len() != names.len());
        if let Some(n) = wrong {
            let why = format!(
                "record {} has {} fields, the first line names {}",
                n + 1,
                records[n].len(),
                names.len()
            );
            return Err(Error::unusable(path, why));
        }
        Ok(Self { names, records })
    }

    /// Place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|other| other == name)
    }
}

fn records(text: &[u8]) -> Vec<Vec<String>> {
    let mut reader = Reader::new();
    let (mut rest, mut records) = (text, Vec::new());
    // No record is longer than the text, nor has it more fields.
    let (mut fields, mut ends) = (vec![0; text.len() + 1], vec![0; text.len() + 1]);
    let (mut filled, mut ended) = (0, 0);
    loop {
        let (result, read, written, more) =
            reader.read_record(rest, &mut fields[filled..], &mut ends[ended..]);
        rest = &rest[read..];
        filled += written;
        ended += more;
        match result {
            ReadRecordResult::Record => {
                let starts = std::iter::once(&0).chain(&ends[..ended]);
                let field = |(start, end): (&usize, &usize)| {
                    let field = String::from_utf8_lossy(&fields[*start..*end]);
                    field.trim().to_owned()
                };
                records.push(starts.zip(&ends[..ended]).map(field).collect());
                (filled, ended) = (0, 0);
            }
            ReadRecordResult::InputEmpty => {}
            _ => return records,
        }
    }
}

/// Writes one record; a field that holds the separator, a quote or a line end is put into quotes.
///
/// # Errors
/// What the writer comes back with.
///
/// # Source
/// RFC 4180.
pub fn write_record<S: AsRef<str>>(
    writer: &mut dyn Write,
    separator: char,
    fields: impl IntoIterator<Item = S>,
) -> io::Result<()> {
    for (n, field) in fields.into_iter().enumerate() {
        if n > 0 {
            write!(writer, "{separator}")?;
        }
        let field = field.as_ref();
        if field.contains([separator, '"', '\n', '\r']) {
            write!(writer, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            writer.write_all(field.as_bytes())?;
        }
    }
    writeln!(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Table> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        Table::read(&path)
    }

    #[test]
    fn quotes_spaces_and_line_ends_of_every_kind_are_understood() {
        let read = table("\u{feff}scan, site\r\n\"a,1\",\"the \"\"north\"\"\"\n\n b ,").unwrap();
        assert_eq!(read.names, ["scan", "site"]);
        assert_eq!(read.records, [["a,1", "the \"north\""], ["b", ""]]);
        assert_eq!((read.column("site"), read.column("age")), (Some(1), None));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let fields = ["plain", "a,b", "say \"no\"", "two\nlines", ""];
        let mut text = Vec::new();
        write_record(&mut text, ',', ["1", "2", "3", "4", "5"]).unwrap();
        write_record(&mut text, ',', fields).unwrap();
        let read = table(std::str::from_utf8(&text).unwrap()).unwrap();
        assert_eq!(read.records, [fields]);
    }

    #[test]
    fn a_table_without_lines_or_with_a_short_one_is_refused() {
        assert_eq!(table("").unwrap_err().exit_code(), 65);
        let refused = table("a,b\n1,2\n3\n").unwrap_err();
        assert!(
            refused.to_string().contains("record 2 has 1 fields"),
            "{refused}"
        );
        let missing = Table::read(Path::new("/no/such.csv")).unwrap_err();
        assert_eq!(missing.exit_code(), 66);
    }
}
