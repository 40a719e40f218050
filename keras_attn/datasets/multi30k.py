"""Multi30k: descriptions of pictures, in German and English.

    >>> Pairs(["Ein Hund rennt."], ["A dog is running."]).targets
    ['A dog is running.']

A source is a sentence, a target its translation: 29,000 pairs to fit on, 1,014 to choose by.

Source: Elliott et al. 2016, arXiv:1605.00459. The home states no licence of the texts, so neither
they nor models that were fitted on them come with this package.
"""

from __future__ import annotations

import gzip
import os

from keras_attn.datasets import homes
from keras_attn.datasets.about import About, Pairs, Parts

ABOUT = About(
    title="Multi30k, descriptions of pictures in German and English",
    home="https://github.com/multi30k/dataset",
    licence="not stated",
    shared=False,
    sizes={"train": 29_000, "validation": 1_014},
    by_row=True,
    translation=True,
)
_HOME = (
    "https://raw.githubusercontent.com/multi30k/dataset/"
    "a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/"
)
_SHA256 = {
    "raw/train.de.gz": ("726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6"),
    "raw/train.en.gz": ("d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f"),
    "raw/val.de.gz": ("f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a"),
    "raw/val.en.gz": ("14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28"),
    "tok/train.lc.norm.tok.de": (
        "cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505"
    ),
    "tok/train.lc.norm.tok.en": (
        "08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119"
    ),
    "tok/val.lc.norm.tok.de": ("97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00"),
    "tok/val.lc.norm.tok.en": ("46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec"),
}
LANGUAGES = ("de", "en")


def load(
    directory: str | os.PathLike[str] | None = None,
    source: str = "de",
    target: str = "en",
    tokenised: bool = False,
) -> Parts:
    """Read both parts.

    Args:
        directory: A folder that holds `raw/train.de.gz` and so on, or `tok/train.lc.norm.tok.de`;
            hashes are verified. None to download them, see `homes.content`.
        source: "de" or "en".
        target: The other.
        tokenised: Whether sentences are in lower case, with blanks between their tokens, as the
            home prepares them; else as they were written.

    Raises:
        OSError: the download failed.
        FileNotFoundError: `directory` does not hold the files.
        TypeError: `directory` is not a path.
        ValueError: other languages, or another file than the published one.
    """
    if {source, target} != set(LANGUAGES):
        raise ValueError(f"source, target: expected de and en, got {source!r} and {target!r}.")
    if type(tokenised) is not bool:
        raise ValueError(f"tokenised: expected a bool, got {tokenised!r}.")
    parts = []
    for part in ("train", "val"):
        sides = (_sentences(part, language, directory, tokenised) for language in (source, target))
        parts.append(Pairs(*sides))
    return Parts(*parts)


def _sentences(part: str, language: str, directory, tokenised: bool) -> list[str]:
    """Return the sentences of a file."""
    name = f"tok/{part}.lc.norm.tok.{language}" if tokenised else f"raw/{part}.{language}.gz"
    found = homes.content(homes.File(name, _HOME + name, _SHA256[name]), directory, "multi30k")
    text = (found if tokenised else gzip.decompress(found)).decode("utf-8")
    return [line.strip() for line in text.removesuffix("\n").split("\n")]
