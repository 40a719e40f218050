import pytest

from keras_attn.datasets import inflection
from keras_attn.datasets.about import Pairs

FILES = {
    "turkish-train-medium": "kuzu\tkuzunuzda\tN;LOC;SG;PSS2P\n",
    "turkish-dev": "hava atmak\thava atar mıyım?\tV;IND;1;SG\n",
}


def test_features_and_letters(written, unverified):
    parts = inflection.load(written(FILES))
    assert parts.train == Pairs(["N LOC SG PSS2P k u z u"], ["k u z u n u z d a"])
    source, target = (side[0] for side in parts.validation)
    assert source == "V IND 1 SG h a v a ␣ a t m a k"
    assert target == "h a v a ␣ a t a r ␣ m ı y ı m ?"


def test_other_files_are_refused(written):
    with pytest.raises(ValueError, match="turkish-train-medium: expected sha256 644f104f"):
        inflection.load(written(FILES))
    with pytest.raises(FileNotFoundError, match="must hold turkish-train-medium"):
        inflection.load(written({}) / "nowhere")
