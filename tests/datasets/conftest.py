import functools

import keras
import pytest

from keras_attn.datasets import homes


@pytest.fixture
def unverified(monkeypatch):
    """Lets files that are made up pass for the published ones."""
    monkeypatch.setattr(homes, "verify", lambda *args: None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder for downloads in place of the user's."""
    (tmp_path / "cache").mkdir()  # else Keras takes a folder that all users share
    get_file = functools.partial(keras.utils.get_file, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    return tmp_path / "cache" / "keras_attn"


@pytest.fixture
def written(tmp_path):
    """Returns a function that writes files, {name: text or bytes}, and returns their folder."""

    def write(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write
