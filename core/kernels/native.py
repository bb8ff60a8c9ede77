"""Compiled code that is kept, and run without the compiler that made it.

Numba takes 0.4 s to import and 115 MB, code included; llvmlite's linker, on which it stands, takes
0.08 s and 50 MB. So what Numba has made is kept as an object file, in a folder of the user's cache
that is named for a hash of the sources: a changed function is never answered by old code.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]

ENTRY = "weighbridge_"
"""Begins the name of a function in an object file."""


@functools.cache
def source_hash() -> str:
    """Return a name for the state of all the sources that compiled code depends on."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of compiled kernels."""
    root = os.environ.get("WEIGHBRIDGE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / "weighbridge" / "kernels" / source_hash()


FROM_C = {"memcpy", "memmove", "memset"}
"""Functions that LLVM itself calls, and finds in every process."""


class NotAlone(Exception):
    """A function that calls others, which a later process may not have: LLVM would end it."""


class Signature(NamedTuple):
    """What a kernel takes: a number of units, each some numbers long at both ends.

    Attributes:
        source: the type of the numbers that it reads, as NumPy spells it: ``u1``.
        reads: how many of them make a unit.
        result: the type of the numbers that it sets.
        sets: how many of them it sets for a unit.
    """

    source: str
    reads: int
    result: str
    sets: int


class Code(NamedTuple):
    """A function as LLVM's language has it.

    Its arguments are those of Numba's own calls: where the result goes, a bool; where an exception
    goes, of which there are none; then the source, the number of units, and the results.

    Attributes:
        module: the text.
        entry: the function's name in it.
    """

    module: str
    entry: str


class Linker:
    """Makes objects of code, and functions of objects, for this processor."""

    def __init__(self) -> None:
        """Start LLVM.

        Raises:
            ImportError: where llvmlite is not installed.
        """
        from llvmlite import __version__, binding

        self._llvm = binding
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        triple, cpu = binding.get_process_triple(), binding.get_host_cpu_name()
        features = binding.get_host_cpu_features().flatten()
        # As Numba does: code may lie farther from its constants than a short address reaches.
        self.machine = binding.Target.from_triple(triple).create_target_machine(
            cpu=cpu,
            features=features,
            opt=3,
            reloc="static" if triple.startswith("x86") else "default",
            codemodel="jitdefault",
            jit=True,
        )
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), self.machine)
        told = " ".join((__version__, triple, cpu, features))
        self.processor = hashlib.sha256(told.encode()).hexdigest()[:16]

    def module(self, code: Code, name: str) -> Any:
        """Return the one function as a module of its own, without all that it does not call.

        Raises:
            NotAlone: when it calls something that is not in the module.
        """
        module = self._llvm.parse_assembly(code.module)
        for each in (*module.functions, *module.global_variables):
            if each.name == code.entry:
                each.name = ENTRY + name
            elif not each.is_declaration:
                each.linkage = "internal"
        passes = self._llvm.create_new_module_pass_manager()
        passes.add_global_dead_code_eliminate_pass()
        tuning = self._llvm.create_pipeline_tuning_options()
        passes.run(module, self._llvm.create_pass_builder(self.machine, tuning))
        called = {each.name for each in module.functions if each.is_declaration}
        missing = {each for each in called - FROM_C if not each.startswith("llvm.")}
        if missing:
            raise NotAlone(f"{name} calls {', '.join(sorted(missing))}")
        return module

    def machine_code(self, code: Code, name: str) -> bytes:
        """Return the object file of a function."""
        return bytes(self.machine.emit_object(self.module(code, name)))

    def link(self, machine_code: bytes, name: str) -> int:
        """Return the address of a function; it stays as long as the process."""
        self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(machine_code))
        self._engine.finalize_object()
        return int(self._engine.get_function_address(ENTRY + name))


@functools.cache
def linker() -> Linker:
    """Return the linker of this process.

    Raises:
        ImportError: where llvmlite is not installed.
    """
    return Linker()


def kept(name: str) -> bytes | None:
    """Return the object of that name if there is one, whole, for this processor.

    Raises:
        ImportError: where llvmlite is not installed.
    """
    try:
        content = _place(name).read_bytes()
    except OSError:
        return None
    machine_code = content[hashlib.sha256().digest_size :]
    return machine_code if content == _sealed(machine_code) else None


def keep(name: str, machine_code: bytes) -> None:
    """Keep an object for later processes, where there is a place for it."""
    place = _place(name)
    unfinished = place.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(_sealed(machine_code))
            unfinished.replace(place)
        finally:
            unfinished.unlink(missing_ok=True)


def _place(name: str) -> Path:
    return cache_folder() / f"{name}.{linker().processor}.o"


def _sealed(machine_code: bytes) -> bytes:
    """Put a digest before an object: LLVM ends the process on one that is cut short."""
    return hashlib.sha256(machine_code).digest() + machine_code


def kernel(
    name: str, signature: Signature, code: Callable[[], Code | None]
) -> Callable[[Array, Array], bool] | None:
    """Return a function from what is kept, or from code; None where there is no such code.

    It holds no lock of the interpreter.

    Args:
        name: of the function, unique and the same in every process.
        signature: what it takes.
        code: makes it, where it is not kept.

    Raises:
        ImportError: where llvmlite is not installed.
        NotAlone: for code that cannot be kept.
    """
    machine_code = kept(name)
    if machine_code is None:
        made = code()
        if made is None:
            return None
        machine_code = linker().machine_code(made, name)
        keep(name, machine_code)
    return _callable(linker().link(machine_code, name), signature)


_PROTOTYPE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_ssize_t,
    ctypes.c_void_p,
)


def _callable(address: int, signature: Signature) -> Callable[[Array, Array], bool]:
    function = _PROTOTYPE(address)

    def run(source: Array, results: Array) -> bool:
        units = source.size // signature.reads
        _check(source, signature.source, units * signature.reads)
        _check(results, signature.result, units * signature.sets)
        outcome, exception = ctypes.c_bool(), ctypes.c_void_p()
        function(
            ctypes.addressof(outcome),
            ctypes.addressof(exception),
            source.ctypes.data,
            units,
            results.ctypes.data,
        )
        return outcome.value

    return run


def _check(array: Array, dtype: str, size: int) -> None:
    """Refuse memory that a kernel would run over: it does not look itself."""
    fits = array.dtype == np.dtype(dtype) and array.size == size and array.flags.c_contiguous
    if not fits:
        raise ValueError(f"a kernel takes {size} of {dtype} in one piece, not {array.size}")
