"""The vocabulary of the searches on a device: `weighbridge.kernels.lanes` in torch.

A row of lanes is a tensor with one number for each block of a batch. Every operation is a kernel
of its own, so that nothing is fused, and all of them round as IEEE 754 says: torch's own division
by a number does not (it multiplies with the inverse), hence `Lane`. A body that is written for
NumPy and for compiled code runs here unchanged; see `retargeted`.

How fast this is on a GPU has not been measured; it starts as many kernels as a body has operations,
some 100,000 for the longest, however many blocks are in a batch. Where Triton is installed most
bodies are translated instead (`weighbridge.kernels.device.translate`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from weighbridge.kernels.device.substitute import Substitution
from weighbridge.kernels.lanes import point_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_MAGIC = 12582912.0


class Lane:
    """One number, or one truth, for each block; operators work on these and on plain numbers.

    Example:
        >>> lane = Lane(torch.tensor([1.0, 3.0]))
        >>> (2 / lane * np.float32(3)).numbers.tolist()
        [6.0, 2.0]
    """

    __slots__ = ("numbers",)
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, numbers: torch.Tensor) -> None:
        """Wrap a tensor of one axis."""
        self.numbers = numbers

    def __neg__(self) -> Lane:
        """Return the numbers with other signs."""
        return Lane(-self.numbers)

    def __add__(self, other: Any) -> Lane:
        """Return sums."""
        return Lane(self.numbers + _plain(other))

    def __sub__(self, other: Any) -> Lane:
        """Return differences."""
        return Lane(self.numbers - _plain(other))

    def __rsub__(self, other: Any) -> Lane:
        """Return differences from a number."""
        return Lane(_plain(other) - self.numbers)

    def __mul__(self, other: Any) -> Lane:
        """Return products."""
        return Lane(self.numbers * _plain(other))

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Lane:
        """Return quotients."""
        return Lane(torch.div(self.numbers, self._tensor(other)))

    def __rtruediv__(self, other: Any) -> Lane:
        """Return quotients of a number."""
        return Lane(torch.div(self._tensor(other), self.numbers))

    def __lt__(self, other: Any) -> Lane:
        """Tell where numbers are less."""
        return Lane(self.numbers < _plain(other))

    def __gt__(self, other: Any) -> Lane:
        """Tell where numbers are greater."""
        return Lane(self.numbers > _plain(other))

    def __ge__(self, other: Any) -> Lane:
        """Tell where numbers are not less."""
        return Lane(self.numbers >= _plain(other))

    def __eq__(self, other: object) -> Lane:  # type: ignore[override]
        """Tell where numbers are equal."""
        return Lane(self.numbers == _plain(other))

    def __ne__(self, other: object) -> Lane:  # type: ignore[override]
        """Tell where numbers are not equal."""
        return Lane(self.numbers != _plain(other))

    def __and__(self, other: Lane) -> Lane:
        """Tell where both are true."""
        return Lane(self.numbers & other.numbers)

    def __or__(self, other: Lane) -> Lane:
        """Tell where one is true."""
        return Lane(self.numbers | other.numbers)

    def _tensor(self, other: Any) -> torch.Tensor:
        """Return numbers, or one number, as a tensor on the same device."""
        if isinstance(other, Lane):
            return other.numbers
        return torch.full((), float(other), dtype=torch.float32, device=self.numbers.device)


def _plain(other: Any) -> Any:
    return other.numbers if isinstance(other, Lane) else float(other)


def scratch(like: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` rows as wide as those of `like`, with nothing in them."""
    return torch.empty((count, like.shape[1]), dtype=torch.float32, device=like.device)


def row(rows: torch.Tensor, index: int) -> Lane:
    """Return one row."""
    return Lane(rows[index])


def setrow(rows: torch.Tensor, index: int, lanes: Lane) -> None:
    """Store `lanes` as one row."""
    rows[index] = lanes.numbers


def like(lanes: Lane, number: float) -> Lane:
    """Return lanes that are all `number`."""
    return Lane(torch.full_like(lanes.numbers, float(number)))


def select(mask: Lane, yes: Lane, no: Lane) -> Lane:
    """Return `yes` in lanes where `mask` is true, `no` in the others."""
    return Lane(torch.where(mask.numbers, yes.numbers, no.numbers))


def anyl(mask: Lane) -> bool:
    """Tell whether `mask` is true in any lane: this waits for the device."""
    return bool(mask.numbers.any())


def fabs(lanes: Lane) -> Lane:
    """Return magnitudes."""
    return Lane(lanes.numbers.abs())


def sqrt(lanes: Lane) -> Lane:
    """Return square roots: rounded correctly from float64, as float32's own may not be on a CPU."""
    return Lane(lanes.numbers.to(torch.float64).sqrt().to(torch.float32))


def nearest(lanes: Lane) -> Lane:
    """Return the nearest whole numbers, as ggml's ``nearest_int`` finds them.

    Example:
        >>> nearest(Lane(torch.tensor([0.5, 1.5, -2.7, torch.inf, torch.nan]))).numbers.tolist()
        [0.0, 2.0, -3.0, -4194304.0, 0.0]
    """
    bits = (lanes.numbers + _MAGIC).view(torch.int32)
    return Lane(((bits & 0x7FFFFF) - 0x400000).to(torch.float32))


