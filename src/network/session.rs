//! ONNX Runtime: finding the library, loading weights, running them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::ArenaExtendStrategy;
use ort::ep::cuda::ConvAlgorithmSearch;
use ort::session::RunOptions;
use ort::session::Session as OrtSession;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::afterwards::Afterwards;
use super::{operator, rewrite};
use crate::error::{Error, Result};
use crate::lanes;
use crate::step::{Context, Device};

/// Loaded weights, ready to run.
pub struct Session {
    session: OrtSession,
    // ONNX Runtime's environment must live as long as the session.
    _environment: Environment,
    /// Where they run: never [`Device::Auto`].
    pub device: Device,
    footprint: Footprint,
}

/// What a session's memory is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footprint {
    /// Speed: memory and rearranged weights are kept from run to run.
    Fast,
    /// Size: memory goes back to the C library as soon as it is not needed. A residual-encoder network of 102
    /// million weights took 23 % less for a window of 128³, and a tenth more time.
    Lean,
}

impl Session {
    /// Loads weights onto the device that the context asks for.
    ///
    /// # Errors
    /// Exit 69 when ONNX Runtime, the GPU or usable weights are missing; 75 when memory ran out.
    pub fn load(weights: &[u8], context: &Context) -> Result<Self> {
        Self::load_as(Footprint::Fast, weights, context)
    }

    /// [`Session::load`], with a say in what memory is kept for.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn load_as(footprint: Footprint, weights: &[u8], context: &Context) -> Result<Self> {
        let environment = environment()?;
        let tried = match context.device {
            Device::Cuda => true,
            Device::Auto => a_gpu_is_there(Path::new("/dev")),
            Device::Cpu => false,
        };
        if tried {
            match build(
                &environment,
                weights,
                context.threads,
                (Device::Cuda, footprint),
            ) {
                Ok(session) => return Ok(session),
                Err(error) if context.device == Device::Cuda => {
                    return Err(refusal(no_gpu(&first_line(&error))));
                }
                Err(error) => tracing::warn!("running on the CPU: {}", first_line(&error)),
            }
        }
        build(
            &environment,
            weights,
            context.threads,
            (Device::Cpu, footprint),
        )
        .map_err(|error| {
            let line = first_line(&error);
            refusal(format!("the network cannot be loaded: {line}"))
        })
    }

    /// Runs the network on one tensor (`shape` slowest axis first, last axis fastest in `values`)
    /// and gives back the values of the named outputs.
    ///
    /// # Errors
    /// Exit 69 when the network does not take such a tensor or lacks an output; 75 when memory ran
    /// out.
    pub fn run<const N: usize>(
        &mut self,
        shape: &[usize],
        values: &[f32],
        outputs: [&str; N],
    ) -> Result<[Vec<f32>; N]> {
        self.run_and(Afterwards::Kept, shape, values, outputs)
    }

    /// [`Session::run`], with a say in what becomes of the memory that it took.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_and<const N: usize>(
        &mut self,
        afterwards: Afterwards,
        shape: &[usize],
        values: &[f32],
        outputs: [&str; N],
    ) -> Result<[Vec<f32>; N]> {
        let input = TensorRef::from_array_view((shape, values)).map_err(|e| failed(&e))?;
        let mut options = RunOptions::new().map_err(|e| failed(&e))?;
        // Nothing is kept of a lean one.
        let keeps = self.device == Device::Cpu && self.footprint == Footprint::Fast;
        if keeps && afterwards == Afterwards::GivenBack {
            let shrink = options.set("memory.enable_memory_arena_shrinkage", "cpu:0");
            shrink.map_err(|e| failed(&e))?;
        }
        let found = self
            .session
            .run_with_options(ort::inputs![input], &options)
            .map_err(|e| failed(&e))?;
        let mut taken = [const { Vec::new() }; N];
        for (name, values) in outputs.iter().zip(&mut taken) {
            let value = found.get(name).ok_or_else(|| {
                Error::Unavailable(format!("the network has no output named {name:?}"))
            })?;
            let (_, found) = value.try_extract_tensor::<f32>().map_err(|e| failed(&e))?;
            *values = found.to_vec();
        }
        Ok(taken)
    }
}

