"""A model of transformers whose numbers come from ONNX Runtime.

The class is the checkpoint's own, built on the meta device, where parameters take no memory; the
forward pass of the whole, and of the encoder where there is one, is what a graph computes.
Everything around it is transformers' own: ``generate``, its caches, the pipelines.

The stages of an export, by the names of its components:

- ``model``: everything, with a cache or without;
- ``prefill`` and ``decode``: a decoder's first step and all others. Without ``prefill``, the first
  step goes through ``decode`` with an empty cache;
- ``encoder``: what is computed once, before the decoder.
"""

from __future__ import annotations

from functools import wraps
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, NamedTuple

from weighbridge.errors import InvalidFile, MissingDependency, Unsupported
from weighbridge.pipelines.graphs import PAST, Graph, length_of
from weighbridge.pipelines.manifest import WHOLE, Manifest
from weighbridge.runtimes.base import blaming
from weighbridge.runtimes.tokenized import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

ENCODER, PREFILL, DECODE = "encoder", "prefill", "decode"

STAGES = frozenset({WHOLE, ENCODER, PREFILL, DECODE})

PACKAGES = ("onnxruntime", "torch", "transformers", "onnxscript", "transformers.exporters")
"""What it takes to run an export; the last is in transformers since 5.23."""

ERRORS_ONLY = 3
"""The severity from which ONNX Runtime prints."""

TEXT_DECODER = "text_decoder"
"""Where BLIP has the module that writes: its own forward pass trains."""

ENCODERS = (None, "image", "audio")
"""The kinds of encoders, as ``get_encoder`` of transformers names them."""


UNREAD: Mapping[str, frozenset[str]] = {"whisper": frozenset({"attention_mask"})}
"""A model type -> arguments that its forward pass has and does not read."""


class Place(NamedTuple):
    """Where a network is, for whoever asks it."""

    device: torch.device
    dtype: torch.dtype


def check_installed() -> None:
    """Raise `MissingDependency`, the package as its rule, when a package is missing."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingDependency(
                f"{package} is not installed, which running an exported directory needs",
                rule=package.partition(".")[0],
                hint="pip install --upgrade 'weighbridge[onnx]'",
            )


def network(
    manifest: Manifest, *, threads: int | None = None, providers: Sequence[Any] | None = None
) -> Any:
    """Return the model of an exported directory, ready to run.

    Args:
        manifest: what the directory says of itself.
        threads: how many threads compute; None takes what ONNX Runtime takes.
        providers: ONNX Runtime's execution providers; None takes a GPU where there is one that
            the installed ONNX Runtime can use.

    Raises:
        MissingDependency: when a package is missing.
        Unsupported: (rule ``architecture``) for a class that transformers does not have, (rule
            ``export-component``) for stages of another kind.
        InvalidFile: (rule ``runtime``) when transformers or ONNX Runtime refuse it.
    """
    check_installed()
    unknown = sorted(set(manifest.components) - STAGES)
    if unknown:
        raise Unsupported(
            f"has a component '{unknown[0]}' whose place in the model is not known",
            rule="export-component",
            path=manifest.directory,
            expected=", ".join(sorted(STAGES)),
        )
    exported = _exported(manifest, threads, providers)
    unread = UNREAD.get(str(manifest.config.get("model_type")), frozenset())
    graphs = {
        name: Graph(one, manifest.directory, unread) for name, one in exported.runners.items()
    }
    with quiet(), blaming("transformers", manifest.directory):
        made = _on_meta(manifest, exported.config)
        if exported.generation_config is not None:
            made.generation_config = exported.generation_config
    return _wired(made, graphs, Place(exported.device, exported.dtype))


def _exported(manifest: Manifest, threads: int | None, providers: Sequence[Any] | None) -> Any:
    import onnxruntime
    from transformers.exporters.base import ExportedModel as Typed

    exported: Any = Typed
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    with quiet(), blaming("ONNX Runtime", manifest.directory):
        return exported.from_pretrained(
            manifest.directory,
            local_files_only=True,
            trust_remote_code=False,
            session_options=options,
            providers=None if providers is None else list(providers),
        )


def _on_meta(manifest: Manifest, config: Any) -> Any:
    import torch
    import transformers

    kind = getattr(transformers, manifest.architecture, None)
    if config is None or kind is None or not hasattr(kind, "from_pretrained"):
        raise Unsupported(
            "is of no class of transformers",
            rule="architecture",
            path=manifest.directory,
            got=manifest.architecture or "no architecture",
        )
    with torch.device("meta"):
        return kind(config).eval()


def _wired(made: Any, graphs: Mapping[str, Graph], place: Place) -> Any:
    """Put the graphs where the modules' forward passes are."""
    import transformers

    if ENCODER in graphs and PREFILL not in graphs:
        raise InvalidFile(
            f"has an encoder, and no {PREFILL} that reads what it gives", rule="export-component"
        )
    apart = ENCODER in graphs and "decoder_input_ids" not in graphs[PREFILL].takes
    speaking = getattr(made, TEXT_DECODER) if apart else made
    for module in made.modules():
        if isinstance(module, transformers.PreTrainedModel) and module is not speaking:
            _served(module, place)
    _served(speaking, place, Stages(graphs))
    if ENCODER in graphs:
        _served(_encoder(made), place, graphs[ENCODER])
    if speaking.can_generate() and not any(graph.cached for graph in graphs.values()):
        speaking.generation_config.use_cache = False
    return made


