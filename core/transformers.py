"""Any model as one of transformers: the fast answer to ``from_pretrained(..., gguf_file=)``.

    model, tokenizer = weighbridge.transformers.from_pretrained("SmolLM2.Q4_K_M.gguf")

transformers builds the model: its own ``from_pretrained`` gets the config, and a state dict whose
entries are computed when it asks for them. What a checkpoint becomes in memory (tied weights,
stacked experts, buffers that are in no file, dtypes of single modules) is thereby what it becomes
in transformers, and each number is decoded once, into the memory of the parameter that it is of.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weighbridge.api import open as open_model
from weighbridge.canonical import TORCH_NAMES, canonical
from weighbridge.encoding import Dense, dense, is_float
from weighbridge.engine.expected import conversions
from weighbridge.engine.load import MEMORY, loading
from weighbridge.engine.torch_types import encoding_of, import_torch
from weighbridge.errors import (
    Error,
    InvalidFile,
    InvalidInput,
    InvalidPlan,
    MissingDependency,
    Unsupported,
)
from weighbridge.packing import KEY as PACKED
from weighbridge.report import Report
from weighbridge.sidefiles import CONFIG, dump_json

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from types import EllipsisType

    import torch
    from transformers import (
        GenerationConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from weighbridge.engine.load import Loader
    from weighbridge.model import Model
    from weighbridge.tensor import Lazy

VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "tokenizer.model.v3", "tekken.json", "spiece.model",
    "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
"""The side files of which a model with a tokenizer has at least one."""

READ = (".json", ".txt", ".model", ".jinja", ".v3")
"""What the names of side files end with that transformers reads."""

TOLD = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""What makes transformers tell what is wrong with the weights, instead of raising for some."""


