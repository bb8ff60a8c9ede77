"""Filling modules: on the meta device and with memory, tied, cast, and mismatched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from support import tiny
from torch import nn

import weighbridge as wb
from weighbridge.errors import InvalidPlan
from weighbridge.modules import LoadedInto

if TYPE_CHECKING:
    from pathlib import Path


class Net(nn.Module):
    """Two layers that share a weight, a norm with buffers, and a buffer that no file has."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6, bias=bias)
        self.b = nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight
        self.norm = nn.BatchNorm1d(6)
        self.passing: torch.Tensor
        self.register_buffer("passing", torch.zeros(3), persistent=False)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    for values in net.state_dict().values():
        values.copy_(torch.rand(values.shape) * 9)
    return net


@pytest.fixture
def path(net: Net, tmp_path: Path) -> Path:
    wb.save_file(net.state_dict(), tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("backend", ["auto", "pread"])
def test_a_module_is_filled_where_it_is(net: Net, path: Path, backend: str) -> None:
    other = Net()
    before = {name: values.data_ptr() for name, values in other.state_dict().items()}
    assert wb.load_into(other, path, backend=backend) == LoadedInto((), (), ())
    assert same(other, net)
    assert {name: values.data_ptr() for name, values in other.state_dict().items()} == before
    assert other.b.weight is other.a.weight


@pytest.mark.parametrize("backend", ["auto", "pread"])
def test_a_meta_module_gets_memory(net: Net, path: Path, backend: str) -> None:
    with torch.device("meta"):
        other = Net()
    other.a.bias.requires_grad_(False)
    report = wb.load_into(other, path, backend=backend)
    assert report == LoadedInto((), (), ("passing",))
    assert same(other, net)
    assert other.b.weight is other.a.weight
    assert not other.a.bias.requires_grad
    assert other.a.weight.requires_grad
    assert isinstance(other.norm.running_mean, torch.Tensor)
    assert not isinstance(other.norm.running_mean, nn.Parameter)


def test_meta_tensors_of_a_mapped_file_are_views(path: Path) -> None:
    first, second = Net(), Net()
    for net in (first, second):
        wb.load_into(net.to("meta"), path)
    with torch.no_grad():
        first.a.weight.add_(1)
    assert torch.equal(first.a.weight, second.a.weight + 1)
    assert torch.equal(wb.load(path)["a.weight"], second.a.weight)


@pytest.mark.parametrize("meta", [False, True])
def test_the_modules_dtypes_are_kept_unless_another_is_asked_for(
    net: Net, path: Path, meta: bool
) -> None:
    with torch.device("meta" if meta else "cpu"):
        other = Net().half()
    parameter = other.a.weight
    wb.load_into(other, path)
    assert torch.equal(other.a.weight, net.a.weight.half())
    assert other.norm.num_batches_tracked.dtype == torch.int64
    wb.load_into(other, path, dtype=torch.bfloat16)
    assert torch.equal(other.a.weight, net.a.weight.bfloat16())
    assert torch.equal(other.norm.running_var, net.norm.running_var.bfloat16())
    assert other.norm.num_batches_tracked.dtype == torch.int64
    assert other.b.weight is other.a.weight
    assert meta or other.a.weight is parameter  # as an optimiser holds it


def test_a_parameter_that_is_not_contiguous_is_given_memory(net: Net, path: Path) -> None:
    other = Net()
    other.a.weight.data = torch.zeros(6, 6).t()
    other.a.weight.data = other.a.weight.data[:, torch.arange(6)].t().contiguous().t()
    assert not other.a.weight.is_contiguous()
    wb.load_into(other, path)
    assert same(other, net)


def test_names_that_do_not_match_are_all_named(path: Path) -> None:
    other = Net(bias=False)
    other.extra = nn.Linear(2, 2)
    with pytest.raises(InvalidPlan) as caught:
        wb.load_into(other, path)
    found = [(problem.rule, problem.tensor) for problem in caught.value.problems]
    assert found == [
        ("missing-tensor", "extra.weight"),
        ("missing-tensor", "extra.bias"),
        ("unexpected-tensor", "a.bias"),
    ]
    report = wb.load_into(other, path, strict=False)
    assert report == LoadedInto(("extra.weight", "extra.bias"), ("a.bias",), ())


@pytest.mark.parametrize("strict", [False, True])
def test_shapes_that_do_not_match_are_refused_before_anything_is_read(
    path: Path, strict: bool
) -> None:
    other = Net()
    other.norm = nn.BatchNorm1d(5)
    before = other.a.weight.detach().clone()
    with pytest.raises(InvalidPlan) as caught:
        wb.load_into(other, path, strict=strict)
    assert {problem.rule for problem in caught.value.problems} == {"tensor-shape"}
    assert (caught.value.got, caught.value.expected) == ([6], [5])
    assert torch.equal(other.a.weight, before)


def test_of_tied_names_a_file_needs_one(net: Net, tmp_path: Path) -> None:
    for lacking in ("a.weight", "b.weight"):
        state = {n: values for n, values in net.state_dict().items() if n != lacking}
        wb.save_file(state, tmp_path / "x.safetensors")
        other = Net()
        assert wb.load_into(other, tmp_path / "x.safetensors") == LoadedInto((), (), ())
        assert same(other, net)


@pytest.mark.parametrize("quantize", [None, "Q8_0"])
def test_a_gguf_fills_a_model_of_transformers(tmp_path: Path, quantize: str | None) -> None:
    source = tiny.checkpoint(
        tmp_path / "model",
        hidden_size=64,
        intermediate_size=96,
        tokenizer=tiny.small_tokenizer(),
    )
    wb.convert(source, tmp_path / "x.gguf", quantize=quantize)
    expected = wb.load(tmp_path / "x.gguf", dtype="float32")
    config = transformers.AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    report = wb.load_into(model, tmp_path / "x.gguf", dtype="float32")
    assert report == LoadedInto((), (), ("model.rotary_emb.inv_freq",
                                         "model.rotary_emb.original_inv_freq"))  # fmt: skip
    state = model.state_dict()
    assert all(torch.equal(state[name], values) for name, values in expected.items())
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    if quantize is None:
        reference = transformers.LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
        tokens = torch.arange(8)[None]
        assert torch.allclose(model(tokens).logits, reference(tokens).logits, atol=1e-5)
