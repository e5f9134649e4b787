# One command for each purpose; each makes what it needs under .venv/ and dist/, once.
#
#   make demo    equations of state of seven metals, as calls that wait for one another
#   make test    the test suite on every Python from 3.10 to 3.15 found here (make test-3.12: all of it on that one)
#   make test-newest   what depends on the system, on Debian's unstable release in a chroot: as root, some minutes
#   make check   ruff and mypy
#   make docs    the documentation, into site/
#   make bench   Callyard beside other executors
#   make clean   removes what the others made
#
# ARGS="-k cancel -x" is passed on to pytest, the demo or the benchmark.

PYTHON ?= python3
DEFAULT := $(shell $(PYTHON) tools/interpreters.py --default)
BIN = .venv/$(DEFAULT)/bin
SOURCES := $(shell find src -name '*.py' -o -name py.typed -o -path '*/assets/*') pyproject.toml README.md LICENSE
# In continuous integration a skipped capability is a failure: see tests/conftest.py.
CALLYARD_REQUIRE ?= $(if $(CI),accounts chromium csh fish gridengine mpi slurm slurmdbd ssh ase matplotlib mypy nbclient numpy pandas pyte)
PIP_DISABLE_PIP_VERSION_CHECK = 1
export CALLYARD_REQUIRE PIP_DISABLE_PIP_VERSION_CHECK
# Containers often set it: each of the thousand interpreters that tests start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help test test-newest test-calls test-once-slurm test-once-rest check docs bench demo mpi slurm gridengine ssh chromium clean
.SECONDARY:  # make must not remove stamps as intermediate files

help:
	@sed -n 's/^#   //p' Makefile

