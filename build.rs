//! Takes the libraries of the cohort's page from `lib/web` (`make setup` puts them there) into the
//! build. Without them everything builds, but `voxmask-prepare` says that its page cannot be made.

use std::path::Path;
use std::{env, fs, io};

const FILES: [&str; 3] = ["tabulator.min.js", "tabulator.min.css", "chart.umd.min.js"];

fn main() -> io::Result<()> {
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    println!("cargo::rerun-if-changed=build.rs");
    for name in FILES {
        let from = Path::new("lib/web").join(name);
        println!("cargo::rerun-if-changed={}", from.display());
        let text = fs::read_to_string(&from).unwrap_or_default();
        fs::write(Path::new(&out).join(name), text)?;
    }
    Ok(())
}
