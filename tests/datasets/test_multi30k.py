import gzip

import pytest

from keras_attn.datasets import multi30k
from keras_attn.datasets.about import Pairs

TEXTS = {
    "train.de": "Ein Hund .\nZwei \u2028 Hunde . \n",
    "train.en": "A dog .\nTwo dogs .\n",
    "val.de": "Nein .\n",
    "val.en": "No .\n",
}
RAW = {f"raw/{name}.gz": gzip.compress(text.encode()) for name, text in TEXTS.items()}
TOK = {f"tok/{name.replace('.', '.lc.norm.tok.')}": text.lower() for name, text in TEXTS.items()}


def test_both_directions(written, unverified):
    folder = written(RAW)
    parts = multi30k.load(folder)
    assert parts.train == Pairs(["Ein Hund .", "Zwei \u2028 Hunde ."], ["A dog .", "Two dogs ."])
    assert parts.validation == Pairs(["Nein ."], ["No ."])
    other = multi30k.load(folder, source="en", target="de")
    assert other.validation == Pairs(["No ."], ["Nein ."])


def test_tokens(written, unverified):
    parts = multi30k.load(written(TOK), tokenised=True)
    assert parts.validation == Pairs(["nein ."], ["no ."])


def test_what_is_refused(written):
    with pytest.raises(ValueError, match=r"train\.de\.gz: expected sha256 726e39b2"):
        multi30k.load(written(RAW))
    with pytest.raises(FileNotFoundError, match=r"must hold tok/train\.lc\.norm\.tok\.de"):
        multi30k.load(written({}), tokenised=True)
    with pytest.raises(ValueError, match="source, target: expected de and en, got 'de' and 'fr'"):
        multi30k.load(target="fr")
    with pytest.raises(ValueError, match="tokenised: expected a bool, got"):
        multi30k.load(tokenised="false")
