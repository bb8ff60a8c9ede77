"""Amounts of bytes as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

from weighbridge.errors import InvalidInput

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


def parse_size(text: int | str) -> int:
    """Return a number of bytes.

    Raises:
        InvalidInput: (rule ``size``) when it is not one.

    Example:
        >>> parse_size("5GB"), parse_size("64 MiB"), parse_size(10)
        (5000000000, 67108864, 10)
    """
    match = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([kmgt]i?)?b?\s*", str(text).lower())
    size = round(Decimal(match[1]) * (UNITS | BINARY)[match[2] or ""]) if match else 0
    if size <= 0:
        raise InvalidInput(
            "is not an amount of bytes", rule="size", got=text, expected="as 500MB, 5GB or 64MiB"
        )
    return size


def human(size: float) -> str:
    """Return an amount of bytes in the largest decimal unit that keeps it over 1.

    Example:
        >>> human(98_000_000), human(12)
        ('98.0 MB', '12 B')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.{1 if size < 1000 * factor else 0}f} {unit}"
    return f"{size:.0f} B"
