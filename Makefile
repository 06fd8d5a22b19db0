# Every target that people use explains itself: `make` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Where built tools and the test cluster live.
LIFEBOAT_DIR ?= .lifeboat
HELM ?= $(firstword $(wildcard $(LIFEBOAT_DIR)/bin/helm) helm)
KUBECONFORM ?= $(firstword $(wildcard $(LIFEBOAT_DIR)/bin/kubeconform) kubeconform)
# Schemas for kubeconform: a folder or a URL pattern. It is skipped without them, because its own default needs the internet.
KUBECONFORM_SCHEMAS ?=

CHART := charts/lifeboat
CHART_DEFINITIONS := $(filter-out %/appbindings.yaml,$(wildcard crds/*.yaml))

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## Run all tests that need no cluster
	cargo test --all-targets

.PHONY: lint
lint: deny ## Check format, lints and dependencies
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# The rules that need no network fail the build; the database of advisories may be out of reach, and then says so.
.PHONY: deny
deny: ## Check licences, sources and banned crates, and known vulnerabilities
	cargo deny --config config/deny.toml check bans licenses sources
	@config/advisories.sh

.PHONY: generate
generate: generate-crds generate-chart generate-config ## Write what is made from the sources: definitions, the chart's copies, config

.PHONY: generate-crds
generate-crds:
	cargo run --quiet -- crds --out crds

# AppBinding is not ours: the chart installs it by a template, and only where there is none.
.PHONY: generate-chart
generate-chart: generate-crds
	rm -f $(CHART)/crds/*.yaml
	mkdir -p $(CHART)/crds $(CHART)/files
	cp $(CHART_DEFINITIONS) $(CHART)/crds/
	cp crds/appbindings.yaml $(CHART)/files/

.PHONY: generate-config
generate-config: generate-chart tool-helm
	@{ echo "# Made from $(CHART) by 'make generate'. Change the chart, not this file."; \
	   $(HELM) template lifeboat $(CHART) --namespace lifeboat-system --set appBinding.install=never; \
	} > config/install.yaml.new
	mv config/install.yaml.new config/install.yaml

.PHONY: verify
verify: generate ## Fail if a generated file is not what the sources say
	@changed=$$(git status --porcelain -- crds $(CHART) config); \
	if [ -n "$$changed" ]; then \
	  git --no-pager diff -- crds $(CHART) config; \
	  echo "These are not what the sources say (or not committed):"; echo "$$changed"; \
	  exit 1; \
	fi

.PHONY: chart
chart: tool-helm ## Check the Helm chart
	$(HELM) lint --strict $(CHART)
	$(HELM) template lifeboat $(CHART) --namespace lifeboat-system > /dev/null
	$(HELM) template lifeboat $(CHART) --namespace other --set webhook.enabled=false,podDisruptionBudget.enabled=true,replicas=2,appBinding.install=never,rbac.aggregateToUserRoles=false > /dev/null
	@if $(HELM) template lifeboat $(CHART) --set nonsense=1 > /dev/null 2>&1; then echo "values.schema.json accepts nonsense"; exit 1; fi
	@if [ -z "$(KUBECONFORM_SCHEMAS)" ]; then \
	  echo "kubeconform: skipped, KUBECONFORM_SCHEMAS is not set"; \
	else \
	  $(HELM) template lifeboat $(CHART) --namespace lifeboat-system | $(KUBECONFORM) -strict -summary -schema-location '$(KUBECONFORM_SCHEMAS)' -skip CustomResourceDefinition -; \
	fi

.PHONY: tool-helm
tool-helm:
	@command -v $(HELM) > /dev/null || { echo "helm is missing: 'make cluster-up' builds it into $(LIFEBOAT_DIR)/bin, or set HELM"; exit 1; }

.PHONY: ci
ci: lint test verify chart ## All that must hold before a merge, without a cluster

.PHONY: clean
clean: ## Remove what builds leave behind (a running cluster stays)
	cargo clean
	rm -f config/*.new
