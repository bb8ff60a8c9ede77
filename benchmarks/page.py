"""The report as one HTML page, which needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import statistics
from importlib import resources
from typing import TYPE_CHECKING

from weighbridge.benchmarks.chart import Bar, compared, ratios
from weighbridge.benchmarks.figures import times
from weighbridge.benchmarks.markup import Markup, el, join
from weighbridge.benchmarks.page_case import case_section
from weighbridge.benchmarks.page_encodings import encodings
from weighbridge.benchmarks.page_method import key, machine, method
from weighbridge.benchmarks.report import INTERRUPTED
from weighbridge.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weighbridge.benchmarks.results import CaseResult, Results

TITLE = "Weighbridge: how fast models open, load and convert"

AS_FAST = 0.95
"""The ratio from which something counts as fast as another."""

LOADING = ("Load all", "Decode to BF16")
"""The groups of cases whose results stay in memory."""


def page(results: Results) -> str:
    """Return the report as HTML.

    Example:
        >>> from weighbridge.benchmarks.results import Machine, Results, Settings
        >>> machine = Machine("<b>", 2, 8, "Linux", "ext4", 0.0, [])
        >>> text = page(Results(machine, "", 1.0, {}, Settings({}, None, 12.0, []), []))
        >>> text.startswith("<!doctype html>"), "<b>" in text, "&lt;b&gt;" in text
        (True, False, True)
    """
    style, script = (Markup(_asset(name)) for name in ("page.css", "page.js"))
    head = join(
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        _policy(script),
        el("title", TITLE),
        el("style", style),
    )
    groups = list(dict.fromkeys(case.group for case in results.cases))
    parts = [*groups, *(["Encodings"] if results.encodings else []), "Method", "Machine"]
    sections = (_group(name, results) for name in groups)
    body = join(
        el("header", el("h1", TITLE), *_summary(results), _contents(parts), key()),
        el("main", *_overview(results), *sections, *encodings(results.encodings)),
        el("footer", *method(results), *machine(results)),
        el("script", script),
    )
    document = el("html", el("head", head), el("body", body), lang="en")
    return f"<!doctype html>\n{document}\n"


def _asset(name: str) -> str:
    return resources.files("weighbridge.benchmarks").joinpath(name).read_text("utf-8")


def _policy(script: str) -> Markup:
    """Forbid everything but the page's own style and script (Content Security Policy 3)."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return Markup(f'<meta http-equiv="Content-Security-Policy" content="{rules}">')


def _comparisons(results: Results) -> list[CaseResult]:
    """Return the cases in which another tool does the same, and is compared by time."""
    return [case for case in results.cases if case.peer and case.measure == "seconds"]


def _ratio(case: CaseResult) -> float:
    assert case.peer is not None
    return case.peer.ratio.median


def _summary(results: Results) -> Iterator[Markup]:
    """Yield what a reader with ten seconds should see."""
    if results.interrupted:
        yield el("p", INTERRUPTED, class_="missed")
    cases = _comparisons(results)
    if cases:
        ahead = sum(_ratio(case) >= AS_FAST for case in cases)
        middle = compared(statistics.median(map(_ratio, cases)))
        yield el(
            "p",
            f"In {ahead} of {len(cases)} comparisons Weighbridge is as fast as the best other tool "
            f"or faster; in the middle one it is {middle}.",
            class_="lead",
        )
    yield el("div", *_cards(results, cases), class_="cards")
    behind = [case for case in cases if _ratio(case) < AS_FAST]
    if behind:
        yield el("p", "Where another tool is ahead:")
        yield el("ul", *(el("li", _behind(case)) for case in sorted(behind, key=_ratio)))


def _cards(results: Results, cases: Sequence[CaseResult]) -> Iterator[Markup]:
    for group in dict.fromkeys(case.group for case in cases):
        found = [_ratio(case) for case in cases if case.group == group]
        middle = statistics.median(found)
        many = f", the median of {len(found)} cases" if len(found) > 1 else ""
        kind = "ahead" if middle >= AS_FAST else "behind"
        yield el(
            "div",
            el("strong", times(middle)),
            f"{group}: speed against the best other tool{many}",
            class_=f"card {kind}",
        )
    loads = [case.own for case in results.cases if case.group in LOADING]
    beside = [row.figures["beyond"].median for row in loads if row is not None]
    if beside:
        words = "the most memory that a load takes beside its result"
        yield el("div", el("strong", human(max(beside))), words, class_="card")


def _behind(case: CaseResult) -> str:
    assert case.peer is not None
    return f"{case.title}: {case.peer.name} is {times(1 / _ratio(case))} as fast"


def _contents(parts: Sequence[str]) -> Markup:
    links = [el("a", name, href=f"#{_anchor(name)}") for name in parts]
    return el("nav", *links, aria_label="Parts of this page")


def _anchor(group: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in group.lower())


def _overview(results: Results) -> Iterator[Markup]:
    cases = _comparisons(results)
    if cases:
        title = "Speed beside the best other tool"
        rows = [
            Bar(
                f"{case.title}, beside {case.peer.name}",
                case.peer.ratio,
                compared(_ratio(case)),
                "peer",
            )
            for case in cases
            if case.peer
        ]
        yield el("h2", title)
        yield el(
            "p",
            "To the right of 1x Weighbridge is faster, to the left the other tool is. The line is "
            "the range over all rounds; the scale is logarithmic.",
            class_="soft",
        )
        yield el("div", ratios(rows), class_="case")
    verdicts = [(case, verdict) for case in results.cases for verdict in case.verdicts]
    if verdicts:
        met = sum(verdict.met for _, verdict in verdicts)
        missed = [
            el("li", f"{case.title}: {verdict.text}: {verdict.got}", class_="missed")
            for case, verdict in verdicts
            if not verdict.met
        ]
        yield el("h2", "Goals")
        yield el("p", f"{met} of {len(verdicts)} are met.")
        yield el("ul", *missed, class_="plain")


def _group(name: str, results: Results) -> Markup:
    cases = [case_section(case) for case in results.cases if case.group == name]
    return el("section", el("h2", name, id=_anchor(name)), *cases)
