"""Words and how they are spoken, in five languages: the SIGMORPHON 2021 task, Wiktionary's words.

    >>> Pairs(["afar"], ["aː v a r"]).targets
    ['aː v a r']

A source is a word, a target its phones in IPA with blanks between, one pair a word. Icelandic
("ice") has 800 words to fit on and 100 to choose by, the others 8,000 and 1,000.

Source: Ashby et al. 2021, SIGMORPHON 2021 task 1, data of WikiPron, under CC BY-SA 3.0, which asks
to name Wiktionary and to share alike.
"""

from __future__ import annotations

import os

from keras_attn.datasets import homes
from keras_attn.datasets.about import About, Pairs, Parts

ABOUT = About(
    title="SIGMORPHON 2021 G2P, words to phones in five languages",
    home="https://github.com/sigmorphon/2021-task1",
    licence="CC BY-SA 3.0 (Wiktionary, by way of WikiPron)",
    sizes={"train": 800, "validation": 100},
)
_HOME = (
    "https://raw.githubusercontent.com/sigmorphon/2021-task1/"
    "821bcdece5a47820872215969f275004b0abe80c/data/"
)
# Language: folder, and the hashes of the files to fit on and to choose by.
_LANGUAGES = {
    "dut": (
        "medium",
        "08d327412cbf809a4cf894e015975d91588a38e8e05fb86450f42a4a38e534b8",
        "77a896e9510b6ebc610a9bc6a1bf32a06bc85489e9056caf77d996bb107318aa",
    ),
    "fre": (
        "medium",
        "e9de4f5125d2478e50506c5ed278f69d5fb17d8d213f99f845305c24e28a55c2",
        "3b42f14f318367dd94faa6d59e8fafabd845a3998800b6ce71a7c67e999490da",
    ),
    "hun": (
        "medium",
        "cd6bea5ae552bc73a63abf459af5f41d27c1c276b4a15de49f1fffd23ee4d363",
        "a2892c27cf6d3075aacdd195c02bf34f8b509bcc08bb230b758d7978a7d920d0",
    ),
    "ice": (
        "low",
        "0b2fc9e25ca4282887215f5206f55f753fd3fc79952cfd272db261a25f83ac9f",
        "50ce56fdb4c244fa6e47cd4e9a14e9833b8d359a7dc92a0200489c5f9d514c17",
    ),
    "vie_hanoi": (
        "medium",
        "8f2a60af78668db3c2c4d201938a822d7fc7808ffd64b12504723f3ff64fea4c",
        "5d56e7d14dc4d90758d2d4ba0c74f3531b4e05b5344346786e2a1b1b447093ca",
    ),
}
LANGUAGES = tuple(_LANGUAGES)


def load(directory: str | os.PathLike[str] | None = None, language: str = "ice") -> Parts:
    """Read a language.

    Args:
        directory: A folder that holds `ice_train.tsv` and `ice_dev.tsv`, or those of another
            language; hashes are verified. None to download them, see `homes.content`.
        language: One of `LANGUAGES`.

    Raises:
        OSError: the download failed.
        FileNotFoundError: `directory` does not hold the files.
        TypeError: `directory` is not a path.
        ValueError: another language, or another file than the published one.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language: expected one of {', '.join(LANGUAGES)}, got {language!r}.")
    folder, *hashes = _LANGUAGES[language]
    parts = []
    for part, sha256 in zip(("train", "dev"), hashes, strict=True):
        name = f"{language}_{part}.tsv"
        file = homes.File(name, f"{_HOME}{folder}/{name}", sha256)
        parts.append(Pairs.of(homes.rows(homes.content(file, directory, "g2p"))))
    return Parts(*parts)
