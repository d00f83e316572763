# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the documentation site into build/docs: python -m tests.docs [FOLDER]

The guides of docs/docsite and a page for each module, filter and role. Every warning is an error, a link inside the site that
leads nowhere included. Reads nothing from the network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGURATION = REPOSITORY / "tests" / "docsite"
SITE = REPOSITORY / "build" / "docs"
COLLECTION = "cypher.rollback"


def main() -> int:
    """Build the site; 1 where a page has a mistake, which the tools have printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SITE, help="where the site goes [build/docs]")
    site = parser.parse_args().folder.resolve()
    try:
        build(site)
    except subprocess.CalledProcessError as err:
        print(f"docs: {Path(err.cmd[0]).name} found mistakes in the documentation: see above.", file=sys.stderr)
        return 1
    print(f"docs: open {site / 'index.html'}")
    return 0


def build(site: Path) -> None:
    """Write the pages as reStructuredText into a scratch folder, and from there as HTML into the site.

    :raises subprocess.CalledProcessError: a description cannot be read, or Sphinx had a warning.
    """
    with tempfile.TemporaryDirectory(prefix="rollback-docs-") as folder:
        pages = Path(folder) / "pages"
        pages.mkdir(mode=0o755)
        settings = Path(folder) / "antsibull-docs.cfg"
        settings.write_text(links(), encoding="utf-8")
        subprocess.run(
            [
                *(program("antsibull-docs"), "--config-file", str(settings), "collection", "--use-current"),
                *("--squash-hierarchy", "--fail-on-error", "--dest-dir", str(pages), COLLECTION),
            ],
            env=environment(),
            check=True,
        )
        # A page that is gone must not stay: all are written anew.
        subprocess.run(
            [
                *(program("sphinx-build"), "-q", "-E", "-a", "-b", "html", "-n", "-W", "--keep-going"),
                *("-d", str(Path(folder) / "doctrees"), "-c", str(CONFIGURATION), str(pages), str(site)),
            ],
            env=environment(),
            check=True,
        )


def links() -> str:
    """Settings of antsibull-docs: how this collection is had, which is not on Galaxy."""
    galaxy = yaml.safe_load((REPOSITORY / "galaxy.yml").read_text(encoding="utf-8"))
    archive = "{namespace}-{name}-{version}.tar.gz".format_map(galaxy)
    return (
        f'collection_url = {{\n  {COLLECTION} = "{galaxy["repository"]}"\n'
        '  * = "https://galaxy.ansible.com/ui/repo/published/{namespace}/{name}/"\n}\n'
        f'collection_install = {{\n  {COLLECTION} = "ansible-galaxy collection install {archive}"\n'
        '  * = "ansible-galaxy collection install {namespace}.{name}"\n}\n'
    )


def program(name: str) -> str:
    """A program of the environment that runs this."""
    return str(Path(sys.executable).with_name(name))


def environment() -> dict[str, str]:
    """No Ansible setting of the person who runs this, and the environment's own programs first."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **inherited,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


if __name__ == "__main__":
    sys.exit(main())
