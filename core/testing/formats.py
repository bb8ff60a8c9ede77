"""What every container format has to keep, as tests: subclass `FormatContract` in a test module."""

from __future__ import annotations

import os
import pickle
import random
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from weighbridge import registry
from weighbridge.encoding import DENSE, Dense
from weighbridge.errors import Error, InvalidFile, InvalidInput, Unsupported
from weighbridge.file import File
from weighbridge.kernels import codec_for
from weighbridge.layout import LayoutOptions
from weighbridge.metadata import string
from weighbridge.testing.models import (
    Unreadable,
    part_bytes,
    sample_model,
    tensor_of,
    unreadable,
)
from weighbridge.testing.writing import write, written_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weighbridge.format import Format
    from weighbridge.layout import Layout
    from weighbridge.model import Model
    from weighbridge.region import Shape

HEAD_BYTES = 4096
"""What `Format.sniff` is given of a file."""

FOREIGN = {
    "empty": b"",
    "text": b"Dear all,\nplease find attached the weights.\n" * 100,
    "json": b'{"a": 1}',
    "zeros": bytes(8192),
    "ones": b"\xff" * 8192,
    "noise": random.Random(0).randbytes(8192),
    "zip": b"PK\x03\x04" + bytes(100),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(100),
}
"""Files that are of no model format."""

NAMES = {
    "chinese": "模型.重み",
    "cyrillic": "слой.0.вес",
    "emoji": "😀.weight",
    "combining": "e\u0301.weight",
    "right-to-left": "משקל.0",
    "spaces": "a b  c ",
    "quotes": "a\"b'c`d",
    "backslash": "a\\b\\u0041",
    "slashes": "a/b/../c",
    "colon": "a:b,c{d}[e]",
    "controls": "a\tb\nc\x01d\x7fe",
    "format-controls": "a\u200bb\u202ec\ufeffd",
    "nul": "a\0b",
    "surrogate": "a\ud800b",
    "empty": "",
    "long": "x" * 1000,
    "metadata": "__metadata__",
}
"""Names that a tensor may have; a format keeps each as it is, or refuses it."""

SHAPES: dict[str, Shape] = {
    "scalar": (),
    "empty": (0,),
    "empty-inside": (3, 0, 2),
    "one": (1,),
    "ones": (1, 1, 1, 1),
    "five-axes": (2, 1, 3, 1, 2),
    "odd": (7, 3),
}

