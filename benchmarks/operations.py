"""What can be done with a file, and who can do it: a table of contenders for each format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weighbridge.benchmarks.case import OURS, Case
from weighbridge.benchmarks.contender import Call, Contender, Prepare, Role
from weighbridge.benchmarks.contenders import (
    floor,
    gguf_py,
    gpu_loaders,
    onnx_py,
    ours,
    safetensors_py,
    transformers_py,
    ztensor_py,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TRANSFORMERS = ("accelerate", "gguf", "torch", "transformers")
SAFETENSORS = ("safetensors", "torch")
ZTENSOR = ("torch", "ztensor")

TOUCH = Call(
    "touch pages", "mmap, a byte of every page", role=Role.FLOOR, prepare=floor.touch_pages
)
READ = Call("read", "read(2) into one buffer of 4 MB", role=Role.FLOOR, prepare=floor.read)
FILL = Call(
    "fill memory",
    "memset of new memory for the result, on all cores",
    role=Role.FLOOR,
    prepare=floor.fill,
    options={"itemsize": "2"},
)


@dataclass(frozen=True)
class Operation:
    """Something that can be done with a file of any format.

    Attributes:
        name: the first part of a case's name.
        group: the part of the report.
        title: what is done; ``{what}`` is the input.
        contenders: who can do it, by the format as `Model.format` has it.
        again: whether a call is too short to be timed once.
    """

    name: str
    group: str
    title: str
    contenders: Mapping[str, Sequence[Contender]]
    again: bool = False

    def case(
        self, kind: str, source: str | Path, label: str, what: str, *others: Contender
    ) -> Case:
        """Return the case of doing it with an input.

        Args:
            kind: the input's format.
            source: the input, as `Workshop.path` takes it.
            label: the second part of the case's name.
            what: what the title calls it.
            others: who else takes part.
        """
        title = self.title.replace("{what}", what)
        everyone = (*self.contenders[kind], *others)
        name = f"{self.name}-{label}"
        return Case(name, self.group, title, source, everyone, again=self.again)


def our(how: str, prepare: Prepare, *needs: str, **options: str) -> Call:
    """Return our own way."""
    return Call(OURS, how, needs, role=Role.OURS, prepare=prepare, options=options)


def _peer(name: str, how: str, prepare: Prepare, *needs: str, **options: str) -> Call:
    return Call(name, how, needs, prepare=prepare, options=options)


_OUR_OPEN = our("weighbridge.open(path)", ours.open_model)
_SAFE_OPEN = _peer(
    "safetensors", "safetensors.safe_open(path, 'np')", safetensors_py.read, "safetensors"
)
_ZTENSOR_OPEN = _peer("ztensor", "ztensor.open(path)", ztensor_py.read, "ztensor")

OPEN = Operation(
    "open",
    "Open",
    "Open {what}: names and shapes",
    {
        "gguf": (
            _OUR_OPEN,
            _peer("gguf", "gguf.GGUFReader(path)", gguf_py.read, "gguf"),
            _ZTENSOR_OPEN,
        ),
        "huggingface": (_OUR_OPEN, _SAFE_OPEN),
        "onnx": (
            _OUR_OPEN,
            _peer("onnx", "onnx.load(path)", onnx_py.load, "onnx"),
            _peer("onnx-ir", "onnx_ir.load(path)", onnx_py.load_ir, "onnx-ir"),
            _ZTENSOR_OPEN,
        ),
        "safetensors": (_OUR_OPEN, _SAFE_OPEN, _ZTENSOR_OPEN),
    },
    again=True,
)


HEADER_ONLY = Call(
    "onnx, header only",
    "onnx.load(path, load_external_data=False): whether there are data is not looked at",
    ("onnx",),
    role=Role.FLOOR,
    prepare=onnx_py.load_without_data,
)


def _one(which: str) -> Mapping[str, Sequence[Contender]]:
    """Return who can read one tensor without the others.

    Args:
        which: the ``first`` tensor, or the ``last`` that is a matrix.
    """
    ourselves = our("open(path).tensors[name].values()", ours.load_one, which=which)
    safe = _peer(
        "safetensors",
        "safe_open(path, 'pt').get_tensor(name)",
        safetensors_py.load_one,
        *SAFETENSORS,
        which=which,
    )
    mapped = _peer(
        "ztensor", "ztensor.open(path)[name]", ztensor_py.load_one, *ZTENSOR, which=which
    )
    return {
        "gguf": (
            ourselves,
            _peer(
                "gguf",
                "dequantize(tensor) of GGUFReader(path)",
                gguf_py.load_one,
                "gguf",
                which=which,
            ),
        ),
        "huggingface": (ourselves, safe),
        "onnx": (
            ourselves,
            _peer(
                "onnx", "to_array(initializer) of load(path)", onnx_py.load_one, "onnx", which=which
            ),
            _peer(
                "onnx-ir",
                "initializers[name].const_value.numpy()",
                onnx_py.load_one_ir,
                "onnx-ir",
                which=which,
            ),
        ),
        "safetensors": (ourselves, safe, mapped),
    }


FIRST = Operation(
    "first", "One tensor", "Read the first tensor of {what}", _one("first"), again=True
)
ONE = Operation(
    "one", "One tensor", "Read one matrix at the end of {what}", _one("last"), again=True
)

_OUR_LOAD = our("weighbridge.load(path)", ours.load_all, "torch")
_LOAD_FILE = _peer(
    "safetensors", "safetensors.torch.load_file(path)", safetensors_py.load_all, *SAFETENSORS
)
_ZTENSOR_LOAD = _peer("ztensor", "torch.from_dlpack(tensor) of all", ztensor_py.load_all, *ZTENSOR)

LOAD = Operation(
    "load",
    "Load all",
    "Load {what}, every page touched",
    {
        "gguf": (
            our("weighbridge.load_file(path)", ours.load_all, "torch", names="source"),
            _peer("gguf", "tensor.data of all, as stored", gguf_py.load_all, "gguf"),
            TOUCH,
            READ,
        ),
        "huggingface": (_OUR_LOAD, _LOAD_FILE, TOUCH, READ),
        "onnx": (
            _OUR_LOAD,
            _peer("onnx", "onnx.load(path), to_array of all", onnx_py.load_all, "onnx"),
            _peer(
                "onnx-ir",
                "onnx_ir.load(path), .const_value.numpy() of all",
                onnx_py.load_all_ir,
                "onnx-ir",
            ),
            _ZTENSOR_LOAD,
            TOUCH,
            READ,
        ),
        "safetensors": (_OUR_LOAD, _LOAD_FILE, _ZTENSOR_LOAD, TOUCH, READ),
    },
)

_OUR_DECODE = our(
    "weighbridge.load(path, dtype='bfloat16')", ours.load_all, "torch", dtype="bfloat16"
)
_SAFE_CAST = _peer(
    "safetensors",
    "load_file(path), .to(torch.bfloat16) of all",
    safetensors_py.load_as,
    *SAFETENSORS,
    dtype="bfloat16",
)

SESSION = _peer(
    "onnxruntime", "InferenceSession(path), which prepares them too", onnx_py.session, "onnxruntime"
)
"""Drops what no node uses, so it loads only a model with a graph."""

TRANSFORMERS_GGUF = _peer(
    "transformers",
    "AutoModelForCausalLM.from_pretrained(dir, gguf_file=name, dtype='bfloat16')",
    transformers_py.gguf_weights,
    *TRANSFORMERS,
    dtype="bfloat16",
)
"""Takes a minute for half a billion numbers: it is not in every case."""

DECODE = Operation(
    "decode",
    "Decode to BF16",
    "Load {what} as BF16",
    {
        "gguf": (
            _OUR_DECODE,
            _peer(
                "gguf",
                "gguf.dequantize of all, .to(torch.bfloat16)",
                gguf_py.decode_all,
                "gguf",
                "torch",
                dtype="bfloat16",
            ),
            _peer(
                "libgguf",
                "libgguf.dequantize_rows of all, .to(torch.bfloat16)",
                gguf_py.decode_with_libgguf,
                "gguf",
                "libgguf",
                "torch",
                dtype="bfloat16",
            ),
            FILL,
            READ,
        ),
        "huggingface": (_OUR_DECODE, _SAFE_CAST, FILL, READ),
        "onnx": (_OUR_DECODE, FILL, READ),
        "safetensors": (_OUR_DECODE, _SAFE_CAST, FILL, READ),
    },
)


def to_device(device: str) -> Operation:
    """Return what loads to a device that is not the CPU."""
    floors = Call(
        "pinned copy",
        "the file's bytes from pinned memory to the device",
        ("torch",),
        role=Role.FLOOR,
        prepare=floor.pinned_copy,
        options={"device": device},
    )
    ourselves = our(
        f"weighbridge.load(path, dtype='bfloat16', device='{device}')",
        ours.load_all,
        "torch",
        dtype="bfloat16",
        device=device,
    )
    peers = (
        _peer(
            "safetensors",
            f"load_file(path, device='{device}')",
            safetensors_py.load_all,
            *SAFETENSORS,
            device=device,
        ),
        _peer(
            "fastsafetensors",
            "fastsafe_open([path], nogds=True, device), clone of all",
            gpu_loaders.fastsafetensors,
            "fastsafetensors",
            device=device,
        ),
        _peer(
            "runai-model-streamer",
            "SafetensorsStreamer().stream_file(path), .to(device) of all",
            gpu_loaders.runai,
            "runai-model-streamer",
            device=device,
        ),
        _peer(
            "instanttensor",
            "instanttensor.safe_open([path], device), clone of all",
            gpu_loaders.instanttensor,
            "instanttensor",
            device=device,
        ),
    )
    return Operation(
        device.replace(":", ""),
        f"Load to {device}",
        f"Load {{what}} to {device} as BF16",
        {
            "gguf": (ourselves, floors),
            "huggingface": (ourselves, *peers, floors),
            "onnx": (ourselves, floors),
            "safetensors": (ourselves, *peers, floors),
        },
    )
