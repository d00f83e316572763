# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What "make demo" shows: Cypher ERP on a server of its own, at release 0003, previewed and rolled back to 0002; then
migrated again by somebody who ruins the prices, and brought back from the backup before that.

The playbooks and the inventory are those of the checkout. Reports and backups stay in .cache/demo; everything else is
gone at the end, also after Ctrl-C. Exit code 0 only when both runbooks did what they should.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from tests.cypher_erp import data, migrate
from tests.support.postgres_server import PostgresServer, ServerError, exit_on_sigterm, find_installation, free_port

if t.TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
CYPHER_ERP = REPOSITORY / "tests" / "cypher_erp"
DATABASE = "cypher_erp"
ORDERS = 1000

INVENTORY = ("-i", "inventories/demo/hosts.yml")
ROLLBACK = ("playbooks/rollback.yml", "-e", "version=0003")
BACKUP = ("playbooks/backup.yml", "-e", "version=0003")
EMERGENCY = ("playbooks/emergency_rollback.yml", "-e", "confirm=yes")

#: Somebody forgot which products.
BACKFILL = "UPDATE b2b.products SET list_price = 0"

#: What of the preview's summary is shown here, by the first words of a paragraph; its file holds all of it.
SHOWN = ("WOULD BE LOST", "ROWS", "SKIPPED", "LEFT OVER", "WARNINGS", "Check mode")

STAGES = {
    "plan": "finds the DOWN of 0003, checks what can be known before anything is stopped",
    "checklist": "goes through the checklist: what a program can check, with its evidence, and what people answered",
    "early_backup": "dumps the database while the shop still runs",
    "stop": "stops the shop, so that nobody writes what is about to go",
    "backup": "dumps the database, counts its rows in the same snapshot, reads the dump back",
    "rollback": "runs the DOWN in one transaction, and compares the catalog before and after",
    "verify": "asks the database again: gone is what was to go, the rest has the rows of the backup",
    "previous_code": "checks out release v0002, which does not know the tables that went",
    "restart": "starts the shop",
    "smoke_test": "asks the shop for its health over HTTP, and reads the catalogue",
    "notify": "writes the report",
}

#: What some stages do otherwise when a backup is restored.
EMERGENCY_STAGES = {
    "restore_plan": "chooses the newest valid backup, and checks what can be known before anything is stopped",
    "confirm": "would ask for a yes; -e confirm=yes answers beforehand",
    "stop": "stops the shop, so that nobody writes what would be lost",
    "restore": "restores the backup into a new database, and compares every table with the manifest",
    "swap": "exchanges the two databases by two renames in one transaction",
    "previous_code": "checks out release v0002, which fits the backup",
}

_STAGE_BEGINS = re.compile(r"TASK \[cypher\.rollback\.(\w+) : Begin the stage\]")


class DemoError(Exception):
    """Something is not as it should be; the message says what."""


