import pytest

from keras_attn.datasets import scan
from keras_attn.datasets.about import Pairs

PAIRS = [(f"jump {i} times", " ".join(["I_JUMP"] * i)) for i in range(1, 23)]
HOME = "".join(f"IN: {source} OUT: {target}\n" for source, target in PAIRS)
TABLE = "".join(f"{source}\t{target}\n" for source, target in PAIRS)


@pytest.mark.parametrize(
    "split, files",
    [
        ("simple", {"tasks_train_simple.txt": HOME}),
        ("simple", {"simple_train.tsv": TABLE}),
        ("p4", {"tasks_train_simple_p4.txt": HOME, "simple_p4_train.tsv": "never\tread\n"}),
        ("p64", {"simple_p64_train.tsv": TABLE}),
    ],
)
def test_a_tenth_is_to_choose_by(written, unverified, split, files):
    parts = scan.load(written(files), split)
    assert len(parts.validation.sources) == 2
    both = [*zip(*parts.train, strict=True), *zip(*parts.validation, strict=True)]
    assert sorted(both) == sorted(PAIRS)


def test_longer_ones_are_to_choose_by_of_the_split_by_length(written, unverified):
    train, validation = scan.load(written({"length_train.tsv": TABLE}), "length")
    assert train == Pairs(*map(list, zip(*PAIRS[:18], strict=True)))
    assert validation == Pairs(*map(list, zip(*PAIRS[18:], strict=True)))


@pytest.mark.parametrize("name", ["simple_train.tsv", "tasks_train_simple.txt"])
def test_other_files_are_refused(written, name):
    with pytest.raises(ValueError, match="expected sha256 941bb8a"):
        scan.load(written({name: HOME if name.endswith("txt") else TABLE}))
    with pytest.raises(FileNotFoundError, match=r"tasks_train_length.txt, or length_train.tsv\."):
        scan.load(written({}), "length")
    with pytest.raises(ValueError, match="split: expected one of simple, length, p1, .* got 'p3'"):
        scan.load(split="p3")
    with pytest.raises(TypeError, match="`directory` must be"):
        scan.load(3)


def test_each_split_has_a_home():
    assert len(scan.SPLITS) == 9
    urls = {split: scan._file(split).url.partition("7e6c8f/")[2] for split in scan.SPLITS}
    assert urls["simple"] == "simple_split/tasks_train_simple.txt"
    assert urls["length"] == "length_split/tasks_train_length.txt"
    assert urls["p4"] == "simple_split/size_variations/tasks_train_simple_p4.txt"
