# Galilean: `make up` runs the product from this clone, `make test` checks all of it.
# PORT, GALILEAN_STATE, GALILEAN_CONFIG and BACKEND are taken from the environment or from `make up PORT=9000`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
# uv takes the machine's own certificate authorities, as pip does.
export UV_SYSTEM_CERTS ?= 1

STAGE := scripts/stage
PYTEST := pytest -q --color=no

.PHONY: help
help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: install ## Run the product in the foreground (Ctrl-C releases all clusters and stops; BACKEND=docker builds its images; DESKTOP=no: without that of desktops)
	@$(if $(filter docker,$(BACKEND)),images=$$(scripts/docker-image) && export $$images &&) \
		exec .venv/bin/galilean up

.PHONY: install
install: ## Make .venv, the proxy and the browser's assets as the lock files say
	@scripts/environment run
	@scripts/assets

.PHONY: dev
dev: ## The same with everything for tests and docs
	@scripts/environment dev
	@scripts/assets

.PHONY: test-deps
test-deps: ## Debian packages that tests drive: Chromium, PostgreSQL, sshd, a Chinese font
	@scripts/test-deps

# ---- checks, cheap ones first; the first stage that fails ends it

# Whoever is not root is told what is left out.
WITH_DOCKER := $(filter yes,$(shell [ "$$(id -u)" != 0 ] || echo yes))
WITH_KUBERNETES := $(filter yes,$(shell [ "$$(id -u)" != 0 ] || echo yes))

LONG := test-process test-browser test-product
DOCKER := $(if $(WITH_DOCKER),test-docker)

.PHONY: test
test: ## Everything that must pass, from a fresh clone (what needs Kubernetes or Docker as root)
	@mkdir -p build; rm -f build/stages.txt; touch build/began
	@$(STAGE) setup "scripts/test-deps $(if $(WITH_KUBERNETES),kubernetes) $(if $(WITH_DOCKER),docker)" \
		"scripts/environment dev" scripts/assets
	@$(if $(WITH_KUBERNETES),scripts/ahead) $(MAKE) --no-print-directory \
		lint docs test-unit test-hub $(if $(WITH_KUBERNETES),beside,$(LONG) $(DOCKER))
	@$(if $(WITH_KUBERNETES),,printf '\nLeft out, because it starts a Kubernetes here as root: make test-kubernetes\n')
	@$(if $(WITH_DOCKER),,printf '\nLeft out, because it starts a Docker here as root: make test-docker\n')
	@printf '\n'; cat build/stages.txt
	@printf '%-10s %8s s\n' total $$(($$(date +%s) - $$(stat -c %Y build/began)))

# Kubernetes waits more than it computes.
.PHONY: beside
beside:
	@scripts/ahead --now
	@scripts/beside $(if $(KUBE_UNTIL),--until kube=$(KUBE_UNTIL)) "kube=$(MAKE) --no-print-directory $(DOCKER) test-kubernetes" "long=$(MAKE) --no-print-directory $(LONG)"

.PHONY: lint
lint: ## Style, types, floors, translations, requirements
	@$(STAGE) lint "ruff check ." "ruff format --check ." pyright lint-imports \
		"python scripts/check_translations.py" "python scripts/requirements.py --check" \
		"python helm/chart.py --check" "node_modules/.bin/tsc --noEmit -p extensions/lab" \
		"node_modules/.bin/tsc --noEmit -p extensions/desktop"

.PHONY: docs
docs: ## The documentation, into docs/_build/html
	@$(STAGE) docs "sphinx-build -q -W --keep-going -b html docs docs/_build/html"

.PHONY: test-unit
test-unit: ## Rules and rooms, databases included
	@$(STAGE) unit "python -m tests.object_stores.server" '$(PYTEST) -n 2 -m "not hub and not process and not browser and not product and not kubernetes and not docker and not images"'

.PHONY: test-hub
test-hub: ## With a hub in the test's own process
	@$(STAGE) hub '$(PYTEST) -m "hub and not process and not browser and not product and not kubernetes and not docker and not images"'

.PHONY: test-process
test-process: ## With real nodes
	@$(STAGE) process '$(PYTEST) -m "process and not browser and not product and not kubernetes and not docker and not images"'

.PHONY: test-browser
test-browser: ## With Chromium
	@$(STAGE) browser '$(PYTEST) -m "browser and not product"'

