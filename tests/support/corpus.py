"""Thousands of lines of mixed text to encode: prose, code, scripts, numbers, emoji, odd spaces.

They are made of the shipped corpus and of what Python itself carries (the source of its library and
the names of characters), by a seeded generator.
"""

from __future__ import annotations

import inspect
import json
import random
import sys
import textwrap
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from support.vocabularies import corpus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Maker = Callable[["Material"], str]

SEED = 20

CODE = (inspect, json, random, textwrap)
"""Modules whose source is text to encode."""

SPACES = (
    *(chr(n) for n in range(sys.maxunicode) if unicodedata.category(chr(n))[0] == "Z"),
    *"\t\v\f\r\n\x1c\x1f\x85",
)
"""Whatever looks like a space, or ends a line somewhere."""

INVISIBLE = (
    *(chr(n) for n in range(0x20) if not chr(n).isspace()),
    *"\x7f\x80\x9f\xad\u200b\u200c\u200d\u200e\u202e\u2060\ufe0f\ufeff\ufffd\ue000\U000e0041",
)
"""Characters that nobody sees, or that stand for none."""

EMOJI = (*"😀😶🙈🚀🦙🧠🫠❤☎✈⌛", "❤️", "☎️", "✈️", "1️⃣", "#️⃣", "🇩🇪", "🇯🇵", "🏴‍☠️", "🏳️‍🌈")
PEOPLE = (*"🧑👩👨👧👦🧕🤷🏃",)
SKINS = ("", *(chr(n) for n in range(0x1F3FB, 0x1F400)))
THINGS = (*"💻🚀🔬🌾🎨", "❤️", "⚖️", "✈️", "♀️", "♂️")
"""What people hold in emoji that zero-width joiners make."""

BREAKS = ("\n", "\n\n", "\r\n", "\r", "\n \n", "\n\t", " \n  \n\n   ")

NUMBERS = (
    "{}", "-{}", "{:,}", "{:x}", "0x{:08X}", "{:e}", "{}%", "{}kg", "${}.99", "{:b}", "№{}", "{}th",
    "{:_}", "2026-{:02}-17", "v{0}.{0}.{0}", "{}²", "Ⅷ{}", "½{}", "({})",
)  # fmt: skip
"""How a number may be written."""

WORDS = 3
"""Of how many words a line of one script is made, on average."""


@dataclass(frozen=True)
class Reason:
    """Why one encoder differs from another, and where.

    Attributes:
        why: the reason.
        where: whether it may show in a line.
        warning: what the conversion says to the user about it, in part; none for a reason that
            shows in made-up vocabularies only.
    """

    why: str
    where: Callable[[str], bool]
    warning: str = ""


class Material:
    """What lines are made of, and the dice."""

    def __init__(self, seed: int, specials: Sequence[str], *, breaks: bool) -> None:
        """Throw as `seed` says; `specials` are tokens to sprinkle, `breaks` whether lines break."""
        self.dice = random.Random(seed)
        self.specials = specials
        self.breaks = BREAKS if breaks else (" ",)

    def one(self, choices: Sequence[str]) -> str:
        """Return one of the choices."""
        return self.dice.choice(choices)

    def some(self, choices: Sequence[str], most: int) -> list[str]:
        """Return up to `most` of the choices, at least one."""
        return self.dice.choices(choices, k=self.dice.randint(1, most))


def lines(
    count: int = 5000, specials: Sequence[str] = (), *, breaks: bool = True
) -> tuple[str, ...]:
    """Return different lines, always the same ones.

    Args:
        count: how many.
        specials: tokens of a tokenizer, which some lines have in them.
        breaks: whether lines have line breaks within.

    Example:
        >>> len(lines(10)), lines(10) == lines(20)[:10]
        (10, True)
    """
    material = Material(SEED, specials, breaks=breaks)
    found: dict[str, None] = {}
    while len(found) < count:
        maker = material.dice.choice(MAKERS)
        found[maker(material)] = None
    return tuple(found)


@cache
def _code() -> tuple[str, ...]:
    sources = [inspect.getsource(module) for module in CODE]
    return tuple(line for source in sources for line in source.split("\n") if line.strip())


@cache
def _scripts() -> tuple[str, ...]:
    """Return the letters and marks of each script in a string, told apart by characters' names."""
    found = defaultdict(list)
    for n in range(0x80, 0x20000):
        name = unicodedata.name(chr(n), "")
        if name and unicodedata.category(chr(n))[0] in "LMN":
            found[name.split()[0].split("-")[0]].append(chr(n))
    return tuple("".join(characters) for characters in found.values() if len(characters) > 9)


