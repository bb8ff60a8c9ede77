"""The contract of a codec, as tests that a third party inherits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from weighbridge.encoding import Blocked
from weighbridge.kernels.codec import block_dtype

if TYPE_CHECKING:
    from weighbridge.kernels.codec import Blocks, Codec, Values

BLOCKS = 257
"""How many random blocks a test decodes: no power of two, so that odd ends are met too."""


class EncodingContract:
    """What every codec promises: subclass it in a test module and set `codec`.

    Attributes:
        codec: the codec to prove.
        repeatable: whether values that were decoded are encoded without another change. Where an
            encoder searches for the best scale, it may find a better one.

    Example:
        A test module of a package that registers the encoding ``nf4``::

            class TestNf4(EncodingContract):
                codec = NF4

                def reference_decode(self, blocks):
                    return bitsandbytes_decode(blocks.tobytes())
    """

    codec: ClassVar[Codec]
    repeatable: ClassVar[bool] = True

    def reference_decode(self, blocks: Blocks) -> Values | None:
        """Return what another implementation makes of `blocks`; None where there is no other."""

    def reference_encode(self, values: Values) -> Blocks | None:
        """Return the blocks that another implementation makes of `values`, if there is one."""

    def blocks(self) -> Blocks:
        """Return blocks of random bytes, always the same."""
        encoding = self.codec.encoding
        random = np.random.default_rng(list(encoding.name.encode()))
        return self.codec.blocks(random.bytes(BLOCKS * encoding.grain_bytes))

    def values(self) -> Values:
        """Return values to encode: what random blocks hold, without what is large or not finite."""
        values = self.codec.decode(self.blocks())
        return values[(np.abs(values) < 2**14).all(axis=1)]

    def test_size_formula(self) -> None:
        """A tensor has so many bytes as its blocks together, and rows are whole blocks."""
        encoding = self.codec.encoding
        assert encoding.nbytes((2, 3, 4 * encoding.grain)) == 24 * encoding.grain_bytes
        assert encoding.nbytes((0, encoding.grain)) == 0
        if isinstance(encoding, Blocked):
            assert not encoding.fits((4, encoding.grain + 1))
            assert not encoding.fits(())

    def test_block_is_as_large_as_the_encoding_says(self) -> None:
        """The structured type has the size of a grain."""
        assert block_dtype(self.codec.encoding).itemsize == self.codec.encoding.grain_bytes

    def test_decodes_any_bytes(self) -> None:
        """Whatever a file holds, decoding gives float32 values, without a warning."""
        values = self.codec.decode(self.blocks())
        assert values.shape == (BLOCKS, self.codec.encoding.grain)
        assert values.dtype == np.float32

    def test_decodes_no_blocks(self) -> None:
        """No blocks are no values."""
        assert self.codec.decode(self.blocks()[:0]).shape == (0, self.codec.encoding.grain)

    def test_decodes_a_block_without_its_neighbours(self) -> None:
        """In pieces, backwards or with gaps: each block decodes to what it always does."""
        blocks, whole = self.blocks(), self.codec.decode(self.blocks())
        pieces = [self.codec.decode(blocks[at : at + 50]) for at in range(0, BLOCKS, 50)]
        assert _same(np.concatenate(pieces), whole)
        assert _same(self.codec.decode(blocks[::-2]), whole[::-2])

    def test_decodes_as_the_reference_does(self) -> None:
        """Every value has the reference's bits; only what is not a number may differ in them."""
        expected = self.reference_decode(self.blocks())
        assert expected is None or _same(self.codec.decode(self.blocks()), expected)

    def test_encodes_what_it_decoded(self) -> None:
        """To encode again what came back changes nothing more, where that is `repeatable`."""
        if self.codec.encode is None:
            return
        blocks = self.codec.encode(self.values())
        assert blocks.dtype == block_dtype(self.codec.encoding)
        assert blocks.shape == (len(self.values()),)
        once = self.codec.decode(blocks)
        assert once.shape == self.values().shape
        assert not self.repeatable or _same(self.codec.decode(self.codec.encode(once)), once)

    def test_encodes_a_block_without_its_neighbours(self) -> None:
        """In pieces or whole: the same bytes."""
        if self.codec.encode is None:
            return
        values = self.values()
        pieces = [self.codec.encode(values[at : at + 50]) for at in range(0, len(values) or 1, 50)]
        assert np.concatenate(pieces).tobytes() == self.codec.encode(values).tobytes()

    def test_encodes_as_the_reference_does(self) -> None:
        """Every byte is the reference's."""
        expected = self.reference_encode(self.values())
        if self.codec.encode is not None and expected is not None:
            assert self.codec.encode(self.values()).tobytes() == expected.tobytes()

    def test_is_documented(self) -> None:
        """Decode and encode say by what formula."""
        for function in (self.codec.decode, self.codec.encode):
            assert function is None or function.__doc__


def _same(values: Values, expected: Values) -> bool:
    """Tell whether the bits are the same, but for those of what is not a number."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    same = bits == np.ascontiguousarray(expected).view(np.uint32)
    return bool((same | (np.isnan(values) & np.isnan(expected))).all())