def clamp(lanes: Lane, low: float, high: float) -> Lane:
    """Return numbers from `low` to `high`; `low` for NaN."""
    return Lane(torch.where(lanes.numbers >= low, lanes.numbers, low).clamp(max=high))


def floor(lanes: Lane) -> Lane:
    """Return the largest whole numbers that are not larger."""
    return Lane(lanes.numbers.floor())


def wrap(lanes: Lane, bits: int) -> Lane:
    """Return the low `bits` bits of whole numbers."""
    return Lane((lanes.numbers.to(torch.int32) & ((1 << bits) - 1)).to(torch.float32))


def upper(lanes: Lane, bits: int) -> Lane:
    """Return whole numbers without their low `bits` bits, shifted down."""
    return Lane((lanes.numbers.to(torch.int32) >> bits).to(torch.float32))


def either(lanes: Lane, other: Lane) -> Lane:
    """Return the bits that are set in either of two whole numbers."""
    both = lanes.numbers.to(torch.int32) | other.numbers.to(torch.int32)
    return Lane(both.to(torch.float32))


def staircase(lanes: Lane, edges: NDArray[np.float32], steps: NDArray[np.float32]) -> Lane:
    """Return for each number the step that it is on; NaN is on the last one."""
    device = lanes.numbers.device
    places = torch.searchsorted(_on(device, edges.tobytes()), lanes.numbers, right=True)
    return Lane(_on(device, steps.tobytes())[places])


@functools.cache
def _on(device: torch.device, numbers: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(numbers, np.float32).copy()).to(device)


def lookup(table: torch.Tensor, index: Lane) -> Lane:
    """Return what a table has at each index, a whole number within it."""
    return Lane(table[index.numbers.to(torch.int32)])


def pick(rows: torch.Tensor, index: Lane) -> Lane:
    """Return from each block's numbers the one at its index, a whole number."""
    return Lane(rows.gather(0, index.numbers.to(torch.int64)[None])[0])


def nearest_point(
    values: torch.Tensor,
    weights: torch.Tensor,
    at: int,
    levels: tuple[float, ...],
    scale: Lane,
    start: Lane,
    neighbours: torch.Tensor,
    space: torch.Tensor,
) -> Lane:
    """Return which of some points is nearest to `values`; see `weighbridge.kernels.lanes`."""
    some = start.numbers >= 0
    first = torch.where(some, start.numbers, 0).to(torch.int32)
    counts = torch.where(some, neighbours[first], 0)
    chosen = torch.full_like(scale.numbers, -1)
    least = torch.full_like(chosen, torch.finfo(torch.float32).max)
    per, bits = point_shape(levels)
    factors = _on(scale.numbers.device, np.array(levels, np.float32).tobytes())
    for j in range(1, int(counts.max()) + 1):
        points = neighbours[torch.where(counts >= j, first + j, 1)]
        distance = torch.zeros_like(least)
        for i in range(per):
            digit = points.to(torch.int32) >> (bits * i) & ((1 << bits) - 1)
            error = scale.numbers * factors[digit] - values[at + i]
            distance = distance + weights[at + i] * error * error
        nearer = (counts >= j) & (distance < least)
        least = torch.where(nearer, distance, least)
        chosen = torch.where(nearer, points, chosen)
    return Lane(chosen)


def half(lanes: Lane) -> Lane:
    """Return numbers rounded to float16, as float32."""
    return Lane(lanes.numbers.to(torch.float16).to(torch.float32))


def half_bits(lanes: Lane) -> Lane:
    """Return the bits of numbers as float16, as whole numbers."""
    bits = lanes.numbers.to(torch.float16).view(torch.int16).to(torch.int32) & 0xFFFF
    return Lane(bits.to(torch.float32))


def setbyte(out: torch.Tensor, index: int, lanes: Lane) -> None:
    """Store whole numbers from 0 to 255 as byte `index` of each block."""
    out[index] = lanes.numbers


def sethalf(out: torch.Tensor, index: int, lanes: Lane) -> None:
    """Store numbers as float16, little endian, in bytes `index` and the next of each block."""
    bits = lanes.numbers.to(torch.float16).view(torch.int16).to(torch.int32)
    out[index] = bits & 255
    out[index + 1] = (bits >> 8) & 255


WORDS = (
    scratch, row, setrow, like, select, anyl, fabs, sqrt, nearest, clamp, floor, wrap, upper,
    either, staircase, lookup, pick, point_shape, nearest_point, half, half_bits, setbyte, sethalf,
)  # fmt: skip

_in_torch = Substitution({word.__name__: word for word in WORDS})


def retargeted(body: Callable[..., Any]) -> Callable[..., Lane | None]:
    """Return a body written in lanes as one over tensors.

    Example:
        >>> from weighbridge.kernels.ggml import search
        >>> x = torch.tensor([[1.0, -2.0], [-3.0, 1.0]])
        >>> retargeted(search.largest)(x, 0, 2).numbers.tolist()
        [-3.0, -2.0]
    """
    copy: Callable[..., Lane | None] = _in_torch.of(body)
    return copy
