"""Arguments: what is taken, as what, and what is refused. Tokenisers' own tests have more."""

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.text import arguments
from keras_attn.types import SPECIAL_TOKENS


def test_limits():
    arguments.check_limits(None, 1)
    arguments.check_limits(np.int64(5), np.int32(1))
    for size, count in ((4, 1), (True, 1), (5.0, 1), (5, 0), (5, None)):
        with pytest.raises(ValueError, match="Invalid `(vocabulary_size|min_count)`"):
            arguments.check_limits(size, count)


def test_vocabularies():
    assert arguments.as_vocabulary([*SPECIAL_TOKENS, "a"]) == (*SPECIAL_TOKENS, "a")
    for wrong, error in (("abc", TypeError), (["a"], ValueError), ([5], TypeError)):
        with pytest.raises(error, match="Invalid `vocabulary`"):
            arguments.as_vocabulary(wrong)


def test_chunks(monkeypatch):
    monkeypatch.setattr(arguments, "CHUNK", 2)
    expected = [[b"a", "é".encode()], [b"\xff"]]
    texts = ["a", "é", b"\xff"]
    for source in (texts, tuple(texts), np.array(texts, object)):
        assert [chunk.numpy().tolist() for chunk in arguments.chunks(source)] == expected
    dataset = tf.data.Dataset.from_tensor_slices(["a", "é", b"\xff"])
    for source in (dataset, dataset.batch(3)):
        assert [chunk.numpy().tolist() for chunk in arguments.chunks(source)] == expected
    with pytest.raises(TypeError, match=r"texts\[2\] must be str or bytes. Received: 5 \(int\)"):
        list(arguments.chunks(["a", "b", 5]))


def test_strings():
    assert arguments.as_strings("é").numpy() == "é".encode()
    assert arguments.as_strings([]).shape == (0,)
    assert arguments.utf8(["\ud800"], "x") == [b"\xed\xa0\x80"]
    with pytest.raises(TypeError, match=r"Invalid `strings`.*int"):
        arguments.as_strings(5)


def test_ids():
    assert arguments.as_ids([]).dtype == tf.int64
    assert arguments.as_ids([[1], [2, 3]]).to_list() == [[1], [2, 3]]
    with pytest.raises(TypeError, match="expected integers. Received dtype"):
        arguments.as_ids([1.5])