fn build(
    environment: &Environment,
    weights: &[u8],
    threads: usize,
    (device, footprint): (Device, Footprint),
) -> ort::Result<Session> {
    let mut builder = OrtSession::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(threads)?
        // Threads that spin while they wait would take a neighbour's time on a shared node.
        .with_intra_op_spinning(false)?
        .with_deterministic_compute(true)?;
    if device == Device::Cuda {
        builder = builder.with_execution_providers([cuda().build().error_on_failure()])?;
    }
    if footprint == Footprint::Lean {
        builder = builder
            .with_memory_pattern(false)?
            .with_prepacking(false)?
            .with_execution_providers([ort::ep::CPU::default()
                .with_arena_allocator(false)
                .build()])?;
    }
    // Our operators run on processors alone.
    let ours = (device == Device::Cpu && lanes::are_fast())
        .then(|| rewrite::with_our_operators(weights))
        .flatten();
    if ours.is_some() {
        introduce_operators(environment)?;
        builder = builder.with_operators(operator::domain(threads)?)?;
    }
    let weights = ours.as_deref().unwrap_or(weights);
    Ok(Session {
        session: builder.commit_from_memory(weights)?,
        _environment: environment.clone(),
        device,
        footprint,
    })
}

/// How networks run on an NVIDIA GPU.
fn cuda() -> ort::ep::CUDA {
    ort::ep::CUDA::default()
        // ONNX Runtime's own choice is TensorFloat-32, which keeps 11 bits of each factor: labels
        // would differ from those of the CPU.
        .with_tf32(false)
        // A process sees one scan, and trying every way to convolve would cost more than it gains.
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        // Doubling what is held takes memory from others on the card and gains nothing: every window
        // asks for the same.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
}

fn failed(error: &ort::Error) -> Error {
    let line = first_line(error);
    refusal(format!("the network cannot be run: {line}"))
}

/// Exit 75 for what the system has too little of just now, memory or threads; else 69.
fn refusal(why: String) -> Error {
    let lower = why.to_lowercase();
    let scarce = ["alloc", "out of memory", "temporarily unavailable"];
    if scarce.iter().any(|word| lower.contains(word)) {
        Error::TryAgain(format!("not enough memory or threads: {why}"))
    } else {
        Error::Unavailable(why)
    }
}

/// Why `--device cuda` cannot be had.
fn no_gpu(why: &str) -> String {
    let remedy = if why.contains("libcuda.so.1: cannot open") {
        "; that library is of NVIDIA's driver, which this machine lacks or this container was not \
         given (docker --gpus all, apptainer --nv)"
    } else if why.contains("cannot open shared object file") {
        "; LD_LIBRARY_PATH must lead to NVIDIA's libraries (CUDA, cuDNN), of the version that this \
         build of ONNX Runtime wants"
    } else if why.contains("not enabled in this build") {
        "; ORT_DYLIB_PATH must name the library of ONNX Runtime's GPU build"
    } else {
        ""
    };
    let why = why.trim_end_matches('.');
    format!("--device cuda: no NVIDIA GPU can be used: {why}{remedy}")
}

fn first_line(error: &ort::Error) -> String {
    let text = error.to_string();
    cause(text.lines().next().unwrap_or_default()).to_owned()
}

/// What went wrong, without codes, places in ONNX Runtime's source, and the host's name, all of which
/// it adds.
fn cause(line: &str) -> &str {
    let coded = line.split_once("[ONNXRuntimeError] : ");
    let line = coded
        .and_then(|(_, coded)| coded.splitn(3, " : ").nth(2))
        .unwrap_or(line);
    // "… CUDNN failure 3: … ; GPU=0 ; hostname=… ; file=… ; …"
    let Some((line, _)) = line.split_once(" ; GPU=") else {
        return line;
    };
    let before = line.rfind(" failure ").unwrap_or_default();
    let start = line[..before].rfind(' ').map_or(0, |space| space + 1);
    &line[start..]
}

