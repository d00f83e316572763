# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog without a server: which folders count, in which order, which one is chosen, and which may go."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
import time
import typing as t

import pytest
from ansible_collections.cypher.rollback.plugins.module_utils import (
    backup_catalog,
    backup_survey,
    backup_table,
    manifest,
    publication,
    retention,
    selection,
)
from ansible_collections.cypher.rollback.plugins.module_utils.errors import Refused
from ansible_collections.cypher.rollback.plugins.module_utils.server import Target

if t.TYPE_CHECKING:
    import pathlib

CLUSTER = "7312345678901234567"
TARGET = Target("localhost", 5432, "shop", "15.18", 15, CLUSTER)
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
FILES = {"dump/toc.dat": b"toc", "dump/12.dat": b"1\n\\.\n\n\n"}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "backups"
    path.mkdir(mode=0o700)
    return path


def add(folder: pathlib.Path, hours: float, lsn: int, *, key: str = "", **changes: t.Any) -> pathlib.Path:
    """A backup whose checksums are right, taken that many hours ago."""
    created = NOW - dt.timedelta(hours=hours)
    kind, version = changes.get("kind", "before_migration"), changes.get("version", "0007")
    path = folder / str(changes.get("id", f"backup_{kind}_{version}_{created:%Y%m%d_%H%M%S}"))
    (path / "dump").mkdir(parents=True, mode=0o700)
    for name, content in FILES.items():
        (path / name).write_bytes(content)
    files = [
        manifest.BackupFile(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in FILES.items()
    ]
    values: dict[str, t.Any] = {
        "id": path.name,
        "kind": kind,
        "version": version,
        "database": "shop",
        "system_identifier": CLUSTER,
        "server_version": "15.18",
        "created_at": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "files": tuple(files),
        "tables": {"public.orders": {"rows": 1}},
        "snapshot": {"lsn": f"0/{lsn:X}"},
        "seconds": {"check": 0.1, "dump": 1.0, "read": 0.2, "count": 5.0},
    }
    manifest.write(str(path), manifest.Manifest(**{**values, **changes}), key)
    return path


def damage(path: pathlib.Path) -> None:
    """As many bytes as before, and one of them another."""
    content = FILES["dump/12.dat"]
    (path / "dump/12.dat").write_bytes(b"2" + content[1:])


def rewrite(path: pathlib.Path, **changes: t.Any) -> None:
    """Change the manifest, and nothing else."""
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}), encoding="utf-8")


def only(folder: pathlib.Path, key: str = "") -> backup_catalog.Entry:
    (entry,) = backup_catalog.list_backups(str(folder), key)
    return entry


# --- what counts ------------------------------------------------------------------------------------------------------


def test_a_backup_is_described_by_its_manifest(folder: pathlib.Path) -> None:
    path = add(folder, 3, 0x2A)
    entry = only(folder)
    assert (entry.id, entry.path, entry.valid, entry.level) == (path.name, str(path), None, "manifest")
    assert (entry.kind, entry.version, entry.provider, entry.lsn) == ("before_migration", "0007", "dump", 42)
    assert (entry.bytes, entry.seconds, entry.in_use) == (sum(map(len, FILES.values())), 1.3, False)
    # Counted from the moment when these tests were collected.
    assert 3 * 3600 <= entry.age_seconds < 4 * 3600
    assert backup_catalog.inspect(str(path), level="checksum").valid is True


@pytest.mark.parametrize(
    ("phases", "seconds"),
    [
        ({"check": 0.1, "copy": 2.0, "compare": 0.5, "total": 4.2}, 4.2),
        ({"check": 0.1, "copy": 2.0, "compare": 0.5}, 2.6),
        ({"check": 0.1, "dump": 1.0, "total": "long"}, 1.1),
        ({}, None),
    ],
)
def test_how_long_it_took_is_recorded_or_added_up(
    folder: pathlib.Path, phases: dict[str, t.Any], seconds: float | None
) -> None:
    add(folder, 3, 42, seconds=phases)
    entry = only(folder)
    assert entry.seconds == seconds
    shown = f"{seconds:.1f} s" if seconds is not None else "?"
    (row,) = (line for line in backup_table.table([entry], str(folder), "manifest") if line.startswith(entry.id))
    assert f"  {shown}  dump" in row
    assert not any("total" in line for line in backup_table.detail(entry))


