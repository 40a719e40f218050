import pytest

from keras_attn.datasets import geo880

PAIRS = [(f"where is c{i % 7}", f"( loc:t c{i % 7} )") for i in range(20)]
FILES = {"train.txt": "".join(f"{source}\t{target}\n" for source, target in PAIRS)}


@pytest.mark.parametrize("grouped", [False, True])
def test_each_row_is_held_out_once(written, unverified, grouped):
    folder = written(FILES)
    folds = [geo880.load(folder, fold, grouped) for fold in range(geo880.FOLDS)]
    held = [pair for parts in folds for pair in zip(*parts.validation, strict=True)]
    assert sorted(held) == sorted(PAIRS)
    for train, validation in folds:
        rows = [*zip(*train, strict=True), *zip(*validation, strict=True)]
        assert sorted(rows) == sorted(PAIRS)
        if grouped:
            assert not set(train.sources) & set(validation.sources)
        else:
            assert len(validation.sources) == 4
    assert geo880.load(folder, 0, grouped) == folds[0]


def test_what_is_refused(written):
    with pytest.raises(ValueError, match=r"train\.txt: expected sha256 f05c97bf"):
        geo880.load(written(FILES))
    for fold in (-1, 5, "1", True):
        with pytest.raises(ValueError, match="fold: expected an int from 0 to 4, got"):
            geo880.load(fold=fold)
    with pytest.raises(ValueError, match="grouped: expected a bool, got"):
        geo880.load(grouped="no")
