"""Publishing: whole versions or none, and nothing left of exports that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_attn import serving
from keras_attn.serving import publishing
from keras_attn.serving.publishing import (
    HOST,
    REPLACED,
    clear,
    newer_versions,
    newest,
    prune,
    published,
)

LEFT = f".1.0123456789abcdef0123456789abcdef.{HOST}.keras_attn"
KILLED = """
import os, signal, sys
from pathlib import Path
from keras_attn.serving import publishing
where, when = Path(sys.argv[1]), sys.argv[2]
rename, exchanged = os.rename, publishing._exchanged
def exchanging(one, other):
    if when != "exchanging":
        return False
    assert exchanged(one, other)
    os.kill(os.getpid(), signal.SIGKILL)
publishing._exchanged = exchanging
def dying(source, target):
    rename(source, target)
    if when == "replacing" and Path(target).name == publishing.REPLACED:
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = dying
with publishing.published(where / "1", overwrite=True) as aside:
    (aside / "saved_model.pb").write_text("new")
    if when == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def version(path, text="x"):
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_text(text)


def test_versions_count_up(tmp_path):
    assert serving.next_version(tmp_path / "m") == tmp_path / "m" / "1"
    for name in ("1", "9", "10", "notes", ".11.aside", "²"):
        (tmp_path / "m" / name).mkdir(parents=True)
    assert serving.next_version(tmp_path / "m") == tmp_path / "m" / "11"


def test_old_versions_are_removed(tmp_path):
    for name in ("1", "2", "9", "10"):
        version(tmp_path / name)
    for name in ("notes", "3"):
        (tmp_path / name).mkdir()
    assert [path.name for path in prune(tmp_path, 2)] == ["1", "2"]
    assert sorted(os.listdir(tmp_path)) == ["10", "3", "9", "notes"]
    assert prune(tmp_path, 2) == [] == prune(tmp_path / "nowhere", 1)


def test_a_path_made_meanwhile_is_kept(tmp_path):
    with pytest.raises(FileExistsError, match="meanwhile"):
        with published(tmp_path / "1", overwrite=False):
            (tmp_path / "1").mkdir()
    assert os.listdir(tmp_path) == ["1"]


def test_a_path_made_at_the_last_moment_is_kept(tmp_path, monkeypatch):
    def made_meanwhile(path):
        there = os.path.exists(path)
        if path == tmp_path / "1" and not there:
            version(path, "other's")
        return there

    with pytest.raises(FileExistsError, match="meanwhile"):
        with published(tmp_path / "1", overwrite=False) as aside:
            version(aside / "mine")
            monkeypatch.setattr(os.path, "lexists", made_meanwhile)
    assert os.listdir(tmp_path) == ["1"] and (tmp_path / "1" / "saved_model.pb").exists()


def test_the_newest_is_the_largest_number_that_holds_a_model(tmp_path):
    for name in ("2", "10"):
        version(tmp_path / name)
    for name in ("11", "²"):
        (tmp_path / name).mkdir()
    assert newest(tmp_path) == tmp_path / "10" and newest(tmp_path / "2") == tmp_path / "2"
    assert newest(tmp_path / "11") == tmp_path / "11"


@pytest.mark.parametrize("when", ["writing", "replacing"])
def test_what_a_killed_process_left_is_cleared_and_the_old_version_kept(tmp_path, when):
    version(tmp_path / "1", "old")
    found = subprocess.run([sys.executable, "-c", KILLED, tmp_path, when], capture_output=True)
    assert found.returncode == -9, found.stderr
    assert len([name for name in os.listdir(tmp_path) if name.startswith(".")]) >= 1
    with published(tmp_path / "2", overwrite=False) as aside:
        assert (tmp_path / "1" / "saved_model.pb").read_text() == "old"
        assert sorted(os.listdir(tmp_path)) == sorted(["1", aside.name])
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_one_version_is_there_at_each_moment(tmp_path):
    version(tmp_path / "1", "old")
    found = subprocess.run([sys.executable, "-c", KILLED, tmp_path, "exchanging"])
    assert found.returncode == -9
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "new"
    (left,) = (name for name in os.listdir(tmp_path) if name.startswith("."))
    assert (tmp_path / left / "saved_model.pb").read_text() == "old"
    with published(tmp_path / "1", overwrite=True) as aside:
        assert sorted(os.listdir(tmp_path)) == sorted(["1", aside.name])
        (aside / "saved_model.pb").write_text("newer")
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "newer"


