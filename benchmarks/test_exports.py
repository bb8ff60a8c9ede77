"""Every way to make graphs does so on a tiny Llama, and all graphs give the same tokens."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from weighbridge.benchmarks.contenders import generating
from weighbridge.benchmarks.contenders.exporters import FOLDER
from weighbridge.benchmarks.exports import CHECKPOINT, EXPORTS, GGUF, NO_CACHE, SOURCES, WAYS, Way
from weighbridge.benchmarks.inputs import MADE, REAL, Workshop
from weighbridge.benchmarks.results import Row
from weighbridge.benchmarks.run import rates, run_case

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weighbridge.benchmarks.contender import Outcome

QUICK = ("weighbridge", "mobius")
"""Ways that take seconds on a tiny model."""


def of(ways: tuple[Way, ...]) -> list[object]:
    """Return ways as parameters; those that take long are marked."""
    marks = {way.name: [] if way.name in QUICK else [pytest.mark.long] for way in ways}
    return [pytest.param(way, id=way.name, marks=marks[way.name]) for way in ways]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("exports")
    yield Workshop(folder, {"small": "llama-3m"})
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ours(shop: Workshop) -> Outcome:
    return run(shop, shop.path(f"small/{CHECKPOINT[0].kind}"))


def run(shop: Workshop, graphs: Path) -> Outcome:
    return generating.generate(graphs, shop.folder)()


@pytest.mark.parametrize("way", of(CHECKPOINT[1:]))
def test_graphs_of_a_checkpoint_give_our_tokens(shop: Workshop, ours: Outcome, way: Way) -> None:
    found = run(shop, shop.path(f"small/{way.kind}"))
    assert ours.seen["tokens"] == generating.COUNT
    assert found.seen == ours.seen


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_graph_without_cache_is_made(shop: Workshop, tmp_path: Path) -> None:
    NO_CACHE.prepare(shop.path("small/checkpoint"), tmp_path)()
    assert (tmp_path / FOLDER / "model.onnx").exists()


@pytest.mark.long
@pytest.mark.parametrize("way", GGUF[:-1], ids=lambda way: way.name)
def test_graphs_of_a_gguf_run(shop: Workshop, tmp_path: Path, way: Way) -> None:
    way.prepare(shop.path("small/gguf-q4_k_m"), tmp_path, **way.options)()
    assert run(shop, tmp_path / FOLDER).seen["tokens"] == generating.COUNT


@pytest.mark.long
def test_mobius_keeps_weights_of_4_bits_alone(shop: Workshop, tmp_path: Path) -> None:
    way = GGUF[-1]
    assert way.options == {"kept": "yes"}
    with pytest.raises(ValueError, match="only 4-bit"):
        way.prepare(shop.path("small/gguf-q4_k_m"), tmp_path, **way.options)()


def test_cases_are_whole() -> None:
    assert len({case.name for case in EXPORTS}) == len(EXPORTS)
    for case in EXPORTS:
        names = [contender.name for contender in case.contenders]
        assert len(set(names)) == len(names)
        assert case.subject in names
        for name in {case.input, *(contender.input for contender in case.contenders)} - {None}:
            role, _, kind = str(name).rpartition("/")
            assert kind in MADE if role in ("small", *SOURCES) else name in REAL
    assert len(WAYS) == len((*CHECKPOINT, *GGUF))


def test_a_case_is_measured_from_input_to_rate(shop: Workshop, ours: Outcome) -> None:
    (case,) = [case for case in EXPORTS if case.name == "export-llama-run"]
    own = [contender for contender in case.contenders if contender.name == case.subject]
    measured = run_case(replace(case, contenders=own, goals=()), shop, 1, lambda text: None)
    assert measured.remark.startswith("tokens in a second: weighbridge ")


def test_who_was_not_measured_has_no_rate() -> None:
    assert rates(32, [Row("a", "", "ours", "absent")]) == ""
    assert rates(0, []) == ""
