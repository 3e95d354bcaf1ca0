"""Imports go down only, and each foreign engine has one door."""

import ast
import functools
import subprocess
import sys
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


def engines(module):
    """Roots of the foreign packages that the file imports."""
    return {name.split(".")[0] for name in imported_names(module)}


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
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in sorted(imported_modules(module)):
                visit(other)
            done.add(path.pop())

    for module in BELOW_THE_ROOT:
        visit(module)
    assert done == set(BELOW_THE_ROOT)


def test_the_root_imports_the_package_only_inside_functions():
    top = [node for node in tree("kdjax").body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in top if "kdjax" in ast.unparse(node)] == []


@pytest.mark.parametrize("module", ["kdjax", "kdjax.cli"])
def test_the_doors_open_without_jax(module):
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert module in loaded
    heavy = "jax", "jaxlib", "flax", "optax", "orbax", "tensorflow_datasets", "matplotlib"
    assert loaded.isdisjoint(heavy)


def test_one_file_speaks_to_orbax():
    speakers = [module for module in MODULES if "orbax" in engines(module)]
    assert speakers == ["kdjax.training.array_files"]


def test_pytorch_is_only_where_it_is_asked_for():
    speakers = [module for module in MODULES if "torch" in engines(module)]
    benchmark = ["kdjax.benchmark.torch_networks", "kdjax.benchmark.torch_step"]
    assert sorted(speakers) == [*benchmark, "kdjax.deploy.torch_files"]


def test_one_file_spreads_work_over_devices():
    speakers = [m for m in MODULES if {"pmap", "shard_map"} & set(identifiers(m))]
    assert speakers == ["kdjax.training.parallel"]
