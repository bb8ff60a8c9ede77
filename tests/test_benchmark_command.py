"""``weighbridge bench`` behaves as the other commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.benchmark_results import made_up
from support.command import called

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_its_own(option: str) -> None:
    done = called("bench", option)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: weighbridge bench ")
    assert "--compare OLD NEW" in done.out


def test_cases_are_listed_without_being_run() -> None:
    done = called("bench", "--list", "--cold", "--only", "open-*")
    assert done.code == 0
    names = [line.split()[0] for line in done.out.splitlines()]
    assert "open-gguf" in names
    assert "open-gguf-cold" in names


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["no-such-file"], "not-found"),
        (["--only", "nothing"], "case"),
        (["--no-such-option"], "usage"),
        (["--from", "nowhere.json"], "system"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], rule: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = called("bench", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.rules == [rule]


def test_results_become_a_page(tmp_path: Path) -> None:
    book, html = tmp_path / "results.json", tmp_path / "report.html"
    made_up().write(book)
    done = called("bench", "--from", book, "--html", html)
    assert (done.code, done.err) == (0, "")
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "\x1b" not in done.out


def test_results_are_compared(tmp_path: Path) -> None:
    book, other = tmp_path / "results.json", tmp_path / "other.json"
    made_up().write(book)
    other.write_text("[]")
    assert called("bench", "--compare", book, book).code == 0
    assert called("bench", "--compare", book, other).rules == ["results"]
