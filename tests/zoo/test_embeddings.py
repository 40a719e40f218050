"""Embedding tables that users bring."""

import keras
import numpy as np
import pytest
import small_models

from keras_attn import zoo

SOURCE, TARGET = np.random.default_rng(0).normal(size=(2, 9, 5)).astype("float32")
build = zoo.build


def test_tables_stand_where_they_belong_and_give_their_width():
    model = build("attention", source=9, target=9, source_embeddings=SOURCE, units=4)
    assert model.embedding_size == 5
    np.testing.assert_array_equal(model.source_embedding.embeddings, SOURCE)
    both = {"source_embeddings": SOURCE, "target_embeddings": TARGET}
    model = build("combined", source=9, target=9, units=4, **both)
    np.testing.assert_array_equal(model.source_embedding.embeddings, SOURCE)
    np.testing.assert_array_equal(model.target_embedding.embeddings, TARGET)


def test_a_shared_and_a_tied_table_are_one():
    model = build(
        "attention",
        source=9,
        target=9,
        source_embeddings=SOURCE,
        share_embeddings=True,
        tie_readout=True,
        units=5,
    )
    np.testing.assert_array_equal(model.target_embedding.embeddings, SOURCE)
    logits = model._logits(model._unrolled(*_start(model), training=False), None)
    assert logits.shape == (2, 3, 9)


def _start(model):
    memory, state = model.encode(np.array([[4, 5, 2], [6, 2, 0]]))
    return keras.ops.convert_to_tensor([[1, 4, 5], [1, 6, 0]]), state, memory


def test_a_table_may_be_frozen_and_is_saved(tmp_path):
    source, target = small_models.tokenizers()
    table = np.random.default_rng(1).normal(size=(source.vocabulary_size, 6))
    model = build("attention", source=source, target=target, source_embeddings=table, units=4)
    model.source_embedding.trainable = False
    model.compile("adam", run_eagerly=True)
    model.fit(small_models.WORDS, small_models.SPOKEN, verbose=0)
    np.testing.assert_array_equal(model.source_embedding.embeddings, table.astype("float32"))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.source_embedding.embeddings, table.astype("float32"))


@pytest.mark.parametrize(
    ("tables", "options", "error", "message"),
    [
        ({"source_embeddings": SOURCE[:8]}, {}, ValueError, r"^source_emb.*\(9, 5\).*\(8, 5\)"),
        ({"source_embeddings": SOURCE[0]}, {}, ValueError, "^source_embeddings: expected a mat"),
        ({"source_embeddings": SOURCE * np.nan}, {}, ValueError, "finite numbers"),
        ({"source_embeddings": SOURCE}, {"embedding_size": 6}, ValueError, "widths differ"),
        (
            {"source_embeddings": SOURCE, "target_embeddings": TARGET[:, :4]},
            {},
            ValueError,
            "widths differ",
        ),
        ({"target_embeddings": TARGET}, {"share_embeddings": True}, ValueError, "one table"),
        ({"target_embeddings": TARGET}, {"weights": "x.keras"}, TypeError, "target_embeddings"),
    ],
)
def test_what_does_not_fit_is_refused(tables, options, error, message):
    sizes = {} if "weights" in options else {"source": 9, "target": 9}
    with pytest.raises(error, match=message):
        build("attention", **sizes, **tables, **options)


def test_without_feedback_there_is_no_target_table():
    with pytest.raises(ValueError, match="feedback=False"):
        build("context_every_step", source=9, target=9, target_embeddings=TARGET)
