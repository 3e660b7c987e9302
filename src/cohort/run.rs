//! Runs the chain over all scans: workers, the order of things, what is kept from an earlier run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::config::{Config, Naming, Switch};
use super::memory::{self, Memory};
use super::networks::Networks;
use super::scan::{Job, Row, ScanReport};
use super::sources::{self, Source};
use super::summary::Totals;
use super::{LeftOut, Prepare, Report, Review, multiqc, page, site, table};
use crate::error::{Error, Result};
use crate::file::{self, csv};
use crate::ledger::{self, Content, Entry, Ledger};
use crate::report;
use crate::step::Context;
use crate::volume::OpenVolume;

/// Scans that are worked on at the same time, at most: more would wait for the disk.
const MOST_WORKERS: usize = 8;

/// Name of the ledger in the cohort's folder.
const LEDGER: &str = "ledger.jsonl";

/// Does all scans of a configuration, then writes page, tables and key.
pub(super) fn cohort(config: &Config, context: &Context) -> Result<Report> {
    page::check_libraries()?;
    let stop = stop_on_signals()?;
    let sources = sources::list(config)?;
    let sizes: Vec<u64> = sources.iter().map(size).collect();
    let workers = context.threads.min(MOST_WORKERS).min(sources.len()).max(1);
    // Before anything is written: a network that cannot be used leaves nothing behind.
    let networks = Networks::load(config, context, workers)?;
    let threads = (context.threads / workers).max(1);
    memory::check_start(workers * (1 + threads))?;
    let output = &config.output;
    std::fs::create_dir_all(output).map_err(|e| Error::unwritable(output, e))?;
    let ledger = Ledger::open(&output.join(LEDGER))?;
    remove_drafts(output)?;
    let inner = Context {
        threads,
        overwrite: false,
        quiet: true,
        ..context.clone()
    };
    let cohort = Cohort {
        config,
        inner,
        stated: report::without_paths::<Prepare>(config)?,
        networks,
        memory: Memory::new(context.memory.unwrap_or_else(memory::available)),
        ledger: Mutex::new(ledger),
        turn: Turn::default(),
        next: AtomicUsize::new(0),
        stop,
        order: largest_first(&sizes),
        progress: Progress::new(sizes, context.quiet),
        sources,
    };
    let outcomes = cohort.work_all(workers)?;
    cohort.finish(outcomes)
}

/// Everything that workers share.
struct Cohort<'a> {
    config: &'a Config,
    /// How one worker works.
    inner: Context,
    stated: Map<String, Value>,
    sources: Vec<Source>,
    /// Indices of the sources, in the order in which they get their turn.
    order: Vec<usize>,
    networks: Networks,
    memory: Memory,
    ledger: Mutex<Ledger>,
    turn: Turn,
    next: AtomicUsize,
    stop: Arc<AtomicBool>,
    progress: Progress,
}

/// What became of one file.
enum Outcome {
    Done(Box<ScanReport>),
    LeftOut(LeftOut),
    /// It is equal to one that has its turn already.
    Copy(String),
}