def _encoder(made: Any) -> Any:
    """Return the module that is computed once, whatever it is called.

    Raises:
        InvalidFile: (rule ``export-component``) when the class has none.
    """
    for kind in ENCODERS:
        found = made.get_encoder(kind) if kind else made.get_encoder()
        if found is not made:
            return found
    raise InvalidFile(f"has an {ENCODER} that its class does not have", rule="export-component")


def _served(module: Any, place: Place, call: Callable[..., Any] | None = None) -> None:
    """Give a module a class of the same name, which knows its place and may compute elsewhere."""
    kind = type(module)
    changes: dict[str, Any] = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "device": property(lambda _: place.device),
        "dtype": property(lambda _: place.dtype),
        "to": _stay,
    }
    if call is not None:
        changes["forward"] = _forward(kind, call)
    module.__class__ = type(kind.__name__, (kind,), changes)


def _forward(kind: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward pass with the signature of the class, by which transformers goes."""
    known = signature(kind.forward)
    rest = {n for n, one in known.parameters.items() if one.kind is Parameter.VAR_KEYWORD}

    @wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = known.bind(self, *args, **kwargs).arguments
        others = {n: v for name in rest for n, v in given.get(name, {}).items()}
        return call(**{n: v for n, v in given.items() if n not in rest | {"self"}}, **others)

    return forward


def _stay(module: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand for ``to``, which moves a module.

    Raises:
        Unsupported: (rule ``device``) for another place than where it is.
    """
    del kwargs
    wanted = str(args[0]) if args else None
    if wanted in {None, str(module.device), module.device.type, str(module.dtype)}:
        return module
    raise Unsupported(
        "a model in ONNX Runtime cannot be moved",
        rule="device",
        got=wanted,
        expected=str(module.device),
        hint="choose providers when it is loaded",
    )


class Stages:
    """The forward pass of a model whose stages are graphs of their own."""

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        """Keep them by name."""
        self._graphs = graphs

    def __call__(self, **given: Any) -> Any:
        """Run the stage that is due, and the encoder before it where nobody has."""
        outputs = self._stage(given)(**self._encoded(given))
        if given.get("use_cache") is not False:
            return outputs
        return type(outputs)(**{n: v for n, v in outputs.items() if n != PAST})

    def _stage(self, given: Mapping[str, Any]) -> Graph:
        first = length_of(given.get(PAST)) == 0
        names = (PREFILL, DECODE, WHOLE) if first else (DECODE, WHOLE, PREFILL)
        return next(self._graphs[name] for name in names if name in self._graphs)

    def _encoded(self, given: dict[str, Any]) -> dict[str, Any]:
        encoder = self._graphs.get(ENCODER)
        if encoder is None or "encoder_outputs" not in self._stage(given).takes:
            return given
        outputs = given.get("encoder_outputs")
        if outputs is None:
            outputs = encoder(**{n: v for n, v in given.items() if n in encoder.takes})
        others = {n: v for n, v in given.items() if n not in encoder.takes or n in MASKS}
        return others | {"encoder_outputs": outputs}


MASKS = ("attention_mask",)
"""What both the encoder and the decoder take."""
