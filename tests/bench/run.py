# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the standard runbook takes, beside what it replaces: "make bench".

    python -m tests.bench.run [--orders N] [--small | --large] [--repeat N] [--early-only]

The small database shows what the runbook itself costs, the large one how long the application is stopped. All rows are
of one run on one machine, so compare them with each other; other work on the machine shows in all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.server
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from tests.cypher_erp import data, migrate
from tests.support.postgres_server import PostgresServer, ServerError, exit_on_sigterm, find_installation
from tests.support.runbook import ANSIBLE_PLAYBOOK, Application, Project

if t.TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
SMALL_ORDERS = 200
#: Measured: template, copy, its write-ahead log and two backups.
BYTES_AN_ORDER = 8_000
LARGE = "bench_large"
SMALL = "bench_small"
RUN = ".venv/bin/ansible-playbook playbooks/rollback.yml -e version=0003"


@dataclasses.dataclass(frozen=True)
class Copy:
    """A database of one row; what Project and Application need of one."""

    server: PostgresServer
    name: str

    def connection_arguments(self) -> dict[str, t.Any]:
        """Arguments for psycopg2."""
        return self.server.connection_arguments(self.name)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    seconds: float
    note: str = ""


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes a webhook and says yes."""

    def do_POST(self) -> None:
        """Read it and answer."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Not on the console."""


