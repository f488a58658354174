# Everything a developer or CI does, in one word each. `make help` lists them.

GO      ?= go
TOOL    := $(GO) tool -modfile=tools/go.mod
CACHE   := .cache
VENV    := $(CACHE)/venv
BIN     := bin/shardstream
FUZZTIME ?= 20s
BENCHTIME ?= 10s

# The race detector needs cgo and a C compiler. Where one is missing the tests
# still run, and say so.
CC_FOUND := $(shell CGO_ENABLED=1 $(GO) env CC 2>/dev/null | cut -d' ' -f1 | xargs -r which 2>/dev/null)
ifneq ($(CC_FOUND),)
RACE := -race
export CGO_ENABLED = 1
endif

.PHONY: help run build test test-unit test-conformance test-e2e test-cluster test-chaos test-saboteurs test-soak test-long test-clients clients lint format proto fuzz bench clean race-note

help: ## List these words.
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## Build, and start a whole Kinesis on 127.0.0.1:4567 with its data in ./shardstream-data.
	@exec $(BIN) dev

build: ## Build bin/shardstream.
	@mkdir -p bin
	$(GO) build -o $(BIN) ./cmd/shardstream

test: race-note test-unit test-conformance test-e2e test-cluster ## All tests, in the short form: some eleven minutes on two cores.

race-note:
ifeq ($(RACE),)
	@echo "NOTE: no C compiler, so no cgo: the tests run WITHOUT the race detector."
endif

test-unit: race-note ## Tests of every package, with the race detector.
	$(GO) test $(RACE) -timeout 9m $$($(GO) list ./... | grep -vE '/test/(conformance|e2e|cluster|chaos)$$')
	$(GO) test -timeout 9m -run Bubble ./broker # the race detector crashes these

# It drives the built binary, which the test cache knows nothing of.
test-conformance: ## The Kinesis API row by row against the real binary, in JSON and CBOR.
	$(GO) test -count=1 -timeout 9m ./test/conformance

# Verbose, so that each skipped test says why.
test-e2e: clients ## The real binary under real clients: AWS CLI, boto3, Go and JS SDKs, kill -9.
	$(GO) test -v -count=1 -timeout 9m ./test/e2e

test-long: clients ## The long suite: 100 rounds of kill -9, larger inputs (some ten minutes).
	SHARDSTREAM_KILL_ROUNDS=100 SHARDSTREAM_LOG_LINES=1000000 $(GO) test -v -count=1 -timeout 60m ./test/e2e

test-cluster: build ## Clusters of real processes, killed, paused and broken in every way under load, in the short form.
	$(GO) test -v -count=1 -p 1 -timeout 9m ./test/cluster ./test/chaos

# As root: it makes network namespaces and mounts. The seed is printed; see
# `go run ./test/chaos/cmd/shardstream-chaos --help` for more.
HOURS ?= 0.5
test-chaos: ## Break clusters in every way for HOURS (half an hour), and judge what their clients saw: chaos.html.
	$(GO) run ./test/chaos/cmd/shardstream-chaos --hours $(HOURS) --report chaos.html

test-saboteurs: ## Builds without one protection each, which the chaos must catch (below an hour).
	$(GO) run ./test/chaos/cmd/shardstream-chaos --saboteurs all

test-soak: build ## The long form of the cluster tests and simulations: 20 rounds a fault, 20,000 schedules, every mutant (two hours).
	SHARDSTREAM_LONG=1 SHARDSTREAM_ROUNDS=20 $(GO) test -v -count=1 -timeout 120m ./test/cluster
	SHARDSTREAM_LONG=1 $(GO) test -v -count=1 -timeout 180m ./test/sim
	SHARDSTREAM_LONG=1 $(GO) test -count=1 -timeout 60m ./broker/recordlog ./raftfsm ./test/conformance

# As root: it makes network namespaces, which end with it.
test-statefulset: ## The life of the Kubernetes pods, replayed in network namespaces (root; below two minutes).
	SHARDSTREAM_NETNS=1 $(GO) test -v -count=1 -timeout 20m ./test/statefulset

# Below .cache/ and test/clients; what can't be had is named and skipped. RUN
# chooses among the tests.
RUN ?= .
test-clients: clients ## Install and drive Java's SDK, the KCL, the KPL and others' consumers, and print the table of what works.
	@test/clients/install.sh
	SHARDSTREAM_CLIENTS=1 $(GO) test -v -count=1 -timeout 60m -run '$(RUN)' ./test/realclients

# The clients that the end-to-end tests drive, in the versions that their own
# lock files name. Without python3 or node those tests are skipped, and say so.
clients: ## Install the AWS CLI, boto3 and the JS SDK for the tests, below .cache/ and test/clients/js.
	@if ! command -v python3 >/dev/null; then \
	  echo "NOTE: no python3: the tests with the AWS CLI and boto3 are skipped."; \
	elif ! cmp -s test/clients/python/requirements.txt $(VENV)/installed; then \
	  rm -rf $(VENV) && mkdir -p $(CACHE) && python3 -m venv $(VENV) \
	  && $(VENV)/bin/pip install --quiet --disable-pip-version-check -r test/clients/python/requirements.txt \
	  && cp test/clients/python/requirements.txt $(VENV)/installed \
	  || { rm -f $(VENV)/installed; echo "NOTE: the AWS CLI and boto3 could not be installed."; test -z "$$CI"; }; \
	fi
	@if ! command -v npm >/dev/null; then \
	  echo "NOTE: no node: the test with the JS SDK is skipped."; \
	elif ! cmp -s test/clients/js/package-lock.json test/clients/js/node_modules/installed; then \
	  (cd test/clients/js && npm ci --no-audit --no-fund --silent) \
	  && cp test/clients/js/package-lock.json test/clients/js/node_modules/installed \
	  || { echo "NOTE: the JS SDK could not be installed."; test -z "$$CI"; }; \
	fi

GO_FILES = $(shell git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$$')

lint: ## Format, vet, staticcheck, protos, white space.
	@out=$$($(TOOL) gofumpt -l $(GO_FILES)); test -z "$$out" || { echo "not gofumpt-formatted (make format):"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) buf lint
	@rm -rf $(CACHE)/proto && mkdir -p $(CACHE)/proto && $(TOOL) buf generate -o $(CACHE)/proto \
	  && diff -r -x '*.proto' -x doc.go $(CACHE)/proto/proto proto || { echo "the generated code is stale (make proto)"; exit 1; }
	@! git grep -nIE '[[:space:]]+$$' -- ':!*.pb.go' || { echo "white space at line ends"; exit 1; }
	@! git grep -lI "$$(printf '\r')" || { echo "CRLF line ends"; exit 1; }
	@bad=$$(git ls-files -z ':!*/testdata/*' | xargs -0 -r sh -c 'for f; do test ! -s "$$f" || test -z "$$(tail -c1 "$$f")" || echo "$$f"; done' sh); \
	  test -z "$$bad" || { echo "no line end at the end of:"; echo "$$bad"; exit 1; }

format: ## Format all Go files.
	@$(TOOL) gofumpt -l -w $(GO_FILES)

proto: ## Generate the Go code of the protos.
	$(TOOL) buf generate

fuzz: ## Run each fuzz target for FUZZTIME (20s).
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done

bench: build ## Put, get and end-to-end figures of this machine, on a temporary data directory.
	@./test/bench.sh $(BIN) $(BENCHTIME)

clean: ## Remove what was built and installed.
	rm -rf bin $(CACHE) test/clients/*/node_modules test/clients/java/*/target test/clients/go/bin
