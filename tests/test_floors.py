"""Imports go down only, each foreign engine has its doors, files and classes are small."""

import ast
import functools
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import kdjax

PACKAGE = Path(kdjax.__file__).parent

FLOORS = (
    {"types", "progress", "checks", "drafts"},
    {"models", "data"},
    {"losses", "students"},
    {"experiment"},
    {"cache", "report"},
    {"training"},
    {"evaluation"},
    {"benchmark", "deploy"},
    {"jobs"},
    {"outlook"},
    {"commands"},
    {"cli"},
)
"""From the bottom up. A part may import itself and the floors below, not its neighbours."""

LIMITED = {"losses": {"types", "checks", "models"}, "report": {"experiment"}}
"""Parts that may see less than everything below them."""

DOORS = {
    "orbax": {"kdjax.training.array_files"},
    "torch": {
        "kdjax.benchmark.torch_networks",
        "kdjax.benchmark.torch_step",
        "kdjax.deploy.torch_files",
    },
}
"""Foreign engines, and the only files that import them."""

HEIGHT = {part: height for height, floor in enumerate(FLOORS) for part in floor}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
BELOW_THE_ROOT = sorted(set(MODULES) - {"kdjax"})


@functools.cache
def tree(module):
    return ast.parse(MODULES[module].read_text())


def imported_names(module):
    """Every absolute dotted name that the file imports, at the top or inside a function."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(module):
    """Those that are modules of this package; the root holds only the version and short cuts."""
    return {name for name in imported_names(module) if name in MODULES} - {"kdjax"}


def part(module):
    return module.split(".")[1]


def identifiers(module):
    """Every name that the code uses; words in strings and comments are no use."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
    for name in imported_names(module):
        yield from name.split(".")


def test_every_part_has_a_floor():
    assert {part(module) for module in BELOW_THE_ROOT} <= set(HEIGHT)


@pytest.mark.parametrize("module", BELOW_THE_ROOT)
def test_imports_go_down(module):
    ours = part(module)
    below = {name for name in HEIGHT if HEIGHT[name] < HEIGHT[ours]}
    allowed = LIMITED.get(ours, below) | {ours}
    assert {name for name in imported_modules(module) if part(name) not in allowed} == set()


def test_files_do_not_import_in_circles():
    TopologicalSorter({module: imported_modules(module) for module in BELOW_THE_ROOT}).prepare()


def test_the_root_imports_the_package_only_inside_functions():
    top = [node for node in tree("kdjax").body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in top if "kdjax" in ast.unparse(node)] == []


@pytest.mark.parametrize("module", ["kdjax", "kdjax.cli"])
def test_the_doors_open_without_jax(module):
    program = f"import sys, {module}; print(*sys.modules)"
    python = [sys.executable, "-c", program]
    loaded = set(subprocess.check_output(python, cwd=PACKAGE.parent, text=True).split())
    assert module in loaded
    heavy = "jax", "jaxlib", "flax", "optax", "orbax", "tensorflow_datasets", "matplotlib"
    assert loaded.isdisjoint(heavy)


@pytest.mark.parametrize("engine", DOORS)
def test_each_foreign_engine_has_its_doors(engine):
    found = {m for m in MODULES if engine in {name.split(".")[0] for name in imported_names(m)}}
    assert found == DOORS[engine]


def test_one_file_spreads_work_over_devices():
    speakers = [m for m in MODULES if {"pmap", "shard_map"} & set(identifiers(m))]
    assert speakers == ["kdjax.training.parallel"]


def methods(node):
    """How many a class has, unless its docstring says, after `Many methods:`, why so many."""
    if isinstance(node, ast.ClassDef) and "Many methods:" not in (ast.get_docstring(node) or ""):
        return sum(isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef) for x in node.body)
    return 0


def test_files_and_classes_are_small():
    long = {m for m, path in MODULES.items() if len(path.read_text().splitlines()) > 300}
    broad = {m for m in MODULES if max(map(methods, ast.walk(tree(m)))) > 12}
    assert long | broad == set()
