"""Choices: points of an axis by name, by configuration or as objects, and the errors of each."""

import keras
import pytest
from layer_samples import reborn

import keras_attn.layers
from keras_attn.layers import (
    AdditiveScorer,
    DotScorer,
    LastSummary,
    Softmax,
    TanhReadout,
    UpdateAttend,
)
from keras_attn.layers.bridges import bridges
from keras_attn.layers.choices import Choices, Plain, serializable, unknown_name
from keras_attn.layers.contexts import contexts
from keras_attn.layers.encoders import encoders
from keras_attn.layers.normalisers import normalisers
from keras_attn.layers.orders import Order, orders
from keras_attn.layers.readouts import readouts
from keras_attn.layers.scorers import scorers
from keras_attn.layers.starts import starts
from keras_attn.layers.summaries import summaries

AXES = [bridges, contexts, encoders, normalisers, orders, readouts, scorers, starts, summaries]
every_axis = pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.argument)


@serializable
class OwnOrder(Order):
    """An order of a user's own, which no axis knows."""


@every_axis
def test_every_class_is_public_and_registered_with_keras(axis):
    for cls in axis.classes.values():
        assert getattr(keras_attn.layers, cls.__name__) is cls
        assert cls.__name__ in keras_attn.layers.__all__
        assert keras.saving.get_registered_name(cls) == f"keras_attn>{cls.__name__}"


@every_axis
def test_a_wrong_name_is_refused_with_the_valid_ones_and_the_closest(axis):
    for name in axis.classes:
        with pytest.raises(ValueError) as caught:
            axis.get(name + "x")
        message = str(caught.value)
        assert message.startswith(f"{axis.argument}: expected one of {sorted(axis.classes)}")
        assert message.endswith(f"got {name + 'x'!r}. Did you mean {name!r}?")
    with pytest.raises(ValueError) as caught:
        axis.get("qqqq")
    assert str(caught.value).endswith("got 'qqqq'.")


@every_axis
def test_a_class_or_a_number_is_no_choice(axis):
    for wrong in [next(iter(axis.classes.values())), 3, None]:
        with pytest.raises(TypeError, match=f"^{axis.argument}: expected a name of .* got "):
            axis.get(wrong)


def test_a_name_makes_a_new_object_with_options():
    scorer = scorers.get("additive", units=5, name="mine", dtype="float64")
    assert type(scorer) is AdditiveScorer and scorer.units == 5
    assert scorer.name == "mine" and scorer.compute_dtype == "float64"
    assert scorers.get("additive") is not scorers.get("additive")


def test_hyphens_equal_underscores():
    assert type(scorers.get("scaled-dot")) is type(scorers.get("scaled_dot"))
    assert type(orders.get("update-attend")) is UpdateAttend


def test_an_object_stays_itself():
    for axis, thing in [(scorers, DotScorer()), (normalisers, Softmax()), (orders, OwnOrder())]:
        assert axis.get(thing) is thing
    assert scorers.get(scorer := DotScorer(), dtype="float64") is scorer
    assert scorer.compute_dtype == "float32"

    def uniform(scores, mask):
        return scores

    assert normalisers.get(uniform) is uniform


def test_a_saved_configuration_makes_an_equal_object():
    config = keras.saving.serialize_keras_object(AdditiveScorer(7, name="mine"))
    scorer = scorers.get(config)
    assert type(scorer) is AdditiveScorer and (scorer.units, scorer.name) == (7, "mine")
    assert type(orders.get(keras.saving.serialize_keras_object(OwnOrder()))) is OwnOrder


@pytest.mark.parametrize(
    "axis, name, option, valid",
    [
        (scorers, "dot", "units", "none"),
        (scorers, "additive", "uints", r"\['units'\]"),
        (normalisers, "softmax", "heat", r"\['temperature'\]"),
        (orders, "update_attend", "units", "none"),
        (readouts, "tanh", "width", r"\['units'\]"),
        (summaries, "concat", "size", r"\['length'\]"),
        (bridges, "dense", "kwargs", "none"),
    ],
)
def test_an_unknown_option_is_refused_with_the_valid_ones(axis, name, option, valid):
    expected = f"^{axis.argument}='{name}' takes no option '{option}'; its options are {valid}.$"
    with pytest.raises(TypeError, match=expected):
        axis.get(name, **{option: 1})


def test_an_option_beside_an_object_is_refused():
    with pytest.raises(TypeError, match="'units' goes with a name, but an object of TanhReadout"):
        readouts.get(TanhReadout(), units=3)


def test_register_gives_a_name_and_returns_the_class():
    axis = Choices("colour")

    @axis.register("red")
    class Red(Plain):
        """A choice."""

    assert isinstance(axis.get("red"), Red)
    with pytest.raises(ValueError, match=r"^colour: expected one of \['red'\], got 'read'"):
        axis.get("read")


def test_plain_choices_are_saved_by_their_arguments():
    assert OwnOrder().get_config() == {}
    assert type(reborn(OwnOrder())) is OwnOrder
    assert type(reborn(LastSummary())) is LastSummary


def test_unknown_name_tells_the_closest():
    assert str(unknown_name("cell", "grru", {"gru": 1, "lstm": 2})) == (
        "cell: expected one of ['gru', 'lstm'], got 'grru'. Did you mean 'gru'?"
    )
    assert str(unknown_name("cell", None, ["lstm"])) == "cell: expected one of ['lstm'], got None."
