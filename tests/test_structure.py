"""The house: which way imports point, that tests mirror sources, and what is installed."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_attn"
LAYERS = {  # a room may import itself and these
    "types": set(),
    "environment": set(),
    "text": {"types"},
    "search": {"types"},
    "datasets": set(),
    "plots": {"types", "text"},
    "scoring": set(),
    "kernels": {"types"},
    "training": {"types", "text", "scoring", "kernels"},
    "serving": {"types", "text", "environment", "plots", "search"},
    "layers": {"types", "kernels"},
    "models": {"types", "text", "search", "plots", "training", "serving", "kernels", "layers"},
    "zoo": {"types", "text", "layers", "models"},
    "recipes": {"datasets", "scoring", "text", "training", "zoo"},
}


def imported(file):
    """Return the modules that a file imports, as dotted names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(file):
    for name in imported(file):
        first, _, rest = name.partition(".")
        if first == "keras_attn" and rest:
            yield rest.split(".")[0]


def sources():
    return [
        f for f in sorted(PACKAGE.rglob("*.py")) if f.parent != PACKAGE or f.name != "__init__.py"
    ]


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    room = file.relative_to(PACKAGE).with_suffix("").parts[0]
    allowed = LAYERS[room] | {room}
    assert set(rooms(file)) <= allowed
    for name in imported(file):
        assert not name.startswith(("keras.src", "tensorflow.python", "zoo")), name
        if name.startswith("tensorflow.core"):  # the protos of a SavedModel, see its comment
            assert file.name in ("export.py", "inspection.py", "servable.py")


def test_tests_mirror_sources():
    tested = {f.name for f in (ROOT / "tests").rglob("test_*.py")}
    for file in sources():
        if file.name != "__init__.py":
            assert f"test_{file.name}" in tested, f"no tests/**/test_{file.name}"


def test_packages_are_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(f.parent.relative_to(ROOT).parts) for f in PACKAGE.rglob("__init__.py")}
    assert set(listed) == found


def test_every_custom_object_is_registered():
    import keras

    import keras_attn

    registered = keras.saving.get_custom_objects()
    classes = {
        c
        for module in (keras_attn.layers, keras_attn.text, keras_attn.training)
        for c in vars(module).values()
        if isinstance(c, type) and hasattr(c, "get_config") and "Tokenizer" != c.__name__
    }
    classes -= {keras_attn.training.GenerationMetrics}
    classes -= {keras_attn.layers.Scorer, keras_attn.layers.Normaliser}  # bases, never saved
    assert len(classes) > 20
    for cls in classes | {keras_attn.Seq2Seq}:
        assert registered.get(f"keras_attn>{cls.__name__}") is cls


def test_the_wheel_builds_every_name_in_a_clean_environment(tmp_path):
    """Installed without its dependencies, which are borrowed from here, and used from `/`."""
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "keras_attn")
    notices = {file.name for file in ROOT.glob("LICENSE*")}
    for name in ("pyproject.toml", "README.md", *notices, "keras_attn_cli.py"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "clean"
    venv.create(home)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]  # one for it would take seconds
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    site = next((home / "lib").glob("python*/site-packages"))
    import keras

    licences = {file.name for file in site.glob("keras_attn-*.dist-info/licenses/*")}
    assert licences == notices > {"LICENSE", "LICENSE.cmudict"}
    borrowed = Path(keras.__file__).parent.parent
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    trained = sorted(json.loads((ROOT / "keras_attn/zoo/weights/weights.json").read_text()))
    code = (
        "import keras_attn, sys; from keras_attn import zoo;"
        "assert keras_attn.__file__.startswith(sys.prefix), keras_attn.__file__;"
        f"assert zoo.names(weights=True) == {trained};"
        "assert zoo.build('attention.dates').generate(['29. Mai 1975']) == ['1975-05-29'];"
        "print(len([zoo.build(n, units=4, source=9, target=9) for n in zoo.names()]))"
    )
    done = subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, cwd="/", timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 8
    listed = subprocess.run(
        [home / "bin" / "keras-attn", "names", "context*"],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert listed.stdout.split() == ["context_as_init", "context_every_step"]


def test_the_version_is_said_once():
    import keras_attn

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == keras_attn.__version__
