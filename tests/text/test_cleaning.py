"""Cleaning: valid UTF-8 out of any bytes, and the options that tensorflow-text does."""

import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.text import ByteTokenizer, CharacterTokenizer, WhitespaceTokenizer
from keras_attn.text.cleaning import Cleaning, tensorflow_text

few = settings(max_examples=60, deadline=None, derandomize=True)
latin = st.text(st.characters(max_codepoint=0x24F, exclude_categories=["Cs", "Cn"]))
CLASSES = [CharacterTokenizer, WhitespaceTokenizer, ByteTokenizer]


def clean(texts, **flags):
    return Cleaning(**flags).apply(tf.constant(texts, tf.string)).numpy().tolist()


@few
@given(st.lists(st.binary()))
def test_invalid_utf8_is_repaired_as_python_does(batch):
    assert clean(batch) == [text.decode("utf-8", "replace").encode() for text in batch]


@few
@given(st.lists(latin, min_size=1))
def test_nfkc_and_casefold_agree_with_python(batch):
    def nfkc(text):
        return unicodedata.normalize("NFKC", text)

    assert clean(batch, nfkc=True) == [nfkc(text).encode() for text in batch]
    folded = [nfkc(nfkc(text).casefold()).replace("\xad", "").encode() for text in batch]
    assert clean(batch, casefold=True) == folded  # a soft hyphen is ignorable


@pytest.mark.parametrize(
    ("flags", "text", "expected"),
    [
        ({"nfkc": True}, "Ａ\0ﬁ\0\0e\u0301 ½", "A\0fi\0\0é 1⁄2"),
        ({"nfkc": True}, "\0", "\0"),
        ({"casefold": True}, "Straße\0Ａ\0", "strasse\0a\0"),
        ({"lowercase": True, "nfkc": True}, "Ｓ\0™", "s\0tm"),
        ({"lowercase": True}, "Straße\0É", "straße\0é"),
        ({"lowercase": True, "nfkc": True, "casefold": True}, "👩‍🚀 ẞ", "👩🚀 ss"),
        ({"nfkc": True}, "👩‍🚀", "👩‍🚀"),
    ],
)
def test_by_example(flags, text, expected):
    assert clean([text, ""], **flags) == [expected.encode(), b""]


@pytest.mark.parametrize("flag", ["lowercase", "nfkc", "casefold"])
def test_flags_are_bools(flag):
    with pytest.raises(ValueError, match=f"Invalid `{flag}`: expected True or False. Received: 1"):
        Cleaning(**{flag: 1})
    for make in (ByteTokenizer, lambda **flags: WhitespaceTokenizer.learn(["a"], **flags)):
        with pytest.raises(ValueError, match=f"Invalid `{flag}`"):
            make(**{flag: "no"})
    assert getattr(Cleaning(**{flag: np.True_}), flag) is True


def test_it_is_a_value():
    assert Cleaning(nfkc=True) == Cleaning(nfkc=np.True_) != Cleaning(casefold=True)
    assert len({Cleaning(), Cleaning(False), Cleaning(True)}) == 2
    with pytest.raises(AttributeError):
        Cleaning().nfkc = True


def test_needs_tf_text():
    assert not Cleaning(lowercase=True).needs_tf_text
    assert Cleaning(nfkc=True).needs_tf_text and Cleaning(casefold=True).needs_tf_text


@pytest.mark.parametrize("flags", [{}, {"lowercase": True}, {"nfkc": True}, {"casefold": True}])
def test_an_empty_batch(flags):
    assert clean([], **flags) == []


def test_without_tensorflow_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(ImportError, match=r"A cat needs tensorflow-text: `pip install tensorflow"):
        tensorflow_text("A cat")
    with pytest.raises(ImportError, match="nfkc=True needs .*no wheel for Windows"):
        ByteTokenizer(nfkc=True).tokenize(["a"])
    with pytest.raises(ImportError, match="casefold=True needs"):
        CharacterTokenizer.learn(["a"], casefold=True)
    assert clean(["A"], lowercase=True) == [b"a"]


# In tokenisers.


@pytest.mark.parametrize("flag", ["nfkc", "casefold"])
@pytest.mark.parametrize("learner", CLASSES)
def test_tokenizers_clean_what_they_learn_and_read(learner, flag):
    tokenizer = learner.learn(["ﬁ Ａ\0"], **{flag: True})
    plain = learner.learn(["ﬁ Ａ\0"])
    expected = b"fi a\0" if flag == "casefold" else b"fi A\0"
    assert tokenizer.needs_tf_text and not plain.needs_tf_text
    assert tokenizer.detokenize(tokenizer.tokenize(["ﬁ Ａ\0"])).numpy().tolist() == [expected]
    assert getattr(tokenizer.cleaning, flag) and f"{flag}=True" in repr(tokenizer)
    assert tokenizer != plain and hash(tokenizer) != hash(plain)


@pytest.mark.parametrize("learner", CLASSES)
def test_configs_hold_every_flag_and_old_ones_load(learner):
    tokenizer = learner.learn(["a"], casefold=True)
    config = tokenizer.get_config()
    assert [config[k] for k in ("lowercase", "nfkc", "casefold")] == [False, False, True]
    assert learner.from_config(config) == tokenizer
    del config["nfkc"], config["casefold"]
    assert learner.from_config(config) == learner.learn(["a"])


def test_bytes_repair_text_only_where_it_must_be_text():
    def back(**flags):
        tokenizer = ByteTokenizer(**flags)
        return tokenizer.detokenize(tokenizer.tokenize([b"\xffA\xc3\x89"])).numpy()[0]

    assert back() == b"\xffA\xc3\x89"
    assert back(lowercase=True) == b"\xffa\xc3\x89"
    assert back(nfkc=True, lowercase=True) == "\ufffdaÉ".encode()
    assert back(casefold=True) == "\ufffdaé".encode()


def test_in_a_dataset():
    strings = tf.data.Dataset.from_tensor_slices(["Ａ\0", "ß"]).batch(2)
    (batch,) = strings.map(Cleaning(casefold=True).apply)
    assert batch.numpy().tolist() == [b"a\0", b"ss"]
