# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set up ``.venv``: ``setup_venv.py run dev postgres matrix``, quick when nothing is missing.

Runs under the system's own Python, so the standard library is all it uses. ``run`` is what the playbooks need, ``dev``
what the gates need, ``postgres`` the servers packaged for Python, ``matrix`` nox and further such servers.
"""

from __future__ import annotations

import argparse
import configparser
import fcntl
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
VENV = REPOSITORY / ".venv"
STAMP = VENV / "setup.json"
LOWEST_PYTHON = (3, 11)

#: The requirement files behind each part; a change in one of them sets that part up again.
PARTS = {
    "run": ("requirements.txt", "tests/requirements-run.txt", "tests/requirements-collections.txt"),
    "dev": ("requirements.txt", "tests/requirements-run.txt", "tests/requirements-dev.txt"),
    "postgres": ("tests/requirements-postgres.txt",),
    "matrix": ("tests/requirements-nox.txt", "tests/requirements-postgres-older.txt"),
}

#: Taken out of the package "ansible", which is 550 MB when it is installed as a whole.
COLLECTIONS = (
    "ansible/posix",
    "community/docker",
    "community/library_inventory_filtering_v1",
    "community/postgresql",
)
#: Taken where the package has it: what awx_configure.yml alone needs is in the package up to 12, which is Python 3.11's.
OPTIONAL_COLLECTIONS = ("awx/awx",)


class SetupError(Exception):
    """Something the person who runs this has to put right; the message says what."""


def main() -> int:
    """Set up the parts named on the command line, and only those that are missing or out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS), nargs="+")
    wanted = parser.parse_args().part
    try:
        if sys.version_info < LOWEST_PYTHON:
            raise SetupError(f"Python {sys.version.split()[0]} is too old: run make with PYTHON=python3.11 or newer.")
        with_lock(sorted(set(wanted), key=list(PARTS).index))
    except SetupError as err:
        print(f"setup: {err}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as err:
        print(f"setup: failed with exit code {err.returncode}: {' '.join(map(str, err.cmd))}", file=sys.stderr)
        return 1
    return 0


def with_lock(parts: list[str]) -> None:
    """Set up ``parts`` while no other setup of this checkout runs."""
    folder = os.open(REPOSITORY, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for part in missing(parts):
            print(f"setup: {part}", flush=True)
            {"run": set_up_run, "dev": set_up_dev, "postgres": set_up_postgres, "matrix": set_up_matrix}[part]()
            write_stamp(part)
    finally:
        os.close(folder)


def missing(parts: list[str]) -> list[str]:
    """Those of ``parts`` that the stamp does not vouch for; a new environment is made where the old one is no use."""
    stamp = read_stamp()
    if stamp.get("environment") != environment_id() or not (VENV / "bin" / "python").exists():
        create_environment()
        stamp = {}
    return [part for part in parts if stamp.get(part) != requirements_hash(part)]


def environment_id() -> str:
    """Scripts in an environment hold its path, and it belongs to one Python: another path or Python needs a new one."""
    return f"{VENV} {sys.version.split()[0]} {sys.base_prefix}"


def requirements_hash(part: str) -> str:
    """SHA-256 over the requirement files of ``part`` and this script."""
    digest = hashlib.sha256(pathlib.Path(__file__).read_bytes())
    for name in PARTS[part]:
        digest.update((REPOSITORY / name).read_bytes())
    return digest.hexdigest()


def read_stamp() -> dict[str, str]:
    """What was set up, part by part; empty where nothing was, or where the file is no use."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(part: str) -> None:
    """Note that ``part`` is done. It comes last, so an interrupted setup is taken up again."""
    stamp = {**read_stamp(), "environment": environment_id(), part: requirements_hash(part)}
    temporary = STAMP.with_suffix(".new")
    temporary.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    temporary.replace(STAMP)


def create_environment() -> None:
    """Make ``.venv`` anew, with a pip in it, also where Python lacks the module ensurepip (Debian's python3 alone)."""
    if VENV.is_symlink():
        raise SetupError(f"{VENV} is a symbolic link: remove it, so that an environment can be made there.")
    shutil.rmtree(VENV, ignore_errors=True)
    if importlib.util.find_spec("ensurepip"):
        run(sys.executable, "-m", "venv", VENV)
        return
    run(sys.executable, "-m", "venv", "--without-pip", VENV)
    with tempfile.TemporaryDirectory() as folder:
        wheel = download_pip(pathlib.Path(folder))
        run(VENV / "bin" / "python", wheel / "pip", "install", "--quiet", "--no-index", wheel)


def download_pip(folder: pathlib.Path) -> pathlib.Path:
    """The newest pip wheel of the package index, by its simple page and checked against the page's checksum.

    :raises SetupError: with what to install, where the index cannot be reached.
    """
    page = pip_setting("index-url", "https://pypi.org/simple").rstrip("/") + "/pip/"
    found = re.compile(r'href="([^"#]*/(pip-(\d+(?:\.\d+)+)-py3-none-any\.whl))#sha256=([0-9a-f]{64})"')
    try:
        links = found.findall(fetch(page).decode("utf-8"))
        if not links:
            raise SetupError(f"{page} lists no pip: install the package python3-venv, then repeat.")
        address, name, _version, checksum = max(links, key=lambda link: [int(n) for n in link[2].split(".")])
        content = fetch(urllib.parse.urljoin(page, address))
    except (urllib.error.URLError, OSError) as err:
        raise SetupError(
            f"this Python has no ensurepip, and no pip can be had from {page} ({err}): "
            "install the package python3-venv, then repeat."
        ) from err
    if hashlib.sha256(content).hexdigest() != checksum:
        raise SetupError(f"the pip from {page} does not match its checksum: repeat, or install python3-venv.")
    wheel = folder / str(name)
    wheel.write_bytes(content)
    return wheel


def fetch(address: str) -> bytes:
    """The content at an https (or, for a mirror, http) address."""
    if not address.startswith(("https://", "http://")):
        raise SetupError(f"not a web address: {address}. Set PIP_INDEX_URL to a package index.")
    context = ssl.create_default_context(cafile=pip_setting("cert", "") or None)
    with urllib.request.urlopen(address, timeout=60, context=context) as answer:  # noqa: S310 - the scheme is checked
        return bytes(answer.read())


def pip_setting(name: str, default: str) -> str:
    """A setting of pip where there is no pip to ask: its environment variable, or the user's or the system's file."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    files = configparser.RawConfigParser()
    named = os.environ.get("PIP_CONFIG_FILE")
    home = pathlib.Path.home()
    files.read(["/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf", *([named] if named else [])])
    return files.get("global", name, fallback=default)


def set_up_run() -> None:
    """ansible-core, the libraries of the modules, the collections they build on, and this collection beside them."""
    pip("install", "--requirement", REPOSITORY / "tests/requirements-run.txt")
    root = site_packages() / "ansible_collections"
    with tempfile.TemporaryDirectory(dir=VENV) as folder:
        requirements = REPOSITORY / "tests/requirements-collections.txt"
        pip("download", "--no-deps", "--only-binary=:all:", "--dest", folder, "--requirement", requirements)
        (wheel,) = pathlib.Path(folder).glob("ansible-*.whl")
        unpack_collections(wheel, root)
    link = root / "cypher" / "rollback"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(REPOSITORY, target_is_directory=True)


def unpack_collections(wheel: pathlib.Path, root: pathlib.Path) -> None:
    """Replace what ``root`` holds of the collections by the wheel's."""
    wanted = (*COLLECTIONS, *OPTIONAL_COLLECTIONS)
    for name in wanted:
        shutil.rmtree(root / name, ignore_errors=True)
    prefixes = tuple(f"ansible_collections/{name}/" for name in wanted)
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(prefixes)]
        archive.extractall(root.parent, members)
    for name in COLLECTIONS:
        if not (root / name).is_dir():
            raise SetupError(f"{wheel.name} has no collection {name}: change tests/requirements-collections.txt.")


def set_up_dev() -> None:
    """The tools behind ``make lint`` and ``make test``."""
    pip("install", "--requirement", REPOSITORY / "tests/requirements-dev.txt")


def set_up_postgres() -> None:
    """The newest packaged servers."""
    if not install_servers("tests/requirements-postgres.txt"):
        raise SetupError("no packaged PostgreSQL runs on this platform: install PostgreSQL from your distribution.")


def set_up_matrix() -> None:
    """What makes an environment a combination of versions, and the older packaged servers."""
    pip("install", "--requirement", REPOSITORY / "tests/requirements-nox.txt")
    install_servers("tests/requirements-postgres-older.txt")


def install_servers(name: str) -> list[str]:
    """Install each packaged server of a requirement file in a folder of its own; those that have a wheel here."""
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    requirements = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [requirement for requirement in requirements if install_server(requirement)]


def install_server(requirement: str) -> bool:
    """Install one packaged server; False where the registry has none for this platform."""
    target = VENV / "postgres" / requirement.partition("==")[0]
    shutil.rmtree(target, ignore_errors=True)
    try:
        pip("install", "--no-deps", "--only-binary=:all:", "--no-compile", "--target", target, requirement)
    except subprocess.CalledProcessError:
        print(f"setup: {requirement} cannot be installed here; going on without it.", file=sys.stderr)
        return False
    return True


def site_packages() -> pathlib.Path:
    """Where the environment keeps its packages."""
    return VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def pip(*arguments: str | os.PathLike[str]) -> None:
    """Run the environment's own pip."""
    run(VENV / "bin" / "python", "-m", "pip", "-qq", "--disable-pip-version-check", *arguments)


def run(*command: str | os.PathLike[str]) -> None:
    """Run a command, its output shown.

    :raises subprocess.CalledProcessError: where it fails.
    """
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
