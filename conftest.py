"""Settings of every test run, and doctests under the names that the installed package has.

``core/tensor.py`` is ``weighbridge.tensor``. Left alone, pytest would import it a second time as
``core.tensor``; here such folders become plain directories and their modules are imported by name.
"""

from __future__ import annotations

import doctest
import importlib
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from support.tree import UNIMPORTABLE, module_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

collect_ignore = UNIMPORTABLE

# A shared machine is not a clock: an example that is slow once is no failure.
settings.register_profile("test", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.load_profile("test")


@pytest.fixture(params=["numpy", "compiled"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have NumPy, or compiled code, do what both can do, however little there is to do."""
    from weighbridge.kernels import shortcuts

    if request.param == "numpy":
        monkeypatch.setattr(shortcuts, "_in_time", lambda *_: None)
    else:
        monkeypatch.setattr(shortcuts, "_enough", lambda: 0)


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return pytest.Dir.from_parent(parent, path=path) if module_name(path) else None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Any:
    collectors = yield
    if file_path.suffix != ".py" or not module_name(file_path):
        return collectors
    # pytest's own doctest collector is a Module too, under the folder's name.
    tests = [collector for collector in collectors if type(collector) is pytest.Module]
    return [*tests, DoctestModule.from_parent(parent, path=file_path)]


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    name = module_name(module_path)
    if name is None:
        return None
    module = pytest.Module.from_parent(parent, path=module_path)
    module.obj = importlib.import_module(name)
    return module


class DoctestModule(pytest.File):
    """The doctests of one module of the installed package."""

    def collect(self) -> Iterable[DoctestItem]:
        """Import the module by its installed name and yield its docstrings that hold examples."""
        name = module_name(self.path) or ""
        if name.endswith(".__main__"):  # runs when it is imported
            return
        for test in doctest.DocTestFinder().find(importlib.import_module(name)):
            if test.examples:
                yield DoctestItem.from_parent(self, name=test.name, examples=test)


class DoctestItem(pytest.Item):
    """One docstring's examples."""

    def __init__(self, *, examples: doctest.DocTest, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.examples = examples

    def runtest(self) -> None:
        """Run the examples; the first that fails raises."""
        doctest.DebugRunner(verbose=False).run(self.examples)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the example, what it gave and what was expected."""
        error = excinfo.value
        if isinstance(error, doctest.DocTestFailure):
            found = doctest.OutputChecker().output_difference(error.example, error.got, 0)
            return f">>> {error.example.source}{found}"
        if isinstance(error, doctest.UnexpectedException):
            raised = "".join(traceback.format_exception(error.exc_info[1]))
            return f">>> {error.example.source}{raised}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Point at the docstring."""
        return self.path, self.examples.lineno, self.name
