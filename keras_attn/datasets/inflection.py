"""Turkish words in the form that is asked for: the CoNLL-SIGMORPHON 2017 task, 1,000 forms.

    >>> pair("kuzu", "kuzunuzda", "N;LOC;SG;PSS2P")
    ('N LOC SG PSS2P k u z u', 'k u z u n u z d a')

A source has the features that are asked for, then the letters of the word; a target the letters of
the form; with blanks between, and ␣ for a blank within. 1,000 pairs to fit on, and as many to
choose by.

Source: Cotterell et al. 2017, arXiv:1706.09031. The home states no licence of the data, so neither
it nor models that were fitted on it come with this package.
"""

from __future__ import annotations

import os

from keras_attn.datasets import homes
from keras_attn.datasets.about import About, Pairs, Parts

ABOUT = About(
    title="CoNLL-SIGMORPHON 2017 task 1, inflection of Turkish, 1,000 forms",
    home="https://github.com/sigmorphon/conll2017",
    licence="not stated",
    shared=False,
    sizes={"train": 1_000, "validation": 1_000},
)
_HOME = (
    "https://raw.githubusercontent.com/sigmorphon/conll2017/"
    "519bb1677a7c747b3863d37069ffd395062288d8/all/task1/"
)
_SHA256 = {
    "turkish-train-medium": "644f104f693f49f6e9fbef677f8ae347aded1b4e984cbf006c44bcbb9329ea35",
    "turkish-dev": "e95f58d34dc49973b26fd9f78d859290917e646ac68536c2b1459711ce4fa42d",
}
BLANK = "␣"


def pair(lemma: str, form: str, features: str) -> tuple[str, str]:
    """Return source and target of a word, its form and the features of that."""
    letters, target = (" ".join(text.replace(" ", BLANK)) for text in (lemma, form))
    return f"{features.replace(';', ' ')} {letters}", target


def load(directory: str | os.PathLike[str] | None = None) -> Parts:
    """Read both parts.

    Args:
        directory: A folder that holds `turkish-train-medium` and `turkish-dev`, whose hashes are
            verified. None to download them, see `homes.content`.

    Raises:
        OSError: the download failed.
        FileNotFoundError: `directory` does not hold the files.
        TypeError: `directory` is not a path.
        ValueError: another file than the published one.
    """
    parts = []
    for name, sha256 in _SHA256.items():
        file = homes.File(name, _HOME + name, sha256)
        rows = homes.rows(homes.content(file, directory, "inflection"))
        parts.append(Pairs.of(pair(*row) for row in rows))
    return Parts(*parts)
