# Every target is a command or two of the README's; PYTHON chooses the interpreter.
PYTHON ?= python
DEMO := build/demo

.PHONY: demo test test-slow fuzz lint bench bench-check bench-full bench-peers bench-export scale shipped

demo:  ## train, export and predict on the example data: some ten minutes on two cores, the training cut short
	$(PYTHON) -m train.fit --data examples/clothing --max-steps 90 --out $(DEMO)/checkpoints
	$(PYTHON) -m export.build --precision fp32 fp16 int8 --target sm89 \
		--checkpoints $(DEMO)/checkpoints --data examples/clothing --out $(DEMO)/bundles
	$(PYTHON) -m runtime.predict examples/photos/ --bundles $(DEMO)/bundles --out $(DEMO)/predictions.csv

test:
	$(PYTHON) -m pytest

test-slow:  ## what takes minutes: ConvNeXt-Base trained a step and exported, kills at random moments
	$(PYTHON) -m pytest -m slow

fuzz:  ## ten minutes each: photos and bundle pages of any bytes; needs pip install atheris
	mkdir -p build/fuzz/images build/fuzz/bundles build/fuzz/pages
	for page in examples/bundles/*/bundle.json; do cp $$page build/fuzz/pages/$$(basename $$(dirname $$page)); done
	$(PYTHON) -m tests.fuzz.fuzz_images build/fuzz/images tests/data/odd_images -artifact_prefix=build/fuzz/ -max_total_time=600
	$(PYTHON) -m tests.fuzz.fuzz_bundle build/fuzz/bundles build/fuzz/pages -artifact_prefix=build/fuzz/ -max_total_time=600

lint:
	ruff check
	ruff format --check
	mypy

bench:
	$(PYTHON) -m pytest benchmarks/ --benchmark-only

bench-peers:  ## Optimum, for the benchmarks, in an environment of its own: it asks for other versions than the rest
	$(PYTHON) -m venv .cache/benchmarks/optimum
	.cache/benchmarks/optimum/bin/pip install "optimum-onnx[onnxruntime]"

bench-full:
	$(PYTHON) -m pytest benchmarks/ --benchmark-only --full

bench-check:  ## whether this folder's predict is slower than BASE's, the commit before by default: two minutes
	$(PYTHON) -m benchmarks.check -- "$${BASE:-HEAD~1}"

bench-export:  ## what export costs and gives, an hour; SOURCE=folder with labels.csv, attributes.csv and images/
	$(PYTHON) -m benchmarks.reference_export
	$(PYTHON) -m benchmarks.graphs
	$(PYTHON) -m benchmarks.trained_int8 --source $(SOURCE)

scale:  ## 70,213 synthetic photos from train.csv to a checked submission: time, rates and memory, in some minutes
	$(PYTHON) -m benchmarks.scale

shipped:  ## the models under examples/, anew, from SOURCE=folder with labels.csv, attributes.csv and images/
	$(PYTHON) examples/make_shipped.py --source $(SOURCE)
