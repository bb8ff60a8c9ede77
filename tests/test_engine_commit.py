"""A target is all old or all new: whatever goes wrong, nothing is lost and nothing left behind."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.plans import (
    HEADER,
    expected_files,
    listing,
    numbers,
    plan_of,
    some_tensors,
    written_files,
)

from weighbridge.encoding import DENSE
from weighbridge.errors import AlreadyExists, Error, SystemRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weighbridge.steps import Plan

NAMES = ("one.bin", "two.bin", "index.json")
WRITES = ("truncate", "pwrite", "fsync", "rename", "replace", "mkdir")
CALLS = (*WRITES, "open", "link", "unlink", "rmdir")
"""Where the engine meets the system, and where that may find the disk full."""

DISK_FULL = OSError(errno.ENOSPC, "No space left on device")

KINDS = {
    "file": ("model.bin", ()),
    "files": ("one.bin", NAMES),
    "directory": ("model", NAMES),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory of the target's own, with a file that is none of its business."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("mine")
    return tmp_path / "home"


def make_old(home: Path, kind: str) -> None:
    """Make what an overwriting run replaces."""
    target, names = KINDS[kind]
    folder = home / target if kind == "directory" else home
    folder.mkdir(exist_ok=True)
    for name in names or (target,):
        (folder / name).write_bytes(b"old " + name.encode())


def planned(tmp_path: Path, home: Path, kind: str, overwrite: bool = False) -> Plan:
    target, names = KINDS[kind]
    return plan_of(some_tensors(tmp_path), home / target, names=names, overwrite=overwrite)


class Fault:
    """Fails the call of that number to the system, before it is made or after."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        at: int,
        error: BaseException,
        *,
        late: bool = False,
        calls: Sequence[str] = CALLS,
    ) -> None:
        self.count = 0
        self.at, self.error, self.late = at, error, late
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        for name in calls:
            monkeypatch.setattr(os, name, self.faulty(getattr(os, name)))

    def faulty(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            mine = self.count == self.at
            self.count += 1
            if mine and not self.late:
                raise self.error
            result = real(*arguments, **named)
            if mine:
                raise self.error
            return result

        return call


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault",
    [
        {"error": DISK_FULL, "calls": WRITES},
        {"error": KeyboardInterrupt(), "late": False},
        {"error": KeyboardInterrupt(), "late": True},
    ],
    ids=["disk full", "interrupted before", "interrupted after"],
)
def test_a_failure_anywhere_leaves_all_of_the_old_or_all_of_the_new(
    tmp_path: Path, home: Path, kind: str, overwrite: bool, fault: dict[str, Any]
) -> None:
    target, names = KINDS[kind]
    tensors = {"a": numbers(DENSE["f32"], (8,)), "b": numbers(DENSE["bf16"], (3,))}
    outcomes = set()
    for at in range(1000):
        if overwrite:
            make_old(home, kind)
        plan = plan_of(tensors, home / target, names=names, overwrite=overwrite)
        before = listing(home)
        with pytest.MonkeyPatch.context() as monkeypatch:
            calls = Fault(monkeypatch, at, **fault)
            failed = raises(plan)
        complete = not failed or listing(home) != before
        if complete:
            assert listing(home) == {**before, **complete_listing(plan)}
        outcomes.add((bool(failed), complete))
        for path in plan.replaces or {home / name for name in listing(home)} - {home / "notes.txt"}:
            clear(path)
        if calls.count <= at:
            break
    assert at > 5
    assert (False, True) in outcomes
    assert (True, False) in outcomes


def raises(plan: Plan) -> BaseException | None:
    try:
        plan.run(threads=1)
    except (Error, KeyboardInterrupt) as error:
        return error
    return None


