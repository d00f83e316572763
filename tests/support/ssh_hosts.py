# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of our own, for tests over real SSH: network namespaces on a bridge, with an sshd in each.

    python -m tests.support.ssh_hosts --missing
    python -m tests.support.ssh_hosts --up FOLDER --relay PORT HOST...
    python -m tests.support.ssh_hosts --down FOLDER

They share this machine's files, users and programs, and nothing of its network. A host is cut off by dropping its packets:
nobody is told, as when a cable is pulled. The second form leaves the hosts up, with an inventory in ``FOLDER/ssh.json``,
until the third one removes them; ``--missing`` says what keeps them from being made here, or nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import ipaddress
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from tests.support.tcp_proxy import TcpProxy

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SSHD = "/usr/sbin/sshd"

#: Where distributions put programs that are for root.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

#: Seconds until a host that is cut off counts as lost: to connect, and for one that is connected.
CONNECT_SECONDS = 3
ALIVE_SECONDS = 1
ALIVE_TRIES = 3

_CONFIGURATION = """\
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
MaxSessions 100
"""


def missing() -> str:
    """What keeps such hosts from being made on this machine, as a sentence; empty where nothing does."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    programs = [name for name in ("ip", "iptables", "ssh", "ssh-keygen") if not _which(name)]
    programs += [] if os.access(SSHD, os.X_OK) else [SSHD]
    if programs:
        return f"hosts of our own need {', '.join(programs)}"
    probe = f"rb-probe-{secrets.token_hex(3)}"
    done = _ip("netns", "add", probe, check=False)
    _ip("netns", "del", probe, check=False)
    return "" if done.returncode == 0 else f"network namespaces cannot be made here: {done.stderr.strip()}"


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=check)


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run("ip", *arguments, check=check)


@dataclasses.dataclass(frozen=True)
class SshHost:
    """One host: its namespace, its address, and the folder with its keys."""

    name: str
    namespace: str
    address: str
    folder: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on it, past SSH."""
        return _run("ip", "netns", "exec", self.namespace, *command, check=check)

    def cut_off(self) -> None:
        """Drop every packet from and to it, without a word."""
        for chain in ("INPUT", "OUTPUT"):
            self.run("iptables", "-I", chain, "!", "-i" if chain == "INPUT" else "-o", "lo", "-j", "DROP")

    def reconnect(self) -> None:
        """Let its packets through again."""
        for chain in ("INPUT", "OUTPUT"):
            self.run("iptables", "-F", chain)

    @property
    def cut_command(self) -> str:
        """A shell line that cuts the host off, for a command that runs on it."""
        return " && ".join(
            f"PATH=$PATH:{SYSTEM_PATH} iptables -I {chain} ! {way} lo -j DROP"
            for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o"))
        )