def test_what_is_being_written_and_what_is_not_ours_is_left_alone(tmp_path):
    others = [".git", ".1.notes", "1." + 32 * "0", ".cache." + 32 * "d", LEFT + ".new"]
    others.append(LEFT.replace(HOST, "elsewhere"))  # its locks may not be seen here
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / LEFT).write_text("a file")
    with published(tmp_path / "1", overwrite=False) as aside:
        (aside / "saved_model.pb").write_text("x")
        clear(tmp_path)
        assert (aside / "saved_model.pb").exists()
    assert sorted(os.listdir(tmp_path)) == sorted([*others, LEFT, "1"])


def test_a_version_that_came_meanwhile_is_not_replaced_by_an_older_one(tmp_path):
    version(tmp_path / LEFT / REPLACED, "old")
    version(tmp_path / "1", "new")
    clear(tmp_path)
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
@pytest.mark.parametrize("twice", [False, True])
def test_the_old_version_outlives_whatever_stops_a_replacement(tmp_path, monkeypatch, error, twice):
    version(tmp_path / "1", "old")
    monkeypatch.setattr(publishing, "_exchanged", lambda one, other: False)
    rename, calls = os.rename, []

    def failing(source, target):
        if str(target) == str(tmp_path / "1"):
            calls.append(source)
            if len(calls) <= 1 + twice:
                raise error
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        with pytest.raises(error):
            with published(tmp_path / "1", overwrite=True) as aside:
                (aside / "saved_model.pb").write_text("new")
    assert serving.next_version(tmp_path) == tmp_path / "2"  # it has cleared up
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "old"


def test_what_came_meanwhile_and_is_no_model_is_kept(tmp_path):
    with pytest.raises(FileExistsError, match="replaces nothing else"):
        with published(tmp_path / "1", overwrite=True):
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "thesis.txt").write_text("x")
    assert os.listdir(tmp_path / "1") == ["thesis.txt"] and os.listdir(tmp_path) == ["1"]


def test_a_link_to_nowhere_is_refused_before_any_work(tmp_path):
    (tmp_path / "1").symlink_to(tmp_path / "nowhere")
    for overwrite, message in ((False, "exists"), (True, "is not an exported model")):
        with pytest.raises(FileExistsError, match=message):
            with published(tmp_path / "1", overwrite):
                raise AssertionError


def test_pruning_at_once(tmp_path):
    for number in range(30):
        version(tmp_path / str(number))
    with ThreadPoolExecutor(4) as pool:
        removed = [
            path for found in pool.map(lambda _: prune(tmp_path, 2), range(4)) for path in found
        ]
    assert len(removed) == 28 == len(set(removed))
    assert sorted(os.listdir(tmp_path)) == ["28", "29"]


def test_many_at_once(tmp_path):
    def write(number):
        with published(tmp_path / str(number), overwrite=False) as aside:
            (aside / "saved_model.pb").write_text("x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert sorted(os.listdir(tmp_path), key=int) == [str(number) for number in range(40)]


def test_an_error_of_the_writer_is_not_swallowed(tmp_path):
    with pytest.raises(OSError, match="disk full"):
        with published(tmp_path / "1", overwrite=False):
            raise OSError("disk full")
    assert os.listdir(tmp_path) == []


def test_a_version_that_another_machine_had_set_aside_is_told_of(tmp_path):
    aside = tmp_path / LEFT.replace(f".{HOST}.", ".elsewhere.")
    version(aside / REPLACED)
    with pytest.warns(UserWarning, match="is version '1', which an export on another machine"):
        clear(tmp_path)
    assert (aside / REPLACED).exists()
    version(tmp_path / "1")
    clear(tmp_path)  # and says nothing, since there is a version


def test_newer_versions_are_counted(tmp_path):
    for name in ("1", "2", "9", "notes"):
        version(tmp_path / name)
    assert [newer_versions(tmp_path, number) for number in (0, 1, 2, 9)] == [3, 2, 1, 0]
    assert newer_versions(tmp_path / "nowhere", 1) == 0
