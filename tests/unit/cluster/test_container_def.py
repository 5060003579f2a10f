"""slurm/container.def: no image is built here, but what it names has to be there and to fit the project."""

import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
RECIPE = (ROOT / "slurm" / "container.def").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def section(name: str) -> list[str]:
    body = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", RECIPE, re.MULTILINE | re.DOTALL)
    assert body, name
    return [line.strip() for line in body[1].splitlines() if line.strip()]


def test_every_file_exists_and_keeps_its_place():
    for line in section("files"):
        source, target = line.split()
        assert (ROOT / source).exists(), source
        assert target == f"/opt/posecluster/{source}"


def test_everything_that_the_package_is_made_of_comes_along():
    files = {line.split()[0] for line in section("files")}
    settings = PROJECT["tool"]["setuptools"]
    wanted = {package.split(".")[0] for package in settings["packages"]}
    wanted |= {f"{module}.py" for module in settings["py-modules"]}
    wanted |= {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert files == wanted


def test_python_constraints_and_extras_are_the_projects():
    version = re.search(r"^From: python:(3\.\d+)-slim", RECIPE, re.MULTILINE)
    assert version
    assert f"on Python {version[1]}" in (ROOT / "constraints.txt").read_text()
    assert PROJECT["project"]["requires-python"] == f">={version[1]}"
    install = re.search(r"pip install .*-c constraints\.txt '\.\[(\w+)\]'", RECIPE)
    assert install
    assert install[1] in PROJECT["project"]["optional-dependencies"]


def test_it_says_that_it_was_not_built():
    assert "NOT BUILT HERE" in RECIPE
