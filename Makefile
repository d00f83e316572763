# Each target needs python3 (3.11 or newer) and a package index, and sets up what it uses in .venv.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
SETUP := $(PYTHON) tests/setup_venv.py
# A wrapper for ansible-test, where its own downloads are out of reach.
ANSIBLE_TEST ?= ansible-test
export ANSIBLE_TEST

.PHONY: help setup setup-dev setup-postgres server demo bench lint test molecule matrix docs release clean

help:
	@echo "make demo            roll a migration of a small shop back, on a PostgreSQL server of its own"
	@echo "make test            every check and test, with a table of the results at the end"
	@echo "make lint            the checks without the tests"
	@echo "make molecule        the scenarios of molecule/; one alone with SCENARIO=undo"
	@echo "make docs            the documentation site, in build/docs"
	@echo "make release         every gate, then the release of galaxy.yml's version, in dist"
	@echo "make matrix          the runbooks on each ansible-core, Python and PostgreSQL; writes README's table of versions"
	@echo "make bench           how long the stages take"
	@echo "make setup           .venv, for .venv/bin/ansible-playbook playbooks/rollback.yml"
	@echo "make setup-dev       the tools of lint and test"
	@echo "make setup-postgres  PostgreSQL servers from the package index, for machines without"
	@echo "make clean           remove .venv and what the tools left behind"

setup:
	@$(SETUP) run

setup-dev:
	@$(SETUP) run dev

setup-postgres:
	@$(SETUP) postgres

# The system's own PostgreSQL where there is one, otherwise one from the package index.
server: setup
	@$(VENV_PYTHON) -m tests.support.postgres_server --list >/dev/null || $(SETUP) postgres

demo: server
	@$(VENV_PYTHON) -m tests.cypher_erp.demo

bench: server
	@$(VENV_PYTHON) -m tests.bench.run

lint: setup-dev
	@$(VENV_PYTHON) -m tests.run_gates lint

test: setup-dev setup-postgres
	@$(VENV_PYTHON) -m tests.run_gates test

molecule: setup-dev setup-postgres
	@PATH="$(CURDIR)/.venv/bin:$$PATH" MOLECULE_GLOB='molecule/*/molecule.yml' \
		$(VENV_PYTHON) -m tests.support.postgres_server -- molecule test $(if $(SCENARIO),--scenario-name $(SCENARIO),--all)

docs: setup-dev
	@$(VENV_PYTHON) -m tests.docs

# GATES=none leaves the gates out, where they have just run.
GATES ?= test
release: setup-dev setup-postgres
	@$(VENV_PYTHON) -m tests.release --gates $(GATES)

# The interpreters of 3.11 to 3.13 are those on PATH, and pyenv's.
matrix: setup
	@$(SETUP) postgres matrix
	@$(VENV_PYTHON) -m tests.support.matrix run

clean:
	rm -rf .venv .cache build .ansible .coverage .pytest_cache .mypy_cache .ruff_cache
