# Everyday commands. `make` alone lists them.

NAME ?= dev
NODES ?= 1
IMAGE ?= localhost/lifeboat:dev
CARGO_TARGET_DIR ?= target
LIFEBOAT_DIR ?= $(CURDIR)/.lifeboat
export NAME NODES CARGO_TARGET_DIR LIFEBOAT_DIR

CLUSTER_TOOL = cargo run --quiet --example cluster --
KUBECTL = KUBECONFIG=$(LIFEBOAT_DIR)/state/$(NAME)/kubeconfig $(LIFEBOAT_DIR)/bin/kubectl

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Local cluster (NAME=dev, NODES=0|1|2, CLUSTER=local|existing|kind)

.PHONY: cluster-up cluster-status cluster-down
cluster-up: ## Start the local cluster (builds it the first time)
	@$(CLUSTER_TOOL) up

cluster-status: ## Show the cluster's components
	@$(CLUSTER_TOOL) status

cluster-down: ## Stop the cluster and remove all of it
	@$(CLUSTER_TOOL) down

.PHONY: test-cluster
test-cluster: ## Test the local cluster itself (root; about two minutes)
	cargo build --example cluster
	LIFEBOAT_E2E=1 cargo test --test cluster_lifecycle -- --ignored --test-threads=1

##@ Image

.PHONY: image image-load dev
image: ## Build the operator's image around a debug binary
	cargo build --bin lifeboat
	@$(CLUSTER_TOOL) image build --tag $(IMAGE) --binary $(CARGO_TARGET_DIR)/debug/lifeboat

image-load: ## Load the built image into the cluster
	@$(CLUSTER_TOOL) image load --tag $(IMAGE)

dev: ## Changed code into the running cluster: build, load, restart
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory image image-load && \
	if $(KUBECTL) -n lifeboat-system get deploy/lifeboat >/dev/null 2>&1; then \
	  $(KUBECTL) -n lifeboat-system rollout restart deploy/lifeboat && \
	  $(KUBECTL) -n lifeboat-system rollout status deploy/lifeboat --timeout=90s; \
	fi && \
	echo "in the cluster after $$(($$(date +%s) - start)) s"