class SshHosts:
    """A few hosts on a network of their own. Use it in a ``with``.

    :param folder: a new folder for keys and logs.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        tag = secrets.token_hex(3)
        self.bridge = f"rb{tag}"
        self.network = _free_network()
        self.gateway = str(self.network[1])
        self.hosts = {
            name: SshHost(name, f"{self.bridge}-{name}", str(self.network[10 + number]), folder / name)
            for number, name in enumerate(names)
        }

    def __enter__(self) -> SshHosts:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.down()

    def __getitem__(self, name: str) -> SshHost:
        return self.hosts[name]

    def up(self) -> None:
        """Make the network, the keys and the hosts, and return when every sshd answers."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("address", "add", f"{self.gateway}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        _key(self.folder / "key")
        for number, host in enumerate(self.hosts.values()):
            self._make(host, f"{self.bridge}v{number}")
        for host in self.hosts.values():
            _wait_until_it_answers(host)
        known = [f"{host.address} {(host.folder / 'host_key.pub').read_text()}" for host in self.hosts.values()]
        (self.folder / "known_hosts").write_text("".join(known), encoding="utf-8")
        (self.folder / "state.json").write_text(json.dumps(self.state()), encoding="utf-8")

    def state(self) -> dict[str, t.Any]:
        """What a later process needs to remove them."""
        return {"bridge": self.bridge, "namespaces": [host.namespace for host in self.hosts.values()]}

    def _make(self, host: SshHost, link: str) -> None:
        host.folder.mkdir()
        _ip("netns", "add", host.namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        _ip("link", "set", link, "master", self.bridge, "up")
        for arguments in (
            ("address", "add", f"{host.address}/24", "dev", "eth0"),
            ("link", "set", "lo", "up"),
            ("link", "set", "eth0", "up"),
        ):
            _ip("-netns", host.namespace, *arguments)
        _key(host.folder / "host_key")
        shutil.copy(self.folder / "key.pub", host.folder / "authorized_keys")
        text = _CONFIGURATION.format(address=host.address, folder=host.folder)
        (host.folder / "sshd_config").write_text(text, encoding="utf-8")
        host.run(SSHD, "-f", str(host.folder / "sshd_config"), "-E", str(host.folder / "sshd.log"))

    def down(self) -> None:
        """Remove the hosts, with every process that runs on them, and the network."""
        remove(self.state())

    def variables(self, name: str) -> dict[str, t.Any]:
        """The inventory's variables with which Ansible reaches a host."""
        options = {
            "UserKnownHostsFile": self.folder / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "ControlMaster": "auto",
            "ControlPersist": "30s",
            "ServerAliveInterval": ALIVE_SECONDS,
            "ServerAliveCountMax": ALIVE_TRIES,
        }
        return {
            "ansible_connection": "ssh",
            "ansible_host": self.hosts[name].address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_args": " ".join(f"-o {option}={value}" for option, value in options.items()),
            "ansible_ssh_timeout": CONNECT_SECONDS,
            "ansible_ssh_pipelining": True,
            "ansible_python_interpreter": sys.executable,
        }


def _free_network() -> ipaddress.IPv4Network:
    """A private network that no interface of this machine has."""
    taken = [ipaddress.ip_interface(line.split()[3]).network for line in _ip("-o", "address").stdout.splitlines()]
    while True:
        network = ipaddress.IPv4Network(f"10.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}.0/24")
        if not any(other.version == 4 and network.overlaps(other) for other in taken):
            return network


def _key(path: Path) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path))


def _wait_until_it_answers(host: SshHost) -> None:
    deadline = time.monotonic() + 20
    while _run("ssh-keyscan", "-T", "2", "-t", "ed25519", host.address, check=False).stdout == "":
        if time.monotonic() > deadline:
            log = host.folder / "sshd.log"
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise RuntimeError(f"the sshd of {host.name} does not answer at {host.address}\n{said}")
        time.sleep(0.1)


def remove(state: Mapping[str, t.Any]) -> None:
    """Remove hosts and network, as far as they are there."""
    for namespace in state["namespaces"]:
        for pid in _ip("netns", "pids", namespace, check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "del", namespace, check=False)
    _ip("link", "del", state["bridge"], check=False)
    if state.get("relay"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(state["relay"]), signal.SIGTERM)


def _up(folder: Path, names: list[str], port: int) -> int:
    """Leave hosts up, and a relay on their gateway to a server of this machine."""
    hosts = SshHosts(folder, names)
    try:
        hosts.up()
        relay = _start_relay(hosts.gateway, port)
        assert relay.stdout is not None
        relayed = int(relay.stdout.readline())
        (folder / "state.json").write_text(json.dumps({**hosts.state(), "relay": relay.pid}), encoding="utf-8")
    except BaseException:
        hosts.down()
        raise
    found = {"gateway": hosts.gateway, "port": relayed, "hosts": {name: hosts.variables(name) for name in names}}
    (folder / "ssh.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


def _start_relay(address: str, port: int) -> subprocess.Popen[str]:
    """A process that outlives this one; the first line that it writes is its port."""
    command = [sys.executable, "-m", "tests.support.ssh_hosts", "--relay-to", str(port), "--listen", address]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, start_new_session=True, text=True
    )


def _relay(address: str, port: int) -> int:
    with TcpProxy("127.0.0.1", port, listen=address) as proxy:
        print(proxy.port, flush=True)
        signal.pause()
    return 0


def main() -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--up", type=Path, metavar="FOLDER")
    parser.add_argument("--down", type=Path, metavar="FOLDER")
    parser.add_argument("--relay", type=int, metavar="PORT", default=5432, help="port of a server of this machine")
    parser.add_argument("--relay-to", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listen", help=argparse.SUPPRESS)
    parser.add_argument("hosts", nargs="*", metavar="HOST")
    options = parser.parse_args()
    if options.missing:
        print(missing())
        return 0
    if options.relay_to:
        return _relay(options.listen, options.relay_to)
    if options.up:
        return _up(options.up, options.hosts, options.relay)
    if options.down and (options.down / "state.json").exists():
        remove(json.loads((options.down / "state.json").read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