class Loaded(NamedTuple):
    """A model and its tokenizer.

    Attributes:
        model: in evaluation mode.
        tokenizer: None where the source holds none.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None


def from_pretrained(
    path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | int | None = None,
    model_class: str | type | None = None,
    memory: int | str = MEMORY,
    threads: int | None = None,
    **options: Any,
) -> Loaded:
    """Load a model of any format as a model of transformers, with its tokenizer.

    A tensor that is missing is an error. One that the class has no use for is left out, and
    transformers says so, as ever. No code that comes with a model is run.

    Args:
        path: a GGUF file (of a split one any part), a checkpoint directory, or an ONNX file that
            carries a config.
        dtype: the dtype of the weights: ``bfloat16``, ``torch.float16``. None, or ``auto``, takes
            the config's; where that names none, the one that most of the weights have, which is
            float32 for quantised ones.
        device: where the model is to be, as ``"cuda"``; None is the CPU. Any other needs the
            package ``accelerate``.
        model_class: the class of the model, or its name: ``AutoModelForSequenceClassification``,
            ``LlamaModel``. None takes the one that the config names.
        memory: the most memory to use beside the weights.
        threads: how many threads decode; None takes one for each core.
        options: for the ``from_pretrained`` of transformers: ``attn_implementation``.

    Raises:
        MissingDependency: (rules ``torch``, ``transformers``) when these are not installed.
        InvalidPlan: when the source is of no family that is known, or lacks weights, or its
            tokenizer cannot be rebuilt; with every reason.
        Unsupported: (rule ``no-config``) for a file of weights alone, (rule ``model-class``) for a
            class that transformers does not have, (rule ``transformers``) for what it refuses.

    Example:
        >>> import tempfile
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8,
        ...                      num_hidden_layers=1, num_attention_heads=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     LlamaForCausalLM(config).save_pretrained(folder)
        ...     model, tokenizer = from_pretrained(folder, dtype="bfloat16")
        >>> type(model).__name__, model.dtype, tokenizer
        ('LlamaForCausalLM', torch.bfloat16, None)
    """
    import_transformers()
    with open_model(path) as source:
        model = canonical_model(source)
        with directory_of(model) as place:
            making = prepare(model, place, dtype, model_class, {"device_map": device, **options})
            target = encoding_of(making.arguments["dtype"])
            expected = conversions((tensor, target) for tensor in model.tensors.values())
            with loading(memory, threads, expected) as loader:
                loaded = making.make({n: Entry(n, t, loader) for n, t in model.tensors.items()})
            loaded.name_or_path = loaded.config.name_or_path = str(path)
            with refusals(model):
                return Loaded(loaded, _tokenizer(place))


@dataclass(frozen=True)
class Making:
    """What transformers is to be told to make a model, beside its weights.

    Attributes:
        source: the canonical model.
        kind: the class of transformers.
        arguments: of its ``from_pretrained``, ``config`` and ``dtype`` among them.
    """

    source: Model
    kind: Any
    arguments: Mapping[str, Any]

    def make(self, entries: Mapping[str, Any]) -> PreTrainedModel:
        """Have the model made.

        Args:
            entries: the checkpoint's state dict: tensors, or what gives one for
                ``entry[...].to(device=, dtype=)``.

        Raises:
            InvalidPlan: (rules ``missing-tensor``, ``tensor-shape``) for each weight of the class
                that is missing or of another shape.
            Unsupported: (rule ``transformers``) for what transformers refuses.
        """
        with refusals(self.source):
            made, info = self.kind.from_pretrained(
                None, state_dict=dict(entries), **{**self.arguments, **TOLD}
            )
        _check(self.source, info)
        return made  # type: ignore[no-any-return]


def prepare(
    model: Model,
    place: Path,
    dtype: str | torch.dtype | None,
    model_class: str | type | None,
    options: Mapping[str, Any],
) -> Making:
    """Return how transformers is to make a canonical model.

    Args:
        model: with a config.
        place: a directory with the config and the side files; see `directory_of`.
        dtype: as for `from_pretrained`.
        model_class: as for `from_pretrained`.
        options: what else ``from_pretrained`` of transformers is told.

    Raises:
        Unsupported: (rule ``model-class``) for a class that transformers does not have, (rule
            ``transformers``) for a config that it refuses.
    """
    with refusals(model):
        arguments = _arguments(model, place, dtype)
    kind = _class(model, arguments["config"], model_class)
    return Making(model, kind, {**arguments, **options})


class Entry:
    """A tensor of a state dict, computed when transformers takes it.

    It takes an entry by ``entry[...].to(device=, dtype=)``: slices of safetensors are lazy too.
    """

    def __init__(self, name: str, tensor: Lazy, loader: Loader) -> None:
        """Keep the numbers' address."""
        self._name = name
        self._tensor = tensor
        self._loader = loader

    def __getitem__(self, index: EllipsisType) -> Entry:
        """Return all of it: ``...`` is the only index that transformers takes here."""
        del index
        return self

    def to(
        self, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Compute the numbers; without a dtype they keep their own, as `weighbridge.load` says."""
        name = None if dtype is None else str(dtype)
        return self._loader.load(self._name, self._tensor, name).to(device=device)


def import_transformers() -> Any:
    """Return the package.

    Raises:
        MissingDependency: (rules ``torch``, ``transformers``) when one is not installed.
    """
    import_torch()
    try:
        import transformers
    except ImportError:
        raise MissingDependency(
            "transformers is not installed",
            rule="transformers",
            hint="pip install 'weighbridge[transformers]'",
        ) from None
    return transformers


def canonical_model(source: Model) -> Model:
    """Return the model with Hugging Face's names and a config.

    Raises:
        InvalidPlan: with everything that is wrong.
        Unsupported: (rule ``no-config``) without a config.
    """
    report = Report()
    model = canonical(source, report)
    if report.problems:
        for problem in report.problems:
            problem.path = problem.path or str(source.path)
        raise InvalidPlan(report.problems)
    if model.config is None:
        raise Unsupported(
            "holds weights alone",
            rule="no-config",
            path=source.path,
            expected="a model with its config",
            hint="open the directory that it is in, or weighbridge.load the tensors",
        )
    return model


@contextmanager
def directory_of(model: Model) -> Iterator[Path]:
    """Give a directory with the config and the side files: its own, or one made for the time."""
    if model.path is not None and model.path.is_dir():
        yield model.path
        return
    with tempfile.TemporaryDirectory(prefix="weighbridge-") as folder:
        place = Path(folder)
        with refusals(model):
            for name in model.files:
                if name.endswith(READ):
                    _write(place, name, model.files[name])
            _write(place, CONFIG, dump_json(model.config))
        yield place


def _write(place: Path, name: str, content: bytes) -> None:
    """Write a file of a directory, and never one outside.

    Raises:
        InvalidFile: (rule ``file-name``) for a name that leads out of it.
    """
    path = place / name
    if ".." in path.parts or not path.is_relative_to(place):
        raise InvalidFile("holds a file that no directory may have", rule="file-name", got=name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@contextmanager
def refusals(model: Model) -> Iterator[None]:
    """Turn whatever transformers raises into one line that names the model."""
    try:
        yield
    except Error as error:
        error.path = error.path or str(model.path)
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise Unsupported(
            f"transformers refuses it: {reason}", rule="transformers", path=model.path
        ) from error


def _class(model: Model, config: PreTrainedConfig, wanted: str | type | None) -> Any:
    """Return the class that is to be made; of an automatic one that for the config.

    Raises:
        Unsupported: (rule ``model-class``) when transformers has none.
    """
    named = (model.config or {}).get("architectures")
    name = wanted or (named[0] if isinstance(named, list) and named else None)
    found = getattr(import_transformers(), name, None) if isinstance(name, str) else name
    automatic = getattr(found, "_model_mapping", None)
    if automatic is not None:
        # An automatic class looks for a file, which there is none of.
        from transformers.models.auto.auto_factory import _get_model_class

        known = type(config) in automatic
        found = _get_model_class(config, automatic) if known else None  # type: ignore[no-untyped-call]
    if not hasattr(found, "from_pretrained"):
        raise Unsupported(
            "transformers has no such class for it",
            rule="model-class",
            path=model.path,
            got=name or f"no architectures in {CONFIG}",
            hint="name another with model_class",
        )
    return found


def _arguments(model: Model, place: Path, dtype: str | torch.dtype | None) -> dict[str, Any]:
    """Return what transformers is to be told, beside the weights."""
    config = import_transformers().AutoConfig.from_pretrained(place, trust_remote_code=False)
    if hasattr(config, PACKED) and PACKED not in (model.config or {}):
        delattr(config, PACKED)  # the weights come unpacked
    return {
        "config": config,
        "dtype": _dtype(model, config, dtype),
        "generation_config": _generation(place),
        "trust_remote_code": False,
    }


def _dtype(model: Model, config: PreTrainedConfig, wanted: str | torch.dtype | None) -> torch.dtype:
    torch = import_torch()
    found = config.dtype if wanted in {None, "auto"} else wanted
    encoding = dense(str(found)) if found else _most(model.tensors)
    if encoding.name not in TORCH_NAMES:
        raise InvalidInput("is not a dtype of a model", rule="encoding", got=found)
    return getattr(torch, TORCH_NAMES[encoding.name])  # type: ignore[no-any-return]


def _most(tensors: Mapping[str, Lazy]) -> Dense:
    """Return the dtype that most values have; quantised ones are float32."""
    sizes: Counter[str] = Counter({"f32": 0})
    for tensor in tensors.values():
        if is_float(tensor.encoding):
            plain = isinstance(tensor.encoding, Dense) and tensor.encoding.name in TORCH_NAMES
            sizes[tensor.encoding.name if plain else "f32"] += tensor.size
    return dense(sizes.most_common(1)[0][0])


def _generation(place: Path) -> GenerationConfig:
    """Return what generation_config.json says, or config.json where there is none: as ever."""
    kind = import_transformers().GenerationConfig
    try:
        return kind.from_pretrained(place)  # type: ignore[no-any-return]
    except OSError:
        old = {"config_file_name": CONFIG, "_from_model_config": True}
        return kind.from_pretrained(place, **old)  # type: ignore[no-any-return]


def _check(model: Model, info: Mapping[str, Any]) -> None:
    """Refuse a model that lacks weights, or has some of another shape.

    Raises:
        InvalidPlan: (rules ``missing-tensor``, ``tensor-shape``) with each of them.
    """
    problems: list[Error] = [
        InvalidFile("is missing", rule="missing-tensor", path=model.path, tensor=name)
        for name in sorted(info["missing_keys"])
    ]
    problems += [
        InvalidFile(
            "has another shape than the config says",
            rule="tensor-shape",
            path=model.path,
            tensor=name,
            got=list(got),
            expected=list(expected),
        )
        for name, got, expected in sorted(info["mismatched_keys"])
    ]
    if problems:
        raise InvalidPlan(problems)


def _tokenizer(place: Path) -> PreTrainedTokenizerBase | None:
    if not any((place / name).exists() for name in VOCABULARIES):
        return None
    auto = import_transformers().AutoTokenizer
    return auto.from_pretrained(place, trust_remote_code=False)  # type: ignore[no-any-return]
