"""The texts that two models are compared on: shipped ones, or a user's file."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Any

from weighbridge.errors import InvalidInput


def shipped_prompts() -> list[str]:
    """Return the prompts that come with the package.

    Example:
        >>> len(shipped_prompts())
        6
    """
    return read_prompts(resources("weighbridge.runtimes") / "prompts.txt")


def read_prompts(path: Any) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises:
        InvalidInput: (rule ``prompts``) when there are none, or they are not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise InvalidInput("is not text in UTF-8", rule="prompts", path=path) from None
    prompts = [line.rstrip("\r") for line in lines if line.strip()]
    if not prompts:
        raise InvalidInput("holds no prompts", rule="prompts", path=path)
    return prompts
