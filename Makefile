# Everyday commands. `make` alone lists them.

# The demo has a cluster of its own.
NAME ?= $(if $(filter demo,$(MAKECMDGOALS)),demo,dev)
NODES ?= 1
IMAGE ?= localhost/lifeboat:dev
CARGO_TARGET_DIR ?= $(CURDIR)/target
# Built tools, clusters and their state: one ignored folder.
LIFEBOAT_DIR ?= $(CURDIR)/.lifeboat
export NAME NODES IMAGE CARGO_TARGET_DIR LIFEBOAT_DIR
export PATH := $(LIFEBOAT_DIR)/bin:$(PATH)

CLUSTER_TOOL = cargo run --quiet --example cluster --
# Of the cluster made here, or the developer's own with CLUSTER=existing.
CLUSTER_KUBECONFIG = $(if $(filter existing,$(CLUSTER)),$(KUBECONFIG),$(LIFEBOAT_DIR)/state/$(NAME)/kubeconfig)
KUBECTL = KUBECONFIG=$(CLUSTER_KUBECONFIG) kubectl
IMAGE_TAG = $(lastword $(subst :, ,$(IMAGE)))
IMAGE_NAME = $(patsubst %:$(IMAGE_TAG),%,$(IMAGE))
# DATABASES=1: the cluster also gets database servers, and the add-on image with the clients of all databases.
WITH_DATABASES = $(if $(DATABASES),--databases)
ADDONS = postgres mariadb redis
ADDON_ARGS = $(if $(DATABASES),$(foreach addon,$(ADDONS),--set addons.$(addon).image=$(IMAGE_NAME)-addons:$(IMAGE_TAG)))