impl Cohort<'_> {
    fn work_all(&self, workers: usize) -> Result<Vec<(usize, Outcome)>> {
        let results: Vec<Result<Vec<(usize, Outcome)>>> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..workers).map(|_| scope.spawn(|| self.work())).collect();
            let gone = |_| Err(Error::Bug("a worker ended before its time".to_owned()));
            started
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(gone))
                .collect()
        });
        self.progress.end();
        let results: Result<Vec<_>> = results.into_iter().collect();
        let mut outcomes: Vec<(usize, Outcome)> = results?.into_iter().flatten().collect();
        outcomes.sort_by_key(|(n, _)| *n);
        if outcomes.len() < self.sources.len() {
            return Err(Error::Interrupted(format!(
                "stopped after {} of {} scans; --resume does the rest",
                outcomes.len(),
                self.sources.len()
            )));
        }
        Ok(outcomes)
    }

    /// One worker: scan after scan, on threads of its own.
    fn work(&self) -> Result<Vec<(usize, Outcome)>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.inner.threads)
            .build()
            .map_err(|e| Error::TryAgain(format!("cannot start threads: {e}")))?;
        let mut outcomes = Vec::new();
        loop {
            // Whoever takes a number must come to its turn: others wait for it.
            if self.stop.load(Ordering::SeqCst) {
                return Ok(outcomes);
            }
            let turn = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(&n) = self.order.get(turn) else {
                return Ok(outcomes);
            };
            match pool.install(|| self.one(n, turn)) {
                Ok(outcome) => outcomes.push((n, outcome)),
                Err(error) => {
                    // What cannot be written now cannot be written for the next scan either.
                    self.stop.store(true, Ordering::SeqCst);
                    return Err(error);
                }
            }
        }
    }

    /// Everything about one file. Errors are those that end the run.
    fn one(&self, n: usize, turn: usize) -> Result<Outcome> {
        let source = &self.sources[n];
        let (opened, sha256) = open(&source.path);
        let name = self.name(n, source, sha256.as_deref());
        // In order, so that of equal files always the same one counts.
        let first = self.turn.take(turn, sha256.as_deref().unwrap_or_default());
        if !first && self.config.naming == Naming::Digest && sha256.is_some() {
            self.progress.line(n, &name.id, "is a copy");
            return Ok(Outcome::Copy(name.id));
        }
        let started = Instant::now();
        let result = opened.and_then(|open| self.prepare(source, &name, &sha256, open));
        match result {
            Ok((report, kept)) => {
                self.say(n, &report.result, kept, started.elapsed());
                Ok(Outcome::Done(Box::new(report)))
            }
            Err(error @ Error::OutputUnwritable { .. }) => Err(error),
            Err(error) => {
                let paths = [Some(&source.path), source.reference.as_ref()];
                let paths: Vec<&Path> = paths.into_iter().flatten().map(PathBuf::as_path).collect();
                let why = error.without_paths(&paths);
                self.progress.line(n, &name.id, &format!("left out: {why}"));
                self.record(sha256.as_deref(), &[], error.exit_code())?;
                Ok(Outcome::LeftOut(LeftOut {
                    id: name.id,
                    exit_code: error.exit_code(),
                    why,
                }))
            }
        }
    }

    /// The scan's report, and whether it is an earlier run's.
    fn prepare(
        &self,
        source: &Source,
        name: &Name,
        sha256: &Option<String>,
        open: OpenVolume,
    ) -> Result<(ScanReport, bool)> {
        let job = Job {
            config: self.config,
            context: &self.inner,
            stated: &self.stated,
            source,
            id: name.id.clone(),
            sha256: sha256.clone().unwrap_or_default(),
            place: name.place.clone(),
            networks: self.networks.sha256(),
        };
        if self.inner.resume
            && let Some(report) = job.finished()?
        {
            return Ok((report, true));
        }
        let self_check = self.config.self_check == Switch::On;
        let (geometry, image_bytes) = (open.geometry(), open.image_bytes());
        let needed = memory::needed(image_bytes, geometry.voxel_count(), self_check)
            + self.networks.needed(geometry);
        if needed > self.memory.limit() {
            let mb = |bytes: u64| bytes >> 20;
            return Err(Error::TryAgain(format!(
                "needs about {} MB of memory, {} MB may be used for a scan; raise --memory",
                mb(needed),
                mb(self.memory.limit())
            )));
        }
        let taken = self.memory.take(needed);
        let report = job.work(open, &self.networks)?;
        drop(taken);
        let outputs: Vec<Content> = report
            .outputs
            .iter()
            .filter_map(|output| {
                let role = output.role.clone();
                output.sha256.clone().map(|sha256| Content { role, sha256 })
            })
            .collect();
        self.record(Some(&job.sha256), &outputs, 0)?;
        Ok((report, false))
    }

    fn record(&self, sha256: Option<&str>, outputs: &[Content], exit_code: u8) -> Result<()> {
        let image = |sha256: &str| Content {
            role: "image".to_owned(),
            sha256: sha256.to_owned(),
        };
        let entry = Entry {
            schema: ledger::SCHEMA.to_owned(),
            previous: String::new(),
            step: "prepare".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            when: ledger::now(),
            config_sha256: ledger::config_sha256(&self.stated),
            networks: self.networks.sha256(),
            inputs: sha256.map(image).into_iter().collect(),
            outputs: outputs.to_vec(),
            exit_code,
        };
        lock(&self.ledger).append(&self.config.output.join(LEDGER), entry)
    }

    fn name(&self, n: usize, source: &Source, sha256: Option<&str>) -> Name {
        let place = match (self.config.naming, &source.place, sha256) {
            (Naming::Subject, Some(place), _) => place.clone(),
            (_, _, Some(sha256)) => Path::new("scans").join(format!("scan-{}", &sha256[..12])),
            // What cannot be read has no digest: its place among all files names it.
            (_, _, None) => Path::new("scans").join(format!("unreadable-{}", n + 1)),
        };
        let id = place.file_name().unwrap_or_default().to_string_lossy();
        Name {
            id: id.into_owned(),
            place,
        }
    }

    fn say(&self, n: usize, row: &Row, kept: bool, took: Duration) {
        let flags: Vec<&str> = row.quality.review().map(|f| f.name.as_str()).collect();
        let flags = match flags.as_slice() {
            [] => String::new(),
            some => format!(", look at it: {}", some.join(", ")),
        };
        let share = 100.0 * row.measures.foreground_share;
        let altered = if row.altered { ", altered" } else { "" };
        let took = if kept {
            "kept".to_owned()
        } else {
            format!("{:.1} s", took.as_secs_f64())
        };
        let text = format!("foreground {share:.0} %{altered}{flags} ({took})");
        self.progress.line(n, &row.id, &text);
    }

    fn finish(&self, outcomes: Vec<(usize, Outcome)>) -> Result<Report> {
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        let (mut rows, mut left_out) = (Vec::new(), Vec::new());
        let mut key = Vec::new();
        for (n, outcome) in outcomes {
            let id = match outcome {
                Outcome::Done(report) => {
                    rows.push(report.result);
                    rows.last().map(|row| row.id.clone()).unwrap_or_default()
                }
                Outcome::LeftOut(scan) => {
                    left_out.push(scan.clone());
                    scan.id
                }
                Outcome::Copy(id) => {
                    *copies.entry(id.clone()).or_default() += 1;
                    id
                }
            };
            key.push((id, self.sources[n].path.clone()));
        }
        // Worst first; equal ones by name, so that the order is always the same.
        rows.sort_by(|a: &Row, b: &Row| {
            let by_score = b.quality.score.total_cmp(&a.quality.score);
            by_score.then_with(|| a.id.cmp(&b.id))
        });
        left_out.sort();
        let report = Report {
            totals: Totals::of(&rows, &left_out, &copies, self.config),
            review: review(&rows),
            sites: site::figures(&rows, &self.networks.foreground.evaluation),
            left_out,
        };
        let output = &self.config.output;
        table::write(&rows, &copies, &output.join("cohort.tsv"))?;
        multiqc::write(&rows, &report, &output.join("voxmask_mqc.json"))?;
        page::write(&rows, &report, self.config, &output.join("cohort.html"))?;
        if let Some(path) = &self.config.key {
            write_key(path, &key)?;
        }
        Ok(report)
    }
}