/// True when an NVIDIA driver shows a device, of any number: a container or a job that was given the
/// second card of a machine sees no first. Asks the kernel, not the CUDA libraries: those would take
/// seconds and memory on the card.
fn a_gpu_is_there(devices: &Path) -> bool {
    let entries = std::fs::read_dir(devices).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| {
        let name = name.to_string_lossy();
        // `dxg` is the device of Linux within Windows.
        name == "dxg" || name.strip_prefix("nvidia").is_some_and(is_number)
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

static LOADED: Mutex<Option<Environment>> = Mutex::new(None);

/// Keeps ONNX Runtime from what its builds with telemetry do while they start, before
/// `with_telemetry(false)` reaches them: an identifier of the machine and a store of events in the home
/// folder, and their upload.
///
/// # Safety
/// No other thread may run yet, as for [`std::env::set_var`].
///
/// # Source
/// ONNX Runtime, `docs/Privacy.md` (from 1.31 on).
pub unsafe fn forbid_telemetry() {
    // SAFETY: the caller's promise.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}

/// Loads ONNX Runtime once for the process.
fn environment() -> Result<Environment> {
    let mut loaded = LOADED
        .lock()
        .map_err(|_| Error::Bug("another thread failed to load ONNX Runtime".to_owned()))?;
    if let Some(environment) = loaded.as_ref() {
        return Ok(environment.clone());
    }
    let path = find_library()?;
    let unusable = |why: String| {
        let path = path.display();
        refusal(format!("{path}: ONNX Runtime cannot be loaded: {why}"))
    };
    let environment = ort::init_from(&path)
        .map_err(|e| match has_room_for(&path) {
            true => unusable(e.to_string()),
            // The loader's own word for it does not reach us.
            false => unusable(format!("out of memory: {e}")),
        })?
        .with_name("voxmask")
        .with_telemetry(false)
        .build()
        .map_err(|e| unusable(first_line(&e)))?;
    *loaded = Some(environment.clone());
    Ok(environment)
}

/// Whether ONNX Runtime knows the domain of our operators.
static INTRODUCED: Mutex<bool> = Mutex::new(false);

/// Tells ONNX Runtime of our operators, by a session of a model that does nothing.
///
/// It keeps the names of all domains in one place for the process, and looks whether a name is there before it adds
/// it, without a lock: of two sessions that bring a new one at the same time, one fails or worse.
fn introduce_operators(environment: &Environment) -> ort::Result<()> {
    let mut introduced = INTRODUCED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*introduced {
        OrtSession::builder(environment)?
            .with_intra_threads(1)?
            .with_operators(operator::domain(1)?)?
            .commit_from_memory(&rewrite::model_of_nothing())?;
        *introduced = true;
    }
    Ok(())
}

/// True when a library and what it takes along could be mapped.
fn has_room_for(library: &Path) -> bool {
    let size = std::fs::metadata(library).map_or(0, |found| found.len());
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    Vec::<u8>::new()
        .try_reserve_exact(size.saturating_mul(2))
        .is_ok()
}

/// Looks for ONNX Runtime's library: `ORT_DYLIB_PATH`, beside the executable, `lib` in one of the
/// three folders above it (an installed `bin`, a cargo build), the `onnxruntime` package of the
/// Python environment that the executable is installed in.
fn find_library() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        return Err(Error::Unavailable(format!(
            "{}: ORT_DYLIB_PATH names no file; point it to libonnxruntime.so",
            path.display()
        )));
    }
    let executable = std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .map_err(|e| Error::Unavailable(format!("the executable's own path is unknown: {e}")))?;
    let folders = executable.parent().map(folders).unwrap_or_default();
    folders
        .iter()
        .find_map(|folder| library_in(folder))
        .ok_or_else(|| {
            Error::Unavailable(
                "ONNX Runtime (libonnxruntime.so, 1.17 or newer) is not found; run `make setup` in \
                 the source folder, or `pip install onnxruntime` into the environment of a \
                 pip-installed voxmask, or set ORT_DYLIB_PATH to the library"
                    .to_owned(),
            )
        })
}

fn folders(beside: &Path) -> Vec<PathBuf> {
    let mut folders = vec![beside.to_owned()];
    folders.extend(beside.ancestors().skip(1).take(3).map(|a| a.join("lib")));
    let pythons = beside
        .parent()
        .map(|prefix| std::fs::read_dir(prefix.join("lib")));
    let mut packages: Vec<PathBuf> = pythons
        .and_then(std::io::Result::ok)
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| python.path().join("site-packages/onnxruntime/capi"))
        .collect();
    packages.sort();
    folders.append(&mut packages);
    folders
}

