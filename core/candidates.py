"""What encodings would make of a model's matrices: their size and their error, without writing."""

from __future__ import annotations

import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from weighbridge import kernels, registry
from weighbridge import region as regions
from weighbridge.api import open as open_model
from weighbridge.codecs import encodable_weights
from weighbridge.encoding import DATA, is_float
from weighbridge.engine.budget import budget
from weighbridge.engine.jobs import concerning
from weighbridge.engine.progress import reporter
from weighbridge.engine.write import run_jobs, workers
from weighbridge.errors import InvalidInput
from weighbridge.figures import Distance, distance
from weighbridge.model import Model
from weighbridge.tensor import whole_rows
from weighbridge.weigh import check_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from weighbridge.api import AnyPath
    from weighbridge.encoding import Encoding
    from weighbridge.engine.progress import Progress
    from weighbridge.importance import Importance
    from weighbridge.region import Region, Shape
    from weighbridge.tensor import Lazy

JOB = 1 << 22
"""Values that a thread takes on: few enough to keep all threads busy, and their figures few."""

PIECE = 1 << 18
"""Values measured at once."""

BYTES_PER_VALUE = 64
"""What a value costs while it is measured: decoded, encoded, decoded again, and as doubles."""

MISFITS = {
    "not-finite": "not finite",
    "overflow": "out of range",
    "importance": "no importance",
}
"""What is said of numbers that an encoder refuses, by the rule that it names."""

DOES_NOT_FIT = "does not fit"
"""What is said of an encoding whose blocks a tensor's rows cannot be cut into."""


@dataclass(frozen=True)
class Candidate:
    """What one encoding makes of one tensor, or of many.

    Attributes:
        encoding: the encoding.
        tensors: how many tensors these figures are of: those whose numbers it can hold.
        nbytes: the bytes that they take.
        distance: how far their numbers are from what comes back.
        problem: why it cannot hold the tensor: ``does not fit`` where the rows are no whole
            number of blocks, ``not finite`` or ``out of range`` where its encoder refuses numbers,
            ``no importance`` where it does not without importance weights.
    """

    encoding: Encoding
    tensors: int = 0
    nbytes: int = 0
    distance: Distance = field(default_factory=Distance)
    problem: str | None = None

    @property
    def bits_per_value(self) -> float:
        """The bits that a value takes, scales included."""
        return 8 * self.nbytes / self.distance.values if self.distance.values else math.nan

    @property
    def relative_rms_error(self) -> float:
        """``rms(x - q(x)) / rms(x)``, where q(x) is what comes back; NaN where nothing does."""
        return self.distance.relative if self.tensors else math.nan

    @property
    def max_error(self) -> float:
        """The largest ``|x - q(x)|``."""
        return self.distance.worst if self.tensors else math.nan

    def __add__(self, other: Candidate) -> Candidate:
        """Return the figures of both together; tensors that it cannot hold are not in them."""
        return Candidate(
            self.encoding,
            self.tensors + other.tensors,
            self.nbytes + other.nbytes,
            self.distance + other.distance,
        )


@dataclass(frozen=True)
class Measured:
    """What the candidates make of one tensor.

    Attributes:
        name: its name in the source.
        shape: its shape.
        encoding: how it is stored.
        candidates: one for each encoding that was asked for, in that order.
        weighted: whether the importance matrix has an entry for it.
    """

    name: str
    shape: Shape
    encoding: Encoding
    candidates: tuple[Candidate, ...]
    weighted: bool = False


@dataclass(frozen=True)
class QuantizeErrors:
    """What encodings make of a model's matrices.

    Attributes:
        tensors: each matrix, in the source's order.
    """

    tensors: tuple[Measured, ...]

    @property
    def total(self) -> tuple[Candidate, ...]:
        """One candidate for each encoding, over all the matrices that it can hold."""
        columns = zip(*(measured.candidates for measured in self.tensors), strict=True)
        return tuple(sum(column, Candidate(column[0].encoding)) for column in columns)


