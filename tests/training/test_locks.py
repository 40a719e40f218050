"""Two processes do not work in one folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keras_attn.training import locks

HOLD = """
import sys
from pathlib import Path
from keras_attn.training import locks
with locks.alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_the_first_ends(tmp_path):
    folder = tmp_path / "runs" / "one"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="runs/one': another process trains there"):
            with locks.alone(folder):
                pass
        assert folder.exists()
        other.kill()
    with locks.alone(folder):
        (folder / "state").touch()
    assert (folder / "state").exists()


def test_one_that_waits_goes_on_when_the_first_has_ended(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    wait = HOLD.replace("[1]))", "[1]), wait=True)").replace("sys.stdin.read()", "")
    wait = wait.replace("with locks", "print('asks', flush=True)\nwith locks")
    with locks.alone(folder):
        other = subprocess.Popen(
            [sys.executable, "-c", wait, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=2)
    assert other.communicate(timeout=60)[0] == "held\n" and other.returncode == 0


def test_a_new_folder_that_stays_empty_goes_again(tmp_path):
    for folder, stays in ((tmp_path / "new", False), (tmp_path / "old", True)):
        if stays:
            folder.mkdir()
        with pytest.raises(KeyError), locks.alone(folder):
            assert folder.exists()
            raise KeyError
        assert folder.exists() == stays
    with locks.alone(tmp_path / "old"):  # it was given back
        pass
