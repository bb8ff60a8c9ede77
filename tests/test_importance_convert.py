"""Converting with an importance matrix: what is encoded how, what is told, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from support import tiny
from support.command import called
from support.importance import Sums, dat, made_up, write_gguf

import weighbridge as wb
from weighbridge import region as regions
from weighbridge.errors import Error
from weighbridge.importance import Importance
from weighbridge.kernels import codec_for
from weighbridge.recode import recode
from weighbridge.tensor import from_array

RNG = np.random.default_rng(0)
SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
EMBEDDINGS = ("token_embd.weight", "output.weight")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint") / "model"
    return tiny.checkpoint(directory, tokenizer=tiny.small_tokenizer(), **SIZES)


@pytest.fixture(scope="module")
def float_gguf(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    wb.convert(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def sums(float_gguf):
    """What llama-imatrix has: an entry for every matrix but the embeddings."""
    with wb.open(float_gguf) as model:
        return {
            name: made_up(tensor.shape[-1], seed=seed)
            for seed, (name, tensor) in enumerate(model.tensors.items())
            if tensor.ndim > 1 and name not in EMBEDDINGS
        }


@pytest.fixture
def matrix(sums, tmp_path):
    return write_gguf(tmp_path / "m.gguf", sums)


def notes(plan):
    return {note.kind: (note.subject, note.text) for note in plan.notes}


def test_every_tensor_is_what_encode_makes_of_it(checkpoint, float_gguf, sums, matrix, tmp_path):
    """From a checkpoint, whose rows of queries are in another order than GGUF's."""
    wb.convert(checkpoint, tmp_path / "x.gguf", quantize="Q4_K_M", imatrix=matrix)
    with wb.open(float_gguf) as before, wb.open(tmp_path / "x.gguf") as after:
        for name, tensor in after.tensors.items():
            weights = sums[name].means() if name in sums else None
            values = before.tensors[name].values()
            expected = wb.encode(values, tensor.encoding, weights)
            np.testing.assert_array_equal(tensor.part(), expected.reshape(-1), err_msg=name)


def test_the_plan_counts_tensors_with_and_without(checkpoint, sums, matrix, tmp_path):
    plan = wb.plan(checkpoint, tmp_path / "x.gguf", quantize="Q4_K_M", imatrix=matrix)
    assert not plan.problems
    assert notes(plan)["weighted"] == (f"{len(sums)} tensors", f"by {matrix}")
    (lacking,) = (note for note in plan.notes if "importance" in note.text)
    assert (lacking.kind, lacking.subject) == ("warning", "2 tensors")
    assert all(name in lacking.text for name in EMBEDDINGS)
    assert f"weighted: {len(sums)} tensors: by {matrix}" in str(plan)


def test_what_ignores_weights_is_not_said_to_lack_them(checkpoint, matrix, tmp_path):
    plan = wb.plan(checkpoint, tmp_path / "x.gguf", quantize="Q8_0", imatrix=matrix)
    assert not plan.problems
    assert "weighted" not in notes(plan)
    assert "importance" not in str(plan.notes)


@pytest.mark.parametrize("missing", ["blk.0.ffn_up.weight", "blk.1.ffn_up.weight"])
def test_a_type_that_demands_importance_is_not_made_without(checkpoint, sums, missing, tmp_path):
    rest = {name: held for name, held in sums.items() if name != missing}
    matrix = write_gguf(tmp_path / "m.gguf", rest)
    plan = wb.plan(checkpoint, tmp_path / "x.gguf", quantize="Q2_K_S", imatrix=matrix)
    assert [(problem.rule, problem.tensor) for problem in plan.problems] == [
        ("importance", missing)
    ]
    types = {missing.replace(".", r"\."): "Q3_K"}
    options = {"quantize": "Q2_K_S", "imatrix": matrix, "tensor_types": types}
    assert not wb.plan(checkpoint, tmp_path / "x.gguf", **options).problems


