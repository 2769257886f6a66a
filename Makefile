# `make` or `make help` says what there is. The work itself is in tools/, CMakePresets.json and cmake/.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# Flags for `make run`, e.g. ARGS="--ports auto"; files for `make lint` and `make format`; seconds for `make fuzz`.
ARGS ?=
FILES ?=
SECONDS_EACH ?= 60

.PHONY: help
help: ## Says what there is
	@echo "UCCP: coordination and compute in one server. Start with one of:"
	@echo
	@echo "  make run         installs what is missing, builds, starts a server with one agent; Ctrl-C stops it"
	@echo "  make test        installs what is missing, builds, tests; ends with 'N passed, N failed, N skipped'"
	@echo
	@echo "All targets:"
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  \1|\2/p' $(MAKEFILE_LIST) | \
	  awk -F'|' '{ printf "%-20s%s\n", $$1, $$2 }'
	@echo
	@echo "Programs are in build/bin: uccp (server), uccp-cli (command line), uccp-agent (runs tasks; uccp-spawn and uccp-container are parts of it)."
	@echo "More: docs/building.md"

.PHONY: run
run: build-core ## Starts a development server: ARGS="--ports auto --data-dir DIR"
	@exec build/bin/uccp dev $(ARGS)

.PHONY: setup setup-test setup-lint
setup: ## Installs what building needs
	@tools/setup run
setup-test:
	@tools/setup test
setup-lint:
	@tools/setup lint

.PHONY: build-all build-core build-ml build-proto
build-all: setup ## Builds everything, tests included
	@tools/b
build-core: setup ## Builds the server, the agent and the command line
	@tools/b uccp uccp-cli uccp-agent
build-ml: setup ## Builds the Python package, and build/venv with it
	@tools/python
build-proto: setup ## Generates and builds the code of the contract in api/
	@tools/b uccp_api uccp_contract_image

.PHONY: test test-full test-unit test-integration test-e2e test-load test-security
test: setup-test ## Runs all checks and tests but the long ones
	@tools/test fast
test-full: setup-test ## Runs the long ones too
	@tools/test full
test-unit: setup-test ## Runs the unit tests
	@tools/test unit
test-integration: setup-test ## Runs the tests of running processes and the simulations
	@tools/test process sim
test-e2e: setup-test ## Runs real clients and the examples against a server
	@tools/test clients examples
test-load: setup-test ## Runs the load tests
	@tools/test load
test-security: setup-test ## Runs the security tests
	@tools/test security

.PHONY: bench fuzz
bench: setup ## Measures throughput and latency
	@if [ -x bench/run ]; then tools/b && exec bench/run $(ARGS); \
	  else tools/b door_bench && exec build/bin/door_bench $(ARGS); fi
fuzz: setup-test ## Fuzzes every decoder: SECONDS_EACH=60
	@tools/fuzz $(SECONDS_EACH)

.PHONY: lint format
lint: setup-lint ## Checks style, layers, contract and ledger, and what clang-tidy finds in changed files or FILES
	@tools/lint $(FILES)
format: setup-lint ## Formats the C++ files, or FILES
	@tools/lint --fix $(FILES)

.PHONY: clean
clean: ## Removes build/; data/ and the compiler cache stay
	rm -rf build
