import pytest

from keras_attn.datasets import g2p
from keras_attn.datasets.about import Pairs

FILES = {"hun_train.tsv": "af\taː v\nafar\taː v a r\n", "hun_dev.tsv": "an giang\tʔ aː n\n"}


def test_words_and_phones(written, unverified):
    parts = g2p.load(written(FILES), "hun")
    assert parts.train == Pairs(["af", "afar"], ["aː v", "aː v a r"])
    assert parts.validation == Pairs(["an giang"], ["ʔ aː n"])


def test_other_files_are_refused(written):
    with pytest.raises(ValueError, match=r"hun_train\.tsv: expected sha256 "):
        g2p.load(written(FILES), "hun")
    with pytest.raises(FileNotFoundError, match=r"must hold ice_train\.tsv"):
        g2p.load(written(FILES))
    with pytest.raises(ValueError, match="language: expected one of dut, .* got 'german'"):
        g2p.load(language="german")
