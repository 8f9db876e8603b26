# SCALE is built with Go alone; "make help" lists the targets.

VERSION ?= $(shell git describe --always --dirty --tags 2>/dev/null || echo unknown)
FUZZTIME ?= 1m
BENCHTIME ?= 1s
PARTS ?= Chunk|Hash|Build|Lookup|Seal|Append|Commit|Flush|Open|OpenStore|Prove|Verify
ROUNDS ?= 3
ONLY ?=
PEERS ?=
DEVNET ?=
BENCH_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/scale-bench

export GO ?= go
TOOL = $(GO) tool -modfile=.ci/tools.mod

# A clone owned by someone else makes git, and with it the stamping of binaries, fail.
export GOFLAGS := -buildvcs=false $(GOFLAGS)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## check Go, C compiler and Node, and install what is missing
	@.ci/deps

.PHONY: build
build: ## bin/scale
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/scale ./cmd/scale

.PHONY: demo
demo: build ## put a real tree, get it back, prove, verify, and be refused
	@cmd/scale/demo.sh bin/scale

.PHONY: demo-anchored
demo-anchored: deps build ## put, anchored on both local chains, verify --online, restore from Arweave alone
	$(GO) build -o bin/devnet ./anchor/devnet/serve
	@cmd/scale/demo-anchored.sh bin/scale bin/devnet

.PHONY: devnet
devnet: deps ## both chains on 127.0.0.1 with wallets that have money, until Ctrl-C
	@$(GO) run ./anchor/devnet/serve $(DEVNET)

.PHONY: fmt
fmt: ## gofmt everything
	gofmt -s -w $$($(GO) list -f '{{.Dir}}' ./...)

.PHONY: generate
generate: ## the code of the API from its .proto files
	.ci/proto generate

.PHONY: lint
lint: ## gofmt, go vet, staticcheck; the API and what is generated from it
	@files=$$(gofmt -s -l $$($(GO) list -f '{{.Dir}}' ./...)); \
	if [ -n "$$files" ]; then echo "not formatted, run make fmt:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	.ci/proto check

# The race detector makes code several times slower, so -short asks the tests that
# work on large data for less of it; the second run gives them all of it.
.PHONY: test
test: deps lint ## everything that CI checks
	CGO_ENABLED=1 $(GO) test -short -race -timeout 20m ./...
	$(GO) test -timeout 20m ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (1m)
	.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: deps build bench-peers ## beside all peers, the engine, a node, anchors, memory: the full workloads, 2 hours, 12 GB of disk
	$(GO) run ./bench -dir $(BENCH_DIR) -scale full -rounds $(ROUNDS) -only '$(ONLY)' -peers '$(PEERS)' $(if $(PUBLISH),-publish bench/results,$(if $(ONLY)$(PEERS),,-publish bench/results))

.PHONY: bench-quick
bench-quick: build bench-peers ## peers and engine alone, on a thirtieth of the data, once: two minutes
	$(GO) run ./bench -dir $(BENCH_DIR) -scale quick -rounds 1 -only '$(ONLY)' -peers '$(PEERS)'

.PHONY: bench-memory
bench-memory: build ## put and get of the full workloads under a cgroup of 512 MiB, and streams
	$(GO) run ./bench -dir $(BENCH_DIR) -scale full -memory

.PHONY: bench-compare
bench-compare: ## two results, OLD=a.json NEW=b.json, by benchstat
	@test -n '$(OLD)' -a -n '$(NEW)' || { echo 'usage: make bench-compare OLD=a.json NEW=b.json' >&2; exit 2; }
	@mkdir -p bench/out
	@$(GO) run ./bench -benchstat '$(OLD)' > bench/out/old.txt
	@$(GO) run ./bench -benchstat '$(NEW)' > bench/out/new.txt
	@$(TOOL) benchstat old=bench/out/old.txt new=bench/out/new.txt

.PHONY: bench-chart
bench-chart: ## bench/results.svg again, from bench/results.json
	@mkdir -p bench/out
	$(GO) run ./bench -chart bench/results.json > bench/out/results.svg
	mv bench/out/results.svg bench/results.svg

.PHONY: bench-parts
bench-parts: ## Go benchmarks of each stage: chunk, hash, look up, seal, append, commit, flush, open, prove, verify
	$(GO) test -run '^$$' -bench '^Benchmark($(PARTS))$$' -benchmem -benchtime $(BENCHTIME) \
		./dag/chunk ./dag ./dag/proof ./compress ./store/pack ./store/badgerkv ./store

.PHONY: bench-peers
bench-peers: ## install and build what bench compares with
	@.ci/deps peers
	@bench/peers.sh $(BENCH_DIR)

.PHONY: clean
clean: ## remove what the targets made, the data of bench included
	rm -rf bin bench/out $(BENCH_DIR)/data-quick $(BENCH_DIR)/data-full $(BENCH_DIR)/scratch
