import pytest

from keras_attn.datasets import slovene
from keras_attn.datasets.about import Pairs

NAMES = [f"slovene-goo300k-bohoric.{part}.txt" for part in ("train", "dev")]


@pytest.mark.parametrize(
    "source, target, expected",
    [
        ("Zhaſt", "Čast", ("zhaſt", "čast")),
        ("ka\u030c", "ka\u030c", ("k\u01ce", "k\u01ce")),  # NFC
        ("1848.", "1848.", ("0000.", "0000.")),
        ("3", "tri", ("3", "tri")),
        ("1a", "1A", ("0a", "0a")),
        ("na dan", "nadan", ("na÷dan", "nadan")),
        (".", "x", None),
        ("x", "«!", None),
        ("+", "+", ("+", "+")),  # a symbol is no punctuation
    ],
)
def test_pairs_are_prepared_as_at_home(source, target, expected):
    assert slovene.normalised(source, target) == expected


def test_both_parts(written, unverified):
    files = dict(zip(NAMES, ("Mu\tmu\n.\t.\nMu\tmu\n", "Lepu\tlepo\n"), strict=True))
    parts = slovene.load(written(files))
    assert parts.train == Pairs(["mu", "mu"], ["mu", "mu"])
    assert parts.validation == Pairs(["lepu"], ["lepo"])


def test_other_files_are_refused(written):
    with pytest.raises(ValueError, match=r"train\.txt: expected sha256 f4f06f39"):
        slovene.load(written(dict.fromkeys(NAMES, "a\tb\n")))
    with pytest.raises(FileNotFoundError, match="must hold slovene-goo300k"):
        slovene.load(written({}) / "nowhere")
