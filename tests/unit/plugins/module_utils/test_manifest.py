# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: written, read back, refused when it is not what it should be, and held against the files."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import stat
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import manifest

CONTENT = {"dump/toc.dat": b"toc", "dump/12.dat": b"1\n\\.\n\n\n", "globals.sql": b""}


def make_backup(parent: pathlib.Path, **changes: t.Any) -> tuple[pathlib.Path, manifest.Manifest]:
    folder = parent / "backup_before_rollback_0003_20260213_101500"
    (folder / "dump").mkdir(parents=True)
    for path, content in CONTENT.items():
        (folder / path).write_bytes(content)
    files = [
        manifest.BackupFile(path, len(content), hashlib.sha256(content).hexdigest())
        for path, content in CONTENT.items()
    ]
    values: dict[str, t.Any] = {
        "id": folder.name,
        "kind": "before_rollback",
        "version": "0003",
        "database": "cypher_erp",
        "system_identifier": "7312345678901234567",
        "server_version": "15.18",
        "created_at": "2026-02-13T10:15:00.000Z",
        "files": tuple(files),
        "tables": {'b2b."a ""b\n%s ț"': {"rows": 1}},
    }
    return folder, manifest.Manifest(**{**values, **changes})


def test_what_was_written_is_loaded(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path, warnings=("one",), seconds={"dump": 0.5})
    path = manifest.write(str(folder), written)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    loaded = manifest.load(str(folder))
    assert loaded == written
    assert loaded.rows == {'b2b."a ""b\n%s ț"': 1}
    assert loaded.bytes == 10
    assert manifest.verify(str(folder), loaded) == []


def test_a_manifest_is_never_overwritten(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path)
    manifest.write(str(folder), written)
    with pytest.raises(FileExistsError):
        manifest.write(str(folder), written)


def test_unknown_facts_of_a_later_release_are_ignored(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path)
    path = pathlib.Path(manifest.write(str(folder), written))
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "later": 1}), "utf-8")
    assert manifest.load(str(folder)) == written


SIGNED = {
    "warnings": ("ț\udc80",),
    "seconds": {"dump": 1e-05, "read": 0.1},
    "content": {
        "seed": 2**62,
        "sequences": {"b2b.s": [2**63 - 1, True]},
        "large_objects": [1, "-12345678901234567890"],
    },
    "baseline": ({"name": "q", "query": "SELECT 1", "seconds": [0.1], "median": 0.1, "error": ""},),
    "applied": False,
    "tables": {"b2b.orders": {"rows": 3, "hash": "17"}},
}


def test_a_signed_manifest_is_loaded_with_its_key_and_without(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path, **SIGNED)
    path = pathlib.Path(manifest.write(str(folder), written, "ключ"))
    loaded = manifest.load(str(folder), "ключ")
    assert loaded.signature["algorithm"] == "hmac-sha256"
    assert loaded.content == written.content
    assert (loaded.applied, loaded.baseline, loaded.tables) == (False, written.baseline, written.tables)
    assert manifest.load(str(folder)) == loaded
    assert "ключ" not in path.read_text("utf-8")


def test_another_layout_of_the_same_manifest_keeps_its_signature(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path, **SIGNED)
    path = pathlib.Path(manifest.write(str(folder), written, "key"))
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), sort_keys=True), "utf-8")
    assert manifest.load(str(folder), "key").id == written.id


def test_with_a_key_only_its_signature_counts(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path)
    path = pathlib.Path(manifest.write(str(folder), written))
    with pytest.raises(manifest.ManifestInvalid, match=r"is not signed, and rollback_backup_key is set"):
        manifest.load(str(folder), "key")
    path.unlink()
    manifest.write(str(folder), written, "another key")
    with pytest.raises(manifest.ManifestInvalid, match=r"has a wrong signature.*rollback_backup_key"):
        manifest.load(str(folder), "key")


