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

from keras_attn.datasets import homes
from keras_attn.datasets.about import About, Pairs, Parts

ABOUT = About(
    title="CMUdict, words to phones: the training words of the split g014b2b",
    home="https://github.com/AdolfVonKleist/Phonetisaurus",
    licence="CMU (BSD-like)",
    sizes={"train": 110_611, "validation": 2_827},
)
FILE = homes.File(
    "g014b2b.train",
    "https://raw.githubusercontent.com/AdolfVonKleist/Phonetisaurus/"
    "f08d3dfb10b8d619e665a9581d2a327bcc2504f7/test/g014b2b/g014b2b.train",
    "5882433c3a14a9a0614b5f724ce74872851092e816852c82d6b74913b2085384",
)
# Of its sorted lines, each a word, a tab, and phones with blanks between.
_SORTED = "40a1eb0fe35e9d93a0518e6aa3b38cf1cbcf958bcc757e72ba4e3b6c2a85050f"
_VALIDATION_WORDS = 2_670


def load(directory: str | os.PathLike[str] | None = None) -> Parts:
    """Reads the dataset, from the network the first time unless it is in a folder.

    The validation words are the 2,670 with the smallest SHA-256 of their upper-case spelling, so
    that the cut depends neither on the order of the file nor on a generator of random numbers.

    Args:
        directory: A folder that holds `g014b2b.train`, or its lines in two files, `train.tsv` and
            `dev.tsv`; hashes are verified. None to download it, see `homes.content`.

    Returns:
        `Parts`, which share no word.

    Raises:
        OSError: The download failed.
        FileNotFoundError: `directory` does not hold the files.
        TypeError: `directory` is not a path.
        ValueError: `g014b2b.train` is another file than the published one, or a line of a file is
            not a word and its phones.
    """
    if directory is not None:
        folder = homes.folder(directory)
        halves = [folder / "train.tsv", folder / "dev.tsv"]
        if not (folder / FILE.name).is_file() and all(half.is_file() for half in halves):
            entries = [entry for half in halves for entry in _entries(str(half), half.read_bytes())]
            lines = "".join(sorted(f"{word}\t{phones}\n" for word, phones in entries))
            homes.verify(lines.encode(), _SORTED, f"{folder}: train.tsv and dev.tsv")
            return _cut(entries)
    whole = homes.content(FILE, directory, "cmudict", "train.tsv and dev.tsv")
    return _cut(_entries(FILE.name, whole))


def _entries(name: str, found: bytes) -> list[tuple[str, str]]:
    """Reads lines of a word and phones, with tabs or blanks between, as (word, phones)."""
    entries = []
    for number, line in enumerate(found.decode("utf-8").splitlines(), start=1):
        word, *phones = line.split() or [""]
        if word and not phones:
            raise ValueError(f"{name}:{number}: expected a word and its phones, came {word!r}")
        if word:
            entries.append((word, " ".join(phones)))
    return entries


def _cut(entries: list[tuple[str, str]], number: int = _VALIDATION_WORDS) -> Parts:
    """Parts entries by word: the `number` words with the smallest hashes are for validation."""
    words = {word for word, _ in entries}
    ordered = sorted(words, key=lambda word: hashlib.sha256(word.encode()).digest())
    held = set(ordered[:number])
    return Parts(
        train=_pairs([entry for entry in entries if entry[0] not in held]),
        validation=_pairs([entry for entry in entries if entry[0] in held]),
    )


def _pairs(entries: list[tuple[str, str]]) -> Pairs:
    """Lower-cases the words, after the cut, which hashes them as written."""
    return Pairs.of((word.lower(), phones) for word, phones in entries)
