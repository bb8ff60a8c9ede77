from __future__ import annotations

import ctypes

import gguf
import pytest
import xllamacpp
from support.gguf_files import ggml

from weighbridge.formats.gguf import FORMAT
from weighbridge.formats.gguf.types import CODES, ENCODINGS, REMOVED_TYPES, TYPE_IDS, VALUE_TYPES
from weighbridge.metadata import TYPES

GGML = {
    int(number): name.removeprefix("GGML_TYPE_").lower()
    for name, number in xllamacpp.ggml_type.__members__.items()
    if name != "GGML_TYPE_COUNT"
}

BY_NUMBER = [pytest.param(number, id=encoding.name) for number, encoding in ENCODINGS.items()]


def test_every_type_of_ggml_is_known_by_its_name():
    assert {number: encoding.name for number, encoding in ENCODINGS.items()} == GGML


@pytest.mark.parametrize("number", BY_NUMBER)
def test_block_and_bytes_are_those_of_ggml(number):
    encoding, type = ENCODINGS[number], ctypes.c_int(number)
    assert encoding.grain == ggml().ggml_blck_size(type)
    assert encoding.grain_bytes == ggml().ggml_type_size(type)
    assert encoding.name == ggml().ggml_type_name(type).decode().lower().replace("-", "_")


def test_block_and_bytes_are_those_of_the_gguf_package():
    sizes = {int(type): size for type, size in gguf.GGML_QUANT_SIZES.items()}
    del sizes[gguf.GGMLQuantizationType.Q8_1]  # 40 bytes there, 36 in ggml itself
    assert sizes == {n: (ENCODINGS[n].grain, ENCODINGS[n].grain_bytes) for n in sizes}


def test_the_gaps_are_the_removed_types():
    assert set(range(max(ENCODINGS))) - set(ENCODINGS) == set(REMOVED_TYPES)


def test_the_format_stores_every_type():
    assert set(TYPE_IDS) == FORMAT.encodings == {encoding.name for encoding in ENCODINGS.values()}


def test_every_value_type_is_known():
    known = {int(type) for type in gguf.GGUFValueType}
    assert set(VALUE_TYPES) == known
    assert set(VALUE_TYPES.values()) == set(TYPES) == {*CODES, "string", "array"}