def test_the_order_is_that_of_the_log_and_not_of_the_clock(folder: pathlib.Path) -> None:
    newest = add(folder, 9, 300)
    second = add(folder, 1, 200)
    same_second = [add(folder, 5, 100, id=f"backup_before_migration_0007_20260101_000000{end}") for end in ("", "_2")]
    for path in (second, *same_second):
        os.utime(path, (time.time() + 1000, time.time() + 1000))
    rewrite(same_second[1], snapshot={"lsn": "0/65"})
    found = [entry.id for entry in backup_catalog.list_backups(str(folder))]
    assert found == [newest.name, second.name, same_second[1].name, same_second[0].name]


def test_a_position_beyond_four_gigabytes_is_a_larger_number(folder: pathlib.Path) -> None:
    low, high = add(folder, 1, 0xFFFFFFFF), add(folder, 2, 1)
    rewrite(high, snapshot={"lsn": "1/0"})
    assert [entry.id for entry in backup_catalog.list_backups(str(folder))] == [high.name, low.name]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": "another"}, "Its manifest is that of 'another'"),
        ({"created_at": "yesterday"}, "where the time of the backup should be"),
        ({"created_at": "2026-01-01T00:00:00"}, "where the time of the backup should be"),
        ({"created_at": "9999-12-31T23:59:59-23:00"}, "where the time of the backup should be"),
        ({"provider": "magic"}, "provider 'magic'"),
        ({"format": 2}, "its format is 2, this release reads 1"),
        ({"snapshot": []}, "snapshot is not a dict"),
        ({"files": [{"path": "../../etc/passwd", "bytes": 1, "sha256": "0" * 64}]}, "leads out of the backup's folder"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_none(
    folder: pathlib.Path, changes: dict[str, t.Any], reason: str
) -> None:
    rewrite(add(folder, 1, 1), **changes)
    entry = only(folder)
    assert (entry.valid, entry.manifest, entry.level) == (False, None, "")
    assert reason in entry.reason


def test_what_is_not_ours_alone_is_shown_with_the_reason_and_not_followed(folder: pathlib.Path) -> None:
    outside = add(folder.parent, 1, 1)
    (folder / "backup_link").symlink_to(outside)
    (folder / "backup_before_migration_0007.sql").write_text("-- from another script")
    (folder / "backup_empty").mkdir()
    open_to_all = add(folder, 2, 2)
    open_to_all.chmod(0o777)
    linked_manifest = add(folder, 3, 3)
    os.rename(linked_manifest / "manifest.json", folder.parent / "elsewhere.json")
    (linked_manifest / "manifest.json").symlink_to(folder.parent / "elsewhere.json")
    pipe = add(folder, 4, 4)
    (pipe / "manifest.json").unlink()
    os.mkfifo(pipe / "manifest.json")
    (folder / "runs").mkdir()
    (folder / ".partial-backup_x").mkdir()
    reasons = {entry.id: entry.reason for entry in backup_catalog.list_backups(str(folder)) if entry.valid is False}
    assert reasons.pop("backup_link") == "It is a symbolic link, and links are never followed."
    assert reasons.pop("backup_before_migration_0007.sql").startswith("It is not a folder")
    assert reasons.pop("backup_empty").startswith("It has no manifest.json")
    assert reasons.pop(open_to_all.name) == "It can be written by every user of the host."
    assert "It is a symbolic link" in reasons.pop(linked_manifest.name)
    assert "It is not an ordinary file" in reasons.pop(pipe.name)
    assert reasons == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_ours(folder: pathlib.Path) -> None:
    path = add(folder, 1, 1)
    os.chown(path / "dump/12.dat", 65534, 65534)
    assert "belongs to the user with id 65534" in backup_catalog.inspect(str(path), level="checksum").reason
    os.chown(path, 65534, 65534)
    entry = only(folder)
    assert (entry.valid, "belongs to the user with id 65534" in entry.reason) == (False, True)


def test_a_folder_of_backups_that_anybody_can_write_to_is_refused(folder: pathlib.Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    with pytest.raises(backup_catalog.CatalogRefused, match=r"symbolic link.*rollback_backup_dir"):
        backup_catalog.list_backups(f"{link}/")
    folder.chmod(0o777)
    with pytest.raises(backup_catalog.CatalogRefused, match="written by every user"):
        backup_catalog.list_backups(str(folder))
    assert backup_catalog.list_backups(str(folder / "missing")) == []


HOSTILE = (
    "backup_\x1b[2J",
    "backup_new\nline",
    "backup_ blank",
    "backup_\udcff",
    "backup_%s{{7*7}}",
    "backup_\u202egnp",
)


def test_hostile_names_and_values_cannot_reach_the_terminal(folder: pathlib.Path) -> None:
    for number, name in enumerate(HOSTILE):
        path = add(folder, number, number, id=f"backup_{number}")
        os.rename(path, folder / name)
        if "\udcff" not in name:
            rewrite(folder / name, id=name)
    add(folder, 1, 99, version="0007\n\x1b[31mVALID", id="backup_fine", database="sh\nop\ud800")
    entries = backup_catalog.list_backups(str(folder))
    assert [entry.id for entry in entries if entry.valid is None] == ["backup_fine"]
    assert all(entry.reason for entry in entries if entry.valid is False)
    lines = backup_table.table(entries, str(folder), "manifest") + [
        line for entry in entries for line in backup_table.detail(entry)
    ]
    assert all(line.isprintable() or line == "" for line in lines), lines
    json.dumps([entry.to_dict() for entry in entries], ensure_ascii=False).encode("utf-8")
    # A line of the table each, whatever is in its cells.
    assert len([line for line in lines if line.startswith("backup_fine ")]) == 1


def test_signatures_are_asked_for_where_there_is_a_key(folder: pathlib.Path) -> None:
    signed, unsigned = add(folder, 1, 2, key="secret"), add(folder, 2, 1)
    entries = {entry.id: entry for entry in backup_catalog.list_backups(str(folder), "secret")}
    assert entries[signed.name].valid is None
    assert "not signed, and rollback_backup_key is set" in entries[unsigned.name].reason
    rewrite(signed, version="0008")
    assert "wrong signature" in backup_catalog.read_entry(str(signed), "secret").reason
    assert "wrong signature" in backup_catalog.read_entry(str(signed), "other").reason


@pytest.mark.parametrize("wrong", ["flipped", "empty", "missing", "added", "linked", "no archive"])
def test_checksums_tell_what_became_of_the_files(folder: pathlib.Path, wrong: str) -> None:
    path = add(folder, 1, 1)
    file = path / "dump/12.dat"
    if wrong == "flipped":
        damage(path)
    elif wrong == "empty":
        file.write_bytes(b"")
    elif wrong == "missing":
        file.unlink()
    elif wrong == "added":
        (path / "dump/13.dat").write_bytes(b"")
    elif wrong == "linked":
        os.rename(file, folder.parent / "12.dat")
        file.symlink_to(folder.parent / "12.dat")
    else:
        rewrite(path, files=[])
        (path / "dump/toc.dat").unlink()
        file.unlink()
    entry = backup_catalog.inspect(str(path), level="checksum")
    words = {
        "flipped": "wrong checksum",
        "empty": "has 0 bytes, 7 were written",
        "missing": "12.dat cannot be read",
        "added": "13.dat is not in the manifest",
        "linked": "symbolic link",
        "no archive": "does not name dump/toc.dat",
    }
    assert entry.valid is False
    assert words[wrong] in entry.reason
    assert entry.level == "manifest"


def test_who_reads_a_backup_is_seen_without_being_disturbed(folder: pathlib.Path) -> None:
    path = add(folder, 1, 1)
    with publication.share_lock(str(path)):
        assert only(folder).in_use
        assert backup_catalog.inspect(str(path), level="checksum").valid is True
    assert not only(folder).in_use


def test_what_is_being_removed_cannot_be_verified(folder: pathlib.Path) -> None:
    path = add(folder, 1, 1)
    lock = publication.take_lock(str(path))
    try:
        entry = backup_catalog.inspect(str(path), level="checksum")
        assert (entry.valid, entry.in_use) == (None, True)
        assert "being written or removed" in entry.reason
    finally:
        os.close(lock)


def test_two_thousand_backups_are_listed_in_a_moment(folder: pathlib.Path) -> None:
    for number in range(2000):
        add(folder, number, 5000 - number, id=f"backup_before_migration_0007_{number:08d}_000000")
    started = time.process_time()
    entries = backup_catalog.list_backups(str(folder))
    seconds = time.process_time() - started
    assert [entry.lsn for entry in entries] == sorted((entry.lsn for entry in entries), reverse=True)
    assert len(entries) == 2000
    assert seconds < 10, seconds


# --- which one is chosen ----------------------------------------------------------------------------------------------


def test_the_newest_is_chosen_and_older_ones_need_no_reason(folder: pathlib.Path) -> None:
    add(folder, 5, 1)
    newest = add(folder, 1, 2)
    choice = selection.choose(str(folder), TARGET)
    assert (choice.entry.id, choice.entry.valid, choice.entry.level) == (newest.name, True, "checksum")
    assert (choice.skipped, choice.gap) == ((), None)


def test_a_damaged_newer_one_is_passed_over_with_the_reason_and_the_time_that_it_costs(folder: pathlib.Path) -> None:
    whole, broken, unreadable = add(folder, 7, 1), add(folder, 2, 2), add(folder, 1, 3)
    (broken / "dump/12.dat").write_bytes(b"1\n")
    (unreadable / "manifest.json").write_text("{")
    choice = selection.choose(str(folder), TARGET)
    assert choice.entry.id == whole.name
    assert [(each.id, each.reason.partition(":")[0][:40]) for each in choice.skipped] == [
        (unreadable.name, f"{unreadable}/manifest.json is not a manifest"[:40]),
        (broken.name, "dump/12.dat has 2 bytes, 7 were written."[:40]),
    ]
    assert choice.gap is not None
    assert choice.gap.seconds == 6 * 3600
    assert f"{whole.name} is 6 h older than {unreadable.name}" in choice.gap.text


def test_what_is_of_another_place_kind_or_time_is_passed_over(folder: pathlib.Path) -> None:
    chosen = add(folder, 9, 1)
    other_cluster = add(folder, 1, 9, id="backup_cluster", system_identifier="1")
    other_database = add(folder, 2, 8, id="backup_database", database="stock")
    after = add(folder, 3, 7, id="backup_after", applied=True)
    other_kind = add(folder, 4, 6, kind="before_rollback")
    add(folder, 20, 0, kind="before_rollback")
    choice = selection.choose(str(folder), TARGET)
    reasons = {each.id: each.reason for each in choice.skipped}
    assert choice.entry.id == chosen.name
    assert "another cluster: its system identifier is 1" in reasons.pop(other_cluster.name)
    assert "of the database 'stock', not of 'shop'" in reasons.pop(other_database.name)
    assert "taken after the migration: 0007 was applied already" in reasons.pop(after.name)
    assert "of the kind before_rollback" in reasons.pop(other_kind.name)
    assert reasons == {}
    assert choice.gap is not None
    assert choice.gap.seconds == 6 * 3600


def test_only_the_migration_that_was_asked_for(folder: pathlib.Path) -> None:
    asked, _newer = add(folder, 5, 1, version="0006"), add(folder, 1, 2, version="0007")
    choice = selection.choose(str(folder), TARGET, version="0006")
    assert choice.entry.id == asked.name
    assert [each.reason.partition(",")[0] for each in choice.skipped] == ["It was taken for 0007"]
    assert choice.gap is None


def test_a_named_one_is_never_replaced(folder: pathlib.Path) -> None:
    add(folder, 5, 1)
    broken = add(folder, 1, 2, kind="before_rollback")
    assert selection.choose(str(folder), TARGET, named=broken.name).entry.id == broken.name
    damage(broken)
    with pytest.raises(selection.NoValidBackup, match=r"was named and cannot be used: .*wrong checksum.* No other one"):
        selection.choose(str(folder), TARGET, named=broken.name)
    foreign = add(folder, 1, 9, id="backup_cluster", system_identifier="1")
    with pytest.raises(selection.NoValidBackup, match="another cluster"):
        selection.choose(str(folder), TARGET, named=foreign.name)
    late = add(folder, 1, 9, id="backup_late", applied=True)
    with pytest.raises(selection.NoValidBackup, match="taken after the migration"):
        selection.choose(str(folder), TARGET, named=late.name)
    for name in ("../outside", "backup_none", "", "/etc"):
        if name:
            with pytest.raises(backup_catalog.CatalogRefused, match="There is no backup"):
                selection.choose(str(folder), TARGET, named=name)


def test_no_valid_one_is_refused_with_every_reason(folder: pathlib.Path) -> None:
    with pytest.raises(selection.NoValidBackup, match=r"The folder has no backup at all.*rollback_backup_dir"):
        selection.choose(str(folder), TARGET)
    broken = add(folder, 1, 2)
    damage(broken)
    add(folder, 2, 1, kind="before_rollback")
    with pytest.raises(selection.NoValidBackup) as caught:
        selection.choose(str(folder), TARGET)
    assert {each["id"] for each in caught.value.details["skipped"]} == {path.name for path in folder.iterdir()}


# --- what somebody has to be told -------------------------------------------------------------------------------------


def survey_of(folder: pathlib.Path, **changes: t.Any) -> tuple[list[backup_catalog.Entry], list[str]]:
    wanted = backup_survey.Survey(str(folder), database="shop", **changes)
    found = backup_survey.survey(wanted)
    return found, backup_survey.problems(found, wanted)


def test_all_is_well_only_with_a_valid_newest_one_of_each_kind(folder: pathlib.Path) -> None:
    assert "There is no valid before_migration backup of shop" in survey_of(folder)[1][0]
    old, newest = add(folder, 5, 1), add(folder, 1, 2)
    add(folder, 1, 1, id="backup_other", database="stock")
    found, problems = survey_of(folder)
    assert ([entry.id for entry in found], problems) == ([newest.name, old.name], [])
    damage(old)
    assert survey_of(folder)[1] == []
    damage(newest)
    _found, problems = survey_of(folder)
    assert [problem[:45] for problem in problems] == [
        f"The newest before_migration backup, {newest.name}"[:45],
        "There is no valid before_migration backup of shop in"[:45],
    ]


def test_the_newest_one_of_a_kind_is_a_problem_even_where_an_older_one_is_valid(folder: pathlib.Path) -> None:
    old, newest = add(folder, 5, 1), add(folder, 1, 2)
    damage(newest)
    (problem,) = survey_of(folder)[1]
    assert problem.endswith(f"The newest valid one is {old.name}, 4 h older.")
    (newest / "manifest.json").unlink()
    (problem,) = survey_of(folder)[1]
    assert problem.startswith(f"{newest.name}, by its name newer than any valid one of its kind, is not valid")
    assert survey_of(folder, level="manifest")[1] == [problem]


def test_one_that_is_named_is_the_only_one_that_counts(folder: pathlib.Path) -> None:
    good, bad = add(folder, 5, 1), add(folder, 1, 2)
    damage(bad)
    assert survey_of(folder, backup=good.name)[1] == []
    assert "is not valid" in survey_of(folder, backup=bad.name)[1][0]
    with pytest.raises(Refused, match="There is no backup 'nowhere'"):
        survey_of(folder, backup="nowhere")
    with pytest.raises(Refused, match="login_db"):
        survey_of(folder, level="restore")


def test_a_clone_is_not_valid_by_its_files_alone(folder: pathlib.Path) -> None:
    path = add(folder, 1, 1, provider="clone", clone={"database": "x", "oid": 1}, database_bytes=12345)
    entry = backup_catalog.inspect(str(path), level="checksum")
    assert (entry.valid, entry.level, entry.bytes) == (None, "checksum", 12345)
    assert "no server was named" in entry.reason
    assert len(survey_of(folder)[1]) == 2


def test_the_table_has_a_line_for_each_and_fits(folder: pathlib.Path) -> None:
    good, bad = add(folder, 30, 1), add(folder, 0.5, 2)
    damage(bad)
    found, _problems = survey_of(folder)
    lines = backup_table.table(found, "/b", "checksum", "shop")
    assert lines[0] == "BACKUPS  /b  2 backups of shop, verified: sizes and checksums"
    assert lines[1].split() == ["ID", "KIND", "VERSION", "AGE", "SIZE", "TOOK", "PROVIDER", "VALID"]
    assert lines[2].split()[0] == bad.name
    assert lines[2].split()[-1] == "NO"
    assert lines[3].startswith("    dump/12.dat has the right size and a wrong checksum")
    assert f"{good.name}  before_migration" in lines[4]
    assert lines[4].split()[3:7] == ["1", "d", "6", "h"]
    assert max(map(len, lines)) <= 120
    shown = "\n".join(backup_table.detail(found[1]))
    assert "public.orders" in shown
    assert "signed" in shown


# --- which may go -----------------------------------------------------------------------------------------------------


def ids(decisions: t.Iterable[retention.Decision]) -> list[str]:
    return [decision.entry.id for decision in decisions]


def expire(
    folder: pathlib.Path, keep: int | None = None, days: float | None = None, **more: t.Any
) -> retention.Expired:
    return retention.expire(str(folder), retention.Policy(keep, days), **more)


def test_the_newest_ones_of_each_kind_are_kept(folder: pathlib.Path) -> None:
    paths = [add(folder, hours, 100 - hours) for hours in range(1, 6)]
    other_kind = add(folder, 50, 1, kind="before_rollback")
    preview = expire(folder, 2, check_mode=True)
    assert all(path.is_dir() for path in paths)
    done = expire(folder, 2)
    assert ids(done.removed) == ids(preview.removed) == [path.name for path in paths[2:]]
    assert done.removed[0].reason == "Older than the 2 newest valid ones."
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(path.name for path in paths[:2]), other_kind.name]
    )
    assert expire(folder, 2).removed == ()