def test_an_entry_of_another_size_is_a_problem(checkpoint, sums, tmp_path):
    wrong = "blk.1.attn_v.weight"
    matrix = write_gguf(tmp_path / "m.gguf", {**sums, wrong: made_up(32)})
    plan = wb.plan(checkpoint, tmp_path / "x.gguf", quantize="Q4_K_M", imatrix=matrix)
    (problem,) = plan.problems
    assert (problem.rule, problem.tensor, problem.path) == ("importance", wrong, str(matrix))


def test_a_matrix_of_another_model_is_a_problem(checkpoint, tmp_path):
    matrix = write_gguf(tmp_path / "m.gguf", {"blk.99.attn_q.weight": made_up(256)})
    plan = wb.plan(checkpoint, tmp_path / "x.gguf", quantize="Q4_K_M", imatrix=matrix)
    assert [problem.rule for problem in plan.problems] == ["importance"]


def test_the_source_s_own_key_values_stay_without_a_matrix(checkpoint, matrix, tmp_path):
    wb.convert(checkpoint, tmp_path / "x.gguf", quantize="Q4_K_M", imatrix=matrix)
    wb.convert(tmp_path / "x.gguf", tmp_path / "y.gguf", dtype="float16")
    with wb.open(tmp_path / "y.gguf") as model:
        assert model.metadata["quantize.imatrix.file"].data == str(matrix)


def test_one_encoding_for_all_matrices(float_gguf, sums, matrix, tmp_path):
    options = {"weights_only": True, "quantize": "Q4_K", "imatrix": matrix}
    wb.convert(float_gguf, tmp_path / "x.gguf", **options)
    name = "blk.0.attn_q.weight"
    with wb.open(float_gguf) as before, wb.open(tmp_path / "x.gguf") as after:
        expected = wb.encode(before.tensors[name].values(), "Q4_K", sums[name].means())
        np.testing.assert_array_equal(after.tensors[name].part(), expected.reshape(-1))


def weighted_stack():
    values = RNG.standard_normal((3, 5, 512)).astype(np.float32)
    weights = RNG.random((3, 512)).astype(np.float32)
    q4_k = codec_for("q4_k").encoding
    made = recode(from_array("x", values), q4_k, importance=Importance(weights))
    return made, np.concatenate(
        [wb.encode(*pair).reshape(-1) for pair in zip(values, ["Q4_K"] * 3, weights, strict=True)]
    )


@pytest.mark.parametrize("most", [1, 2, 3, 8, 13, 30])
def test_regions_are_cut_between_rows(most):
    """Every expert has its own weights, however many rows are made at once."""
    made, expected = weighted_stack()
    assert made.units() == (1, 1, 512)
    units = (1, 1, 2)
    found = np.empty(made.grid, "V144")
    for tile in regions.tiles(made.grid, most, units):
        found[regions.slices(tile)] = made.grains(tile)
    np.testing.assert_array_equal(found.reshape(-1).view(np.uint8), expected)


def test_parts_of_rows_are_those_of_the_whole():
    made, expected = weighted_stack()
    whole = wb.decode(expected, "Q4_K", made.shape)
    np.testing.assert_array_equal(made[1, 2:4, 100:300], whole[1, 2:4, 100:300])
    part = made.grains(((2, 3), (0, 5), (1, 2)))
    blocks = expected.view("V144").reshape(made.grid)
    np.testing.assert_array_equal(part, blocks[2:3, :, 1:2])


def test_a_weighted_tensor_compares_hashes_and_travels():
    made, expected = weighted_stack()
    assert made == made
    assert made != weighted_stack()[0]
    assert isinstance(hash(made.importance), int)
    travelled = pickle.loads(pickle.dumps(made))
    region = regions.whole(made.grid)
    np.testing.assert_array_equal(travelled.grains(region).reshape(-1).view(np.uint8), expected)


