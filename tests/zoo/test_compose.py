"""Options land where they belong."""

import pytest

from keras_attn import layers, zoo


def build(**options):
    return zoo.build(
        "attention", source=9, target=9, **{"units": 6, "embedding_size": 4, **options}
    )


def test_every_part_gets_its_options():
    model = build(
        cell="gru",
        num_layers=2,
        bidirectional=False,
        residual=True,
        bridge="copy",
        readout="maxout",
        order="attend_update",
        scorer="additive",
        input_feeding=True,
        readout_state="previous",
        dropout=0.3,
        recurrent_dropout=0.1,
        max_source=5,
        max_target=7,
        dtype="mixed_bfloat16",
    )
    encoder, decoder = model.encoder, model.decoder
    assert (encoder.cell, encoder.num_layers, encoder.bidirectional) == ("gru", 2, False)
    assert encoder.residual and decoder.recurrence.residual
    assert isinstance(decoder.bridge, layers.CopyBridge)
    assert isinstance(decoder.readout, layers.MaxoutReadout)
    assert isinstance(decoder.order, layers.AttendUpdate)
    assert isinstance(decoder.context.attention.scorer, layers.AdditiveScorer)
    assert decoder.input_feeding and decoder.readout_state == "previous"
    assert model.dropout == encoder.dropout == decoder.dropout == decoder.recurrence.dropout == 0.3
    assert encoder.recurrent_dropout == decoder.recurrence.recurrent_dropout == 0.1
    assert (model.max_source, model.max_target) == (5, 7)
    for layer in model._flatten_layers():
        if layer.weights:
            assert layer.compute_dtype == "bfloat16", layer.path


def test_parts_may_be_objects():
    scorer = layers.AdditiveScorer(3)
    model = build(scorer=scorer, normaliser=layers.Softmax(0.5), readout=layers.TanhReadout(5))
    assert model.decoder.context.attention.scorer is scorer
    assert model.decoder.context.attention.normaliser.temperature == 0.5
    assert model.projection.kernel.shape == (5, 9)


def test_a_concatenated_summary_is_as_long_as_the_source_may_be():
    model = build(context="fixed", summary="concat", max_source=5)
    assert model.decoder.context.depth(1, model.encoder.summary_depth) == 5 * 2 * 6


def test_options_without_effect_are_refused():
    with pytest.raises(ValueError, match="summary='max' has no effect here"):
        build(summary="max")
    for option in ({"context": "fixed"}, {"bridge": "summary"}, {"start": "summary"}):
        assert build(summary="max", **option).decoder.reads_summary


def test_an_object_serves_one_model():
    window = layers.LocalPredictedWindow(3)
    build(window=window)
    with pytest.raises(ValueError, match="^window: the LocalPredictedWindow given has weights"):
        build(window=window)


def test_hyphens_equal_underscores_in_values():
    assert build(scorer="scaled-dot").encoder.units == 3  # halved, as for scaled_dot
    with pytest.raises(ValueError, match="bidirectional=False has no effect here"):
        build(encoder="self-attention", bidirectional=False, bridge="summary")