def test_age_alone_and_both_limits_together(folder: pathlib.Path) -> None:
    paths = [add(folder, 24 * day, 100 - day) for day in (1, 2, 10, 20)]
    assert ids(expire(folder, 1, 15, check_mode=True).removed) == [paths[3].name]
    assert ids(expire(folder, 4, 1, check_mode=True).removed) == []
    done = expire(folder, None, 5)
    assert ids(done.removed) == [paths[2].name, paths[3].name]
    assert "10 d old, and 5 days are kept" in done.removed[0].reason
    assert {decision.reason for decision in done.kept} == {"The newest valid one.", "Younger than 5 days."}


def test_damaged_newer_ones_do_not_push_out_the_last_valid_one(folder: pathlib.Path) -> None:
    paths = [add(folder, 24 * day, 100 - day) for day in (1, 2, 3, 4)]
    for path in paths[:2]:
        damage(path)
    done = expire(folder, 1, 0)
    assert ids(done.removed) == [paths[3].name]
    reasons = {decision.entry.id: decision.reason for decision in done.kept}
    assert reasons[paths[2].name] == "The newest valid one."
    assert "Not counted" in reasons[paths[0].name]
    damage(paths[2])
    assert expire(folder, 1, 0).removed == ()


def test_what_is_read_at_the_moment_stays(folder: pathlib.Path) -> None:
    _newest, read, old = (add(folder, hours, 100 - hours) for hours in (1, 2, 3))
    with publication.share_lock(str(read)):
        done = expire(folder, 1)
    assert ids(done.removed) == [old.name]
    assert {decision.entry.id: decision.reason for decision in done.kept}[read.name].startswith("In use")
    assert read.is_dir()


