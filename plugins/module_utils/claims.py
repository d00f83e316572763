# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The claim on a database: one run at a time, and a second one is told who the first is."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shlex
import time
import typing as t
import urllib.parse

from .errors import Refused
from .journal import JOURNAL, is_at_work, publish, read, utc_now

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Seconds without a sign of life after which a claim from a controller that cannot be asked is stale.
CLAIM_TTL = 900

#: What tells one process of one controller from every other.
IDENTITY = ("host", "boot_id", "pid_namespace", "pid", "started")

Claim = dict[str, t.Any]


def _replaceable(held: Claim) -> None:
    """Any stale claim may be replaced."""
    del held


class ClaimHeld(Refused):
    """Another run works on the database, or may do so. ``details["held_by"]`` is its claim."""


class ClaimImpossible(Refused):
    """The claim's file cannot be made or read."""


@dataclasses.dataclass(frozen=True)
class Claims:
    """The claims in one folder of runs.

    :param target: what is claimed: the cluster's system identifier and the database's name.
    :param ttl: seconds without a sign of life after which a claim is stale.
    """

    run_dir: str
    target: str
    ttl: float = CLAIM_TTL

    @property
    def path(self) -> str:
        """File of the claim on the target."""
        return os.path.join(self.run_dir, f".claim-{urllib.parse.quote(self.target, safe='')}.json")

    def take(
        self, wanted: Claim, dead: Mapping[str, t.Any] | None = None, judge: Callable[[Claim], None] = _replaceable
    ) -> tuple[bool, Claim | None]:
        """Take the claim, in one step that two runs cannot both succeed in.

        :param wanted: ``run_id``, ``runbook`` and ``controller`` of this run.
        :param dead: identity of a controller process that its own host knows to be gone.
        :param judge: is asked before a stale claim is replaced, and raises where it may not be.
        :returns: whether the claim is new, and the stale one that it replaced.
        :raises ClaimHeld: when another run holds it.
        """
        with self._alone():
            held = self.holder()
            if held is not None and is_same_run(held, wanted):
                return False, None
            if held is not None:
                self.check_stale(held, dead)
                judge(held)
                os.unlink(self.path)
            self._write({**wanted, "target": self.target, "started_at": utc_now()})
            return True, held

    def check(self, wanted: Claim, dead: Mapping[str, t.Any] | None = None) -> Claim | None:
        """What :meth:`take` would do, without doing it: the stale claim that it would replace.

        :raises ClaimHeld: when another run holds it.
        """
        held = self.holder()
        if held is None or is_same_run(held, wanted):
            return None
        self.check_stale(held, dead)
        return held

    def release(self, own: Claim) -> bool:
        """Give the claim back if it is this run's; whether it was."""
        if not os.path.exists(self.path):
            return False
        with self._alone():
            held = self.holder()
            if held is None or not is_same_run(held, own):
                return False
            os.unlink(self.path)
            return True

    def holder(self) -> Claim | None:
        """The claim as it stands.

        :raises ClaimImpossible: when its file is not a claim.
        """
        try:
            with open(self.path, encoding="utf-8") as claim_file:
                held = json.load(claim_file)
            return {"run_id": str(held["run_id"]), **held}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise ClaimImpossible(
                f"The claim {self.path} on the database host cannot be read ({err}), so another run may be at work. "
                f"When you are sure that none is: {self._removal()}"
            ) from err

    def silence(self, held: Claim) -> float:
        """Seconds since the run that holds the claim last wrote anything on this host."""
        moments = []
        for path in (self.path, os.path.join(self.folder_of(held), JOURNAL)):
            with contextlib.suppress(OSError):
                moments.append(os.stat(path).st_mtime)
        return max(0.0, time.time() - max(moments, default=0.0))

    def folder_of(self, held: Claim) -> str:
        """Folder of the run that holds the claim."""
        return os.path.join(self.run_dir, os.path.basename(held["run_id"]))

    def check_stale(self, held: Claim, dead: Mapping[str, t.Any] | None) -> None:
        """Whether the run that holds the claim is certainly not at work.

        :raises ClaimHeld: it is, or may be.
        """
        if is_at_work(self.folder_of(held)):
            raise ClaimHeld(
                f"{self._who(held)} One of its processes is at work on the database host. Wait for it to end.",
                held_by=held,
            )
        if dead and same_process(held.get("controller"), dead):
            return
        silence = self.silence(held)
        if silence <= self.ttl:
            raise ClaimHeld(
                f"{self._who(held)} Its last sign of life is {silence:.0f} s old; after {self.ttl:.0f} s it is stale. "
                f"Wait for it to end. Only when you are sure that it is dead: {self._removal()}",
                held_by=held,
            )

    def _who(self, held: Claim) -> str:
        controller = held.get("controller") or {}
        return (
            f"Run {held['run_id']} ({held.get('runbook') or 'rollback'}) works on this database: started at "
            f"{held.get('started_at')} by {controller.get('user') or 'an unknown user'} "
            f"on {controller.get('host') or 'an unknown host'} (process {controller.get('pid')}{_job(controller)}). Nothing was stopped or changed by this run."
        )

    def _removal(self) -> str:
        return f"rm {shlex.quote(self.path)}"

    def _write(self, claim: Claim) -> None:
        try:
            publish(self.path, json.dumps(claim, default=str) + "\n")
        except FileExistsError as err:
            # Only where flock does not reach: the name itself is then the lock.
            raise ClaimHeld(
                f"Another run took the claim {self.path} in the same moment. Run again when it has ended."
            ) from err
        except OSError as err:
            raise self._impossible(err) from err

    def _impossible(self, err: OSError) -> ClaimImpossible:
        return ClaimImpossible(
            f"The claim {self.path} cannot be made: {err.strerror or err}. "
            "Set rollback_run_dir to a folder on the database host in which the connecting user may write."
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            descriptor = os.open(
                os.path.join(self.run_dir, ".claims.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600
            )
        except OSError as err:
            raise self._impossible(err) from err
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def claims_in(run_dir: str, ttl: float = CLAIM_TTL) -> list[tuple[Claims, Claim]]:
    """Every claim in a folder of runs that can be read."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(run_dir)):
            if name.startswith(".claim-") and name.endswith(".json"):
                claims = Claims(run_dir, urllib.parse.unquote(name[len(".claim-") : -len(".json")]), ttl)
                with contextlib.suppress(ClaimImpossible):
                    held = claims.holder()
                    found += [(claims, held)] if held else []
    return found


def _job(controller: Mapping[str, t.Any]) -> str:
    return f", job {controller['job']}" if controller.get("job") else ""


def same_process(one: Mapping[str, t.Any] | None, other: Mapping[str, t.Any] | None) -> bool:
    """Whether two controllers are one process of one boot of one host."""
    if not one or not other:
        return False
    return all(str(one.get(key) or "") == str(other.get(key) or "") for key in IDENTITY)


def is_same_run(held: Claim, wanted: Claim) -> bool:
    """Whether a claim belongs to this run: the same name, from the same controller process."""
    return held["run_id"] == wanted["run_id"] and same_process(held.get("controller"), wanted.get("controller"))


def last_words(folder: str) -> str:
    """What the journal of a run says last, for the note about a run that died; empty when it says nothing."""
    events = [event for event in read(folder) if event.get("event") == "stage"]
    if not events:
        return ""
    return f"its journal ends with stage {events[-1].get('stage')} {events[-1].get('status')} at {events[-1].get('at')}"