def values_in(content: t.Any, path: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    """The way to every value of a document."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in parts:
        yield (*path, name)
        yield from values_in(value, (*path, name))


def changed(value: t.Any) -> t.Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return (
        value + "x" if isinstance(value, str) else {**value, "x": 1} if isinstance(value, dict) else [*(value or ()), 1]
    )


def test_no_value_of_a_signed_manifest_can_be_changed_added_or_removed(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path, **SIGNED)
    path = pathlib.Path(manifest.write(str(folder), written, "key"))
    text = path.read_text("utf-8")
    ways = list(values_in(json.loads(text)))
    assert len(ways) > 50
    for way in [*ways, ("later",)]:
        for remove in (False, True):
            content = json.loads(text)
            parent = content
            for name in way[:-1]:
                parent = parent[name]
            if remove and way != ("later",):
                del parent[way[-1]]
            else:
                parent[way[-1]] = changed(parent[way[-1]]) if way != ("later",) else 1
            if content == json.loads(text) or set(way) == {"signature", "x"}:
                continue
            path.write_text(json.dumps(content), "utf-8")
            if way == ("signature",) and not remove:
                manifest.load(str(folder), "key")  # a fact beside algorithm and value is no part of the backup
                continue
            with pytest.raises(manifest.ManifestInvalid):
                manifest.load(str(folder), "key")


def test_no_byte_of_a_signed_manifest_can_be_exchanged_for_another_meaning(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path)
    path = pathlib.Path(manifest.write(str(folder), written, "key"))
    original = path.read_bytes()
    signed = {name: value for name, value in json.loads(original).items() if name != "signature"}
    for position in range(len(original)):
        damaged = bytearray(original)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            loaded = manifest.load(str(folder), "key")
        except manifest.ManifestInvalid:
            continue
        # A blank between two values may change, their meaning not.
        assert {name: value for name, value in json.loads(bytes(damaged)).items() if name != "signature"} == signed
        assert loaded.id == written.id


def test_a_document_that_is_nested_without_end_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / manifest.NAME).write_bytes(b"[" * 100_000)
    with pytest.raises(manifest.ManifestInvalid, match="does not count as a backup"):
        manifest.load(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": 7}, "id is missing"),
        ({"files": "dump"}, "files is missing"),
        ({"tables": {"a": {"rows": -1}}}, "rows of table a"),
        ({"tables": {"a": {"rows": True}}}, "rows of table a"),
        ({"tables": {"a": 1}}, "rows of table a"),
        ({"format": 2}, "its format is 2"),
        ({"applied": "yes"}, "applied is not a bool"),
        ({"roles": []}, "roles is not a dict"),
        ({"signature": "x"}, "signature is not a dict"),
        ({"files": ["x"]}, "not an object"),
        *(
            ({"files": [{"path": path, "bytes": 1, "sha256": "0" * 64}]}, "leads out of the backup's folder")
            for path in ("../x", "/etc/passwd", "a/../../b", "", ".", "a//b", "a\0b", 5)
        ),
        ({"files": [{"path": "a", "bytes": "1", "sha256": "0" * 64}]}, "size or checksum"),
        ({"files": [{"path": "a", "bytes": 1, "sha256": "0" * 63}]}, "size or checksum"),
    ],
)
def test_a_wrong_shape_is_refused(tmp_path: pathlib.Path, change: dict[str, t.Any], says: str) -> None:
    folder, written = make_backup(tmp_path)
    path = pathlib.Path(manifest.write(str(folder), written))
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(manifest.ManifestInvalid, match=says) as refusal:
        manifest.load(str(folder))
    assert refusal.value.outcome == "refused"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_what_is_no_manifest_is_refused(tmp_path: pathlib.Path, text: bytes) -> None:
    (tmp_path / manifest.NAME).write_bytes(text)
    with pytest.raises(manifest.ManifestInvalid, match="does not count as a backup"):
        manifest.load(str(tmp_path))


def test_a_missing_or_linked_manifest_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(manifest.ManifestInvalid, match="cannot be read"):
        manifest.load(str(tmp_path))
    folder, written = make_backup(tmp_path)
    path = pathlib.Path(manifest.write(str(folder), written))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(manifest.ManifestInvalid, match="cannot be read"):
        manifest.load(str(folder))


def cut(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def link(path: pathlib.Path) -> None:
    copy = path.parent.parent.parent / "copy"
    path.rename(copy)
    path.symlink_to(copy)


def pipe(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_folder(path: pathlib.Path) -> None:
    elsewhere = path.parent.parent.parent / "moved"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "has 0 bytes, 7 were written"),
        (flip, "wrong checksum"),
        (pathlib.Path.unlink, "cannot be read"),
        (link, "symbolic link"),
        (pipe, "not an ordinary file"),
        (link_folder, "symbolic link"),
    ],
)
def test_damage_is_found(tmp_path: pathlib.Path, damage: t.Callable[[pathlib.Path], None], says: str) -> None:
    folder, written = make_backup(tmp_path)
    manifest.write(str(folder), written)
    damage(folder / "dump" / "12.dat")
    problems = manifest.verify(str(folder), written)
    assert any("dump/12.dat" in problem and says in problem for problem in problems), problems


def test_what_was_added_or_renamed_is_found(tmp_path: pathlib.Path) -> None:
    folder, written = make_backup(tmp_path)
    manifest.write(str(folder), written)
    (folder / "dump" / "13.dat").touch()
    (folder / manifest.LOCK_NAME).touch()
    assert manifest.verify(str(folder), written) == ["dump/13.dat is not in the manifest."]
    (folder / "dump" / "13.dat").unlink()
    renamed = folder.rename(tmp_path / "other")
    (problem,) = manifest.verify(str(renamed), written)
    assert "holds the manifest of backup_before_rollback_0003_20260213_101500" in problem
