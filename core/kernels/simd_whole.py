"""Compiling a function as a whole: without machine code for those that it calls.

Before a function calls another, Numba optimizes that one and makes machine code of it, with all
that it calls itself: the innermost of seven would be compiled seven times.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Part(JITCodeLibrary):  # type: ignore[misc]
    """A function that is linked into those that call it, and nothing else."""

    def _optimize_final_module(self) -> None:
        """Leave it to the whole."""

    def _finalize_final_module(self) -> None:
        self._finalized = True


@contextlib.contextmanager
def whole(name: str) -> Iterator[None]:
    """Compile the function `name` in this context, and what it calls as parts of it alone."""
    context = cpu_target.target_context
    codegen = context.codegen()
    executable = context.get_executable

    def library(qualified: str, **options: Any) -> JITCodeLibrary:
        kind = JITCodeLibrary if qualified == name else _Part
        return kind(codegen, qualified, **options)

    def executable_of_whole(library: Any, fndesc: Any, env: Any) -> Any:
        if not isinstance(library, _Part):
            return executable(library, fndesc, env)
        # By this Numba knows a function that another calls; it has no code, and nobody calls it.
        return _dynfunc.make_function(fndesc.lookup_module(), name, "", 0, env, (library,))

    with global_compiler_lock:
        codegen.create_library = library
        context.get_executable = executable_of_whole
        try:
            yield
        finally:
            del codegen.create_library, context.get_executable
