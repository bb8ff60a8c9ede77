"""The HTML report: one file, safe with any name, whole in a browser, on a desk and on a phone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from support import chromium
from support.benchmark_results import HOSTILE, made_up

from weighbridge.benchmarks.page import page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VOID = {"meta"}


class Reader(HTMLParser):
    """Checks that elements nest, and keeps what is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def read() -> Reader:
    reader = Reader()
    reader.feed(page(made_up()))
    return reader


def test_elements_nest(read: Reader) -> None:
    assert read.open == []
    assert {"svg", "table", "details"} <= set(read.tags)


def test_nothing_comes_from_elsewhere(read: Reader) -> None:
    assert not {"link", "img", "iframe", "object"} & set(read.tags)
    names = {name for name, _ in read.attributes}
    assert not {"src", "srcset", "action"} & names
    assert not [name for name in names if name.startswith("on")]
    links = [value or "" for name, value in read.attributes if name == "href"]
    assert links
    assert all(link.startswith("#") for link in links)


def test_names_are_only_text(read: Reader) -> None:
    assert read.tags.count("script") == 1
    assert HOSTILE.split("{")[0] in "".join(read.text)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page(made_up()))


def test_links_lead_to_parts(read: Reader) -> None:
    places = {value for name, value in read.attributes if name == "id"}
    assert {value[1:] for name, value in read.attributes if name == "href" and value} == places


def test_the_first_words_say_how_it_went(read: Reader) -> None:
    text = "".join(read.text)
    assert "In 3 of 4 comparisons" in text
    assert "peer is 1.58x as fast" in text


WINDOWS = [(1280, 900, False), (1280, 900, True), (360, 740, False), (360, 740, True)]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Tab]:
    if chromium.installed() is None:
        pytest.skip("there is no Chromium here")
    with chromium.browsing(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(made_up()), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "height", "dark"), WINDOWS)
def test_a_browser_shows_it(
    tab: chromium.Tab, report: Path, width: int, height: int, dark: bool
) -> None:
    tab.show(report, width, height, dark=dark)
    tab.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert tab.complaints == []
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run("document.title").startswith("Weighbridge")
    # Nothing is cut off but what has a scroll bar of its own.
    wide = "[...document.querySelectorAll('main *, header *')].filter((one) => " + (
        f"!one.closest('.scroll, svg') && one.getBoundingClientRect().right > {width}).length"
    )
    assert tab.run(wide) == 0
    light = tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 248)"
    assert light is not dark


def test_a_table_sorts_by_keyboard(tab: chromium.Tab, report: Path) -> None:
    tab.show(report, 1280, 900, dark=False)
    table = "document.querySelectorAll('table')[1]"
    names = f"[...{table}.tBodies[0].rows].map((row) => row.cells[1].dataset.value).map(Number)"
    tab.run(f"{table}.closest('details').open = true")
    tab.run(f"{table}.tHead.querySelectorAll('button')[1].focus()")
    tab.press("Enter")
    up = tab.run(names)
    tab.press("Enter")
    down = tab.run(names)
    assert up == sorted(up)
    assert down == up[::-1]
    assert len(up) == 4
    assert tab.run(f"{table}.tHead.rows[0].cells[1].getAttribute('aria-sort')") == "descending"
