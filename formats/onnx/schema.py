"""The numbers of the fields that are read or written. Source: ``onnx.proto``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from weighbridge.protobuf import BYTES, FIXED32, FIXED64, VARINT, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping


class ModelProto:
    """A model."""

    IR_VERSION: Final = 1
    PRODUCER_NAME: Final = 2
    GRAPH: Final = 7
    OPSET_IMPORT: Final = 8
    METADATA_PROPS: Final = 14
    TRAINING_INFO: Final = 20
    FUNCTIONS: Final = 25

    SINGLES: ClassVar[Mapping[int, Spec]] = {
        1: Spec("ir_version", VARINT),
        2: Spec("producer_name", BYTES),
        3: Spec("producer_version", BYTES),
        4: Spec("domain", BYTES),
        5: Spec("model_version", VARINT),
        6: Spec("doc_string", BYTES),
        7: Spec("graph", BYTES),
    }
    REPEATED: ClassVar = frozenset({8, 14, 20, 25, 26})


class OperatorSetId:
    """An operator set that a model uses."""

    DOMAIN: Final = 1
    VERSION: Final = 2
    SINGLES: ClassVar[Mapping[int, Spec]] = {1: Spec("domain", BYTES), 2: Spec("version", VARINT)}


class Entry:
    """A key and a value (StringStringEntryProto)."""

    KEY: Final = 1
    VALUE: Final = 2
    SINGLES: ClassVar[Mapping[int, Spec]] = {1: Spec("key", BYTES), 2: Spec("value", BYTES)}


class GraphProto:
    """A graph: of a model, or of a branch or loop in one."""

    NODE: Final = 1
    NAME: Final = 2
    INITIALIZER: Final = 5
    INPUT: Final = 11
    OUTPUT: Final = 12
    VALUE_INFO: Final = 13
    SPARSE_INITIALIZER: Final = 15
    METADATA_PROPS: Final = 16
    SINGLES: ClassVar[Mapping[int, Spec]] = {
        2: Spec("graph_name", BYTES),
        10: Spec("graph_doc_string", BYTES),
    }
    KNOWN: ClassVar = frozenset({1, 2, 5, 10, 11, 12, 13, 14, 15, 16})


class ValueInfo:
    """The name and type of a value."""

    NAME: Final = 1
    TYPE: Final = 2
    METADATA_PROPS: Final = 4
    SINGLES: ClassVar[Mapping[int, Spec]] = {1: Spec("name", BYTES)}


class TypeProto:
    """The type of a value; and of the messages in it, what a tensor needs."""

    TENSOR_TYPE: Final = 1
    ELEM_TYPE: Final = 1
    SHAPE: Final = 2
    DIM: Final = 1
    DIM_VALUE: Final = 1


class NodeProto:
    """An operator at its place in a graph."""

    INPUT: Final = 1
    OUTPUT: Final = 2
    ATTRIBUTE: Final = 5
    METADATA_PROPS: Final = 9
    SINGLES: ClassVar[Mapping[int, Spec]] = {4: Spec("op_type", BYTES), 7: Spec("domain", BYTES)}
    NAMES: ClassVar[Mapping[int, Spec]] = {3: Spec("name", BYTES), **SINGLES}


class AttributeProto:
    """A named argument of a node."""

    FLOATS: Final = 7
    INTS: Final = 8
    STRINGS: Final = 9
    TENSORS: Final = 10
    GRAPHS: Final = 11
    SPARSE_TENSORS: Final = 23
    LISTS: ClassVar = frozenset({TENSORS, GRAPHS, SPARSE_TENSORS})
    SINGLES: ClassVar[Mapping[int, Spec]] = {
        1: Spec("name", BYTES),
        2: Spec("f", FIXED32),
        3: Spec("i", VARINT),
        4: Spec("s", BYTES),
        5: Spec("t", BYTES),
        6: Spec("g", BYTES),
        22: Spec("sparse_tensor", BYTES),
    }


class FunctionProto:
    """An operator that the model itself defines; its nodes are like a graph's."""

    NODE: Final = 7
    SINGLES: ClassVar[Mapping[int, Spec]] = {
        1: Spec("name", BYTES),
        10: Spec("domain", BYTES),
        13: Spec("overload", BYTES),
    }


class TrainingInfo:
    """How a model is trained: graphs of its own."""

    SINGLES: ClassVar[Mapping[int, Spec]] = {
        1: Spec("initialization", BYTES),
        2: Spec("algorithm", BYTES),
    }


class SparseTensor:
    """A tensor as its values other than zero and where they are."""

    DIMS: Final = 3
    SINGLES: ClassVar[Mapping[int, Spec]] = {1: Spec("values", BYTES), 2: Spec("indices", BYTES)}


class TensorProto:
    """A tensor."""

    DIMS: Final = 1
    DATA_TYPE: Final = 2
    STRING_DATA: Final = 6
    NAME: Final = 8
    NAMES: ClassVar[Mapping[int, Spec]] = {8: Spec("name", BYTES)}
    RAW_DATA: Final = 9
    EXTERNAL_DATA: Final = 13
    DATA_LOCATION: Final = 14

    EXTERNAL: Final = 1
    """The data location that says: in another file."""

    SINGLES: ClassVar[Mapping[int, Spec]] = {
        2: Spec("data_type", VARINT),
        3: Spec("segment", BYTES),
        8: Spec("name", BYTES),
        9: Spec("raw_data", BYTES),
        14: Spec("data_location", VARINT),
    }
    NUMBERS: ClassVar[Mapping[int, Spec]] = {
        4: Spec("float_data", FIXED32),
        5: Spec("int32_data", VARINT),
        7: Spec("int64_data", VARINT),
        10: Spec("double_data", FIXED64),
        11: Spec("uint64_data", VARINT),
    }