def test_a_lock_that_cannot_be_seen_is_respected_all_the_same(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_catalog, "LOCKS", "/nonexistent")
    _newest, read = (add(folder, hours, 100 - hours) for hours in (1, 2))
    with publication.share_lock(str(read)):
        done = expire(folder, 1)
    assert (done.removed, read.is_dir()) == ((), True)
    assert done.kept[1].reason.startswith("In use")


def test_nothing_without_our_manifest_goes(folder: pathlib.Path) -> None:
    add(folder, 1, 900)
    link = folder / "backup_link"
    link.symlink_to(add(folder.parent, 99, 1))
    open_to_all, tampered = add(folder, 99, 2), add(folder, 98, 3, key="secret")
    open_to_all.chmod(0o777)
    rewrite(tampered, version="0008")
    (folder / "backup_empty").mkdir()
    other = add(folder, 97, 4, id="backup_stock", database="stock")
    before = sorted(folder.iterdir())
    done = expire(folder, 1, 0, database="shop", key="secret")
    assert done.removed == ()
    assert sorted(folder.iterdir()) == before
    assert all(decision.reason.startswith("Not ours to remove") for decision in done.kept)
    assert other.is_dir()


def test_a_clone_is_neither_counted_nor_removed_without_its_server(folder: pathlib.Path) -> None:
    dump = add(folder, 2, 5)
    clones = [
        add(folder, hours, lsn, provider="clone", id=f"backup_clone_{lsn}", clone={"database": "x", "oid": 1})
        for hours, lsn in ((1, 6), (3, 1))
    ]
    done = expire(folder, 1)
    assert done.removed == ()
    reasons = {decision.entry.id: decision.reason for decision in done.kept}
    assert reasons[dump.name] == "The newest valid one."
    assert "no server was named to drop its database on" in reasons[clones[1].name]


@pytest.mark.parametrize(
    ("keep", "days", "words"),
    [
        ("", "", "Nothing says"),
        (0, "", "keep is 0"),
        ("x", "", "keep is 'x'"),
        (True, "", "keep is True"),
        ("", -1, "days is -1"),
    ],
)
def test_limits_that_mean_nothing_are_refused(keep: t.Any, days: t.Any, words: str) -> None:
    with pytest.raises(retention.RetentionRefused, match=words):
        retention.policy_from(keep, days)


def test_limits_come_as_numbers_or_as_text() -> None:
    assert retention.policy_from("7", "0.5") == retention.Policy(7, 0.5)
    assert retention.policy_from(7, None) == retention.Policy(7, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (90000, "1 d 1 h"), (-61, "1 min 1 s")],
)
def test_spans(seconds: float, text: str) -> None:
    assert backup_catalog.span(seconds) == text


def test_an_entry_is_not_changed_by_who_gets_it(folder: pathlib.Path) -> None:
    add(folder, 1, 7)
    entry = only(folder)
    assert entry.group == (CLUSTER, "shop", "before_migration")
    assert entry.order[0] == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.valid = True