REFUSED = [
    (["--quantize", "IQ2_XXS"], "importance"),
    (["--tensor-type", "attn_q=IQ2_XXS"], "importance"),
    (["--quantize", "Q4_K_M", "--imatrix", "{none}"], "not-found"),
    (["--quantize", "Q4_K_M", "--imatrix", "{model}"], "missing-key"),
    (["--quantize", "Q4_K_M", "--imatrix", "{empty}"], "truncated"),
    (["--imatrix", "{matrix}"], "options"),
    (["--dtype", "float16", "--imatrix", "{matrix}"], "options"),
]


@pytest.mark.parametrize(("options", "rule"), REFUSED)
def test_what_the_command_refuses(float_gguf, matrix, options, rule, tmp_path):
    (tmp_path / "empty.dat").write_bytes(b"")
    places = {"none": tmp_path / "no", "model": float_gguf, "matrix": matrix}
    named = [text.format(empty=tmp_path / "empty.dat", **places) for text in options]
    done = called("convert", float_gguf, tmp_path / "x.gguf", *named)
    assert (done.code, done.rules, done.out) == (2, [rule], "")
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "x.gguf").exists()


def test_other_formats_have_no_importance(checkpoint, matrix, tmp_path):
    with pytest.raises(Error) as caught:
        wb.plan(checkpoint, tmp_path / "x.onnx", tensor_types={"q": "F16"}, imatrix=matrix)
    assert caught.value.rule == "importance"


def test_the_command_makes_and_says_it(checkpoint, sums, matrix, tmp_path):
    target = tmp_path / "x.gguf"
    done = called("convert", checkpoint, target, "--quantize", "q2_k_s", "--imatrix", matrix)
    assert done.code == 0
    assert f"{len(sums)} tensors" in done.out
    with wb.open(target) as model:
        assert str(model.tensors["blk.1.ffn_up.weight"].encoding) == "Q2_K"
        assert model.metadata["general.file_type"].data == 21


def test_errors_of_weighted_encodings(float_gguf, sums, tmp_path):
    """The figures are those of the bytes that a conversion with the same matrix would write."""
    name = "blk.0.ffn_down.weight"
    path = tmp_path / "m.dat"
    path.write_bytes(dat({name: sums[name].means()}))
    found = wb.quantize_error(float_gguf, ["Q4_K", "Q8_0"], imatrix=path, tensors="ffn_down")
    assert {tensor.name: tensor.weighted for tensor in found.tensors} == {
        name: True,
        "blk.1.ffn_down.weight": False,
    }
    for tensor in found.tensors:
        with wb.open(float_gguf) as model:
            values = model.tensors[tensor.name].values()
        weights = sums[name].means() if tensor.name == name else None
        for candidate in tensor.candidates:
            data = wb.encode(values, candidate.encoding, weights)
            error = np.abs(values - wb.decode(data, candidate.encoding)).max()
            assert candidate.max_error == error
    done = called("quantize-error", float_gguf, "--types", "Q4_K", "--imatrix", path)
    assert done.code == 0
    assert "with importance: 1 of " in done.out


def test_errors_of_what_demands_importance(float_gguf, sums, tmp_path):
    matrix = write_gguf(tmp_path / "m.gguf", {"blk.0.attn_q.weight": made_up(256)})
    found = wb.quantize_error(float_gguf, ["IQ2_XXS"], imatrix=matrix, tensors="attn_k")
    assert {tensor.candidates[0].problem for tensor in found.tensors} == {"no importance"}


def test_errors_with_a_matrix_of_another_model(float_gguf, checkpoint, tmp_path):
    matrix = write_gguf(tmp_path / "m.gguf", {"x": Sums(np.ones((1, 256), np.float32), (1,))})
    for source in (float_gguf, checkpoint):
        done = called("quantize-error", source, "--types", "Q4_K", "--imatrix", matrix)
        assert (done.code, done.rules) == (2, ["importance"])
