# `make demo`: a three-node cluster with HAProxy on this machine. `make test`: everything there is to test.
# `make verify` never writes, `make fix` writes.

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test sim bench man verify fix deny toolchain tools

demo: toolchain tools
	@echo "building (release; the first time takes some minutes)"
	@$(CARGO) build --release --locked --workspace --bins --example demo
	@exec $(TARGET)/release/examples/demo $(DEMO_ARGS)

test: toolchain tools
	@bash tests/setup/thirdparty.sh
	@bash tests/setup/run-tests.sh $(TEST_ARGS)

# Simulated clusters by the million, on every core: SIM_ARGS="--first 20000 --seeds 1000000". A part of them is in `make
# test`. SIM_ARGS="sync --seed 7" shows what happens in one.
sim: toolchain
	@$(CARGO) run --release --locked --quiet -p pgherd-sim -- $(SIM_ARGS)

# The figures of the README; takes long. BENCH_ARGS=--help says which parts there are.
bench: toolchain tools
	@$(CARGO) build --release --locked --workspace --bins --example bench
	@exec $(TARGET)/release/examples/bench $(BENCH_ARGS)

# Manual pages of all programs: MAN_DIR says where, else into `man` beside the build.
MAN_DIR ?= $(TARGET)/man
man: toolchain
	@mkdir -p $(MAN_DIR)
	@$(CARGO) build --locked --quiet --workspace --bins
	@$(TARGET)/debug/pgherdctl man $(MAN_DIR)
	@$(TARGET)/debug/pgherd --man > $(MAN_DIR)/pgherd.1
	@$(TARGET)/debug/pgherd-witness --man > $(MAN_DIR)/pgherd-witness.1

verify: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

fix:
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

deny:
	@bash tests/setup/deny.sh

toolchain:
	@bash tests/setup/toolchain.sh

tools:
	@bash tests/setup/tools.sh