def clear(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        for inner in path.iterdir():
            clear(inner)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def complete_listing(plan: Plan) -> dict[str, bytes | None]:
    """Return what `listing` of the target's parent says of the target when it is complete."""
    prefix = f"{plan.target.name}/" if plan.directory else ""
    files = {prefix + name: content for name, content in expected_files(plan).items()}
    folders = {str(parent): None for name in files for parent in Path(name).parents}
    folders.pop(".")
    return {**files, **folders}


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_an_error_that_names_the_target(
    tmp_path: Path, home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, home, kind)
    Fault(monkeypatch, 4, DISK_FULL, calls=["pwrite"])
    with pytest.raises(SystemRefusal, match="No space left on device") as caught:
        plan.run()
    assert (caught.value.rule, caught.value.path) == ("disk-full", str(plan.target))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_what_appears_meanwhile_is_not_replaced(
    tmp_path: Path, home: Path, kind: str, overwrite: bool
) -> None:
    if overwrite:
        make_old(home, kind)
    plan = planned(tmp_path, home, kind, overwrite)
    late = home / "model" / "precious" if kind == "directory" else plan.target
    if overwrite and kind != "directory":
        late = late.with_name("two.bin") if kind == "files" else late
        late.unlink()
        plan = planned(tmp_path, home, kind, overwrite)

    def appear(event: object) -> None:
        late.parent.mkdir(exist_ok=True)
        late.write_text("precious")

    with pytest.raises(AlreadyExists) as caught:
        plan.run(progress=appear)
    assert caught.value.rule == "exists"
    assert late.read_text() == "precious"
    before = listing(home)
    with pytest.raises(AlreadyExists):
        plan.run()
    assert listing(home) == before
    assert not [name for name in before if "partial" in name]


def test_what_appears_at_the_last_moment_is_not_replaced(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, home, "file")
    real = os.link

    def late(source: Path, name: Path) -> None:
        Path(name).write_text("precious")
        real(source, name)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(AlreadyExists):
        plan.run()
    assert listing(home) == {"notes.txt": b"mine", "model.bin": b"precious"}


def test_a_file_system_without_links_will_do(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, name: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    plan = planned(tmp_path, home, "files")
    plan.run()
    assert written_files(plan) == expected_files(plan)


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_is_replaced_and_not_what_it_points_to(
    tmp_path: Path, home: Path, kind: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    make_old(tmp_path / "elsewhere", kind)
    target, names = KINDS[kind]
    for name in [target, *(names if kind == "files" else ())]:
        (home / name).unlink(missing_ok=True)
        (home / name).symlink_to(tmp_path / "elsewhere" / name)
    before = listing(tmp_path / "elsewhere")
    plan = planned(tmp_path, home, kind, overwrite=True)
    plan.run()
    assert written_files(plan) == expected_files(plan)
    assert not plan.target.is_symlink()
    assert listing(tmp_path / "elsewhere") == before
    assert not [name for name in listing(home) if "partial" in name]


@pytest.mark.parametrize("kind", KINDS)
def test_the_umask_is_honoured(tmp_path: Path, home: Path, kind: str) -> None:
    before = os.umask(0o027)
    try:
        plan = planned(tmp_path, home, kind)
        plan.run()
    finally:
        os.umask(before)
    paths = [plan.target, *(plan.target.rglob("*") if plan.directory else ())]
    assert {stat.S_IMODE(p.stat().st_mode) for p in paths if p.is_file()} == {0o640}
    assert {stat.S_IMODE(p.stat().st_mode) for p in paths if p.is_dir()} <= {0o750}


@pytest.mark.parametrize("name", ["n" * 255, "ß" * 120 + ".bin", "重" * 80 + ".bin"])
def test_the_longest_names_are_written(tmp_path: Path, home: Path, name: str) -> None:
    plan = plan_of({"x": numbers(DENSE["f32"], (4,))}, home / name)
    plan.run()
    assert set(listing(home)) == {"notes.txt", name}


def test_names_that_begin_alike_do_not_meet(tmp_path: Path, home: Path) -> None:
    names = tuple(f"{'x' * 60}{number}.bin" for number in range(3))
    plan = plan_of(some_tensors(tmp_path), home / names[0], names=names)
    plan.run()
    assert written_files(plan) == expected_files(plan)


def test_a_relative_target_is_where_it_was_planned(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    plan = plan_of({"x": numbers(DENSE["f32"], (4,))}, Path("model.bin"))
    plan.run()
    assert (home / "model.bin").read_bytes().startswith(HEADER)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_in_the_callers_own_code_leaves_nothing(
    tmp_path: Path, home: Path, kind: str
) -> None:
    before = listing(home)

    def fail(event: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        planned(tmp_path, home, kind).run(progress=fail)
    assert listing(home) == before