class Demo:
    """Everything of one demonstration.

    :param server: a running server with an empty database.
    :param scratch: a folder that is removed at the end.
    :param kept: a folder that stays.
    """

    def __init__(self, server: PostgresServer, scratch: Path, kept: Path) -> None:
        self.server = server
        self.kept = kept
        self.project = scratch / "project"
        self.port = free_port()
        self.pid_file = scratch / "shop.pid"
        self.log = kept / "shop.log"
        self.with_git = shutil.which("git") is not None
        (scratch / "ansible.cfg").touch()
        passfile = scratch / "passfile"
        passfile.touch(mode=0o600)
        passfile.write_text(f"*:*:*:{server.user}:{server.password}\n", encoding="utf-8")
        inherited = {
            name: value
            for name, value in server.environment(DATABASE).items()
            # No setting of another Ansible, no other repository, and no proxy between this machine and itself.
            if not name.startswith(("ANSIBLE_", "GIT_")) and not name.lower().endswith("_proxy")
        }
        # The runbook hands no password on to the shop, so both find it where libpq looks.
        del inherited["DB_PASSWORD"]
        self.environment = {
            **inherited,
            "LC_ALL": "C.UTF-8",
            "PGPASSFILE": str(passfile),
            "PYTHON": sys.executable,
            "ANSIBLE_CONFIG": str(scratch / "ansible.cfg"),
            "ANSIBLE_HOME": str(scratch / "ansible"),
            "ANSIBLE_REMOTE_TMP": str(scratch / "ansible" / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "DEMO_PROJECT_DIR": str(self.project),
            "DEMO_PREVIOUS_REF": "v0002" if self.with_git else "",
            "APP_PORT": str(self.port),
            "APP_PID_FILE": str(self.pid_file),
            "APP_LOG": str(self.log),
            "BACKUP_DIR": str(kept / "backups"),
        }

    def set_the_stage(self) -> None:
        """The project in two releases, the database at the newer one, data in it."""
        self.make_project()
        with contextlib.closing(self.server.connect(DATABASE)) as connection:
            migrate.apply(connection, upto="0003", folder=self.project / "migrations")
            data.load(connection, orders=ORDERS, upto="0003")

    def make_project(self) -> None:
        """A git repository with the tags v0002 and v0003; without git, its newest files alone."""
        (self.project / "migrations").mkdir(parents=True)
        for name in ("app.py", "appctl"):
            shutil.copy2(CYPHER_ERP / name, self.project / name)
        self.git("init", "--quiet")
        for release in ("0002", "0003"):
            for version, path in migrate.migration_files().items():
                if version <= release:
                    shutil.copy2(path, self.project / "migrations" / path.name)
            self.write_release(release)
            self.git("add", ".")
            self.git("commit", "--quiet", "--message", f"Release {release}")
            self.git("tag", f"v{release}")

    def git(self, *words: str) -> None:
        """Run git in the project, where there is git."""
        if self.with_git:
            author = ("-c", "user.name=Cypher ERP", "-c", "user.email=shop@example.com")
            subprocess.run(["git", *author, *words], cwd=self.project, env=self.environment, check=True)

    def write_release(self, release: str) -> None:
        """The release that the shop reads when it starts."""
        (self.project / "release.txt").write_text(f"{release}\n", encoding="utf-8")

    @contextlib.contextmanager
    def shop(self) -> Iterator[None]:
        """The web application, started and at the end stopped, whoever started it last."""
        command = [str(self.project / "appctl")]
        try:
            self.run_quietly([*command, "start", "--pid-file", str(self.pid_file), "--log", str(self.log)])
            yield
        finally:
            stop = [*command, "stop", "--pid-file", str(self.pid_file)]
            subprocess.run(stop, env=self.environment, stdout=subprocess.DEVNULL, check=False)

    def run_quietly(self, command: list[str]) -> None:
        """Run a command whose output matters only when it fails."""
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DemoError(f"{shlex.join(command)} failed: {done.stdout}{done.stderr}")

    def health(self) -> dict[str, t.Any]:
        """What the shop says about itself, with the HTTP status as ``http``; 0 when it does not answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return {**json.load(answer), "http": answer.status}
        except urllib.error.HTTPError as err:
            return {"http": err.code}
        except OSError:
            return {"http": 0}

    def rows(self, table: str) -> int | None:
        """Rows of a table; None where there is no such table."""
        if self.server.execute(f"SELECT to_regclass('{table}')", DATABASE) == [(None,)]:
            return None
        return int(self.server.execute(f"SELECT count(*) FROM {table}", DATABASE)[0][0])

    def play(self, log: str, *arguments: str) -> Iterator[str]:
        """Run a playbook, and yield its output line by line; all of it also goes to a file.

        :raises DemoError: where its exit code is not 0.
        """
        path = self.kept / log
        command = [str(Path(sys.executable).with_name("ansible-playbook")), *INVENTORY, *arguments]
        # In a session of its own: Ctrl-C reaches the demo alone, which then ends the play before anything else.
        with (
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            ) as process,
            path.open("w", encoding="utf-8") as file,
        ):
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    file.write(line)
                    yield line.rstrip("\n")
                code = process.wait()
            finally:
                end_process(process)
        if code:
            raise DemoError(f"ansible-playbook ended with exit code {code}.\n{self.last_message() or tail(path)}")

    def reports(self) -> list[Path]:
        """The reports of all runs so far."""
        return sorted((self.kept / "backups" / "runs").glob("*/report.json"))

    def last_message(self) -> str:
        """What the newest report says to the operator; empty without one."""
        reports = self.reports()
        return str(json.loads(reports[-1].read_text(encoding="utf-8"))["message"]) if reports else ""

    def preview(self) -> None:
        """Show what would be lost, and see that nothing was."""
        before = (self.rows("b2b.orders"), self.pid_file.read_text(encoding="ascii"))
        output = "\n".join(self.play("preview.log", *ROLLBACK, "--check", "--diff"))
        # What Ansible says about the task comes right behind the summary.
        summary = re.sub(r"(?m)^ok: .*", "", output)
        shown = [paragraph.rstrip() for paragraph in summary.split("\n\n") if paragraph.startswith(SHOWN)]
        say("\n".join(shown) or f"(no summary in {self.kept / 'preview.log'})")
        after = (self.rows("b2b.orders"), self.pid_file.read_text(encoding="ascii"))
        check(before == after and self.health()["http"] == 200, "nothing changed: same orders, same process, healthy")
        check(not (self.kept / "backups").exists(), "no backup, no report: a preview leaves nothing")

    def run(self, log: str, *arguments: str, **stages: str) -> None:
        """Run a runbook, a line a stage as it comes.

        :param stages: what those do otherwise than in a rollback.
        """
        began, stage = 0.0, ""
        try:
            for line in self.play(log, *arguments):
                found = _STAGE_BEGINS.match(line)
                stage = found[1] if found else stage
                # A stage that is left out has its title, too.
                if stage and line.startswith(("ok:", "changed:")):
                    now = time.monotonic()
                    print(f"{now - began:6.1f} s\n" if began else "", end="")
                    print(f"   {stage:<14} {stages.get(stage) or self.purpose(stage):<86}", end="", flush=True)
                    began, stage = now, ""
                elif line.startswith("skipping:"):
                    stage = ""
        finally:
            print(f"{time.monotonic() - began:6.1f} s" if began else "")

    def purpose(self, stage: str) -> str:
        """What a stage is there for."""
        if stage == "previous_code" and not self.with_git:
            return "leaves the code as it is, because no release is named"
        return STAGES.get(stage, "")

    def prove(self, products: int | None) -> None:
        """See for ourselves, without asking the product."""
        reports = self.reports()
        check(len(reports) == 1, "there is one report")
        report = json.loads(reports[0].read_text(encoding="utf-8"))
        check(report["outcome"] == "rolled_back", f"outcome: {report['outcome']}")
        check(self.rows("b2b.orders") is None, "b2b.orders is gone")
        check(self.rows("b2b.products") == products, f"b2b.products still has its {products} rows")
        health = self.health()
        check((health["http"], health.get("release")) == (200, "0002"), "the shop is healthy, as release 0002")
        check((Path(report["backup"]["path"]) / "manifest.json").is_file(), "the backup is there")
        down = report["downtime_seconds"]
        say(
            f"\nThe shop was down for {down:.1f} s. What went: {report['effect']['rows_lost']:,} rows, all in the backup."
        )
        say(f"\nreport      {reports[0]}\nbackup      {report['backup']['path']}")

    def back_up(self) -> None:
        """Take the backup that a deployment takes before it migrates."""
        for _line in self.play("backup.log", *BACKUP):
            pass
        report = self.last_report()
        backup = report["backup"]
        check(report["outcome"] == "backed_up" and backup["verified"], f"outcome: {report['outcome']}, read back")
        say(f"   {backup['id']}, {backup['bytes']:,} bytes, {len(backup['tables'])} tables counted and hashed")

    def deploy(self, release: str) -> None:
        """The code of a release."""
        if self.with_git:
            self.git("checkout", "--quiet", f"v{release}")
        else:
            self.write_release(release)

    def migrate_badly(self) -> None:
        """Migrate once more, with a backfill that leaves nothing of the prices, and start the shop on it."""
        with contextlib.closing(self.server.connect(DATABASE)) as connection:
            migrate.apply(connection, first="0003", upto="0003", folder=self.project / "migrations")
        self.server.execute(BACKFILL, DATABASE)
        appctl = str(self.project / "appctl")
        self.run_quietly([appctl, "stop", "--pid-file", str(self.pid_file)])
        self.run_quietly([appctl, "start", "--pid-file", str(self.pid_file), "--log", str(self.log)])
        say(f"{BACKFILL};")
        check(self.health().get("release") == "0003", "the shop runs as release 0003")
        check(
            self.free_products() == self.rows("b2b.products"), "every product costs 0.00 now, and no DOWN knows better"
        )

    def free_products(self) -> int:
        """Products without a price."""
        return int(self.server.execute("SELECT count(*) FROM b2b.products WHERE list_price = 0", DATABASE)[0][0])

    def prices(self) -> str:
        """All prices as one sum."""
        query = "SELECT md5(string_agg(sku || list_price, ',' ORDER BY sku)) FROM b2b.products"
        return str(self.server.execute(query, DATABASE)[0][0])

    def last_report(self) -> dict[str, t.Any]:
        """The report of the newest run."""
        report: dict[str, t.Any] = json.loads(self.reports()[-1].read_text(encoding="utf-8"))
        return report

    def prove_restored(self, prices: str) -> None:
        """See for ourselves that the database is the one from before the migration, and the ruined one is kept."""
        report = self.last_report()
        check(report["outcome"] == "restored", f"outcome: {report['outcome']}")
        check(self.prices() == prices, "every price is what it was when the backup was taken")
        check(self.rows("b2b.orders") is None, "b2b.orders is gone again: the backup is from before its migration")
        health = self.health()
        check((health["http"], health.get("release")) == (200, "0002"), "the shop is healthy, as release 0002")
        kept = report["swap"]["kept"]
        names = [name for (name,) in self.server.execute("SELECT datname FROM pg_database", DATABASE)]
        check(kept in names, f"the ruined database is kept as {kept}")
        say(f"\nThe shop was down for {report['downtime_seconds']:.1f} s.\n{report['restore']['window']['text']}")
        say(f"\nreport      {self.reports()[-1]}\nbackup      {report['backup']['path']}")


def end_process(process: subprocess.Popen[str]) -> None:
    """End a play that still runs, in order if it lets us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def tail(path: Path) -> str:
    """The end of a file."""
    return "\n".join(path.read_text(encoding="utf-8").splitlines()[-25:])


def check(holds: bool, what: str) -> None:
    """Say that something holds.

    :raises DemoError: where it does not.
    """
    if not holds:
        raise DemoError(f"not as it should be: {what}")
    say(f"ok, {what}")


def say(text: str) -> None:
    """Print lines, indented under their title."""
    print("\n".join(f"   {line}".rstrip() for line in text.split("\n")), flush=True)


def title(text: str) -> None:
    """Print what comes next."""
    print(f"\n{text}", flush=True)


def kept_folder() -> Path:
    """A new folder of this run; only its owner may enter it."""
    parent = REPOSITORY / ".cache" / "demo"
    parent.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    return Path(tempfile.mkdtemp(prefix=f"{now:%Y%m%dT%H%M%SZ}-", dir=parent))


def end_in_order() -> None:
    """SIGTERM and SIGHUP end this process as Ctrl-C does, so that it cleans up."""
    exit_on_sigterm()
    signal.signal(signal.SIGHUP, lambda number, _frame: sys.exit(128 + number))


def ignore_signals() -> None:
    """Nothing interrupts what comes now."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def show(kept: Path) -> None:
    """The whole demonstration."""
    with contextlib.ExitStack() as stack:
        title("1. A shop to roll back")
        installation = find_installation()
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rollback-demo-")))
        server = stack.enter_context(PostgresServer(installation.bin_dir))
        server.create_database(DATABASE)
        say(f"PostgreSQL {installation.major} of its own, on port {server.port} ({installation.bin_dir})")
        demo = Demo(server, scratch, kept)
        demo.set_the_stage()
        products, orders = demo.rows("b2b.products"), demo.rows("b2b.orders")
        say(f"Cypher ERP with the migrations 0001 to 0003: {products} products, {orders:,} orders")
        stack.enter_context(demo.shop())
        # The last one in is the first one when this block is left, before the cleaning up.
        stack.callback(ignore_signals)
        check(demo.health()["http"] == 200, f"the shop is healthy, as release 0003, at http://127.0.0.1:{demo.port}/")

        title("2. The preview: the DOWN is run on the real database, looked at, and undone")
        say(f"$ {command_line(*ROLLBACK, '--check', '--diff')}")
        demo.preview()

        title("3. The rollback: orders go, and the shop runs as release 0002")
        say(f"$ {command_line(*ROLLBACK)}")
        if not demo.with_git:
            demo.write_release("0002")
            say("git is not installed here: the code of 0002 was put in place beforehand, not by the runbook.")
        demo.run("rollback.log", *ROLLBACK)

        title("4. Looked at from outside")
        demo.prove(products)
        show_the_emergency(demo)
        say(f"all output  {kept}")


def show_the_emergency(demo: Demo) -> None:
    """The second act: what a backup before a migration is good for."""
    prices = demo.prices()
    title("5. Before the next migration: a backup that is proven")
    say(f"$ {command_line(*BACKUP)}")
    demo.deploy("0003")
    demo.back_up()

    title("6. The migration, with a backfill that forgets its WHERE")
    demo.migrate_badly()

    title("7. The emergency runbook: back to the backup, beside the live database and then in its place")
    say(f"$ {command_line(*EMERGENCY)}")
    if not demo.with_git:
        demo.write_release("0002")
    demo.run("emergency.log", *EMERGENCY, **EMERGENCY_STAGES)

    title("8. Looked at from outside")
    demo.prove_restored(prices)


def command_line(*arguments: str) -> str:
    """The command as a person types it."""
    return shlex.join([".venv/bin/ansible-playbook", *INVENTORY, *arguments])


def main() -> int:
    """Show it; 0 when all of it was as it should be."""
    end_in_order()
    kept = kept_folder()
    print("Migration 0003 gave a small shop its orders. It is to be taken back, without guessing.", flush=True)
    started = time.monotonic()
    try:
        show(kept)
    except (DemoError, ServerError, subprocess.CalledProcessError) as err:
        print(f"\ndemo: {err}\nServer and shop are stopped. What was written is in {kept}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ndemo: interrupted. Server and shop are stopped. What was written is in {kept}", file=sys.stderr)
        return 130
    print(f"\nDone in {time.monotonic() - started:.0f} s. Server and shop are stopped, their files are gone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
