"""English words and how they are spoken: the training words of a published CMUdict split.

    >>> Pairs(["aachen"], ["AA K AH N"]).targets
    ['AA K AH N']

A source is a lower-case word, a target its pronunciation in 39 phones without stress, separated by
blanks. A word can have several pronunciations, one pair each. Sizes: 110,611 pairs to fit on and
2,827 (2,670 words) to choose by; no word is in both.

Source: the file `g014b2b.train` of Phonetisaurus, the split that the literature reports on (Yao &
Zweig 2015, Toshniwal & Livescu 2016). The CMU Pronouncing Dictionary is (c) 1993-2015 Carnegie
Mellon University, under a BSD-like licence that asks to retain its notice.

Other copies of CMUdict contain the words that this split holds back for the test, and a model
fitted on them reports a score that it did not earn. So no other file is taken.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import keras

from keras_attn.datasets.about import About, Pairs

ABOUT = About(
    title="CMUdict, words to phones: the training words of the split g014b2b",
    home=(
        "https://raw.githubusercontent.com/AdolfVonKleist/Phonetisaurus/"
        "f08d3dfb10b8d619e665a9581d2a327bcc2504f7/test/g014b2b/g014b2b.train"
    ),
    sha256="5882433c3a14a9a0614b5f724ce74872851092e816852c82d6b74913b2085384",
    licence="CMU (BSD-like)",
    sizes={"train": 110_611, "validation": 2_827},
)
_FILE = "g014b2b.train"
_VALIDATION_WORDS = 2_670


class CMUdict(NamedTuple):
    """The dataset in two parts that share no word.

    Attributes:
        train: Pairs to fit on.
        validation: Pairs to choose by.
    """

    train: Pairs
    validation: Pairs


def load(directory: str | os.PathLike[str] | None = None) -> CMUdict:
    """Reads the dataset, from the network the first time unless it is in a folder.

    The validation words are the 2,670 with the smallest SHA-256 of their upper-case spelling, so
    that the cut depends neither on the order of the file nor on a generator of random numbers.

    Args:
        directory: A folder that holds `g014b2b.train`, whose hash is verified, or that cut in two,
            `train.tsv` and `dev.tsv`, which are taken as they are. None to download the file with
            `keras.utils.get_file`, which keeps it in the folder `keras_attn` of the Keras cache.

    Returns:
        `CMUdict`.

    Raises:
        OSError: The download failed.
        FileNotFoundError: `directory` does not hold the files.
        TypeError: `directory` is not a path.
        ValueError: `g014b2b.train` is another file than the published one, or a line of a file is
            not a word and its phones.
    """
    if directory is None:
        return _cut(_entries(_download()))
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"`directory` must be a path or None. Received: {directory!r}")
    folder = Path(directory)
    whole, train, dev = (folder / name for name in (_FILE, "train.tsv", "dev.tsv"))
    if whole.is_file():
        _verify(whole)
        return _cut(_entries(whole))
    if train.is_file() and dev.is_file():
        parts = CMUdict(_pairs(_entries(train)), _pairs(_entries(dev)))
        both = set(parts.train.sources) & set(parts.validation.sources)
        if both:
            raise ValueError(f"{train} and {dev} share words, for example {min(both)!r}")
        return parts
    raise FileNotFoundError(
        f"`directory` must hold {_FILE}, or train.tsv and dev.tsv. Received: {os.fspath(folder)!r}"
    )


def _download() -> Path:
    """Fetches the file, or finds it in the cache of Keras, and verifies its hash."""
    try:
        return Path(
            keras.utils.get_file(
                _FILE,
                origin=ABOUT.home,
                file_hash=ABOUT.sha256,
                hash_algorithm="sha256",
                cache_subdir="keras_attn",
            )
        )
    except Exception as error:  # `get_file` raises a bare `Exception` without a network
        raise OSError(
            f"CMUdict could not be downloaded ({error}). Put {ABOUT.home} into a folder and give "
            "that: load(directory=...)"
        ) from error


def _verify(path: Path) -> None:
    """Refuses a file that is not the published one, as it may hold the test words."""
    with path.open("rb") as file:
        came = hashlib.file_digest(file, "sha256").hexdigest()
    if came != ABOUT.sha256:
        raise ValueError(f"{path}: expected sha256 {ABOUT.sha256}, came {came}")


def _entries(path: Path) -> list[tuple[str, str]]:
    """Reads lines of a word and phones, with tabs or blanks between, as (word, phones)."""
    entries = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise ValueError(f"{path}:{number}: expected a word and its phones, came {word!r}")
            if word:
                entries.append((word, " ".join(phones)))
    return entries


def _cut(entries: list[tuple[str, str]], number: int = _VALIDATION_WORDS) -> CMUdict:
    """Parts entries by word: the `number` words with the smallest hashes are for validation."""
    words = {word for word, _ in entries}
    ordered = sorted(words, key=lambda word: hashlib.sha256(word.encode()).digest())
    held = set(ordered[:number])
    return CMUdict(
        train=_pairs([entry for entry in entries if entry[0] not in held]),
        validation=_pairs([entry for entry in entries if entry[0] in held]),
    )


def _pairs(entries: list[tuple[str, str]]) -> Pairs:
    """Lower-cases the words, after the cut, which hashes them as written."""
    return Pairs([word.lower() for word, _ in entries], [phones for _, phones in entries])