/// What a scan is known by, and where its results go.
struct Name {
    id: String,
    place: PathBuf,
}

/// Bytes of a scan's file, as far as can be seen.
fn size(source: &Source) -> u64 {
    std::fs::metadata(&source.path).map_or(0, |found| found.len())
}

/// The order of work: were a large scan the last, all workers but one would wait for it. Equal files
/// keep their order, so that of these always the same one counts.
fn largest_first(sizes: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(sizes[n]));
    order
}

/// Opens a scan; its digest is wanted even where it cannot be used.
fn open(path: &Path) -> (Result<OpenVolume>, Option<String>) {
    let opened = OpenVolume::open(path);
    let sha256 = match &opened {
        Ok(open) => open.sha256(),
        Err(_) => file::sha256(path),
    };
    match sha256 {
        Ok(sha256) => (opened, Some(sha256)),
        Err(error) => (opened.and(Err(error)), None),
    }
}

fn review(rows: &[Row]) -> Vec<Review> {
    let flagged = rows.iter().filter(|row| row.quality.score > 0.0);
    let review = flagged.map(|row| Review {
        id: row.id.clone(),
        score: row.quality.score,
        flags: row.quality.review().map(|f| f.name.clone()).collect(),
        reasons: row.quality.review().map(|f| f.reason.clone()).collect(),
    });
    review.collect()
}