# Four at a time, as much of the time is spent waiting, each with its output in one piece; one that fails does not keep
# the others from running. Tests marked `wide` run on the newest Python alone, in two halves as all on that one, so that
# no part is left over when the others are done; those marked `once` by themselves, in two halves as well. First all
# environments, so that what takes longest begins first.
test:
	@versions=$$($(PYTHON) tools/interpreters.py) && \
	newest=$${versions##* } && narrow=$$(echo $$versions | sed 's/ *[^ ]*$$//') && \
	$(MAKE) --no-print-directory --keep-going --jobs=4 EXTRA=test NARROW="$$narrow" \
	    $$(printf '.venv/%s/.callyard ' $$versions) gridengine ssh chromium; \
	$(MAKE) --no-print-directory --keep-going --jobs=4 --output-sync=target ALL=1 \
	    NARROW="$$narrow" NEWEST="$$newest" \
	    test-once-slurm test-calls test-$$newest test-once-rest $$(printf 'test-%s ' $$versions)

.SECONDEXPANSION:
test-%: .venv/$$*/.$$(call test_extra,$$*) .venv/$$*/.callyard mpi gridengine ssh chromium
	.venv/$*/bin/python -m pytest $(call left_out,$*) $(ARGS)

NEWEST ?= $(DEFAULT)
ON_SLURM = tests/backends/batch tests/slurm_cluster
CALLS = tests/backends tests/contract tests/cpython
test-calls: .venv/$(NEWEST)/.test .venv/$(NEWEST)/.callyard mpi gridengine ssh chromium
	.venv/$(NEWEST)/bin/python -m pytest -m "not once" $(CALLS) $(ARGS)
test-once-slurm test-once-rest: .venv/$(NEWEST)/.test .venv/$(NEWEST)/.callyard mpi gridengine ssh chromium
	.venv/$(NEWEST)/bin/python -m pytest -m once $(if $(filter %-slurm,$@),$(ON_SLURM),$(addprefix --ignore=,$(ON_SLURM))) $(ARGS)

# Where newer Pythons, Slurm and MPI are: not a part of `make test`. NEWEST_SYSTEM stays, so that the next run is quick.
NEWEST_SYSTEM ?= .venv/newest
NEWEST_PYTHON ?= 3.14
ON_SYSTEM = $(ON_SLURM) tests/cluster tests/backends/local/test_mpi.py tests/backends/cached/test_remembered_mpi.py tests/contract \
    tests/cpython tests/schedulers tests/system tests/pool tests/futures
test-newest:
	tools/newest-system $(NEWEST_SYSTEM) env CALLYARD_REQUIRE="mpi slurm slurmdbd" \
	    make test-$(NEWEST_PYTHON) ARGS='$(ON_SYSTEM) $(ARGS)'

# Nothing where `make test-...` is asked for one Python alone: it runs all tests. Beside test-calls the newest leaves out
# what that one runs.
test_extra = $(if $(filter $(1),$(NARROW)),test-core,test)
left_out = $(if $(ALL),$(if $(filter $(1),$(NARROW)),-m "not once and not wide",-m "not once" $(addprefix --ignore=,$(CALLS))))

check: .venv/$(DEFAULT)/.check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/$(DEFAULT)/.docs
	$(BIN)/mkdocs build --strict

bench: .venv/$(DEFAULT)/.bench .venv/$(DEFAULT)/.callyard mpi slurm
	$(BIN)/python -m bench $(ARGS)

demo: .venv/$(DEFAULT)/.demo .venv/$(DEFAULT)/.callyard
	$(BIN)/python examples/equation_of_state.py $(ARGS)

mpi:
	@tools/apt-install mpiexec openmpi-bin
	@tools/apt-unpack .venv/mpich libmpich12

# After Slurm: apt works for one at a time. Its tests make namespaces, as root.
gridengine: slurm
	@tools/apt-install sge_qmaster gridengine-master gridengine-exec gridengine-client
	@tools/apt-install unshare util-linux
	@tools/apt-install ip iproute2

# After mpi: apt works for one at a time. libpmix-dev has the name by which Slurm looks for PMIx; mariadb-server-core has
# no service that would be started.
slurm: mpi
	@tools/apt-install slurmctld slurm-wlm slurmctld slurmd slurm-client munge libpmix-dev
	@tools/apt-install slurmdbd slurmdbd
	@tools/apt-install mariadb-install-db mariadb-server-core mariadb-client

# After Grid Engine: apt works for one at a time. The tests start a server of their own, on 127.0.0.1.
ssh: gridengine
	@tools/apt-install sshd openssh-server
	@tools/apt-install csh csh
	@tools/apt-install fish fish

# After ssh: apt works for one at a time. For reports; alone it has no font.
chromium: ssh
	@tools/apt-install chromium-headless-shell chromium-headless-shell fonts-dejavu-core

clean:
	rm -rf .venv dist build site eos-results .mypy_cache .pytest_cache .ruff_cache .hypothesis

# What is tested is the wheel, as users get it.
dist/.built: $(SOURCES)
	@rm -rf dist
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .
	@touch $@

# The newest pip, whose resolver is several times faster than that of a pip that came with a Python; and as another pip
# puts it there, Debian's Python needs no python3-venv.
.venv/%/.made:
	@echo "Making $(@D) ..."
	@python=$$($(PYTHON) tools/interpreters.py $*) && $$python -m venv --clear --without-pip $(@D) && \
	$(PYTHON) -m pip --python $(@D)/bin/python install --quiet pip
	@touch $@

# After the extra of what is to be made, as two pips in one environment are in each other's way.
EXTRA ?= $(if $(filter test%,$(MAKECMDGOALS)),test,$(filter bench demo,$(MAKECMDGOALS)))
extras = $(if $(filter test,$(EXTRA)),$(call test_extra,$(1)),$(EXTRA))
.venv/%/.callyard: dist/.built | .venv/%/.made $$(foreach extra,$$(call extras,$$*),.venv/$$*/.$$(extra))
	.venv/$*/bin/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	@touch $@

# .venv/3.12/.test: the environment of Python 3.12 has what the extra "test" lists. To compile all of it would take most
# of the time, and little of it is ever imported.
define install_extra
.venv/$*/bin/python -m pip install --quiet --no-compile "$$(echo dist/*.whl)[$(subst .,,$(@F))]"
@touch $@
endef
.venv/%/.test: pyproject.toml | .venv/%/.made dist/.built
	$(install_extra)
.venv/%/.test-core: pyproject.toml | .venv/%/.made dist/.built
	$(install_extra)
.venv/%/.check: pyproject.toml | .venv/%/.made dist/.built
	$(install_extra)
.venv/%/.docs: pyproject.toml | .venv/%/.made dist/.built
	$(install_extra)
.venv/%/.bench: pyproject.toml | .venv/%/.made dist/.built
	$(install_extra)
.venv/%/.demo: pyproject.toml | .venv/%/.made dist/.built
	$(install_extra)