def quantize_error(
    source: AnyPath | Model,
    types: Sequence[str],
    *,
    imatrix: AnyPath | None = None,
    tensors: str | None = None,
    threads: int | None = None,
    progress: bool | Progress = False,
) -> QuantizeErrors:
    """Tell what encodings would cost and spoil, tensor by tensor, without writing a model.

    Only matrices of floating-point numbers are measured, those with more than two axes included.
    Blocks lie along the last axis as the source has it. Memory does not grow with the model.

    Args:
        source: a path, or an opened model.
        types: the encodings to try: ``["Q4_K", "Q8_0"]``. The one that a tensor has already
            changes nothing, as in a conversion.
        imatrix: an importance matrix, of a source in GGUF: the encoders mind it, the figures are
            those of all numbers alike.
        tensors: a regular expression that is searched for in the source's tensor names; None
            measures all matrices.
        threads: how many threads work; None takes one for each core.
        progress: True shows a bar; a function is told of every piece.

    Raises:
        InvalidInput: (rule ``types``) without any encoding, (rule ``encoding``) for one that is not
            of floating-point numbers, (rule ``pattern``) for a pattern that is no regular
            expression, (rule ``no-matrix``) when no matrix is found, (rule ``importance``) for an
            importance matrix of another model.
        InvalidFile: for what is no importance matrix.
        Unsupported: (rules ``unknown-encoding``, ``no-encoder``) for an encoding, (rule
            ``importance``) for an importance matrix where the source is not in GGUF.

    Example:
        >>> import numpy as np, tempfile, weighbridge as wb
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = f"{folder.name}/x.safetensors"
        >>> ramp = np.linspace(-1, 1, 256, dtype=np.float32).reshape(2, 128)
        >>> _ = wb.save_file({"x": ramp}, path)
        >>> for found in quantize_error(path, ["Q8_0", "Q4_0", "Q4_K"]).total:
        ...     print(found.encoding, found.nbytes, f"{found.relative_rms_error:.3f}")
        Q8_0 272 0.002
        Q4_0 144 0.043
        Q4_K 0 nan
        >>> folder.cleanup()
    """
    encodings = _asked(types, weighted=imatrix is not None)
    bounds = budget(None, threads)
    with _opened(source) as model:
        matrices = _matrices(model, tensors)
        weights = _importance(model, imatrix, matrices)
        work = {
            name: _jobs(name, tensor, encodings, weights.get(name))
            for name, tensor in matrices.items()
        }
        jobs = [job for parts in work.values() for job in parts]
        total = sum(job.nbytes for job in jobs)
        with reporter(progress, "measuring") as tell, workers(None, bounds) as pool:
            run_jobs(jobs, pool, bounds, total, tell)
    return QuantizeErrors(
        tuple(
            Measured(
                name,
                tensor.shape,
                tensor.encoding,
                _candidates(tensor, encodings, work[name]),
                name in weights,
            )
            for name, tensor in matrices.items()
        )
    )


def _asked(types: Sequence[str], *, weighted: bool) -> tuple[Encoding, ...]:
    """Return each encoding once, in the order in which they are named."""
    if isinstance(types, str) or not types:
        raise InvalidInput(
            "name the encodings to try", rule="types", got=types, expected="as Q4_K,Q8_0"
        )
    return tuple(dict.fromkeys(encodable_weights(name, weighted=weighted) for name in types))


def _importance(
    model: Model, path: AnyPath | None, matrices: Mapping[str, Lazy]
) -> Mapping[str, Importance]:
    """Return the importance of the matrices that have an entry."""
    if path is None:
        return {}
    matrix = registry.dialect(model.dialect).importance(path)
    check_entries(model.tensors, matrix)
    found = {name: matrix.of(name, tensor.shape) for name, tensor in matrices.items()}
    return {name: importance for name, importance in found.items() if importance}


@contextmanager
def _opened(source: AnyPath | Model) -> Iterator[Model]:
    if isinstance(source, Model):
        yield source  # which whoever opened it closes
    else:
        with open_model(source) as model:
            yield model