CHART := charts/lifeboat
CHART_DEFINITIONS := $(filter-out %/appbindings.yaml,$(wildcard crds/*.yaml))
# Schemas for kubeconform: a folder or a URL pattern. It is skipped without them, because its own default needs the internet.
KUBECONFORM_SCHEMAS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@/ { print substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ See it

.PHONY: demo
demo: $(if $(filter existing,$(CLUSTER)),,tools) ## A batch backed up, lost, and restored in order, on a real cluster
	@tests/demo/run

##@ Local cluster (NAME=dev, NODES=0|1|2, CLUSTER=local|existing|kind)

.PHONY: cluster-up cluster-status cluster-down
cluster-up: ## Start the local cluster (builds it the first time)
	@$(CLUSTER_TOOL) up

cluster-status: ## Show the cluster's components
	@$(CLUSTER_TOOL) status

cluster-down: ## Stop the cluster and remove all of it
	@$(CLUSTER_TOOL) down

##@ Image (DATABASES=1 with database servers and their clients)

.PHONY: image image-load dev install
PROFILE ?= debug
# Beside the example, debug is built with the features of dependencies that tests have: they are built once, not twice.
# Release is without.
image: ## Build the operator's image around a binary (PROFILE=debug or release)
	@cargo build --quiet --bin lifeboat $(if $(filter release,$(PROFILE)),--release,--example cluster)
	@$(CLUSTER_TOOL) image build --tag $(IMAGE) --binary $(CARGO_TARGET_DIR)/$(PROFILE)/lifeboat $(WITH_DATABASES)

image-load: ## Load the built image into the cluster
	@$(CLUSTER_TOOL) image load --tag $(IMAGE) $(WITH_DATABASES)

install: ## Install the operator into the cluster by its chart
	@KUBECONFIG=$(CLUSTER_KUBECONFIG) helm upgrade --install lifeboat $(CHART) --namespace lifeboat-system --create-namespace \
	  --set image.repository=$(IMAGE_NAME),image.tag=$(IMAGE_TAG) $(ADDON_ARGS) $(HELM_ARGS) --wait --timeout 90s

dev: ## Changed code into the running cluster: build, load, restart
	@start=$$(date +%s); \
	$(MAKE) --no-print-directory image image-load && \
	if $(KUBECTL) -n lifeboat-system get deploy/lifeboat >/dev/null 2>&1; then \
	  $(KUBECTL) -n lifeboat-system rollout restart deploy/lifeboat && \
	  $(KUBECTL) -n lifeboat-system rollout status deploy/lifeboat --timeout=90s; \
	fi && \
	echo "in the cluster after $$(($$(date +%s) - start)) s"

##@ Tests

.PHONY: states fuzz test test-unit test-agent test-api test-tenants test-e2e test-one-node test-two-nodes test-both-nodes test-lost-node test-chaos test-cluster test-demo
test: test-unit test-agent test-api test-tenants test-e2e test-chaos test-cluster test-demo ## All tests, fast to slow (root; clusters of their own)

test-unit: ## Pure functions, properties, manifests, walls; needs nothing
	cargo test --all-targets

states: ## Every state of a restore within the full bounds (minutes)
	cargo test --lib no_state_of_the_full_bounds -- --ignored --nocapture

# libFuzzer's instrumentation is an option of the compiler that a stable one takes only when told so. Where cargo-fuzz
# cannot be built, the seeded mutations of the unit tests go on for TIME seconds in its place. No sanitizer: there is no
# unsafe code here to watch, and the memory is that of the operator.
FUZZ_TARGETS = admission plan restic listing outcome names
# admission: the operator's own limit of memory, and room for the largest objects.
FUZZ_MEMORY_admission = 512
FUZZ_MEMORY = $(or $(FUZZ_MEMORY_$(1)),2048)
TIME ?= 600
fuzz: ## Any input through what reads text of others (TIME=600 seconds for each of FUZZ_TARGETS)
	@if $(MAKE) --no-print-directory tool-fuzz; then \
	  $(foreach target,$(FUZZ_TARGETS), \
	    mkdir -p $(CARGO_TARGET_DIR)/fuzz-corpus/$(target) && \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none --fuzz-dir tests/fuzz --target-dir $(CARGO_TARGET_DIR)/fuzz $(target) \
	      $(CARGO_TARGET_DIR)/fuzz-corpus/$(target) tests/fuzz/corpus/$(target) \
	      -- -max_total_time=$(TIME) -timeout=10 -rss_limit_mb=$(call FUZZ_MEMORY,$(target)) -print_final_stats=1 || exit 1;) \
	else \
	  echo "cargo-fuzz cannot be built: seeded mutations without instrumentation"; \
	  LIFEBOAT_FUZZ_SECONDS=$(TIME) cargo test --lib fuzz:: -- --nocapture; \
	fi

test-agent: tools ## The agent and the restic driver with a real restic (root)
	cargo test --test agent -- --ignored
	cargo test --lib -- --ignored conformance

test-api: tools ## Controllers, definitions and webhook on a real API server
	tests/with-cluster test-api 0 cargo test --test api -- --ignored

test-tenants: tools ## Tenants that attack another namespace or the operator, on a real API server
	tests/with-cluster test-tenants 0 cargo test --test tenants -- --ignored

test-e2e: test-one-node test-two-nodes ## End to end on real nodes (root)

test-one-node: tools ## On one, then who used which right and whether a secret was shown (root)
	DATABASES=1 tests/with-cluster test-e2e 1 sh -ec 'cargo test --test e2e -- --ignored --test-threads=4 --skip two_nodes::; \
	  cargo test --test afterwards -- --ignored'

# These wait for the most part, so two clusters go on at the same time. Each says what it has to say at its end; if one
# fails, so does this, when the other has ended too.
test-two-nodes: tools ## On two, of which one is emptied, lost or removed (root)
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target test-both-nodes test-lost-node

test-both-nodes:
	tests/with-cluster test-both 2 cargo test --test e2e -- --ignored --test-threads=100 two_nodes:: --skip two_nodes::lost::

test-lost-node:
	tests/with-cluster test-lost 2 cargo test --test e2e -- --ignored --test-threads=100 two_nodes::lost::

# Of all seeds up to 4000 the first whose ten runs have the most kinds of faults (21 of 30) and each course at least twice.
test-chaos: tools ## Ten runs among random faults on a real node (root)
	RUNS=10 SEED=812 BESIDE=10 EVERY_COURSE=1 tests/with-cluster test-chaos 1 $(CHAOS)random_faults_at_random_states

test-cluster: tools ## The local cluster itself (root)
	cargo build --example cluster
	LIFEBOAT_E2E=1 cargo test --test cluster_lifecycle -- --ignored --test-threads=1

test-demo: ## `make demo`, as the README has it, on a cluster of its own (root)
	@NAME=test-demo $(MAKE) --no-print-directory demo; code=$$?; \
	NAME=test-demo $(MAKE) --no-print-directory cluster-down; exit $$code

##@ Figures

.PHONY: bench bench-admission bench-data bench-node
# Thousands of sessions have a cluster of their own: what they leave would be in the way of the others.
SECTIONS = latency,requests,broken,batch,leader
bench: tools ## Latency, requests, memory of the operator (ONLY=section,... SIZES=1000,10000)
	tests/with-cluster bench 0 env ONLY=$(if $(ONLY),$(ONLY),$(SECTIONS)) cargo bench --bench operator
	@if [ -z "$(ONLY)" ]; then tests/with-cluster bench 0 env ONLY=scale cargo bench --bench operator; fi

bench-admission: ## Time and memory of validating the worst objects that each definition admits (KIND=RestoreBatch)
	cargo bench --bench admission

bench-data: tools ## The agent against bare restic, and connections against a store that limits each (ROUNDS=3)
	cargo bench --bench data

# The operator's image and its Jobs are of the release build too.
bench-node: export PROFILE = release
bench-node: export MORE_HELM_ARGS = --set snapshotSync=0s
bench-node: tools ## A small restore on a real node, second by second, and restores that cannot work (root; ROUNDS=10)
	tests/with-cluster bench-node 1 cargo bench --bench node

##@ Chaos (RUNS=20, SEED=1; BESIDE=8 runs go on at a time)

RUNS ?= 20
SEED ?= 1
export RUNS SEED
# Faults are met by the runs, not by Jobs that list snapshots meanwhile.
test-chaos chaos chaos-states: export MORE_HELM_ARGS = --set snapshotSync=0s,replicas=2
CHAOS = cargo test --test chaos -- --ignored --nocapture --exact runs::

.PHONY: chaos chaos-states
chaos: tools ## Restores and backups while what they depend on is killed, cut off or damaged at random (root)
	tests/with-cluster chaos 1 $(CHAOS)random_faults_at_random_states

chaos-states: tools ## The same, each of five victims killed at each state of a batch (root)
	tests/with-cluster chaos-states 1 $(CHAOS)kill_9_at_every_state_change

##@ Checks

.PHONY: lint deny generate generate-crds generate-chart generate-config generate-docs verify chart ci
lint: deny ## Format, lints, dependencies
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# The rules that need no network fail the build; the database of advisories may be out of reach, and then says so.
deny: tool-deny ## Licences, sources, banned crates, known vulnerabilities
	cargo deny --config config/deny.toml check bans licenses sources
	@config/advisories.sh

generate: generate-crds generate-chart generate-config generate-docs ## Write what is made from the sources: definitions, the chart's copies, config

generate-crds:
	cargo run --quiet -- crds --out crds

# AppBinding is not ours: the chart installs it by a template, and only where there is none.
generate-chart: generate-crds
	rm -f $(CHART)/crds/*.yaml
	mkdir -p $(CHART)/crds $(CHART)/files
	cp $(CHART_DEFINITIONS) $(CHART)/crds/
	cp crds/appbindings.yaml $(CHART)/files/

generate-config: generate-chart tools
	@{ echo "# Made from $(CHART) by 'make generate'. Change the chart, not this file."; \
	   helm template lifeboat $(CHART) --namespace lifeboat-system --set appBinding.install=never; \
	} > config/install.yaml.new
	@mv config/install.yaml.new config/install.yaml
	@{ echo "# Made from $(CHART) by 'make generate': watchNamespaces is [team-a, team-b]. Change the chart, not this file."; \
	   helm template lifeboat $(CHART) --namespace lifeboat-system --set 'appBinding.install=never,watchNamespaces={team-a,team-b}'; \
	} > config/namespaces.yaml.new
	@mv config/namespaces.yaml.new config/namespaces.yaml

generate-docs:
	@LIFEBOAT_WRITE_DOCS=1 cargo test --quiet --test compatibility the_table > /dev/null

verify: generate ## Fail if a generated file is not what the sources say
	@changed=$$(git status --porcelain -- crds $(CHART) config docs); \
	if [ -n "$$changed" ]; then \
	  git --no-pager diff -- crds $(CHART) config docs; \
	  echo "These are not what the sources say (or not committed):"; echo "$$changed"; \
	  exit 1; \
	fi

chart: tools ## The Helm chart: lint, render, refuse nonsense
	helm lint --strict $(CHART)
	helm template lifeboat $(CHART) --namespace lifeboat-system > /dev/null
	helm template lifeboat $(CHART) --namespace other --api-versions apps.openshift.io/v1 --set webhook.enabled=false,podDisruptionBudget.enabled=true,replicas=2,appBinding.install=never,rbac.aggregateToUserRoles=false,networkPolicy.enabled=true > /dev/null
	helm template lifeboat $(CHART) --set 'codeRights.groups={ci,ops},networkPolicy.enabled=true,networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.0/28' > /dev/null
	helm template lifeboat $(CHART) --set 'jobs.image=mirror/lifeboat:1,jobs.perRepository=4,jobs.defaults.resources.limits.memory=1Gi,jobs.defaults.env[0].name=A,jobs.defaults.env[0].value=<&>' \
	  | grep -qF 'value: "{\"env\":[{\"name\":\"A\",\"value\":\"\\u003c\\u0026\\u003e\"}],\"resources\":{\"limits\":{\"memory\":\"1Gi\"}}}"'
	helm template lifeboat $(CHART) --namespace other --set 'watchNamespaces={a,b},webhook.enabled=false,rbac.aggregateToUserRoles=false' > /dev/null
	@for wrong in nonsense=1 'watchNamespaces={A}' 'watchNamespaces={a,a}' watchNamespaces=a jobs.defaults.resource.limits.memory=1Gi jobs.perRepository=0; do \
	  if helm template lifeboat $(CHART) --set "$$wrong" > /dev/null 2>&1; then echo "values.schema.json accepts $$wrong"; exit 1; fi; \
	done
	@if [ -z "$(KUBECONFORM_SCHEMAS)" ]; then \
	  echo "kubeconform: skipped, KUBECONFORM_SCHEMAS is not set"; \
	else \
	  helm template lifeboat $(CHART) --namespace lifeboat-system | kubeconform -strict -summary -schema-location '$(KUBECONFORM_SCHEMAS)' -skip CustomResourceDefinition -; \
	fi

ci: lint verify chart test ## All that must hold before a merge

##@ Tools

.PHONY: tools tool-deny tool-fuzz clean
tools: ## Build kubectl, helm, restic, an S3 server and a Kubernetes from their Go modules, once
	@cargo build --bin lifeboat --example cluster
	@$(CLUSTER_TOOL) build

tool-deny:
	@command -v cargo-deny > /dev/null || cargo install --locked cargo-deny

tool-fuzz:
	@command -v cargo-fuzz > /dev/null || cargo install --locked cargo-fuzz

clean: ## Remove what builds leave behind (a running cluster stays)
	cargo clean
	rm -f config/*.new
