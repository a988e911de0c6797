# Every target explains itself: `make help`. Demo, tests, soak and bench use the cluster of this checkout, or on request one outside:
# CLUSTER=external CONTEXT=name REGISTRY=prefix (docs/DEVELOPMENT.md).
SHELL := /bin/bash
CACHE ?= $(if $(MESHWRIGHT_CACHE),$(MESHWRIGHT_CACHE),$(HOME)/.cache/meshwright)
export MESHWRIGHT_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/cargo-target
# Where images are said to come from; `make dist REGISTRY=…` changes it.
REGISTRY ?= registry.meshwright.example
export REGISTRY

.DEFAULT_GOAL := help
.PHONY: help demo demo-down cluster cluster-down dist cli test unit conformance soak bench lint deny gen gen-check golden

help: ## Show what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: prerequisites ## Cluster, operator, a mesh and Bookinfo; prints the URL
	@cargo run -q -p meshwright-e2e --bin suite -- demo

demo-down: cluster-down ## Stop the demo and leave nothing behind (on a cluster outside: say what to delete)

cluster: prerequisites ## Start (or find) the local three-node Kubernetes cluster
	@cargo run -q -p meshwright-e2e --bin cluster -- up

cluster-down: ## Stop the local cluster and leave nothing behind
	@cargo run -q -p meshwright-e2e --bin cluster -- down

dist: prerequisites ## Write target/dist: crds.yaml, install.yaml, images, push script (REGISTRY=prefix)
	@cargo run -q -p meshwright-e2e --bin dist -- --registry $(REGISTRY)

cli: prerequisites ## Build kubectl-mesh into target/bin; put that on the PATH for `kubectl mesh`
	@cargo build -q --release -p meshwright-cli && mkdir -p target/bin && cp $(CARGO_TARGET_DIR)/release/kubectl-mesh target/bin/ && target/bin/kubectl-mesh completion kubectl > target/bin/kubectl_complete-mesh && chmod +x target/bin/kubectl_complete-mesh

test: prerequisites ## Every test: unit, property, end-to-end on the real cluster (or CLUSTER=external CONTEXT=name)
	@cargo run -q -p meshwright-e2e --bin suite -- test

unit: prerequisites ## Unit and property tests only, no cluster
	@cargo run -q -p meshwright-e2e --bin suite -- unit

conformance: prerequisites ## Official Gateway API suite, profiles GATEWAY-HTTP, MESH-HTTP and MESH-GRPC; reports in target/conformance
	@cargo run -q -p meshwright-e2e --bin suite -- conformance

soak: prerequisites ## What must never happen, tried many times: rows missing in docs/soak.jsonl (ROW=name, TIME=30m)
	@cargo run -q -p meshwright-e2e --bin soak

bench: prerequisites ## Speed and size on the local cluster; figures in target/bench.txt (PART=gateways, paths or memory)
	@cargo run -q -p meshwright-e2e --bin bench

lint: prerequisites ## rustfmt and clippy, warnings are errors
	@cargo fmt --all --check
	@cargo clippy -q --workspace --all-targets -- -D warnings
	@cargo clippy -q -p meshwright-control-plane --features faults --all-targets -- -D warnings

deny: prerequisites ## Licences, sources and banned crates among the dependencies; cargo-deny is built once
	@test -x $(CACHE)/tools/cargo-deny/bin/cargo-deny || cargo install -q --locked cargo-deny --version 0.19.0 --root $(CACHE)/tools/cargo-deny
	@$(CACHE)/tools/cargo-deny/bin/cargo-deny check -A duplicate licenses bans sources

gen: prerequisites ## Write crds/yaml from the Rust types
	@cargo run -q -p meshwright-api --bin crdgen -- crds/yaml

golden: prerequisites ## Write the renders of a new release; those of a released one never change
	@MESHWRIGHT_WRITE_GOLDEN=1 cargo test -q -p meshwright-operator golden

gen-check: prerequisites ## Fail where crds/yaml is not what the types say
	@cargo test -q -p meshwright-api committed_yaml

# What must be there before cargo can even start; the rest is checked, and installed, by the programs above.
# Checkouts share cargo's target folder, and cargo tells their crates apart by age only: the one that used it last owns what is in it.
.PHONY: prerequisites
prerequisites:
	@mkdir -p $(CARGO_TARGET_DIR) && [ "$$(cat $(CARGO_TARGET_DIR)/checkout 2>/dev/null)" = "$(CURDIR)" ] || { \
	  find Cargo.toml crds operator control-plane proxy-image cli e2e -type f -exec touch {} + && echo "$(CURDIR)" > $(CARGO_TARGET_DIR)/checkout; }
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust with rustup (the toolchain in rust-toolchain.toml follows by itself)"; exit 1; }
	@command -v cmake >/dev/null && command -v cc >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq cmake gcc libc6-dev; \
	  else echo "cmake and a C compiler are missing (TLS library): install the packages cmake and gcc"; exit 1; fi; }