fn write_key(path: &Path, key: &[(String, PathBuf)]) -> Result<()> {
    file::write_whole(path, true, |writer| {
        csv::write_record(writer, ',', ["id", "scan"])?;
        for (id, path) in key {
            csv::write_record(writer, ',', [id.as_str(), &path.display().to_string()])?;
        }
        Ok(())
    })
}

/// Removes what a killed run left half-written; nobody else is at work here, the ledger is locked.
fn remove_drafts(folder: &Path) -> Result<()> {
    for path in file::folder::entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if file::drafts::is_draft(&name) {
            file::drafts::remove(&path).map_err(|e| Error::unwritable(&path, e))?;
        } else if path.is_dir() && !path.is_symlink() && name != "patches" {
            remove_drafts(&path)?;
        }
    }
    Ok(())
}

/// True once the user (Ctrl-C) or the scheduler (SIGTERM) asked for an end. Asked a second time, the
/// process ends at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| Error::TryAgain(format!("signals cannot be handled: {e}")))?;
    }
    Ok(stop)
}

/// Lets files have their digest known in order.
#[derive(Default)]
struct Turn {
    seen: Mutex<(usize, BTreeMap<String, usize>)>,
    moved: Condvar,
}

impl Turn {
    /// Waits until `n` files were here; true when no earlier one had this digest.
    fn take(&self, n: usize, sha256: &str) -> bool {
        let mut seen = lock(&self.seen);
        while seen.0 != n {
            seen = self
                .moved
                .wait(seen)
                .unwrap_or_else(PoisonError::into_inner);
        }
        seen.0 += 1;
        let first = *seen.1.entry(sha256.to_owned()).or_insert(n) == n;
        drop(seen);
        self.moved.notify_all();
        first
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bar with the time left on a terminal, a line a scan in a log.
struct Progress {
    bar: Option<ProgressBar>,
    /// Bytes of each scan's file: the time left goes by these.
    sizes: Vec<u64>,
    /// Scans and bytes that are done.
    done: Mutex<(usize, u64)>,
    started: Instant,
}

impl Progress {
    fn new(sizes: Vec<u64>, quiet: bool) -> Self {
        let bytes = sizes.iter().sum();
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let shown = !quiet && !bar.is_hidden();
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(format!("0/{}", sizes.len()));
        Self {
            bar: shown.then_some(bar),
            sizes,
            done: Mutex::default(),
            started: Instant::now(),
        }
    }

    fn line(&self, n: usize, id: &str, text: &str) {
        let (done, bytes) = {
            let mut done = lock(&self.done);
            *done = (done.0 + 1, done.1 + self.sizes[n]);
            *done
        };
        let (total, rest) = (self.sizes.len(), self.sizes.iter().sum::<u64>() - bytes);
        let each = self.started.elapsed().as_secs_f64() / bytes.max(1) as f64;
        let left = humantime::format_duration(Duration::from_secs((each * rest as f64) as u64));
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(format!("{done}/{total}, {left} left  {id}: {text}"));
            return;
        }
        tracing::info!("{done}/{total} {id}: {text}; {left} left");
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_scan_is_the_first_and_equal_ones_keep_their_order() {
        assert_eq!(largest_first(&[3, 9, 3, 0, 9]), [1, 4, 0, 2, 3]);
    }
}