@cache
def _marks() -> tuple[str, ...]:
    return tuple(chr(n) for n in range(0x20000) if unicodedata.category(chr(n))[0] == "M")


def _prose(material: Material) -> str:
    return material.one(corpus())


def _changed(material: Material) -> str:
    change: Callable[[str], str] = material.dice.choice(
        [str.upper, str.lower, str.title, str.swapcase, _decomposed, _compatible]
    )
    return change(_prose(material))


def _decomposed(line: str) -> str:
    return unicodedata.normalize("NFD", line)


def _compatible(line: str) -> str:
    return unicodedata.normalize("NFKC", line)


def _program(material: Material) -> str:
    start = material.dice.randrange(len(_code()))
    return material.one(material.breaks).join(_code()[start : start + material.dice.randint(1, 4)])


def _foreign(material: Material) -> str:
    script = material.one(_scripts())
    return " ".join("".join(material.some(script, 9)) for _ in material.some(" ", 2 * WORDS))


def _any_characters(material: Material) -> str:
    points = [material.dice.randrange(0x20, 0x20000) for _ in range(12)]
    return "".join(chr(n) for n in points if unicodedata.category(chr(n)) not in ("Cn", "Cs"))


def _name(material: Material) -> str:
    character = material.one(material.one(_scripts()))
    return f"U+{ord(character):04X} {character} {unicodedata.name(character)}"


def _numbers(material: Material) -> str:
    return " ".join(
        form.format(material.dice.randrange(10 ** material.dice.randint(1, 12)))
        for form in material.some(NUMBERS, 5)
    )


def _emoji(material: Material) -> str:
    person = "\u200d".join(
        material.one(PEOPLE) + material.one(SKINS) for _ in range(material.dice.randint(1, 4))
    )
    holding = f"{material.one(PEOPLE)}{material.one(SKINS)}\u200d{material.one(THINGS)}"
    flags = "".join(material.some([chr(n) for n in range(0x1F1E6, 0x1F200)], 5))
    parts = [person, holding, flags, *material.some(EMOJI, 4), *_prose(material).split()[:3]]
    material.dice.shuffle(parts)
    return material.one(("", " ")).join(parts)


def _marked(material: Material) -> str:
    """Put marks upon letters, also some that no language puts there."""
    return "".join(
        character + "".join(material.some(_marks(), 2) if material.dice.random() < 0.2 else ())
        for character in _prose(material)
    )


def _spaced(material: Material) -> str:
    words = _prose(material).split()
    spaces = [space for space in SPACES if len(material.breaks) > 1 or not space.splitlines()]
    return "".join(word + "".join(material.some(spaces, 3)) for word in words)


def _hidden(material: Material) -> str:
    return "".join(
        character + (material.one(INVISIBLE) if material.dice.random() < 0.1 else "")
        for character in _prose(material)
    )


def _paragraph(material: Material) -> str:
    return "".join(_prose(material) + material.one(material.breaks) for _ in range(3))


def _long_word(material: Material) -> str:
    return "".join(material.some(_prose(material).split(" "), 3)) * material.dice.randint(1, 30)


def _sprinkled(material: Material) -> str:
    """Put special tokens, whole and in part, into a line; a plain line where there are none."""
    words = _prose(material).split(" ")
    for token in material.some(material.specials, 3) if material.specials else ():
        piece = token if material.dice.random() < 0.9 else token[: len(token) // 2]
        glue = material.one(("", " ", "  ")), material.one(("", " ", "\t"))
        words.insert(material.dice.randint(0, len(words)), piece.join(glue))
    return material.one(("", " ")).join(words)


def _joined(material: Material) -> str:
    """Put pieces of several kinds into one line."""
    makers: list[Maker] = material.dice.choices(MAKERS[:-1], k=3)
    return material.one(("", " ", ". ")).join(maker(material)[:40] for maker in makers)


MAKERS: tuple[Maker, ...] = (
    _prose,
    _prose,
    _changed,
    _program,
    _program,
    _foreign,
    _foreign,
    _any_characters,
    _name,
    _numbers,
    _emoji,
    _marked,
    _spaced,
    _hidden,
    _paragraph,
    _long_word,
    _sprinkled,
    _sprinkled,
    _joined,
)
"""What makes a line; the one that joins others comes last."""
