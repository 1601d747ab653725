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
# The target of the programs in images. It is named, so that the static flags reach no build script.
STATIC_TARGET := $(shell uname -m)-unknown-linux-gnu
STATIC_BUILD := cargo build --config images/static.toml --target $(STATIC_TARGET) --release --locked
RELEASE := $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/release
export PATCHBAY_BIN_DIR ?= $(RELEASE)
DENY_VERSION := 0.20.2

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

##@ For developers

.PHONY: test
test: ## Run every tier: pure, process, real cluster
	@tests/run.sh

.PHONY: check
check: check-format check-clippy check-generated check-dependencies check-charts ## Format, clippy, generated files, licences, charts

.PHONY: check-format
check-format:
	cargo fmt --all --check
	@bad=$$(git ls-files '*.go' | grep -v '\.pb\.go$$' | xargs -r gofmt -l); if [ -n "$$bad" ]; then echo "gofmt would change: $$bad (run: gofmt -w FILE)"; exit 1; fi

.PHONY: check-clippy
check-clippy:
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: check-generated
check-generated:
	@tests/generated.sh

.PHONY: check-dependencies
check-dependencies: $(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
	$< --offline --log-level error check bans licenses sources

$(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny:
	@echo "building cargo-deny $(DENY_VERSION), once for this machine"
	CARGO_TARGET_DIR=$(CACHE)/tools/build cargo install --quiet --locked --root $(CACHE)/tools/cargo-deny-$(DENY_VERSION) --version $(DENY_VERSION) --no-default-features cargo-deny
	@rm -rf $(CACHE)/tools/build

.PHONY: check-charts
check-charts:
	@charts/check.sh

.PHONY: generate
generate: ## Write the generated files: CRDs, the chart's copy of them, the fixtures' gRPC code
	cargo run --quiet --locked -p patchbay-api --bin patchbay-crds -- crds
	@charts/copy-crds.sh
	@go generate -C tests/plugins/go ./echo

# The sidecar apart: built together, its libraries would get every feature that the others ask for.
.PHONY: binaries
binaries: ## Build the static programs, the Rust example among them
	$(STATIC_BUILD) -p patchbay-sidecar -p patchbay-launcher
	$(STATIC_BUILD) -p patchbay-operator -p kubectl-patchbay -p patchbay-example-rust-kv

.PHONY: images
images: binaries ## Make the images, without a container engine
	@go run -C images/build . build

.PHONY: bench
bench: ## Measure against peers in the same run and print the ratios
	@tests/bench.sh

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
