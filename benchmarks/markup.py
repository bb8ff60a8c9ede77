"""HTML and SVG elements: what is not markup already is escaped."""

from __future__ import annotations

from html import escape

from weighbridge.errors import escaped


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def el(name: str, *children: str, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: its tag.
        children: text, which is escaped, and markup, which is not.
        attributes: an underscore stands for a hyphen, and is dropped at the end; None leaves an
            attribute out.

    Example:
        >>> el("a", "<b>", el("i", "c"), class_="x", data_value=1.5, href=None)
        '<a class="x" data-value="1.5">&lt;b&gt;<i>c</i></a>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_safe(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Return text and markup, one after the other, as markup."""
    return Markup(
        "".join(child if isinstance(child, Markup) else _safe(child) for child in children)
    )


def _safe(text: str) -> str:
    """Escape what means something to HTML, and what no reader can see."""
    return escape(escaped(text))
