"""SCAN: commands and the actions that they ask for, split so that a model has to generalise.

    >>> Pairs(["jump twice"], ["I_JUMP I_JUMP"]).targets
    ['I_JUMP I_JUMP']

A source is a command of up to 9 words, a target up to 48 actions, both with blanks between.

"simple" has a random part of all commands; "p1" to "p64" 1 to 64 per cent of them; "length" the
commands of up to 22 actions, whose test has longer ones alone.

Source: Lake & Baroni 2018, arXiv:1711.00350, (c) Facebook, under the BSD licence.
"""

from __future__ import annotations

import os

from keras_attn.datasets import homes
from keras_attn.datasets.about import About, Pairs, Parts
from keras_attn.datasets.parts import split as cut

ABOUT = About(
    title="SCAN, commands to actions",
    home="https://github.com/brendenlake/SCAN",
    licence="BSD-3-Clause",
    sizes={"train": 15_055, "validation": 1_673},
)
_HOME = (
    "https://raw.githubusercontent.com/brendenlake/SCAN/c4b756cbc010d75c912f16c42c8f15dc6b7e6c8f/"
)
_SHA256 = {
    "simple": "941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd",
    "length": "b034212dc7cf87ce62f3a067dd6ad49c4d5cd18d51d615d13825516bcb1ebbc2",
    "p1": "875a486ebef42d5cb601ea26107b9e6d6abbbacd9dcd822ebbc852054cc09ae6",
    "p2": "3f20269e04e6700ed986f60b2f471aec64c795ccbb24e7d0e28c6932c0ddf96e",
    "p4": "f7ef57392e45c6eb92a92841b98d6d129ce9b6625a2b560da49f579e1a9a002d",
    "p8": "b65598c5c9354c6c53f5aa28b6a9af7097b5b1351d36405f3497a94de6021715",
    "p16": "302c01e9e5e3ed30bcaeac813be9c5cd67853a546548467030f523af86ab8821",
    "p32": "7324fd702a56753f041e069618dc3e0fcffe13639c0991ea45f71055eda9e5c9",
    "p64": "5e8427016616c21d21a9f8a6826c9dcb1dbfe5dca30ad7e0786419b8f7ec6e0c",
}
SPLITS = tuple(_SHA256)
FRACTION = 0.1  # of the commands, to choose by
LENGTHS = 18, 22  # actions to fit on, and to choose by, of the split by length


def load(directory: str | os.PathLike[str] | None = None, split: str = "simple") -> Parts:
    """Read the training part of a split, and cut it in two.

    A tenth of the commands, by their hash, is to choose by; of "length" the commands of 19 to 22
    actions are, so that what is chosen is longer than all that is fitted on, as in its test.

    Args:
        directory: A folder that holds the file of the home, `tasks_train_simple.txt` for one, or
            the same as source, tab and target, `simple_train.tsv`; its hash is verified. None to
            download it, see `homes.content`.
        split: One of `SPLITS`.

    Raises:
        OSError: the download failed.
        FileNotFoundError: `directory` does not hold the file.
        TypeError: `directory` is not a path.
        ValueError: another split, or another file than the published one.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
    lines = homes.lines(_content(split, directory))
    pairs = Pairs.of(line.removeprefix("IN: ").split(" OUT: ") for line in lines)
    if split != "length":
        return Parts(*cut(pairs, FRACTION))
    numbers = [len(target.split()) for target in pairs.targets]
    return Parts(
        *(
            Pairs(*([side[i] for i, n in enumerate(numbers) if low < n <= high] for side in pairs))
            for low, high in ((0, LENGTHS[0]), LENGTHS)
        )
    )


def _file(split: str) -> homes.File:
    """Return the file of a split."""
    known = split if split in ("simple", "length") else f"simple_{split}"
    name = f"tasks_train_{known}.txt"
    folder = {"simple": "simple_split/", "length": "length_split/"}
    place = folder.get(split, "simple_split/size_variations/")
    return homes.File(name, f"{_HOME}{place}{name}", _SHA256[split])


def _content(split: str, directory) -> bytes:
    """Return the file as it is at home."""
    file = _file(split)
    table = file.name.removeprefix("tasks_train_").removesuffix(".txt") + "_train.tsv"
    if directory is not None:
        folder = homes.folder(directory)
        if not (folder / file.name).is_file() and (folder / table).is_file():
            rows = homes.rows((folder / table).read_bytes())
            found = "".join(f"IN: {' OUT: '.join(row)}\n" for row in rows).encode()
            homes.verify(found, file.sha256, str(folder / table))
            return found
    return homes.content(file, directory, "scan", table)