.PHONY: test-product
test-product: ## The whole product by `galilean up`, its faults included
	@$(STAGE) product '$(PYTEST) -m product'

# What follows needs root: the tests start a Kubernetes on this machine. The first time builds it, minutes.

.PHONY: lab
lab: dev ## The programs of the Kubernetes that tests start, into ~/.cache/galilean (root)
	@$(STAGE) lab "scripts/test-deps kubernetes" "timeout 30m python -m tests.lab build"

.PHONY: images
images: ## The container images, into ~/.cache/galilean (IMAGES="mpi desktop" BASE=debian:bookworm-slim PUSH=registry/path TAG=1.0)
	@$(STAGE) images "scripts/test-deps images" \
		"timeout $(if $(IMAGES),60m,30m) scripts/images.py $(IMAGES) $(if $(BASE),--base $(BASE)) $(if $(PUSH),--push $(PUSH)) $(if $(TAG),--tag $(TAG))"

.PHONY: test-kubernetes
test-kubernetes: lab images ## Against a real Kubernetes that the tests start on this machine
	@$(STAGE) kubernetes '$(PYTEST) -m "kubernetes and not kueue and not cephfs and not images"'

.PHONY: test-kueue
test-kueue: lab images ## The same with Kueue, which is built first (root)
	@$(STAGE) kueue '$(PYTEST) -m kueue'

.PHONY: test-cephfs
test-cephfs: lab images ## The same with projects on a CephFS, which needs 80 Debian packages (root)
	@$(STAGE) cephfs "scripts/test-deps kubernetes cephfs" '$(PYTEST) -m cephfs'

.PHONY: test-docker
test-docker: dev ## Against a real Docker that the tests start, in a network of its own (root)
	@$(STAGE) docker "scripts/test-deps docker" '$(PYTEST) -m "docker and not images"'

.PHONY: test-images
test-images: dev lab ## Each image of nodes, built and started on such a Docker, desktops on such a Kubernetes, too (root, long, gigabytes)
	@$(STAGE) images "scripts/test-deps docker" "scripts/test-deps images" '$(PYTEST) -m images'

.PHONY: lab-up
lab-up: lab images ## Such a Kubernetes to look at, in the foreground (root; Ctrl-C or lab-down takes it away)
	@.venv/bin/python -m tests.lab up

.PHONY: lab-down
lab-down: ## End what lab-up keeps
	@.venv/bin/python -m tests.lab down

.PHONY: bench
bench: ## Measure; prints the tables of docs/benchmarks.md
	@scripts/test-deps
	@$(MAKE) --no-print-directory dev
	@PATH="$$PWD/.venv/bin:$$PATH" .venv/bin/python -m benchmarks $(BENCH)

# ---- upkeep

.PHONY: format
format: ## Put the code in order
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

.PHONY: requirements
requirements: ## Write docs/requirements.md from docs/requirements.yaml
	@.venv/bin/python scripts/requirements.py

.PHONY: chart
chart: ## Write the chart's values, schema and reference page from helm/values.py and the settings
	@.venv/bin/python helm/chart.py

.PHONY: screenshots
screenshots: dev ## Take the pictures of the documentation from the running product
	@.venv/bin/python scripts/screenshots.py

UV_COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes
export UV_CUSTOM_COMPILE_COMMAND = make lock

.PHONY: lock
lock: ## Write the lock files anew from pyproject.toml and package.json
	@[ -x .venv/bin/uv ] || scripts/environment run
	$(UV_COMPILE) --extra hub --extra node pyproject.toml -o requirements/run.txt
	$(UV_COMPILE) --all-extras -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	$(UV_COMPILE) --extra hub -c requirements/run.txt pyproject.toml -o requirements/hub.txt
	.venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["node"], sep="\n")' | \
		$(UV_COMPILE) -c requirements/run.txt - -o requirements/node.txt
	$(UV_COMPILE) requirements/nodejs.in -o requirements/nodejs.txt
	$(UV_COMPILE) -c requirements/node.txt requirements/pytorch.in -o requirements/pytorch.txt
	$(UV_COMPILE) -c requirements/dev.txt requirements/bootstrap.in -o requirements/bootstrap.txt
	npm install --package-lock-only --no-fund --no-audit

.PHONY: clean
clean: ## Take away what was made here (the state directory stays)
	rm -rf .venv node_modules build docs/_build galilean/web/static/vendor extensions/lab/labextensions extensions/desktop/static services/portal/static/pdf
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis
