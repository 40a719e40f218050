"""Each classic variant is the point on the axes that its definition says."""

import pytest

from keras_attn import layers, zoo

POINTS = {  # bridge, context, feedback
    "context_every_step": (layers.ZeroBridge, layers.FixedContext, False),
    "context_as_init": (layers.LinearBridge, layers.NoContext, True),
    "combined": (layers.LinearBridge, layers.FixedContext, True),
    "attention": (layers.LinearBridge, layers.AttentionContext, True),
}


@pytest.mark.parametrize("name", POINTS)
def test_points(name):
    decoder = zoo.build(name, source=9, target=9, units=4, embedding_size=4).decoder
    bridge, context, feedback = POINTS[name]
    assert type(decoder.bridge) is bridge and type(decoder.context) is context
    assert decoder.feedback is feedback
    assert decoder.parallel  # none of them needs a loop of its own in training


@pytest.mark.parametrize(
    ("name", "scorer"),
    [
        ("attention", layers.GeneralScorer),
        ("attention_general", layers.GeneralScorer),
        ("attention_dot", layers.DotScorer),
        ("attention_scaled_dot", layers.ScaledDotScorer),
        ("attention_additive", layers.AdditiveScorer),
    ],
)
def test_scorers(name, scorer):
    model = zoo.build(name, source=9, target=9, units=4, embedding_size=4)
    assert type(model.decoder.context.attention.scorer) is scorer
    assert type(model.decoder.readout) is layers.TanhReadout
    assert type(model.decoder.order) is layers.UpdateAttend and not model.decoder.input_feeding
    assert model.encoder.bidirectional
