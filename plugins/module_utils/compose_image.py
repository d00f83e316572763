# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application's image in Docker Compose: the variable of the project's ``.env`` that names it, and another value for it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat
import tempfile
import typing as t

from .compose import ENVIRONMENT_FILE, Compose, ComposeRefused
from .errors import NeedsAttention

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A tag, or a whole reference with registry, port, tag and digest.
_VALUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@-]*")
_UNQUOTED = re.compile(r"(?P<value>.*?)(?P<rest>\s+#.*|\s*)$", re.DOTALL)


class ImageNotChanged(NeedsAttention):
    """The project has not got the image that was asked for; its ``.env`` is as it was, or the message says what it is."""


@dataclasses.dataclass(frozen=True)
class ImageWanted:
    """Which image.

    :param project_dir: the project's folder.
    :param variable: name of the variable in its ``.env``.
    :param value: a tag, or a whole reference, as the compose file uses the variable.
    :param services: the application's services, of which at least one has to take its image from the variable.
    """

    project_dir: str
    variable: str
    value: str
    services: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Line:
    """The line of ``.env`` that defines the variable, in three parts."""

    before: str
    value: str
    after: str


def change_image(wanted: ImageWanted, *, make_change: bool = True) -> dict[str, t.Any]:
    """Have the project use an image that is on this host already. Nothing is pulled, and no container is touched.

    :param make_change: ``False`` only tells what would be changed, and refuses what could not be.
    :returns: ``variable``, ``image``, ``previous_image``, ``images`` (service to ``before`` and ``after``), ``stale`` (services
        whose containers have another image than the one asked for) and ``changed``.
    :raises ComposeRefused: with nothing changed.
    :raises ImageNotChanged: the file could not be written, or the project does not follow it.
    """
    _refuse_meaningless(wanted)
    path = os.path.realpath(os.path.join(wanted.project_dir, ENVIRONMENT_FILE))
    text = _read(path)
    line = find_line(text, wanted.variable, path)
    _refuse_irretrievable(wanted.variable, line.value, path)
    compose = Compose(wanted.project_dir)
    images = _images(compose, wanted)
    _refuse_useless(wanted, images, line)
    _refuse_missing(compose, images)
    # Before the file is written: what fails afterwards would leave it changed and nobody told.
    stale = _stale(compose, images)
    changed = line.value != wanted.value
    if changed:
        _refuse_unwritable(path)
    if changed and make_change:
        _write(path, text, with_value(text, line, wanted.value))
        _prove(compose, path, text, images)
    return {
        "variable": wanted.variable,
        "image": wanted.value,
        "previous_image": line.value,
        "images": images,
        "stale": stale,
        "changed": changed,
    }


def _refuse_meaningless(wanted: ImageWanted) -> None:
    if not _NAME.fullmatch(wanted.variable):
        raise ComposeRefused(
            f"rollback_image_variable is {wanted.variable!r}; give the name of the variable in {wanted.project_dir}/.env that holds "
            "the application's image or its tag, or leave rollback_previous_image empty."
        )
    if not _VALUE.fullmatch(wanted.value):
        raise ComposeRefused(f"rollback_previous_image {wanted.value!r} is no tag and no name of an image.")
    if wanted.variable in os.environ:
        raise ComposeRefused(
            f"The environment that this runs in sets {wanted.variable}, which goes before the project's .env. Unset it there."
        )


def _read(path: str) -> str:
    try:
        # newline="": line ends stay what they are.
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is no text in UTF-8"
        raise ComposeRefused(
            f"{path} cannot be read ({reason}), so its variable for the image (rollback_image_variable) cannot be changed."
        ) from err


def find_line(text: str, variable: str, path: str = ENVIRONMENT_FILE) -> Line:
    """The line that defines a variable, as Docker Compose reads the file.

    :raises ComposeRefused: there is none, or there are several.
    """
    definition = re.compile(rf"^[ \t]*(?:export[ \t]+)?{re.escape(variable)}[ \t]*=[ \t]*", re.MULTILINE)
    found = list(definition.finditer(text))
    if len(found) != 1:
        how_often = f"{len(found)} times" if found else "nowhere"
        raise ComposeRefused(
            f"{path} defines {variable} {how_often}, and has to once. Correct it, or rollback_image_variable."
        )
    begin = found[0].end()
    end = text.find("\n", begin)
    rest = text[begin : end if end >= 0 else len(text)]
    quote = rest[:1] if rest[:1] in ("'", '"') else ""
    if quote and rest.find(quote, 1) > 0:
        close = rest.find(quote, 1)
        return Line(text[: begin + 1], rest[1:close], rest[close:] + text[begin + len(rest) :])
    parts = _UNQUOTED.match(rest)
    value = parts["value"] if parts else rest
    return Line(text[:begin], value, text[begin + len(value) :])


