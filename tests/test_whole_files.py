"""Whole models quantised: types and bytes of every tensor are those that llama.cpp has made."""

from __future__ import annotations

import gguf
import pytest
from support import whole_files
from support.importance import CHUNKS, DATASET, dat, write_gguf
from support.whole_files import FILE_TYPES_MADE, MODELS, importance, tensors_of

import weighbridge as wb

STORED = whole_files.stored()


@pytest.fixture(scope="module", params=MODELS)
def source(request, tmp_path_factory):
    return whole_files.source(request.param, tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def matrix(source):
    return write_gguf(source.with_suffix(".imatrix"), importance(source.stem))


@pytest.mark.parametrize("name", FILE_TYPES_MADE["without"])
def test_without_an_importance_matrix(source, name, tmp_path):
    wb.convert(source, tmp_path / "x.gguf", quantize=name)
    assert tensors_of(tmp_path / "x.gguf") == STORED[source.stem]["without"][name]


@pytest.mark.parametrize("name", FILE_TYPES_MADE["with"])
def test_with_an_importance_matrix(source, matrix, name, tmp_path):
    wb.convert(source, tmp_path / "x.gguf", quantize=name, imatrix=matrix)
    assert tensors_of(tmp_path / "x.gguf") == STORED[source.stem]["with"][name]


def test_a_former_matrix_gives_the_same(source, tmp_path):
    path = tmp_path / "x.dat"
    path.write_bytes(dat({name: held.means() for name, held in importance(source.stem).items()}))
    wb.convert(source, tmp_path / "x.gguf", quantize="Q4_K_M", imatrix=path)
    assert tensors_of(tmp_path / "x.gguf") == STORED[source.stem]["with"]["Q4_K_M"]


def test_the_file_names_its_matrix(source, matrix, tmp_path):
    wb.convert(source, tmp_path / "x.gguf", quantize="Q4_K_M", imatrix=matrix)
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    ours = {key: field for key, field in fields.items() if key.startswith("quantize.")}
    assert {key: field.contents() for key, field in ours.items()} == {
        "quantize.imatrix.file": str(matrix),
        "quantize.imatrix.dataset": DATASET,
        "quantize.imatrix.entries_count": len(importance(source.stem)),
        "quantize.imatrix.chunks_count": CHUNKS,
    }
    types = [field.types[0].name for field in ours.values()]
    assert types == ["STRING", "STRING", "UINT32", "UINT32"]


def test_what_is_stored_is_of_these_models_and_file_types():
    assert list(STORED) == list(MODELS)
    for model, kinds in STORED.items():
        assert {kind: tuple(files) for kind, files in kinds.items()} == FILE_TYPES_MADE
        names = set(MODELS[model][0].model().tensors)
        assert all(set(tensors) == names for files in kinds.values() for tensors in files.values())