/// The library with the highest name in a folder: `libonnxruntime.so`, `libonnxruntime.so.1.31.1`.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let is_library = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        let named = name == "libonnxruntime.so"
            || name.starts_with("libonnxruntime.so.")
            || name == "libonnxruntime.dylib";
        named && path.is_file()
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_library)
        .max()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The logits of a model without our operator.
    pub fn as_it_is(model: &[u8], shape: &[usize], values: &[f32]) -> Vec<f32> {
        let environment = environment().unwrap();
        let builder = OrtSession::builder(&environment).unwrap();
        let mut builder = builder.with_intra_threads(1).unwrap();
        let mut session = Session {
            session: builder.commit_from_memory(model).unwrap(),
            _environment: environment,
            device: Device::Cpu,
            footprint: Footprint::Fast,
        };
        let [logits] = session.run(shape, values, ["logits"]).unwrap();
        logits
    }

    /// And with it.
    pub fn rewritten(model: &[u8], shape: &[usize], values: &[f32]) -> Vec<f32> {
        let how = (Device::Cpu, Footprint::Fast);
        let mut session = build(&environment().unwrap(), model, 2, how).unwrap();
        let [logits] = session.run(shape, values, ["logits"]).unwrap();
        logits
    }

    #[test]
    fn a_gpu_of_any_number_is_seen_and_a_driver_without_one_is_not() {
        let seen = |names: &[&str]| {
            let devices = tempfile::tempdir().unwrap();
            let make = |name: &&str| std::fs::write(devices.path().join(name), "").unwrap();
            names.iter().for_each(make);
            a_gpu_is_there(devices.path())
        };
        assert!(seen(&["null", "nvidia0"]));
        assert!(seen(&["nvidiactl", "nvidia13"]));
        assert!(seen(&["dxg"]));
        assert!(!seen(&[
            "nvidia",
            "nvidiactl",
            "nvidia-uvm",
            "nvidia-caps",
            "null"
        ]));
        assert!(!a_gpu_is_there(Path::new("/dev/null")));
    }

    #[test]
    fn too_little_memory_is_told_from_a_network_that_does_not_run() {
        // As ONNX Runtime, CUDA, cuDNN and cuBLAS word it.
        for scarce in [
            "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1",
            "CUDA failure 2: out of memory ; GPU=0",
            "CUDNN failure 3: CUDNN_STATUS_ALLOC_FAILED",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        ] {
            assert_eq!(refusal(scarce.to_owned()).exit_code(), 75, "{scarce}");
        }
        let missing =
            "libcublasLt.so.13: cannot open shared object file: No such file or directory";
        assert_eq!(refusal(missing.to_owned()).exit_code(), 69);
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_said_with_its_cause_and_the_remedy() {
        let line = "/onnxruntime_src/provider_bridge_ort.cc:2043 onnxruntime::Provider& Get() \
                    [ONNXRuntimeError] : 1 : FAIL : Failed to load library a.so with error: \
                    libcurand.so.10: cannot open shared object file: No such file or directory";
        let said = no_gpu(cause(line));
        assert!(said.contains("used: Failed to load library a.so with error: libcurand.so.10"));
        assert!(said.contains("LD_LIBRARY_PATH") && !said.contains("ORT_DYLIB_PATH"));
        let said = no_gpu(&cause(line).replace("libcurand.so.10", "libcuda.so.1"));
        assert!(said.contains("driver") && !said.contains("LD_LIBRARY_PATH"));
        let said = no_gpu("CUDA execution provider is not enabled in this build.");
        assert!(said.contains("ORT_DYLIB_PATH") && !said.contains("LD_LIBRARY_PATH"));
        assert_eq!(cause("no device : none"), "no device : none");
    }

    #[test]
    fn the_name_of_the_host_is_not_passed_on() {
        let line = "/onnxruntime_src/cuda_call.cc:154 std::conditional_t<THRW> CudaCall(int) \
                    [with ERRTYPE = cudaError] CUDA failure 35: CUDA driver version is insufficient \
                    ; GPU=-1 ; hostname=ward-7 ; file=/a/b.cc ; line=355 ; expr=cudaSetDevice(0);";
        assert_eq!(
            cause(line),
            "CUDA failure 35: CUDA driver version is insufficient"
        );
        let line = "Non-zero status code returned while running Conv node. Name:'a' Status Message: \
                    CUDNN failure 3: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=ward-7 ; file=a";
        assert_eq!(cause(line), "CUDNN failure 3: CUDNN_STATUS_ALLOC_FAILED");
        assert_eq!(cause("odd ; GPU=0 ; hostname=ward-7"), "odd");
    }
}