def _matrices(model: Model, pattern: str | None) -> Mapping[str, Lazy]:
    try:
        searched = re.compile(pattern or "")
    except re.error as error:
        raise InvalidInput(
            f"is no regular expression: {error}", rule="pattern", got=pattern
        ) from None
    found = {
        name: tensor
        for name, tensor in model.tensors.items()
        if tensor.ndim > 1 and is_float(tensor.encoding) and searched.search(name)
    }
    if not found:
        named = "" if pattern is None else " whose name has the pattern"
        raise InvalidInput(
            f"has no matrix of floating-point numbers{named}",
            rule="no-matrix",
            path=model.path,
            got=pattern,
        )
    return found


def _fits(tensor: Lazy, encoding: Encoding) -> bool:
    return encoding.fits(tensor.shape) and whole_rows(tensor.shape, encoding)


Figures = Distance | str
"""How far numbers are from what comes back of them, or why nothing does."""


@dataclass(frozen=True)
class _Job:
    """Measures what encodings make of one region of a tensor.

    Attributes:
        name: the tensor's name.
        tensor: where the numbers come from.
        region: which of them.
        units: for each axis, the length that a cut must be a multiple of.
        importance: how much each column counts; then all cuts are between rows.
        found: the figures of each encoding so far.
    """

    name: str
    tensor: Lazy
    region: Region
    units: tuple[int, ...]
    importance: Importance | None
    found: dict[Encoding, Figures]

    @property
    def nbytes(self) -> int:
        """The bytes of its numbers in float32."""
        return math.prod(regions.extent(self.region)) * 4

    @property
    def cost(self) -> int:
        """The memory that it takes."""
        return min(self.nbytes // 4, PIECE) * BYTES_PER_VALUE

    @np.errstate(all="ignore")
    def run(self) -> int:
        """Measure, and return the number of bytes."""
        with concerning(self.name, self.tensor):
            for tile in regions.tiles(regions.extent(self.region), PIECE, self.units):
                place = _within(self.region, tile)
                numbers = self.tensor.compute(place)
                weights = self.importance.of(place) if self.importance else None
                for encoding, before in self.found.items():
                    if isinstance(before, Distance):
                        figures = self._tried(numbers, encoding, weights)
                        self.found[encoding] = _added(before, figures)
        return self.nbytes

    def _tried(
        self, numbers: NDArray[Any], encoding: Encoding, weights: NDArray[Any] | None
    ) -> Figures:
        if encoding == self.tensor.encoding:
            return distance(numbers, numbers)
        try:
            data = {DATA: kernels.encode(encoding, numbers, weights)}
        except InvalidInput as error:
            if error.rule not in MISFITS:
                raise
            return MISFITS[error.rule]
        return distance(numbers, kernels.decode(encoding, data, numbers.shape, None))


def _jobs(
    name: str, tensor: Lazy, encodings: Sequence[Encoding], importance: Importance | None
) -> list[_Job]:
    fitting = [encoding for encoding in encodings if _fits(tensor, encoding)]
    if not fitting:
        return []
    grains = (encoding.grain for encoding in (tensor.encoding, *fitting))
    last = tensor.shape[-1] if importance else math.lcm(tensor.units()[-1], *grains)
    units = (*tensor.units()[:-1], last)
    return [
        _Job(name, tensor, region, units, importance, {each: Distance() for each in fitting})
        for region in regions.tiles(tensor.shape, JOB, units)
    ]


def _within(region: Region, tile: Region) -> Region:
    return tuple(
        (start + first, start + last)
        for (start, _), (first, last) in zip(region, tile, strict=True)
    )


def _added(a: Figures, b: Figures) -> Figures:
    if isinstance(a, str):
        return a
    return b if isinstance(b, str) else a + b


def _candidates(
    tensor: Lazy, encodings: Sequence[Encoding], jobs: Sequence[_Job]
) -> tuple[Candidate, ...]:
    return tuple(_candidate(tensor, encoding, jobs) for encoding in encodings)


def _candidate(tensor: Lazy, encoding: Encoding, jobs: Sequence[_Job]) -> Candidate:
    if not _fits(tensor, encoding):
        return Candidate(encoding, problem=DOES_NOT_FIT)
    found: Figures = Distance()
    for job in jobs:
        found = _added(found, job.found[encoding])
    if isinstance(found, str):
        return Candidate(encoding, problem=found)
    return Candidate(encoding, 1, encoding.nbytes(tensor.shape), found)
