import hashlib

import keras
import pytest

from keras_attn.datasets import cmudict
from keras_attn.datasets.about import Pairs, Parts

WHOLE = "AAA\tT R IH P AH L EY\nAB\tAE B\nAB\tEY B IY\nABBOT'S\tAE B AH T S\nACK\tAE K\n"


@pytest.fixture
def published(monkeypatch):
    """Makes a made-up file the published one, of which two words are held back."""
    digest = hashlib.sha256(WHOLE.encode()).hexdigest()
    monkeypatch.setattr(cmudict, "FILE", cmudict.FILE._replace(sha256=digest))
    cut = cmudict._cut
    monkeypatch.setattr(cmudict, "_cut", lambda entries: cut(entries, number=2))


@pytest.fixture
def no_network(monkeypatch):
    def get_file(*args, **kwargs):
        raise AssertionError("downloaded")

    monkeypatch.setattr(keras.utils, "get_file", get_file)


def by_hand(number):
    """The made-up file, parted by what the documentation says of the rule."""
    lines = [line.split("\t") for line in WHOLE.splitlines()]
    digests = sorted({hashlib.sha256(word.encode()).hexdigest() for word, _ in lines})[:number]
    parts = {True: Pairs([], []), False: Pairs([], [])}
    for word, phones in lines:
        part = parts[hashlib.sha256(word.encode()).hexdigest() in digests]
        part.sources.append(word.lower())
        part.targets.append(phones)
    return Parts(parts[False], parts[True])


# === The cut ===


@pytest.mark.parametrize("number", range(5))
def test_cut_is_by_the_smallest_hashes(number):
    entries = [tuple(line.split("\t")) for line in WHOLE.splitlines()]
    cut = cmudict._cut(entries, number=number)
    assert cut == by_hand(number)
    assert len(set(cut.validation.sources)) == number
    assert not set(cut.validation.sources) & set(cut.train.sources)
    other = cmudict._cut(entries[::-1], number=number)
    assert set(other.validation.sources) == set(cut.validation.sources)


def test_cut_hashes_words_as_written():
    """The smallest hash of these is another word in lower case."""
    words = ["AN", "BE", "IT", "NO", "ON", "UP"]
    upper, lower = (
        min(words, key=lambda word: hashlib.sha256(case(word).encode()).digest())
        for case in (str.upper, str.lower)
    )
    assert upper != lower
    cut = cmudict._cut([(word, "AH") for word in words], number=1)
    assert cut.validation.sources == [upper.lower()]


# === From a folder ===


def test_whole_file_is_verified_and_cut(tmp_path, published, no_network):
    (tmp_path / "g014b2b.train").write_text(WHOLE, newline="")
    (tmp_path / "train.tsv").write_text("never\tread")
    (tmp_path / "dev.tsv").write_text("never\tread")
    assert cmudict.load(tmp_path) == cmudict.load(str(tmp_path)) == by_hand(2)


def test_another_copy_is_refused(tmp_path, no_network):
    (tmp_path / "g014b2b.train").write_text(WHOLE)
    with pytest.raises(ValueError, match=f"train: expected sha256 {cmudict.FILE.sha256}, came "):
        cmudict.load(tmp_path)


@pytest.mark.parametrize("blank", ["\t", " ", "  ", "\t "])
def test_the_file_may_lie_there_in_two(tmp_path, unverified, no_network, blank, monkeypatch):
    cut = cmudict._cut
    monkeypatch.setattr(cmudict, "_cut", lambda entries: cut(entries, number=2))
    lines = WHOLE.replace("\t", blank).splitlines(keepends=True)
    (tmp_path / "train.tsv").write_text("".join(lines[3:]) + "\n")
    (tmp_path / "dev.tsv").write_text("".join(lines[:3]))
    found, expected = cmudict.load(tmp_path), by_hand(2)
    for part, wanted in zip(found, expected, strict=True):
        assert sorted(zip(*part, strict=True)) == sorted(zip(*wanted, strict=True))


def test_other_halves_are_refused(tmp_path, no_network):
    (tmp_path / "train.tsv").write_text("AB\tAE B\n")
    (tmp_path / "dev.tsv").write_text("ACK\tAE K\n")
    with pytest.raises(ValueError, match=r"train.tsv and dev.tsv: expected sha256 .*, came "):
        cmudict.load(tmp_path)


def test_a_word_without_phones(tmp_path, no_network):
    (tmp_path / "train.tsv").write_text("AB\tAE B\nABLE\n")
    (tmp_path / "dev.tsv").write_text("ACK\tAE K\n")
    with pytest.raises(ValueError, match=r"train\.tsv:2: expected a word and .*, came 'ABLE'"):
        cmudict.load(tmp_path)


@pytest.mark.parametrize("present", [[], ["train.tsv"], ["dev.tsv"]])
def test_missing_files(tmp_path, no_network, present):
    for name in present:
        (tmp_path / name).write_text("AB\tAE B\n")
    with pytest.raises(FileNotFoundError, match="`directory` must hold g014b2b.train, or train"):
        cmudict.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        cmudict.load(tmp_path / "nowhere")


@pytest.mark.parametrize("directory", [1, b"folder", ["folder"], False])
def test_directory_is_a_path(no_network, directory):
    with pytest.raises(TypeError, match="`directory` must be a path"):
        cmudict.load(directory)


# === From its home ===


def test_download_is_kept(tmp_path, published, cache, monkeypatch):
    home = tmp_path / "home"
    home.write_text(WHOLE, newline="")
    monkeypatch.setattr(cmudict, "FILE", cmudict.FILE._replace(url=home.as_uri()))
    assert cmudict.load() == by_hand(2)
    assert (cache / "cmudict.g014b2b.train").read_text() == WHOLE
    home.unlink()
    assert cmudict.load() == by_hand(2)


def test_download_asks_for_the_published_file(tmp_path, published, monkeypatch):
    path = tmp_path / "file"
    path.write_text(WHOLE)
    asked = {}

    def get_file(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(path)

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    assert cmudict.load() == by_hand(2)
    assert asked["origin"] == (
        "https://raw.githubusercontent.com/AdolfVonKleist/Phonetisaurus/"
        "f08d3dfb10b8d619e665a9581d2a327bcc2504f7/test/g014b2b/g014b2b.train"
    )
    assert asked["file_hash"] == cmudict.FILE.sha256 and asked["hash_algorithm"] == "sha256"
    assert asked["cache_subdir"] == "keras_attn" and asked["name"] == "cmudict.g014b2b.train"


@pytest.mark.parametrize("there", [False, True], ids=["no file", "another file"])
def test_failed_download_says_what_to_do(tmp_path, cache, monkeypatch, there):
    home = tmp_path / "home"
    if there:
        home.write_text(WHOLE)
    monkeypatch.setattr(cmudict, "FILE", cmudict.FILE._replace(url=home.as_uri()))
    with pytest.raises(OSError, match=r"could not be downloaded .*load\(directory=\.\.\.\)"):
        cmudict.load()
