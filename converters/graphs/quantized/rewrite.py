"""The pass over a graph that makes its products and look-ups read quantised weights."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from weighbridge.converters.graphs.quantized.choice import Choice
from weighbridge.converters.graphs.quantized.forms import FORMS
from weighbridge.converters.graphs.quantized.initializers import Initializers
from weighbridge.converters.graphs.quantized.matrix import Matrix
from weighbridge.converters.graphs.quantized.nodes import CONTRIB, Builder
from weighbridge.converters.graphs.quantized.plain import of_floats, plain
from weighbridge.converters.graphs.quantized.sources import rounded, source_of
from weighbridge.converters.graphs.quantized.uses import (
    Lookup,
    Product,
    identity,
    stacked,
    use_of,
)
from weighbridge.report import Report
from weighbridge.text import counted

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import onnx_ir

    from weighbridge.tensor import Lazy

    Value = onnx_ir.Value


def quantize(
    program: onnx_ir.Model,
    weights: Mapping[str, Lazy],
    choice: Choice | None = None,
    report: Report | None = None,
) -> dict[str, Lazy]:
    """Make a graph read quantised weights as they are, and return what its initialisers are now.

    Products (``MatMul``, ``Gemm``) with a weight in ggml's blocks, or in integers with scales, and
    look-ups (``Gather``) in one become ``MatMulNBits`` and ``GatherBlockQuantized``; a weight that
    both use is stored once. What has no exact form is decoded. With ``choice.floats`` every float
    weight of a product is rounded, the head of a language model too, as ONNX Runtime GenAI does;
    embeddings stay as they are unless such a product uses them as well, and then share its numbers.
    Results have the dtype that they had: in graphs of float16 the activations of these operators
    are cast to float32, since most scales have no place in float16; on a processor that costs
    nothing.

    Args:
        program: the graph, of opset 18 or later; changed in place. Initialisers need shape and
            dtype, no value. Subgraphs are rewritten too; functions are not looked at.
        weights: initialiser -> the lazy tensor of its shape. A weight that PyTorch has as
            ``(out, in)`` and the graph as its transpose is a transposition of the former, or joins
            several such. Initialisers that are not among them are left alone.
        choice: what is asked for; None takes exact forms of what is quantised.
        report: is told what is done.

    Returns:
        Initialiser -> lazy tensor for all that the program now reads, each in the dtype of its
        initialiser. Of two tensors one of which is `InBlocks` and has the other as ``inner``, or
        that are equal, the bytes are the same.

    Raises:
        InvalidInput: when the tensors are read, for numbers that have no place in the graph's
            dtype or cannot be rounded.
    """
    rewrite = _Rewrite(program, weights, choice or Choice(), report or Report())
    return rewrite.run()


class _Rewrite:
    def __init__(
        self, program: onnx_ir.Model, weights: Mapping[str, Lazy], choice: Choice, report: Report
    ) -> None:
        self._program = program
        self._weights = weights
        self._choice = choice
        self._report = report
        self._initializers = Initializers(program.graph, weights)
        self._build = Builder(self._initializers)
        self._shared: dict[Hashable, Matrix] = {}
        self._done: Counter[tuple[str, str]] = Counter()

    def run(self) -> dict[str, Lazy]:
        """Rewrite all nodes, then see to the initialisers that remain."""
        nodes = list(self._program.graph.all_nodes())
        uses = [use for node in nodes if (use := use_of(node, self._weights))]
        products = [(use, self._matrices(use)) for use in uses if isinstance(use, Product)]
        for product, matrices in products:
            if matrices:
                self._multiply(product, matrices)
        for use in uses:
            if isinstance(use, Lookup):
                self._look_up(use)
        if self._done:
            self._program.opset_imports.setdefault(CONTRIB, 1)
        self._tidy({use.weight for use in uses})
        self._tell()
        return self._initializers.weights

    def _matrices(self, product: Product) -> list[Matrix]:
        """Return the matrices whose products are joined; none where the weight stays as it is."""
        found = [self._matrix(rows) for rows in stacked(product.rows)]
        return [matrix for matrix in found if matrix] if all(found) else []

    def _matrix(self, rows: Lazy) -> Matrix | None:
        key = identity(rows)
        if key not in self._shared:
            source = source_of(rows)
            floats = self._choice.floats
            if source is None and floats and of_floats(rows):
                source = rounded(rows, floats)
            if source is None:
                return None
            form = getattr(FORMS[source.kind], self._choice.aim)
            self._shared[key] = Matrix(source, form)
        return self._shared[key]

    def _multiply(self, product: Product, matrices: list[Matrix]) -> None:
        """Put other nodes in the place of one that multiplies."""
        at = product.node
        activations = self._in_single(at, product.activations, product.weight)
        results = [
            self._build.product(at, activations, self._name(product, number, matrices), matrix)
            for number, matrix in enumerate(matrices)
        ]
        joined = len(results) > 1
        result = self._build.put(at, "Concat", results, axis=-1) if joined else results[0]
        for matrix in matrices:
            self._count(matrix)
        transpose = product.transpose
        self._replace(product, result, product.bias)
        if transpose is not None and transpose.graph and not transpose.outputs[0].uses():
            transpose.graph.remove(transpose, safe=True)

    def _look_up(self, lookup: Lookup) -> None:
        """Put other nodes in the place of one that gathers, if what it gathers is quantised."""
        matrix = self._table(lookup)
        if matrix is None:
            return
        result = self._build.rows(lookup.node, lookup.ids, lookup.weight, matrix)
        self._count(matrix)
        self._replace(lookup, result)

    def _table(self, lookup: Lookup) -> Matrix | None:
        """Return the matrix that products share, else the type's own form for tables."""
        shared = self._shared.get(identity(lookup.rows))
        source = shared.source if shared else source_of(lookup.rows)
        if source is None or source.shape[1] % source.group:
            return None
        if shared and not shared.form.floating:
            return shared
        return Matrix(source, FORMS[source.kind].table)

    def _in_single(self, at: onnx_ir.Node, value: Value, weight: str) -> Value:
        import onnx_ir

        if self._dtype(weight) == onnx_ir.DataType.FLOAT:
            return value
        return self._build.cast(at, value, onnx_ir.DataType.FLOAT)

    def _dtype(self, weight: str) -> onnx_ir.DataType:
        """Return the dtype that the graph computes with: its initialisers have it."""
        import onnx_ir

        return self._program.graph.initializers[weight].dtype or onnx_ir.DataType.FLOAT

    def _replace(self, use: Product | Lookup, result: Value, bias: Value | None = None) -> None:
        """Let all who read a node's result read another, of the same name, dtype and shape."""
        import onnx_ir

        at, dtype = use.node, self._dtype(use.weight)
        if dtype != onnx_ir.DataType.FLOAT:
            result = self._build.put(at, "Cast", [result], to=int(dtype))
        if bias is not None:
            result = self._build.put(at, "Add", [result, bias])
        graph = at.graph
        assert graph is not None
        onnx_ir.convenience.replace_nodes_and_values(graph, at, [at], [], [at.outputs[0]], [result])

    def _name(self, product: Product, number: int, matrices: list[Matrix]) -> str:
        return product.weight if len(matrices) == 1 else f"{product.weight}.{number}"

    def _tidy(self, used: set[str]) -> None:
        """Drop what nobody reads any more; decode what the graph wants as plain numbers."""
        for name in used:
            self._initializers.drop_unread(name)
        for name in self._weights:
            tensor = self._initializers.weights.get(name)
            encoding = self._initializers.encoding(name)
            if tensor is not None and encoding is not None:
                self._initializers.weights[name] = plain(name, tensor, encoding, self._report)

    def _count(self, matrix: Matrix) -> None:
        kind = "repacked" if matrix.source.exact else "rounded"
        self._done[kind, f"{matrix.source.kind.upper()} as {matrix.form}"] += 1

    def _tell(self) -> None:
        """Report what became of the weights, a line for each kind."""
        for (kind, text), count in sorted(self._done.items()):
            self._report.note(kind, counted(count, "use"), f"{text}, blocks of ONNX Runtime")
