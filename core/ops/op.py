"""What a reversible tensor operation is.

An operation knows its inverse, the shapes of its results, whether it only moves values and in
runs of what length, and how one region of a result comes from regions of its inputs. From these
follows, and is never declared, whether it may run on packed bytes: when every run is a whole
number of grains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from weighbridge.errors import InvalidInput
from weighbridge.region import Region, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Fetch = Callable[[int, Region], "Array"]
"""Reads a region of the input of that number."""


class Op(ABC):
    """An operation on any number of tensors; subclasses are frozen values."""

    @property
    @abstractmethod
    def inverse(self) -> Op:
        """The operation that undoes this one."""

    @abstractmethod
    def shapes(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shapes of the results.

        Raises:
            InvalidInput: (rule ``op-shape``) for inputs that the operation cannot take.
        """

    @abstractmethod
    def run(self, inputs: Sequence[Shape]) -> int | None:
        """Return how many neighbours along the last axis stay together; None: values change.

        An operation that leaves the last axis alone keeps all of it together and returns 0.
        """

    @abstractmethod
    def region(self, result: int, region: Region, inputs: Sequence[Shape], fetch: Fetch) -> Array:
        """Return a region of the result of that number, made from regions of the inputs."""

    def on_grid(self, inputs: Sequence[Shape], grain: int) -> Op:
        """Return the operation for tensors whose last axis is counted in grains."""
        del inputs, grain
        return self

    def remark(self, inputs: Sequence[Shape]) -> tuple[str, str] | None:
        """Return what a user has to know of it, as a note's kind and text: what it loses, say."""
        del inputs
        return None

    def units(self, result: int, inputs: Sequence[Shape]) -> tuple[int, ...]:
        """Return, for each axis of a result, the length that regions are best cut at."""
        return (1,) * len(self.shapes(inputs)[result])


def refuse(op: Op, inputs: Sequence[Shape], expected: str) -> InvalidInput:
    """Return the error (rule ``op-shape``) for inputs that an operation cannot take."""
    return InvalidInput(
        f"{type(op).__name__} cannot take these shapes",
        rule="op-shape",
        got=", ".join(str(list(shape)) for shape in inputs),
        expected=expected,
    )


def along_last(axis: int, shape: Shape, run: int) -> int:
    """Return `run` for an operation along the last axis of `shape`, 0 for one along another."""
    return run if axis == len(shape) - 1 else 0


def only(inputs: Sequence[Shape], op: Op) -> Shape:
    """Return the shape of the one input.

    Raises:
        InvalidInput: (rule ``op-shape``) when there are more or none.
    """
    if len(inputs) != 1:
        raise refuse(op, inputs, "one tensor")
    return inputs[0]