@contextlib.contextmanager
def webhook() -> Iterator[str]:
    """Address of a receiver that lives as long as the block."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class Shop:
    """Cypher ERP at release 0003 in a git checkout, running, on a fresh copy of a database."""

    def __init__(self, folder: Path, copy: Copy, **settings: t.Any) -> None:
        self.copy = copy
        self.project = Project(folder, copy, rollback_previous_ref="v0002", **settings)  # type: ignore[arg-type] # a Copy is enough of a Database
        for release in ("0002", "0003"):
            (self.project.project / "release.txt").write_text(f"{release}\n", encoding="utf-8")
            if release == "0002":
                self.git("init", "--quiet")
            self.git("add", ".")
            self.git("commit", "--quiet", "--message", release)
            self.git("tag", f"v{release}")
        self.application = Application(self.project, "0003")
        self.project.backups.mkdir(mode=0o700)

    def git(self, *words: str) -> None:
        """Run git in the checkout."""
        author = ("-c", "user.name=Bench", "-c", "user.email=bench@example.com")
        subprocess.run(["git", *author, *words], cwd=self.project.project, check=True, capture_output=True)

    def environment(self) -> dict[str, str]:
        """For the document's script: its own variables, a password file, the server's programs first."""
        given = self.copy.server.environment(self.copy.name)
        return {
            **given,
            "PGPASSFILE": str(self.project.folder / "app.pgpass"),
            "BACKUP_DIR": str(self.project.backups),
            "TMPDIR": str(self.project.folder),
            "PATH": f"{given['PG_BIN_DIR']}{os.pathsep}{os.environ['PATH']}",
        }

    def by_script(self) -> float:
        """Seconds from the stop to the first healthy answer, with the document's script and nothing around it."""
        started = time.monotonic()
        subprocess.run(self.application.commands["stop"], check=True, capture_output=True)
        subprocess.run(
            [str(HERE / "rollback.sh"), "0003"],
            cwd=self.project.project,
            env=self.environment(),
            check=True,
            capture_output=True,
        )
        self.git("checkout", "--quiet", "v0002")
        subprocess.run(self.application.commands["start"], check=True, capture_output=True)
        if self.application.health() != 200:
            raise ServerError("the shop is not healthy after the document's script")
        return time.monotonic() - started

    def by_runbook(self) -> tuple[float, dict[str, t.Any]]:
        """Seconds of the whole run, and its report."""
        started = time.monotonic()
        run = self.project.run("-e", "version=0003")
        seconds = time.monotonic() - started
        if run.outcome != "rolled_back" or run.report is None or self.application.health() != 200:
            raise ServerError(f"the runbook ended as {run.outcome}:\n{run.output}")
        return seconds, run.report

    def by_playbook(self, playbook: Path) -> float:
        """Seconds of another playbook."""
        down = next(self.project.migrations.glob("0003-*.sql"))
        command = [ANSIBLE_PLAYBOOK, "-i", str(self.project.inventory()), str(playbook), "-e", f"down_file={down}"]
        started = time.monotonic()
        done = subprocess.run(command, env=self.project.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"{playbook.name} failed:\n{done.stdout}{done.stderr}")
        return time.monotonic() - started

    @contextlib.contextmanager
    def customers(self) -> Iterator[None]:
        """Somebody who orders for as long as the shop takes orders."""
        order = json.dumps({"customer": 7, "items": [{"sku": "SKU-000001", "quantity": 1}]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.application.port}/orders", order, {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = threading.Event()

        def buy() -> None:
            while not end.wait(0.1):
                with contextlib.suppress(OSError):
                    opener.open(request, timeout=5).close()

        thread = threading.Thread(target=buy)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


class Bench:
    """The server with its two databases, and the rows."""

    def __init__(self, server: PostgresServer, scratch: Path) -> None:
        self.server = server
        self.scratch = scratch

    def load(self, name: str, orders: int) -> None:
        """Make a database that the rows copy."""
        self.server.create_database(name)
        with contextlib.closing(self.server.connect(name)) as connection:
            migrate.apply(connection, upto="0003")
            data.load(connection, orders=orders, upto="0003")

    @contextlib.contextmanager
    def shop(self, template: str, **settings: t.Any) -> Iterator[Shop]:
        """A running shop, gone with its database at the end; what the copy left to write is written before."""
        # FILE_COPY writes no log of what it copies; it came with PostgreSQL 15.
        strategy = " STRATEGY file_copy" if int(self.server.execute("SHOW server_version_num")[0][0]) >= 150000 else ""
        self.server.execute(f"CREATE DATABASE bench TEMPLATE {template}{strategy}")
        self.server.execute("CHECKPOINT")
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            shop = Shop(folder, Copy(self.server, "bench"), **settings)
            os.sync()
            with shop.application:
                yield shop
        finally:
            self.server.drop_database("bench")
            shutil.rmtree(folder)

    def small(self, repeat: int) -> list[Row]:
        """What the runbook itself costs."""
        with webhook() as url:
            settings = {"rollback_notify": [{"type": "webhook", "url": url}]}
            empty = self.scratch / "empty.yml"
            empty.write_text("- hosts: erp_db\n  gather_facts: false\n", encoding="utf-8")
            whole, plain, alone, down = [], [], [], []
            for _number in range(repeat):
                with self.shop(SMALL, **settings) as shop:
                    alone.append(shop.by_playbook(empty))
                    seconds, report = shop.by_runbook()
                    whole.append(seconds)
                    down.append(report["downtime_seconds"])
                with self.shop(SMALL, **settings) as shop:
                    plain.append(shop.by_playbook(HERE / "plain.yml"))
        return [
            Row("the standard runbook, all stages on, all proof", statistics.median(whole), spread(whole)),
            Row("  of it the application was stopped", statistics.median(down), spread(down)),
            Row("tests/bench/plain.yml, ready modules, no proof", statistics.median(plain), spread(plain)),
            Row("ansible-playbook with no task", statistics.median(alone), spread(alone)),
        ]

    def large(self, early_only: bool) -> list[Row]:
        """How long the application is stopped."""
        with self.shop(LARGE) as shop:
            rows = [Row("the document's script (4.1), no proof", shop.by_script())]
        rows.append(self._stop("the standard runbook, all proof", {}))
        if not early_only:
            rows.append(self._stop("  the same without the early backup", {"rollback_backup_early_bytes": ""}))
            rows.append(self._stop("  the same with orders coming in until the stop", {}, customers=True))
        return rows

    def _stop(self, what: str, settings: dict[str, t.Any], *, customers: bool = False) -> Row:
        with contextlib.ExitStack() as stack:
            shop = stack.enter_context(self.shop(LARGE, **settings))
            if customers:
                stack.enter_context(shop.customers())
            seconds, report = shop.by_runbook()
        stages = ", ".join(f"{stage['name']} {stage['seconds']:.1f}" for stage in report["stages"])
        return Row(what, report["downtime_seconds"], f"whole run {seconds:.1f} s: {stages}")


def spread(seconds: list[float]) -> str:
    """The least and the most."""
    return f"{min(seconds):.2f} to {max(seconds):.2f}, {len(seconds)} runs"


def show(title: str, rows: list[Row], base: int) -> None:
    """Print a table with the ratio to one of its rows."""
    print(f"\n{title}\n")
    for row in rows:
        ratio = row.seconds / rows[base].seconds
        print(f"   {row.what:<50} {row.seconds:8.2f} s {ratio:7.2f}   {row.note}", flush=True)


def check_space(folder: Path, orders: int) -> None:
    """Say how much room is needed.

    :raises ServerError: where there is less.
    """
    need, free = orders * BYTES_AN_ORDER, shutil.disk_usage(folder).free
    told = f"{need / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free"
    if free < need:
        raise ServerError(f"{told}: make room, set TMPDIR, or take fewer orders, BENCH_ORDERS=100000.")
    print(told, flush=True)


def bench(options: argparse.Namespace) -> None:
    """Measure and print."""
    installation = find_installation()
    load = os.getloadavg()[0]
    print(f"PostgreSQL {installation.major}, {len(os.sched_getaffinity(0))} processors, load before this {load:.1f}")
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rollback-bench-")))
        check_space(scratch, 0 if options.small else options.orders)
        # Durable, as a server in production is.
        settings = {"max_wal_size": "4GB", "shared_buffers": "256MB"}
        server = stack.enter_context(PostgresServer(installation.bin_dir, settings=settings, durable=True))
        made = Bench(server, scratch)
        again = shlex.join([".venv/bin/python", "-m", "tests.bench.run", *sys.argv[1:]])
        if not options.large:
            made.load(SMALL, SMALL_ORDERS)
            show(f"The whole run on {SMALL_ORDERS} orders: {RUN}", made.small(options.repeat), base=2)
        if not options.small:
            made.load(LARGE, options.orders)
            ((size,),) = server.execute(f"SELECT pg_database_size('{LARGE}')")
            title = f"From the stop to the last smoke test passed, {options.orders:,} orders, {size / 2**30:.2f} GB"
            show(f"{title}: {RUN}", made.large(options.early_only), base=0)
        print(
            f"\nratio: to {'the document' if options.large else 'plain.yml, or the document'}'s script. Again: {again}"
        )


def main() -> int:
    """Read the command line; 0 when every row ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=int(os.environ.get("BENCH_ORDERS") or 1_000_000))
    parser.add_argument("--repeat", type=int, default=3, help="runs of the small database")
    parser.add_argument(
        "--early-only", action="store_true", help="of the large database the script and the runbook only"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--small", action="store_true", help="the small database only")
    only.add_argument("--large", action="store_true", help="the large database only")
    options = parser.parse_args()
    exit_on_sigterm()
    try:
        bench(options)
    except (ServerError, subprocess.CalledProcessError) as err:
        print(f"bench: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