def with_value(text: str, line: Line, value: str) -> str:
    """The whole text with another value on that line, and every other byte as it was."""
    changed = f"{line.before}{value}{line.after}"
    if len(changed) != len(text) - len(line.value) + len(value):
        raise AssertionError("the line is not one of this text")
    return changed


def _refuse_irretrievable(variable: str, value: str, path: str) -> None:
    """A present value that could not be put back, because it is none of its own."""
    if not _VALUE.fullmatch(value):
        what = "no tag and no name of an image" if value else "empty"
        raise ComposeRefused(
            f"The value of {variable} in {path} is {what}, so it could not be put back where the way back needs it. Write the tag, or "
            "the whole name, of the image that runs now there, as it is."
        )


def _images(compose: Compose, wanted: ImageWanted) -> dict[str, dict[str, str]]:
    before, after = compose.config(), compose.config({wanted.variable: wanted.value})
    return {
        name: {"before": str(before[name].get("image") or ""), "after": str(after[name].get("image") or "")}
        for name in wanted.services
        if name in before and name in after and (before[name].get("image") or after[name].get("image"))
    }


def _refuse_useless(wanted: ImageWanted, images: Mapping[str, Mapping[str, str]], line: Line) -> None:
    follows = any(image["before"] != image["after"] for image in images.values())
    if line.value != wanted.value and not follows:
        raise ComposeRefused(
            f"No service of {', '.join(wanted.services) or 'the application'} takes its image from {wanted.variable}. Correct "
            "rollback_image_variable or rollback_app_services."
        )


def _refuse_missing(compose: Compose, images: Mapping[str, Mapping[str, str]]) -> None:
    wanted = dict.fromkeys(image["after"] for image in images.values())
    missing = [image for image in wanted if not compose.has_image(image)]
    if missing:
        raise ComposeRefused(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not on this host, and a rollback pulls nothing. Beforehand: "
            f"{'; '.join(f'docker pull {image}' for image in missing)}. Or correct rollback_previous_image.",
            missing=missing,
        )


def _refuse_unwritable(path: str) -> None:
    try:
        facts = os.stat(path)
    except OSError as err:
        raise ComposeRefused(f"{path} cannot be read ({err.strerror}).") from err
    user = os.geteuid()
    writable = os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK | os.X_OK)
    # The new file has to get owner and group of the old one, which only root may give away.
    its_own = facts.st_uid == user and facts.st_gid in (*os.getgroups(), os.getegid())
    if not writable or (user != 0 and not its_own):
        why = "cannot be written" if not writable else "cannot be replaced with its owner and group kept"
        raise ComposeRefused(
            f"{path} {why} by the user with id {user} that this runs as; it belongs to {facts.st_uid}:{facts.st_gid}. Change that "
            "(ansible_become), or leave rollback_previous_image empty."
        )


def _write(path: str, text: str, changed: str) -> None:
    """By one rename, with owner and mode of the file that it replaces.

    :raises ImageNotChanged: the file is as it was.
    """
    facts = os.stat(path)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".env.", dir=os.path.dirname(path))
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(changed)
            file.flush()
            if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, facts.st_uid, facts.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(facts.st_mode))
            os.fsync(descriptor)
        if _read(path) != text:
            raise ImageNotChanged(f"{path} was changed by somebody else meanwhile, and left as it is now. Run again.")
        os.replace(temporary, path)
    except OSError as err:
        raise ImageNotChanged(
            f"{path} cannot be written: {err.strerror}. It is as it was. Correct that and run again."
        ) from err
    finally:
        with contextlib.suppress(OSError):
            if temporary:
                os.unlink(temporary)


def _prove(compose: Compose, path: str, text: str, images: Mapping[str, Mapping[str, str]]) -> None:
    try:
        found = compose.config()
        wrong = [name for name, image in images.items() if found[name].get("image") != image["after"]]
        said = f"{', '.join(wrong)} did not get the image" if wrong else ""
    except ComposeRefused as err:
        said = str(err)
    if said:
        _write(path, _read(path), text)
        raise ImageNotChanged(f"Docker Compose does not follow the changed {path}: {said}. The file is as it was.")


def _stale(compose: Compose, images: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Services whose containers have another image than the one that is wanted, and so are to be made anew."""
    containers = compose.containers()
    return [
        name for name, image in images.items() if any(one.image != image["after"] for one in containers.get(name, ()))
    ]
