"""Bodies in lanes as Triton wants them: the same text, but for what Triton has no word for.

Triton divides with less than full precision, iterates over numbers alone, knows neither arrays in
registers nor memory that a function asks for. So in the text that it gets

- ``a / b`` is ``divided(a, b)``, and ``len(rows)`` is ``length(rows)``;
- ``for step in steps`` is unrolled over the numbers of `steps`;
- what follows ``if a: return`` is its ``else``: Triton compiles that only where `a` is false;
- every function takes memory for its scratch rows, ``space``, one argument more, and hands what is
  left of it to the functions that it calls.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
import types
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Function = Callable[..., Any]


class Translator:
    """Translates functions of this package, and those that they call.

    Attributes:
        words: what the words of `weighbridge.kernels.lanes` mean in Triton.
        finish: Triton's ``jit``.
        constant: what makes a constant of Triton's of a number or of a tuple of numbers.
    """

    def __init__(
        self, words: Mapping[str, Any], finish: Callable[[Function], Any], constant: Function
    ) -> None:
        """Take what the translations shall use; they are made when they are asked for."""
        self.words, self.finish, self.constant = words, finish, constant
        self._done: dict[Function, Any] = {}

    def of(self, function: Function) -> Any:
        """Return the translation of `function`, always the same one."""
        if function not in self._done:
            self._done[function] = self.finish(self._translated(function))
        return self._done[function]

    def _translated(self, function: Function) -> Function:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        helpers = {
            name: value
            for name, value in function.__globals__.items()
            if isinstance(value, types.FunctionType) and name not in self.words
        }
        source = ast.unparse(ast.fix_missing_locations(_Text(helpers).visit(tree)))
        # Triton reads the source of what it compiles.
        path = f"<{function.__module__}.{function.__qualname__} in Triton>"
        linecache.cache[path] = len(source), None, source.splitlines(keepends=True), path
        meanings = {name: self._meaning(name, function) for name in _names(tree, function)}
        scope = {**self.words, **meanings, "__name__": function.__module__}
        exec(compile(source, path, "exec"), scope)
        made: Function = scope[function.__name__]
        return made

    def _meaning(self, name: str, function: Function) -> Any:
        value = function.__globals__[name]
        if isinstance(value, types.FunctionType):
            return self.words[name] if name in self.words else self.of(value)
        if isinstance(value, np.ndarray):
            return self.constant(tuple(map(float, value)))
        return self.constant(value) if isinstance(value, int | float) else value


def _names(tree: ast.AST, function: Function) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return (names & set(function.__globals__)) - {function.__name__}


class _Text(ast.NodeTransformer):
    """Rewrites one function."""

    def __init__(self, helpers: Mapping[str, Function]) -> None:
        self._helpers, self._taken = helpers, list[ast.expr]()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.args.args.append(ast.arg("space"))
        for argument in node.args.args:
            argument.annotation = None
        node.returns = None
        if ast.get_docstring(node):
            del node.body[0]
        _end_branches(node)
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return _call("divided", node.left, node.right) if isinstance(node.op, ast.Div) else node

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.iter, ast.Name):
            return node
        chosen = ast.Subscript(node.iter, ast.Name("number", ast.Load()), ast.Load())
        node.body.insert(0, ast.Assign([node.target], chosen))
        node.target = ast.Name("number", ast.Store())
        static = ast.parse("tl.static_range", mode="eval").body
        node.iter = ast.Call(static, [_call("len", node.iter)], [])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name):
            return node
        if node.func.id == "scratch":
            taken = self._space()
            self._taken.append(node.args[1])
            return _call("rows_at", taken, node.args[1])
        if node.func.id == "len":
            node.func.id = "length"
        if node.func.id in self._helpers:
            node.args.append(self._space())
        return node

    def _space(self) -> ast.expr:
        """Return the space behind the rows that are taken already."""
        start: ast.expr = ast.Name("space", ast.Load())
        return functools.reduce(lambda at, count: _call("behind", at, count), self._taken, start)


def _end_branches(node: ast.FunctionDef) -> None:
    """Put what follows a branch that returns into its other one, that it may be left out."""
    for at, statement in enumerate(node.body, 1):
        if isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Return):
            statement.orelse += node.body[at:]
            del node.body[at:]
            return


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
