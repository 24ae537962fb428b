"""What is in the wheel is what a user gets: all code, all data files, nothing else."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_CHECKOUT = Path(__file__).resolve().parents[2]
#: What only a vendor's adapter imports, when it is used.
_OF_EXTRAS = {"sockets", "requests_session", "yahoo_session"}
_IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from the working tree."""
    source = tmp_path_factory.mktemp("source")
    for name in ("mdtasks", "alembic"):
        shutil.copytree(_CHECKOUT / name, source / name, ignore=_IGNORED)
    shutil.copytree(_CHECKOUT / "docs" / "runbooks", source / "docs" / "runbooks")
    (source / "config").mkdir()
    shutil.copy(_CHECKOUT / "config" / "policy.yaml", source / "config")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_CHECKOUT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    command += ["--disable-pip-version-check", "--wheel-dir", str(source / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_file_of_the_packages_and_every_migration_is_in_the_wheel(wheel_names: set[str]) -> None:
    expected = {
        path.relative_to(_CHECKOUT).as_posix()
        for path in (_CHECKOUT / "mdtasks").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {
        "mdtasks/migrations/" + path.relative_to(_CHECKOUT / "alembic").as_posix()
        for path in (_CHECKOUT / "alembic").rglob("*")
        if path.is_file() and path.suffix in {".py", ".mako"}
    }
    expected |= {f"mdtasks/runbooks/{path.name}" for path in (_CHECKOUT / "docs" / "runbooks").iterdir()}
    expected.add("mdtasks/config/policy.yaml")
    assert expected - wheel_names == set()


def test_the_wheel_brings_nothing_outside_its_own_name(wheel_names: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel_names} == {"mdtasks"}


def test_what_the_code_imports_is_what_the_installation_requires() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(_CHECKOUT / "setup.cfg")
    lines = setup["options"]["install_requires"].strip().splitlines()
    installed = {canonicalize_name(Requirement(line).name) for line in lines}
    extra = {
        canonicalize_name(Requirement(line).name)
        for name in ("alpaca", "massive", "finnhub", "yfinance", "databento")
        for line in setup["options.extras_require"][name].strip().splitlines()
    }
    owners = packages_distributions()
    for path in (_CHECKOUT / "mdtasks").rglob("*.py"):
        for name in _top_level_imports(path) - sys.stdlib_module_names - {"mdtasks"}:
            owner = {canonicalize_name(each) for each in owners.get(name, [name])}
            allowed = installed | extra if path.stem in _OF_EXTRAS else installed
            assert owner & allowed, f"{path.relative_to(_CHECKOUT)} imports {name}, which setup.cfg does not require"


def _top_level_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_alembic_the_library_is_not_hidden_by_our_folder() -> None:
    import alembic

    assert not (_CHECKOUT / "alembic" / "__init__.py").exists()
    assert _CHECKOUT / "alembic" not in map(Path, alembic.__path__)
