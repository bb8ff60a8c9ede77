"""Shortcuts through the exporters, which do much anew for every node; the graphs stay the same.

Much of an export's time goes into what has no bearing on the graph: the stack that each node comes
from, the signature of an operator that was read before, patterns of several outputs that are tried
from nodes that cannot begin them, by looking at the whole graph each time; and the collector, which
walks through all that torch and transformers keep.
"""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNATURE = "from_op_schema"

MATCH = "match"

NO_STACKS = "do_not_emit_stack_traces"


def are_there() -> bool:
    """Tell whether all that is taken hold of is where it was found."""
    try:
        from onnx_ir.schemas import OpSignature
        from onnxscript.rewriter._basics import MatchResult  # noqa: F401  # is made
        from onnxscript.rewriter._matcher import SimplePatternMatcher
        from torch.fx import config
    except ImportError:
        return False
    places = ((OpSignature, SIGNATURE), (SimplePatternMatcher, MATCH), (config, NO_STACKS))
    return all(name in vars(owner) for owner, name in places)


@contextlib.contextmanager
def shortcuts() -> Iterator[None]:
    """Export faster until the block ends."""
    from onnx_ir.schemas import OpSignature
    from onnxscript.rewriter._matcher import SimplePatternMatcher
    from torch.fx import config

    with (
        replaced(OpSignature, SIGNATURE, _kept_signatures()),
        replaced(SimplePatternMatcher, MATCH, _first_node_first(SimplePatternMatcher.match)),
        replaced(config, NO_STACKS, True),
        _old_objects_left_alone(),
    ):
        yield


def _kept_signatures() -> Any:
    """Return what reads the signature of an operator once, and then knows it."""
    from onnx_ir.schemas import OpSignature

    read, known = OpSignature.from_op_schema, {}

    def from_op_schema(schema: Any) -> Any:
        key = schema.domain, schema.name, schema.since_version
        if key not in known:
            known[key] = read(schema)
        return known[key]

    return staticmethod(from_op_schema)


def _first_node_first(match: Any) -> Any:
    """Return what looks for a pattern of several outputs only where its first one can be."""
    from onnxscript.rewriter._basics import MatchResult

    def matched(matcher: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        first, found = matcher.pattern.output_nodes[0], MatchResult()
        if not matcher.pattern.has_single_output_node and not first.matches(node, found):
            return found
        return match(matcher, model, graph, node, **options)

    return matched


@contextlib.contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Keep the collector from walking through all that was imported, again and again."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Have another value in an attribute's place until the block ends."""
    original = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
