"""What people import: open, plan, convert, load, save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge import registry
from weighbridge.canonical import canonical
from weighbridge.errors import InvalidFile, InvalidInput, InvalidPlan
from weighbridge.file import File
from weighbridge.layout import LayoutOptions
from weighbridge.metadata import string
from weighbridge.model import HUGGING_FACE, Model
from weighbridge.planner import IN_MEMORY, make_plan
from weighbridge.report import Report
from weighbridge.sizes import parse_size
from weighbridge.tensor import from_array
from weighbridge.wish import GraphWish, Wish

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import torch

    from weighbridge.engine.progress import Progress
    from weighbridge.engine.write import Result
    from weighbridge.format import Format
    from weighbridge.steps import Plan
    from weighbridge.tensor import Lazy, Tensor

    AnyPath = str | os.PathLike[str]

HEAD_BYTES = 4096
"""How much of a file a format may look at to recognise it."""


def sniff(path: AnyPath) -> Format:
    """Return the format of a file or a directory, by its content.

    Raises:
        NotFound: (rule ``not-found``) when there is nothing there.
        InvalidFile: (rule ``unknown-format``) when no format knows it.
    """
    place = Path(path)
    head = b"" if place.is_dir() else _head(File(place))
    # The format that the suffix names comes first: the others need not be imported then.
    for name in sorted(registry.found("formats"), key=lambda name: place.suffix != f".{name}"):
        container: Format = registry.load("formats", name)
        if container.sniff(place, head):
            return container
    raise InvalidFile(
        "is of no format that is known",
        rule="unknown-format",
        path=place,
        got="a directory" if place.is_dir() else f"the first bytes {head[:8]!r}",
        expected=f"one of {', '.join(sorted(each.title for each in registry.formats().values()))}",
    )


def _head(file: File) -> bytes:
    try:
        return file.read(0, min(file.size, HEAD_BYTES))
    finally:
        file.close()


def open(path: AnyPath) -> Model:
    """Open a model of any format: the header is read and checked, the weights stay where they are.

    Args:
        path: a file (GGUF, safetensors, ONNX, an index of shards) or a checkpoint directory. Of a
            split GGUF any part will do.

    Raises:
        NotFound: (rule ``not-found``) when there is nothing there.
        InvalidFile: with the rule that the file breaks.

    Example:
        >>> import numpy as np, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = folder.name + "/x.safetensors"
        >>> _ = save_file({"weight": np.ones((2, 3), np.float32)}, path)
        >>> with open(path) as model:
        ...     model.tensors["weight"].shape
        (2, 3)
        >>> folder.cleanup()
    """
    return sniff(path).open(Path(path))


def plan(
    source: AnyPath | Model,
    target: AnyPath,
    *,
    to: str | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: str | None = None,
    pure: bool = False,
    tensor_types: Mapping[str, str] | None = None,
    imatrix: AnyPath | None = None,
    weights_only: bool = False,
    overwrite: bool = False,
    shard_size: int | str | None = None,
    external: bool | None = None,
    pre_tokenizer: str | None = None,
    task: str | None = None,
    fuse: str | None = None,
    link_weights: bool = False,
    onnx_quantized: str | None = None,
) -> Plan:
    """Plan a conversion from headers alone; print the plan to see it, `run` it to do it.

    Args:
        source: a path, or an opened model.
        target: the file or directory to write.
        to: the target's format; by default its suffix tells, and a path without one is a
            Hugging Face directory.
        dtype: the dtype of all floating-point weights: ``float32``, ``bfloat16``, ``float16``.
        quantize: a file type of llama-quantize, which may give each tensor its own encoding
            (``Q4_K_M``, ``Q8_0``), or an encoding for all matrices (``F16``, ``NVFP4``); for a
            checkpoint directory also ``fp8``, in blocks of 128x128; for ONNX graphs ``int4`` or
            ``int8`` in groups of 32, and ``int4_g128_asym`` and the like.
        pure: whether all matrices get the file type's main encoding.
        tensor_types: regular expression for tensor names of the target -> encoding of the matrices
            in whose names it is found; the first counts.
        imatrix: an importance matrix, as llama-imatrix writes them (GGUF or ``.dat``): how much
            each column of the matrices counts when they are quantised.
        weights_only: move tensors under their own names, without config, tokenizer or family.
        overwrite: whether an existing target may be replaced. Of a symbolic link only the link is:
            what it points to stays as it is.
        shard_size: the most bytes of weights in one file, as ``"5GB"``.
        external: for ONNX, whether the weights go beside the header file.
        pre_tokenizer: GGUF's name of the pre-tokenizer, where it is not recognised.
        task: for a directory of ONNX graphs, what they are to do, as ``text-generation``; by
            default the checkpoint's class tells.
        fuse: for ONNX graphs, the execution provider of ONNX Runtime, ``cpu`` or ``cuda``, whose
            own operators are used where they are faster.
        link_weights: for ONNX graphs, whether they read the checkpoint's own files; they are then
            written into its directory.
        onnx_quantized: for ONNX graphs, how weights that are quantised in blocks are stored:
            ``exact`` and fast (the default), ``small``, ``fast``, or ``none`` for decoded.

    Returns:
        The plan; what is wrong with the conversion is in its ``problems``.

    Raises:
        Error: when the source cannot be opened, or an option makes no sense.
    """
    size = None if shard_size is None else parse_size(shard_size)
    wish = Wish(
        to=to,
        dtype=_dtype_name(dtype),
        quantize=quantize,
        pure=pure,
        tensor_types=tuple((tensor_types or {}).items()),
        imatrix=None if imatrix is None else str(imatrix),
        weights_only=weights_only,
        overwrite=overwrite,
        layout=LayoutOptions(size, external),
        pre_tokenizer=pre_tokenizer,
        graph=GraphWish(task, fuse, link_weights, onnx_quantized),
    )
    model = source if isinstance(source, Model) else open(source)
    return make_plan(model, Path(target), wish)


def convert(
    source: AnyPath | Model,
    target: AnyPath,
    *,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: bool | Progress = False,
    **options: Any,
) -> Result:
    """Plan a conversion and run it.

    Args:
        source: a path, or an opened model.
        target: the file or directory to write.
        memory: the most memory that the process may have resident; None allows 1 GB beside what
            it has already.
        threads: how many threads work; None takes one for each core.
        progress: True shows a bar; a function is told of every piece.
        options: those of `plan`.

    Raises:
        InvalidPlan: with everything that is wrong, before a byte is written.
    """
    return plan(source, target, **options).run(memory=memory, threads=threads, progress=progress)


def load(
    path: AnyPath,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    *,
    names: str = "hf",
    backend: str = "auto",
    threads: int | None = None,
    memory: int | str = "200MB",
    progress: bool | Progress = False,
) -> dict[str, torch.Tensor]:
    """Load a model's weights, from any format, to the CPU or a GPU.

    On the CPU dense tensors are views of the file, not copies, where the file aligns them, as GGUF
    and safetensors do, and does not lie on a network file system; what was chosen for each file,
    and why, is logged as information by ``weighbridge.load``. Writing to a view does not change
    the file. Quantised tensors are decoded.

    To a GPU bytes go as they are stored, through a ring of at most 256 MB of pinned memory, and are
    decoded there; what it cannot decode is decoded by the CPU on the way. No tensor is ever whole
    in the CPU's memory.

    Args:
        path: a file, an index of shards, or a checkpoint directory.
        device: ``cpu``, ``cuda``, ``cuda:1``.
        dtype: the dtype of all floating-point tensors; None keeps a dense tensor's own and gives
            float32 for a quantised one.
        names: ``hf`` for Hugging Face's names and shapes, ``source`` for the file's own.
        backend: ``mmap`` for views, ``pread`` to read everything into memory with several threads,
            ``auto`` to go by the file system.
        threads: how many threads read and decode; None takes one for each core.
        memory: the most memory to use beside the result.
        progress: True shows a bar; a function is told of every piece.

    Raises:
        InvalidPlan: when the weights cannot be named, as for a GGUF of an unknown family.
        InvalidInput: (rules ``names``, ``backend``, ``device``, ``threads``, ``memory``) for
            arguments that cannot be, (rule ``overflow``) for a number that has no place in `dtype`.
        Unsupported: (rule ``device``) for a device that is not supported, or without CUDA, (rule
            ``torch-dtype``) for a tensor of a type that torch does not have.
        OutOfMemory: (rule ``memory``) naming the tensor that does not fit, its size, and what is
            free.
        MissingDependency: (rule ``torch``) when torch is not installed.

    Example:
        >>> import numpy as np, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = folder.name + "/x.safetensors"
        >>> _ = save_file({"weight": np.ones((1, 2), np.float32)}, path)
        >>> load(path, dtype="bfloat16")
        {'weight': tensor([[1., 1.]], dtype=torch.bfloat16)}
        >>> folder.cleanup()
    """
    from weighbridge.engine.device import device_of
    from weighbridge.engine.load import Options, load_tensors, requested

    place = device_of(device)
    options = Options(backend, memory, threads, progress)
    with open(path) as model:
        tensors = named_tensors(model, names)
        return load_tensors(requested(tensors, _dtype_name(dtype)), place, options)


def named_tensors(model: Model, names: str) -> Mapping[str, Lazy]:
    """Return a model's tensors under Hugging Face's names (``hf``), or their own (``source``).

    Raises:
        InvalidPlan: when they cannot be named.
        InvalidInput: (rule ``names``) for another word.
    """
    if names not in {"hf", "source"}:
        raise InvalidInput("is no kind of names", rule="names", got=names, expected="hf or source")
    if names == "source":
        return model.tensors
    report = Report()
    named = canonical(model, report, weights_only=True)
    if report.problems:
        raise InvalidPlan(report.problems)
    return named.tensors


def load_file(path: AnyPath, device: str | torch.device = "cpu") -> dict[str, torch.Tensor]:
    """Load a file's tensors under their own names, as `safetensors.torch.load_file` does.

    Any format will do; quantised tensors are decoded to float32. `load` says the rest.
    """
    return load(path, device, names="source")


def save_file(
    tensors: Mapping[str, Any], path: AnyPath, metadata: Mapping[str, str] | None = None
) -> Result:
    """Save arrays or torch tensors, as `safetensors.torch.save_file` does, in any format.

    Args:
        tensors: name -> NumPy array or torch tensor, contiguous or not.
        path: the file; its suffix tells the format. An existing file is replaced.
        metadata: strings to keep beside the tensors.

    Raises:
        InvalidInput: (rule ``dtype``) for a dtype that cannot be stored.
    """
    lazy = {name: _in_memory(name, values) for name, values in tensors.items()}
    kept = {key: string(text) for key, text in (metadata or {}).items()}
    model = Model(IN_MEMORY, HUGGING_FACE, lazy, metadata=kept)
    wish = Wish(weights_only=True, overwrite=True)
    return make_plan(model, Path(path), wish).run()


def _in_memory(name: str, values: Any) -> Tensor:
    if hasattr(values, "detach"):
        from weighbridge.engine.torch_types import from_torch

        return from_torch(name, values)
    if not isinstance(values, np.ndarray | np.generic):
        raise InvalidInput(
            "is neither a NumPy array nor a torch tensor",
            rule="dtype",
            tensor=name,
            got=type(values).__name__,
        )
    return from_array(name, np.asarray(values))


def _dtype_name(dtype: str | torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")
