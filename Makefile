# `make help` lists the targets. Everything a target needs is set up first, once.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=NOVACRON_LAB,NOVACRON_LAB_DIR,NOVACRON_LAB_PORT)
BIN := .venv/bin
ARGS ?=
SECONDS ?=
TWO := -n 2

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-clouds setup-azurite test-azurite setup-boot test-boot fuzz chaos bench bench-datapath bench-scale lab-up lab-down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: packages, .venv, the guest (Debian 12, root or sudo)
	@scripts/setup.sh

demo: setup ## move a real VM live between two real hosts, and prove it (JSON=1: end with one line of JSON)
	@$(SUDO) $(BIN)/novacron demo $(if $(JSON),--json) $(ARGS)

check: setup ## the fast part of the tests: lint, types, unit tests, clouds (no root)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest $(TWO) -q -m "not real and not temporal and not boot and not azurite"

test: check ## everything, on real parts too (ARGS="-k cut" picks)
	$(SUDO) $(BIN)/pytest $(TWO) $(if $(ARGS),$(ARGS),-v -m "real or temporal")

test-clouds: setup ## the cloud adapters by their real SDKs against fakes that answer over HTTP; ends with what works (no root)
	$(BIN)/pytest -q -m "not azurite" $(if $(ARGS),$(ARGS),tests/clouds)

setup-azurite: setup ## install what test-azurite needs: Microsoft's emulator of blobs, from npm (190 MB)
	@scripts/setup.sh azurite

test-azurite: setup-azurite ## our reader and writer of disks' pages against Azurite, and our fake compared with it
	$(BIN)/pytest -q $(if $(ARGS),$(ARGS),tests/clouds/azure/test_azurite.py)

setup-boot: setup ## install what test-boot needs, and build its Debian (root or sudo; minutes)
	@scripts/setup.sh boot

test-boot: setup-boot ## prepare a Debian for AWS and Google Cloud, and boot it on their devices (minutes without KVM)
	$(BIN)/pytest -v $(if $(ARGS),$(ARGS),-m boot tests/integration)

fuzz: setup ## feed every decoder with damaged input for ten minutes (ARGS="--seconds 60 --only frame,recipe")
	@$(BIN)/python -m tests.fuzz $(ARGS)

chaos: setup ## break every part in every phase of a move (SECONDS=600: at random; ARGS="--only cancel" picks)
	@$(SUDO) $(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

bench: setup ## measure NovaCron against QEMU's own methods (ARGS="--only 100:idle" picks rows)
	@$(SUDO) $(BIN)/python -m bench.migrate $(ARGS)

bench-datapath: setup ## measure the data path by itself, without QEMU (ARGS="--only cpu" picks groups)
	@$(SUDO) $(BIN)/python -m bench.datapath $(ARGS)

bench-scale: setup ## 1,000 simulated hosts and 10,000 VMs through the real workflows (ARGS="--hosts 20 --vms 200")
	@$(BIN)/python -m bench.scale $(ARGS)

lab-up: setup ## start the lab (ARGS="--link 100mbit --delay 40ms --loss 0.1%")
	@$(SUDO) $(BIN)/novacron lab up $(ARGS)

lab-down: ## stop the lab and remove all it made on this machine but its history
	@$(SUDO) $(BIN)/novacron lab down $(ARGS)

clean: ## remove what was built here: .venv and caches
	$(SUDO) rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	$(SUDO) find . -name __pycache__ -type d -prune -exec rm -rf {} +
