# The README names `make demo` and `make test`; both set up what is missing first.
PYTHON ?= python3
STEPS := resample segment segment-foreground segment-anonymization-area crop-patches qa-metrics collect prepare
VENV := .venv-tests
# Workflow engines; those of its tests that need nothing but Java, Maven and Python.
WORKFLOWS := .venv-workflows
LOCAL_WORKFLOWS := tests/workflows/test_nextflow.py tests/workflows/test_snakemake.py
PILOT := .venv-pilot
# PyTorch, for the tests of what trains and imports networks.
MODELS := .venv-models
DENY := $(or $(shell command -v cargo-deny),target/tools/bin/cargo-deny)

# ONNX Runtime and the libraries of the cohort's page into lib/, the executables into target/release.
setup:
	$(PYTHON) tools/onnxruntime.py lib
	$(PYTHON) tools/web_libraries.py lib/web
	cargo build --release --locked

# All five steps on the scans in tests/data, into demo/.
demo: setup
	bash tools/demo.sh

# The README's picture, out of the demo.
picture: demo
	mkdir -p docs
	cp demo/mr_head_defaced/picture.png docs/picture.png

# Rust's tests, those that ask other tools for their opinion, those of the training code that need no
# PyTorch (all of them: make -C models/training check), and Nextflow and Snakemake on this machine.
test: setup $(VENV)/ready $(WORKFLOWS)/ready
	cargo test --locked
	$(VENV)/bin/python -m pytest -q tests/cohort
	$(VENV)/bin/python -m pytest -q tests/peers tests/orientation tests/bids tests/nnssl tests/loaders
	cd models/training && \
	  ../../$(VENV)/bin/python -m pytest -q tests/test_channels.py tests/test_scan.py tests/test_scores.py \
	    tests/test_flags.py
	$(WORKFLOWS)/bin/python -m pytest -q -rs $(LOCAL_WORKFLOWS)

# All tests of the training code and of the importer, in one environment: PyTorch with its CUDA
# libraries takes 6.4 GB.
check-models: $(MODELS)/ready
	$(MAKE) -C models/training check VENV=$(abspath $(MODELS))
	cd models/import && $(abspath $(MODELS))/bin/ruff check . && $(abspath $(MODELS))/bin/python -m pytest -q

# Faults and limits at every moment, not at some as in `make test`: minutes. The rest needs root, strace,
# valgrind and a C compiler; what cannot run here is said.
test-faults: setup
	cargo test --locked --test faults -- --include-ignored --test-threads 2

# The CPU against an NVIDIA GPU; ORT_DYLIB_PATH names ONNX Runtime's GPU build, LD_LIBRARY_PATH CUDA's
# and cuDNN's folders.
check-gpu: setup
	cargo test --locked --release --test steps -- --ignored --nocapture a_gpu_gives_the_masks_of_the_cpu

# Every fuzz target for TIME seconds; needs a nightly compiler. ONLY names some of them.
fuzz: target/tools/bin/cargo-fuzz
	PATH="$(CURDIR)/target/tools/bin:$$PATH" bash fuzz/run.sh $(or $(TIME),60) $(ONLY)

# A bill of materials of the executables; two builds that must be the same.
sbom: setup
	$(PYTHON) tools/sbom.py target/sbom.cdx.json

reproducible:
	bash tools/reproducible.sh

# Every workflow engine, container and wheel; what this machine cannot be set up for is skipped, and
# said. Installs Debian packages. ONLY names some of the files.
test-workflows: setup $(WORKFLOWS)/ready
	$(WORKFLOWS)/bin/python -m pytest -q -rs $(or $(ONLY),tests/workflows)

# Format, clippy, documentation, licences; warnings are errors. Units stand in brackets, as in [mm],
# which rustdoc takes for broken links.
lint: $(DENY)
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::broken_intra_doc_links -A rustdoc::private_intra_doc_links" \
	  cargo doc --locked --no-deps --document-private-items --quiet
	$(DENY) --locked --log-level error check bans licenses sources

# The committed schemas, from the executables.
schemas: setup
	mkdir -p schemas
	for step in $(STEPS); do \
	  for which in config report; do \
	    target/release/voxmask-$$step --print-schema=$$which > schemas/$$step.$$which.json || exit 1; \
	  done; \
	done

# Time and memory; PEERS=monai measures MONAI beside it, ARGS goes to the script.
bench: setup $(VENV)/ready
	$(PYTHON) benches/run.py --peers "$(PEERS)" $(ARGS)

# A cohort in one process against one by one, with broken files, and killed in the middle.
bench-cohort: setup
	$(PYTHON) benches/cohort.py --data $(or $(DATA),$(error DATA names no folder)) $(ARGS)

