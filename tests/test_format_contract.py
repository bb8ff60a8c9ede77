"""The contract for formats notices what it is there to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from weighbridge.errors import Error
from weighbridge.formats.safetensors import Safetensors
from weighbridge.layout import Layout, LayoutOptions, OutputFile, Slot
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.tensor import Extent, Tensor
from weighbridge.testing import FormatContract

if TYPE_CHECKING:
    from pathlib import Path


class Greedy(Safetensors):
    """Takes every file for its own."""

    def sniff(self, path: Path, head: bytes) -> bool:
        return True


class Blind(Safetensors):
    """Does not know its own files."""

    def sniff(self, path: Path, head: bytes) -> bool:
        return False


class Forgetful(Safetensors):
    """Drops the metadata."""

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        return super().layout(replace(model, metadata={}), name, options)


class Renaming(Safetensors):
    """Changes names that it does not like."""

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        tensors = {key.strip(): tensor for key, tensor in model.tensors.items()}
        layout = super().layout(replace(model, tensors=tensors), name, options)
        slots = {(key, "data"): layout.slots[key.strip(), "data"] for key in model.tensors}
        return replace(layout, slots=slots)


class Overlapping(Safetensors):
    """Lets the weights begin in the header."""

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        layout = super().layout(model, name, options)
        slots = {key: Slot(s.file, s.offset - 1, s.length) for key, s in layout.slots.items()}
        return replace(layout, slots=slots)


class Escaping(Safetensors):
    """Writes outside of the target."""

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        return super().layout(model, f"../{name}", options)


class Peeking(Safetensors):
    """Reads weights to lay them out."""

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        for tensor in model.tensors.values():
            tensor.grains(tuple((0, length) for length in tensor.grid))
        return super().layout(model, name, options)


class Random(Safetensors):
    """Writes another file every time."""

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        layout = super().layout(model, name, options)
        return replace(layout, files=(*layout.files, OutputFile(str(id(layout)), 0, ())))


class Careless(Safetensors):
    """Stores what it has no word for."""

    def layout(self, model: Model, name: str, options: LayoutOptions) -> Layout:
        return Layout((), {})


class Eager(Safetensors):
    """Reads all weights on opening."""

    def open(self, path: Path) -> Model:
        model = super().open(path)
        for tensor in model.tensors.values():
            assert isinstance(tensor, Tensor)
            extent = tensor.parts["data"]
            assert isinstance(extent, Extent)
            extent.read(0, extent.length)
        return model


class Trusting(Safetensors):
    """Lets builtin errors out."""

    def open(self, path: Path) -> Model:
        try:
            return super().open(path)
        except Error as error:
            raise KeyError(error.rule) from error


class Lenient(Safetensors):
    """Makes the best of a broken file."""

    def open(self, path: Path) -> Model:
        try:
            return super().open(path)
        except Error:
            return Model(self.name, HUGGING_FACE, {}, path=path)


Test = Callable[[FormatContract, "Path"], None]

CASES: list[tuple[type[Safetensors], Test]] = [
    (Greedy, FormatContract.test_an_empty_directory_is_not_recognised),
    (Greedy, lambda c, path: c.test_other_files_are_not_recognised("json", path)),
    (Blind, FormatContract.test_its_own_files_are_recognised_by_it_alone),
    (Forgetful, FormatContract.test_what_is_written_is_what_is_opened),
    (Forgetful, FormatContract.test_shards_are_one_model),
    (Forgetful, lambda c, path: c.test_metadata_are_kept_or_refused("", path)),
    (Renaming, lambda c, path: c.test_a_name_is_kept_or_refused("spaces", path)),
    (Overlapping, lambda c, _: c.test_every_part_has_a_place_of_its_own()),
    (Escaping, lambda c, _: c.test_file_names_stay_in_the_target()),
    (Peeking, lambda c, _: c.test_a_layout_comes_from_names_shapes_and_encodings_alone()),
    (Random, lambda c, _: c.test_a_layout_comes_from_names_shapes_and_encodings_alone()),
    (Careless, lambda c, _: c.test_a_foreign_encoding_is_refused()),
    (Trusting, FormatContract.test_damage_gives_errors_only),
    (Lenient, FormatContract.test_a_file_cut_short_is_refused),
    (Lenient, FormatContract.test_a_missing_file_is_an_error),
]


@pytest.mark.parametrize(
    ("broken", "test"), CASES, ids=[f"{kind.__name__}-{n}" for n, (kind, _) in enumerate(CASES)]
)
def test_a_broken_format_is_noticed(broken: type[Safetensors], test: Test, tmp_path: Path) -> None:
    class Contract(FormatContract):
        format = broken()

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(Contract(), tmp_path)


def test_a_format_that_reads_weights_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Contract(FormatContract):
        format = Eager()

    with pytest.raises(AssertionError):
        Contract().test_opening_reads_no_weights(tmp_path, monkeypatch)
