"""What a classifier tells apart: ``id2label`` and ``label2id``, or the names in GGUF.

GGUF has ``{arch}.classifier.output_labels``, an array of names; llama.cpp takes its length for the
number of scores, which is 1 where there is none. The head's matrix is ``cls.output.weight``.

Source: ``conversion/bert.py`` of llama.cpp, which leaves out transformers' two default names, so
that llama.cpp refuses the classifiers that have them; here a classifier's names are always written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weighbridge.aspects import Aspect, integer, lookup, wrong
from weighbridge.metadata import Value, array

if TYPE_CHECKING:
    from weighbridge.model import Config
    from weighbridge.report import Report
    from weighbridge.tensor import Lazy

KEY = "{arch}.classifier.output_labels"
HEAD = "cls.output.weight"

CLASSIFIER = "ForSequenceClassification"
"""How the names of classes end that have a classifier's head."""

DEFAULT = ["LABEL_0", "LABEL_1"]
"""The names that transformers gives a config that has none."""

MOST_LABELS = 1 << 16
"""The most names that are made up: hostile configs say billions."""


@dataclass(frozen=True)
class Labels(Aspect):
    """A classifier's names, and the class of a container that has a classifier's head.

    Attributes:
        classifier: that class.
    """

    classifier: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The one key."""
        return (KEY,)

    def to_metadata(self, config: Config, report: Report) -> Mapping[str, Value]:
        """Return the names, where there is a head for them or they are not the default."""
        del report
        names = labels(config)
        if names == DEFAULT and not is_classifier(config):
            return {}
        return {KEY: array("string", names)}

    def to_config(
        self, metadata: Mapping[str, Value], tensors: Mapping[str, Lazy]
    ) -> Mapping[str, Any]:
        """Return the names both ways, and the class where there is a head.

        Raises:
            InvalidFile: (rule ``config-type``) for names that are no array of strings.
        """
        head = tensors.get(HEAD)
        names = _read(metadata[KEY]) if KEY in metadata else None
        if names is None and head is not None and head.ndim:
            names = _numbered(head.shape[0])
        return {
            **({} if head is None else {"architectures": [self.classifier]}),
            **({} if names is None else {"id2label": {str(n): x for n, x in enumerate(names)}}),
            **({} if names is None else {"label2id": {x: n for n, x in enumerate(names)}}),
        }


def is_classifier(config: Config) -> bool:
    """Tell whether a config's class has a classifier's head."""
    classes = config.get("architectures")
    return isinstance(classes, list) and bool(classes) and str(classes[0]).endswith(CLASSIFIER)


def labels(config: Config) -> list[str]:
    """Return what a classifier tells apart, in the order of its scores.

    Raises:
        InvalidFile: (rule ``config-type``) for an ``id2label`` that does not number its names from
            0 on.

    Example:
        >>> labels({"id2label": {"1": "good", "0": "bad"}}), labels({"num_labels": 1})
        (['bad', 'good'], ['LABEL_0'])
    """
    named = lookup(config, "id2label")
    if named is None:
        several = lookup(config, "num_labels") is not None
        return _numbered(integer(config, "num_labels")) if several else list(DEFAULT)
    if not isinstance(named, Mapping) or not named:
        raise wrong("id2label", named, "a name for each number")
    by_number = {str(number): name for number, name in named.items()}
    names = [by_number.get(str(number)) for number in range(len(named))]
    if not all(isinstance(name, str) for name in names):
        raise wrong("id2label", named, f"names for 0 to {len(named) - 1}")
    return [str(name) for name in names]


def _numbered(count: int) -> list[str]:
    if count > MOST_LABELS:
        raise wrong("the number of labels", count, f"at most {MOST_LABELS}")
    return [f"LABEL_{number}" for number in range(count)]


def _read(value: Value) -> list[str]:
    if (value.type, value.items) != ("array", "string"):
        raise wrong(KEY, value.items or value.type, "an array of strings")
    names: list[str] = value.plain()  # type: ignore[assignment]
    return names
