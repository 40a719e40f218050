"""Slovene in the spelling of before 1850 and in today's: words of old prints, in running text.

    >>> normalised("Zhaſt", "Čast")
    ('zhaſt', 'čast')

A source is a word as it was printed, in the Bohorič alphabet, a target the same today: 50,035 pairs
to fit on and 5,843 to choose by, as often as they are in the texts, so that each counts for itself.

Source: KonvNormSl 1.0 (Ljubešić, Zupan, Fišer & Erjavec 2016, hdl.handle.net/11356/1068), words of
the corpus goo300k, under CC BY-SA 4.0; parts and preparation are those of Bollmann 2019,
arXiv:1904.02036.
"""

from __future__ import annotations

import os
import re
import unicodedata

from keras_attn.datasets import homes
from keras_attn.datasets.about import About, Pairs, Parts

ABOUT = About(
    title="Slovene of before 1850 (goo300k, Bohorič) to today's spelling",
    home="https://github.com/coastalcph/histnorm",
    licence="CC BY-SA 4.0",
    sizes={"train": 50_035, "validation": 5_843},
    by_row=True,
)
_HOME = (
    "https://raw.githubusercontent.com/coastalcph/histnorm/"
    "0eac17927d3a3fa5cc4e2472d57f3acca41c6655/datasets/historical/slovene/"
)
_SHA256 = {
    "slovene-goo300k-bohoric.train.txt": (
        "f4f06f39b0d3c67f493ce15a3b5af3e8832244ee9d9186b966f12d2ffb6cc9da"
    ),
    "slovene-goo300k-bohoric.dev.txt": (
        "f38caaa5b99aa3e2981563b205f389d91416eec6ab4952af4ddf6f6c7585792a"
    ),
}
BLANK = "÷"  # stands for a blank within a word


def normalised(source: str, target: str) -> tuple[str, str] | None:
    """Prepare a pair as the home does, or return None, if a side of it is punctuation alone.

    Unicode's NFC, lower case, ÷ for blanks, and 0 for each digit where the sides are equal.
    """
    if any(all(unicodedata.category(x).startswith("P") for x in side) for side in (source, target)):
        return None
    both = [unicodedata.normalize("NFC", side).lower() for side in (source, target)]
    if both[0] == both[1]:
        both = [re.sub(r"\d", "0", side) for side in both]
    source, target = (side.replace(" ", BLANK) for side in both)
    return source, target


def load(directory: str | os.PathLike[str] | None = None) -> Parts:
    """Read both parts.

    Args:
        directory: A folder that holds `slovene-goo300k-bohoric.train.txt` and `....dev.txt`, whose
            hashes are verified. None to download them, see `homes.content`.

    Raises:
        OSError: the download failed.
        FileNotFoundError: `directory` does not hold the files.
        TypeError: `directory` is not a path.
        ValueError: another file than the published one.
    """
    parts = []
    for name, sha256 in _SHA256.items():
        file = homes.File(name, _HOME + name, sha256)
        rows = homes.rows(homes.content(file, directory, "slovene"))
        parts.append(Pairs.of(pair for row in rows if (pair := normalised(*row)) is not None))
    return Parts(*parts)
