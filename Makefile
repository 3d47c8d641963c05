# Each target does its own set-up and says what it installs.

.DEFAULT_GOAL := help
.PHONY: help demo test test-compose bench soak fmt lint audit setup

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: ## a throwaway PostgreSQL: back it up, drop it, restore it, prove it
	@scripts/demo.sh

test: ## format, lints, licences, unit and integration tests against real parts
	@scripts/test.sh

test-compose: ## the real images of PostgreSQL and TimescaleDB (docker-compose.test.yml): needs Docker and a registry
	@scripts/test-compose.sh

bench: ## drctl beside pg_dump, zstd, restic and borg on a 1 GiB database
	@scripts/bench.sh

soak: ## what takes longer than a test should: 50 GiB in flat memory, 100 GiB counted, a row of 1 GB, a thief in the store
	@scripts/soak.sh

fmt: ## format the source
	cargo fmt

lint: ## format and lints only
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

audit: ## known weaknesses in dependencies; needs the network
	@scripts/deny.sh advisories

setup: ## install what tests, demo and bench need
	@scripts/setup.sh
