"""The command line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import keras_attn_cli

run = CliRunner().invoke


def test_names_and_card():
    assert run(keras_attn_cli.app, ["names", "context*"]).stdout.split() == [
        "context_as_init",
        "context_every_step",
    ]
    shown = run(keras_attn_cli.app, ["card", "combined"])
    assert shown.exit_code == 0 and "arXiv:1406.1078" in shown.stdout


def test_help_imports_no_tensorflow():
    code = (
        "import sys, keras_attn_cli\n"
        "try: keras_attn_cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'tensorflow', 'keras', 'keras_attn', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_errors_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keras-attn", "card", "atention"])
    with pytest.raises(SystemExit) as stopped:
        keras_attn_cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and "Did you mean" in error


def test_the_top_imports_nothing_heavy():
    tree = ast.parse(Path(keras_attn_cli.__file__).read_text())
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in top for a in n.names} | {getattr(n, "module", "") for n in top}
    assert not any(name and name.startswith("keras_attn") for name in names)