# voxmask and its peers side by side, into docs/performance.md: half an hour on a machine with nothing else
# to do. ARGS=--quick checks the scripts.
compare: setup $(VENV)/ready
	$(PYTHON) benches/compare/compare.py $(ARGS)

# All five steps on every volume of a folder of volumes.
sweep: setup $(VENV)/ready
	$(VENV)/bin/python tests/sweep/sweep.py $(or $(DATA),$(error DATA names no folder)) $(ARGS)

# The executables on a site's own scans (DATA) against its reference foreground masks (REFERENCES, named
# as the scans), into site-check/: docs/site-check.md.
site-check: setup
	target/release/voxmask-prepare --input $(or $(DATA),$(error DATA names no folder)) \
	  --references $(or $(REFERENCES),$(error REFERENCES names no folder)) \
	  --output $(or $(OUTPUT),site-check) --report $(or $(OUTPUT),site-check).json --resume $(ARGS)
	$(PYTHON) tools/site_table.py $(or $(OUTPUT),site-check).json

# What foreground sampling and the loss mask do for pre-training, on the scans of a folder, in an
# environment of its own; writes docs/pilot.md. LABELS names a folder of label maps for one more task.
pilot: setup $(PILOT)/ready
	$(PILOT)/bin/python examples/pretraining/pilot.py \
	  --data $(or $(DATA),$(error DATA names no folder)) $(if $(LABELS),--labels $(LABELS)) $(ARGS)

# The loaders of docs/loaders.md, and a pilot of a few steps.
loaders: setup $(PILOT)/ready
	$(PILOT)/bin/python -m pytest -q tests/loaders

# A collected data set through nnssl's own preprocessing; NNSSL names a checkout of it.
nnssl: setup .venv-nnssl/ready
	PYTHONPATH=$(or $(NNSSL),$(error NNSSL names no checkout))/src \
	  .venv-nnssl/bin/python -m pytest -q tests/nnssl

# voxmask-segment against nnU-Net, voxel by voxel, in an environment of its own; WORK names a folder.
parity: setup .venv-import/ready
	cargo build --release --locked --example window_tensor
	.venv-import/bin/python tests/nnunet/parity.py \
	  --tensor-executable target/release/examples/window_tensor --work $(or $(WORK),target/parity) $(ARGS)

# The same on networks that nnU-Net's own commands train, and whole scans; DATA names a folder with volumes and
# foreground in it. Half an hour.
parity-trained: setup .venv-import/ready
	cargo build --release --locked --bins --example window_tensor
	.venv-import/bin/python tests/nnunet/trained.py --data $(or $(DATA),$(error DATA names no folder)) \
	  --tensor-executable target/release/examples/window_tensor --work $(or $(WORK),target/parity-trained) $(ARGS)

# The networks: see models/README.md.
train evaluate flags fine-tune:
	$(MAKE) -C models/training $@ $(foreach name,DATA REFERENCES OUTPUT INITIAL,$(if $($(name)),$(name)=$(abspath $($(name)))))

$(VENV)/ready: tests/peers/requirements.txt tests/cohort/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check $(foreach file,$^,-r $(file))
	touch $@

$(WORKFLOWS)/ready: tests/workflows/requirements.txt
	$(PYTHON) -m venv $(WORKFLOWS)
	$(WORKFLOWS)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(PILOT)/ready: examples/pretraining/requirements.txt
	$(PYTHON) -m venv $(PILOT)
	$(PILOT)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(MODELS)/ready: models/training/pyproject.toml models/import/pyproject.toml
	$(PYTHON) -m venv $(MODELS)
	$(MODELS)/bin/pip install --quiet --disable-pip-version-check \
	  $(foreach file,$^,-e '$(dir $(file))[check]')
	touch $@

.venv-nnssl/ready: tests/nnssl/requirements.txt
	$(PYTHON) -m venv .venv-nnssl
	.venv-nnssl/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

.venv-import/ready: models/import/pyproject.toml
	$(PYTHON) -m venv .venv-import
	.venv-import/bin/pip install --quiet --disable-pip-version-check -e 'models/import[check]' nibabel==5.4.2
	touch $@

# A debug build: it takes half the time, and checks as much.
target/tools/bin/cargo-deny:
	cargo install --quiet --locked --debug --root target/tools --version 0.20.2 cargo-deny

target/tools/bin/cargo-fuzz:
	cargo install --quiet --locked --debug --root target/tools --version 0.13.1 cargo-fuzz

.PHONY: setup demo picture test test-workflows lint schemas bench bench-cohort sweep site-check pilot \
  loaders nnssl parity parity-trained check-models check-gpu test-faults compare fuzz sbom reproducible \
  train evaluate flags fine-tune
