import hashlib

import pytest

from keras_attn.datasets import homes

TEXT = "a\tA b\u2028c\n\nd\tD\n".encode()


@pytest.fixture
def file(tmp_path):
    home = tmp_path / "home.txt"
    home.write_bytes(TEXT)
    return homes.File("raw/part.txt", home.as_uri(), hashlib.sha256(TEXT).hexdigest())


def test_a_file_is_downloaded_once(tmp_path, file, cache):
    assert homes.content(file, None, "letters") == TEXT
    assert (cache / "letters.raw.part.txt").read_bytes() == TEXT
    (tmp_path / "home.txt").unlink()
    assert homes.content(file, None, "letters") == TEXT


def test_a_file_is_read_from_a_folder(tmp_path, file):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "part.txt").write_bytes(TEXT)
    assert homes.content(file, str(tmp_path), "letters") == TEXT
    (tmp_path / "raw" / "part.txt").write_bytes(b"another")
    with pytest.raises(ValueError, match=rf"part\.txt: expected sha256 {file.sha256}, came "):
        homes.content(file, tmp_path, "letters")


def test_what_is_not_there_is_said(tmp_path, file, cache):
    with pytest.raises(FileNotFoundError, match=r"must hold raw/part\.txt\. Received"):
        homes.content(file, tmp_path, "letters")
    with pytest.raises(FileNotFoundError, match=r"must hold raw/part\.txt, or a table\. Received"):
        homes.content(file, tmp_path, "letters", "a table")
    with pytest.raises(TypeError, match="`directory` must be a path or None"):
        homes.content(file, 1, "letters")
    (tmp_path / "home.txt").write_bytes(b"another")
    with pytest.raises(OSError, match=r"letters could not .*as raw/part\.txt and give that"):
        homes.content(file, None, "letters")


def test_line_feeds_alone_end_lines():
    assert homes.rows(TEXT) == [["a", "A b\u2028c"], ["d", "D"]]
    assert homes.lines(TEXT) == ["a\tA b\u2028c", "d\tD"]