EXTREMES = tuple(
    value.to_bytes(8, "little")
    for value in (0, 1, (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
)


class FormatContract:
    """The tests; a subclass names the format, and may bring a model of its own.

    Attributes:
        format: the format that is tested.
        flips: how many damaged headers are tried.
        cuts: how many lengths of a file that was cut short are tried.

    Example:
        >>> class TestSafetensors(FormatContract):
        ...     format = registry.load("formats", "safetensors")
    """

    format: ClassVar[Format]
    flips: ClassVar[int] = 300
    cuts: ClassVar[int] = 120

    def sample(self) -> Model:
        """Return a small model in memory that uses all that the format can hold."""
        return sample_model(self.format)

    def headers(self, layout: Layout) -> Mapping[str, int]:
        """Return, for each file whose cutting short must be noticed, the bytes of its header.

        By default these are the files that hold weights, up to the first of them.
        """
        first: dict[str, int] = {}
        for slot in layout.slots.values():
            file = layout.files[slot.file].name
            first[file] = min(first.get(file, slot.offset), slot.offset)
        return first

    @property
    def dense(self) -> Dense:
        """A dense encoding that the format stores."""
        names = [name for name in ("f32", *sorted(self.format.encodings)) if name in DENSE]
        return next(DENSE[name] for name in names if name in self.format.encodings)

    def test_its_own_files_are_recognised_by_it_alone(self, tmp_path: Path) -> None:
        path, _ = self.written(self.sample(), tmp_path)
        head = b"" if path.is_dir() else path.read_bytes()[:HEAD_BYTES]
        formats = {**registry.formats(), self.format.name: self.format}
        known = [name for name, other in formats.items() if other.sniff(path, head)]
        assert known == [self.format.name]

    @pytest.mark.parametrize("content", FOREIGN)
    def test_other_files_are_not_recognised(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / content
        path.write_bytes(FOREIGN[content])
        assert not self.format.sniff(path, FOREIGN[content][:HEAD_BYTES])

    def test_an_empty_directory_is_not_recognised(self, tmp_path: Path) -> None:
        assert not self.format.sniff(tmp_path, b"")

    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(Error) as caught:
            self.format.open(tmp_path / "absent")
        assert isinstance(caught.value, FileNotFoundError)

    def test_what_is_written_is_what_is_opened(self, tmp_path: Path) -> None:
        model = self.sample()
        path, _ = self.written(model, tmp_path)
        with self.format.open(path) as opened:
            assert opened.format == self.format.name
            assert opened.dialect == self.format.dialect
            assert opened.path == path
            assert_same(opened, model)

    def test_shards_are_one_model(self, tmp_path: Path) -> None:
        model = self.sample()
        options = LayoutOptions(shard_size=max(model.nbytes // 3, 1))
        path, _ = self.written(model, tmp_path, options)
        with self.format.open(path) as opened:
            assert_same(opened, model)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_is_kept_or_refused(self, name: str, tmp_path: Path) -> None:
        self.kept_or_refused({NAMES[name]: (2, 2)}, tmp_path)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_shape_is_kept_or_refused(self, shape: str, tmp_path: Path) -> None:
        self.kept_or_refused({"x": SHAPES[shape], "y": (4,), "z": SHAPES[shape]}, tmp_path)

    @pytest.mark.parametrize("text", ["", "a\nb", '"\\', "重み", "x" * 70_000])
    def test_metadata_are_kept_or_refused(self, text: str, tmp_path: Path) -> None:
        model = self.sample()
        self.kept_or_refused({}, tmp_path, {**model.metadata, "test.text": string(text)})

    def test_a_model_without_tensors_is_kept_or_refused(self, tmp_path: Path) -> None:
        self.kept_or_refused({}, tmp_path, only=True)

    def test_a_foreign_encoding_is_refused(self) -> None:
        for name in {*DENSE, "q4_0", "q4_k"} - self.format.encodings:
            encoding = codec_for(name).encoding
            strange = {"x": Unreadable((2, 2 * encoding.grain), encoding)}
            with pytest.raises(Unsupported):
                self.laid_out(replace(self.sample(), tensors=strange))

    def test_a_layout_comes_from_names_shapes_and_encodings_alone(self) -> None:
        model = self.sample()
        assert self.laid_out(model) == self.laid_out(model)
        blind = replace(model, tensors=unreadable(model.tensors))
        assert self.laid_out(blind) == self.laid_out(model)

    def test_every_part_has_a_place_of_its_own(self) -> None:
        model = self.sample()
        layout = self.laid_out(model)
        sizes = {
            (name, part): size
            for name, tensor in model.tensors.items()
            for part, size in tensor.encoding.sizes(tensor.shape).items()
        }
        assert {key: slot.length for key, slot in layout.slots.items()} == sizes
        taken: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for slot in layout.slots.values():
            taken[slot.file].append((slot.offset, slot.offset + slot.length))
        for number, file in enumerate(layout.files):
            pieces = [(offset, offset + len(content)) for offset, content in file.pieces]
            ranges = sorted(span for span in (*taken[number], *pieces) if span[0] < span[1])
            assert all(a[1] <= b[0] for a, b in pairwise(ranges)), file.name
            assert not ranges or (ranges[0][0] >= 0 and ranges[-1][1] <= file.size), file.name

    def test_file_names_stay_in_the_target(self) -> None:
        for options in (LayoutOptions(), LayoutOptions(shard_size=64)):
            layout = self.format.layout(self.sample(), self.target_name, options)
            names = [file.name for file in layout.files]
            assert len(set(names)) == len(names)
            for name in names:
                assert not {"", ".", ".."} & set(name.split("/"))
                assert self.format.directory or "/" not in name

    def test_opening_reads_no_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = self.sample()
        path, layout = self.written(model, tmp_path)
        read: list[tuple[str, int, int]] = []
        fill = File.read_into

        def spy(file: File, buffer: memoryview, offset: int) -> None:
            read.append((file.path.name, offset, offset + len(buffer)))
            fill(file, buffer, offset)

        monkeypatch.setattr(File, "read_into", spy)
        with self.format.open(path) as opened:
            assert opened.nbytes == model.nbytes
        for slot in layout.slots.values():
            name = layout.files[slot.file].name.rpartition("/")[2]
            stop = slot.offset + slot.length
            assert [r for r in read if r[0] == name and r[1] < stop and slot.offset < r[2]] == []

    def test_opening_costs_nothing_for_huge_weights(self, tmp_path: Path) -> None:
        huge = Unreadable((1 << 16, 1 << 18), self.dense)
        model = replace(self.sample(), tensors={"huge": huge})
        path, _ = self.written(model, tmp_path, weights=False)
        with self.format.open(path) as opened:
            assert opened.tensors["huge"].shape == huge.shape
            assert opened.nbytes == huge.nbytes

    def test_tensors_travel_by_address(self, tmp_path: Path) -> None:
        model = self.sample()
        path, _ = self.written(model, tmp_path)
        with self.format.open(path) as opened:
            for name, tensor in opened.tensors.items():
                packed = pickle.dumps(tensor)
                assert part_bytes(pickle.loads(packed)) == part_bytes(model.tensors[name])

    def test_a_file_cut_short_is_refused(self, tmp_path: Path) -> None:
        path, layout = self.written(self.sample(), tmp_path)
        place = path if self.format.directory else path.parent
        last = _last_weights(layout)
        for name, header in self.headers(layout).items():
            whole = (place / name).read_bytes()
            # A file may end after the last weight, in padding that nobody misses.
            lengths = {*range(0, header, max(header // self.cuts, 1)), last.get(name, 0)}
            for length in sorted(lengths, reverse=True):
                os.truncate(place / name, length)
                with pytest.raises(InvalidFile) as caught:
                    self.look(path)
                assert caught.value.rule, f"{name} cut to {length} bytes"
            (place / name).write_bytes(whole)

    def test_damage_gives_errors_only(self, tmp_path: Path) -> None:
        path, layout = self.written(self.sample(), tmp_path)
        place = path if self.format.directory else path.parent
        headers = {**{file.name: file.size for file in layout.files}, **self.headers(layout)}
        chance = random.Random(0)
        for number in range(self.flips):
            name = chance.choice([name for name, size in headers.items() if size])
            offset = chance.randrange(headers[name])
            with (place / name).open("r+b") as file:
                before = _damage(file, offset, chance)
            try:
                self.look(path)
            except Error:
                pass
            except Exception as error:
                raise AssertionError(f"damage {number}: {name}, byte {offset}") from error
            with (place / name).open("r+b") as file:
                file.seek(offset)
                file.write(before)
        self.look(path)

    @property
    def target_name(self) -> str:
        """What a target is called."""
        return "model" + "".join(self.format.suffixes[:1])

    def laid_out(self, model: Model) -> Layout:
        """Return the layout of a model."""
        return self.format.layout(model, self.target_name, LayoutOptions())

    def written(
        self,
        model: Model,
        folder: Path,
        options: LayoutOptions | None = None,
        *,
        weights: bool = True,
    ) -> tuple[Path, Layout]:
        """Write a model; return what is to be opened, and the layout."""
        target = folder / self.target_name
        layout = write(self.format, model, target, options, weights=weights)
        return written_path(layout, target), layout

    def kept_or_refused(
        self,
        shapes: Mapping[str, Shape],
        folder: Path,
        metadata: Mapping[str, Any] | None = None,
        *,
        only: bool = False,
    ) -> None:
        """Check that a model comes back as it is, unless its layout is refused by name."""
        model = self.sample()
        kept = {} if only else model.tensors
        added = {name: tensor_of(name, self.dense, shape) for name, shape in shapes.items()}
        model = replace(model, tensors={**kept, **added}, metadata=metadata or model.metadata)
        try:
            path, _ = self.written(model, folder)
        except (Unsupported, InvalidInput):
            return
        with self.format.open(path) as opened:
            assert_same(opened, model)

    def look(self, path: Path) -> None:
        """Open a model, look at all that it says, read its weights, and lay it out again."""
        with self.format.open(path) as opened:
            for value in opened.metadata.values():
                value.plain()
            for content in opened.files.values():
                assert isinstance(content, bytes)
            for tensor in opened.tensors.values():
                assert sum(map(len, part_bytes(tensor).values())) == tensor.nbytes
            self.laid_out(opened)


def _last_weights(layout: Layout) -> dict[str, int]:
    """Return where the last byte of weights is in each file that holds some."""
    last: dict[str, int] = {}
    for slot in layout.slots.values():
        file = layout.files[slot.file].name
        last[file] = max(last.get(file, 0), slot.offset + slot.length - 1)
    return last


def _damage(file: Any, offset: int, chance: random.Random) -> bytes:
    """Overwrite a bit, a byte or a word at `offset`; return what was there."""
    file.seek(offset)
    before: bytes = file.read(8)
    flipped = bytes([before[0] ^ 1 << chance.randrange(8)])
    other = bytes([chance.randrange(256)])
    word = chance.choice(EXTREMES)[: len(before)]
    file.seek(offset)
    file.write(chance.choice((flipped, other, word)))
    return before


def assert_same(opened: Model, model: Model) -> None:
    """Check that `opened` has all that `model` has: names, shapes, encodings, bytes, metadata."""
    assert set(opened.tensors) == set(model.tensors)
    for name, tensor in model.tensors.items():
        found = opened.tensors[name]
        assert found.shape == tensor.shape, name
        assert found.encoding == tensor.encoding, name
        assert part_bytes(found) == part_bytes(tensor), name
    assert set(opened.metadata) >= set(model.metadata)
    for key, value in model.metadata.items():
        found_value = opened.metadata[key]
        assert (found_value.type, found_value.items) == (value.type, value.items), key
        assert found_value.plain() == value.plain(), key
    if model.config is not None:
        assert opened.config == model.config
    assert set(opened.files) >= set(model.files)
    assert {name: opened.files[name] for name in model.files} == dict(model.files)
