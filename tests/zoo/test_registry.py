"""Names, cards, options and building."""

from __future__ import annotations

import keras
import pytest
import small_models

from keras_attn import layers, zoo
from keras_attn.zoo import registry
from keras_attn.zoo.options import OPTIONS


@pytest.fixture
def clean():
    """Forget what a test registers."""
    before = dict(registry._cards)
    yield
    registry._cards.clear()
    registry._cards.update(before)


def test_names():
    assert zoo.names("attention_*dot") == ["attention_dot", "attention_scaled_dot"]
    kinds = "low_rank hard local monotonic multi_head coverage copy key_value".split()
    assert {f"attention_{kind}" for kind in kinds} < set(zoo.names())
    assert {"conv_attention", "transformer_attention"} < set(zoo.names())
    assert zoo.names("*20??*") == [
        "bahdanau2015",
        "cho2014",
        *(
            f"luong2015_{kind}"
            for kind in ("concat", "dot", "general", "local_m", "local_p", "location")
        ),
        "sutskever2014",
    ]
    assert set(small_models.CLASSIC) <= set(zoo.names())
    assert zoo.names("context-as-*") == ["context_as_init"]
    assert zoo.names("[a-c]*-e*-s*") == ["context_every_step"]
    assert zoo.names("nothing*") == []


@pytest.mark.parametrize("name", zoo.names())
def test_cards_say_everything(name):
    card = zoo.card(name)
    shown = str(card)
    for word in ("Paper:", "arXiv:", "Deviations:", "Options:", "Parameters:", "Recipe:"):
        assert word in shown
    assert all(equation in shown for equation in card.equations)
    assert f"{zoo.build(name).count_params():,}" in shown
    assert card.options == zoo.config(name)


def test_build_with_ids_alone():
    model = zoo.build("context-as-init")
    assert model.name == "context_as_init" and model.source_size == model.target_size == 8000


def test_sizes_and_overrides():
    assert zoo.config("attention")["units"] == 256
    assert zoo.config("attention", size="tiny")["units"] == 32
    assert zoo.config("attention", size="tiny", units=7)["units"] == 7
    assert set(zoo.config("combined")) == set(OPTIONS)
    dots = zoo.build("attention_dot", units=8, source=9, target=9)
    assert dots.encoder.units == 4
    assert (
        zoo.build("attention_dot", units=8, source=9, target=9, bidirectional=False).encoder.units
        == 8
    )


@pytest.mark.parametrize("name", small_models.PLAIN)
def test_num_parameters_follow_from_the_shapes(name):
    """Counted by hand from the equations, for LSTMs of U units, E wide embeddings, V and V' ids."""
    u, e, v, w = 6, 5, 11, 9
    model = zoo.build(name, units=u, embedding_size=e, source=v, target=w)
    half = u // 2 if "dot" in name else u

    def lstm(inputs, units):
        return 4 * units * (inputs + units + 1)

    expected = v * e + 2 * lstm(e, half)
    depth = 2 * half
    if name == "context_every_step":
        expected += lstm(depth, u) + (u + depth + 1) * w
    else:
        expected += w * e + 2 * (depth + 1) * u  # target embeddings, dense bridge for h and c
    if name == "context_as_init":
        expected += lstm(e, u) + (u + 1) * w
    elif name == "combined":
        expected += lstm(e + depth, u) + (u + depth + 1) * w
    elif name.startswith("attention"):
        expected += lstm(e, u) + (depth + u) * u + (u + 1) * w
        scorers = {"attention_additive": u * u + depth * u + u}
        expected += 0 if "dot" in name else scorers.get(name, u * depth)
    assert model.count_params() == expected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: zoo.build("atention"), ValueError, "Did you mean 'attention'"),
        (lambda: zoo.build("attention", unit=3), TypeError, "unknown option 'unit'.*units, emb"),
        (lambda: zoo.build("attention", size="huge"), ValueError, "size: expected one of"),
        (lambda: zoo.build("attention", units=0), ValueError, "units: expected a positive int"),
        (lambda: zoo.build("attention", dropout=1.5), ValueError, "dropout"),
        (lambda: zoo.build("attention", cell="lstmm"), ValueError, "cell: expected one of"),
        (lambda: zoo.build("attention", scorer="dott"), ValueError, "Did you mean 'dot'"),
        (lambda: zoo.build("attention", window="local"), ValueError, "^window: .*'local_p'"),
        (lambda: zoo.build("attention", normaliser="hardd"), ValueError, "^normaliser: .*'hard'"),
        (lambda: zoo.build("attention", keys="other"), ValueError, "^keys: expected one of"),
        (lambda: zoo.build("attention", num_heads=3), ValueError, "^num_heads: expected a div"),
        (lambda: zoo.build("attention", coverage_loss=-1), ValueError, "^coverage_loss: expec"),
        (lambda: zoo.build("attention", copy="yes"), ValueError, "^copy: expected one of"),
        (lambda: zoo.build("combined", copy="pointer"), ValueError, "copy='pointer' has no eff"),
        (lambda: zoo.build("combined", num_heads=2), ValueError, "num_heads=2 has no effect"),
        (lambda: zoo.build("combined", readout_units=2), ValueError, "readout_units=2 has no e"),
        (lambda: zoo.build("attention", size="paper"), ValueError, "^size: expected one of"),
        (lambda: zoo.build("conv_attention", reverse_source=True), ValueError, "is no RNN"),
        (lambda: zoo.build("conv_attention", bridge="dense"), ValueError, "bridge='summary'"),
        (lambda: zoo.build("attention", encoder="cnn"), ValueError, "^encoder: expected one of"),
        (
            lambda: zoo.build("attention", window="monotonic", normaliser="hard"),
            ValueError,
            "^normaliser: MonotonicWindow makes alignments",
        ),
        (lambda: zoo.build("attention", summary="mean"), ValueError, "has no effect"),
        (lambda: zoo.build("attention_dot", units=7), ValueError, "even number, got 7"),
        (lambda: zoo.build("attention", source="abc"), TypeError, "source: expected a tokeniser"),
        (lambda: zoo.build("attention", source=3), ValueError, "5 or more"),
        (lambda: zoo.build("attention", bridge="copy"), ValueError, "bridge='copy'"),
        (
            lambda: zoo.build("attention", source=9, share_embeddings=True),
            ValueError,
            "one vocabulary",
        ),
        (lambda: zoo.build("combined", scorer="dot"), ValueError, "has no effect here"),
        (lambda: zoo.build("context_every_step", start="summary"), ValueError, "needs feedback"),
        (lambda: zoo.build("context_as_init", tie_readout=True), ValueError, "tie_readout"),
        (lambda: zoo.build("context_every_step", tie_readout=True), ValueError, "feedback=False"),
        (lambda: zoo.build("attention.nonsense"), ValueError, "does not come with the"),
        (lambda: zoo.build("attention.x", weights="y"), TypeError, "names weights already"),
        (lambda: zoo.build("attention.x", source=9), TypeError, "bring their own"),
        (lambda: zoo.build(3), TypeError, "name: expected a str"),
        (lambda: zoo.card("nothing_like_it"), ValueError, "Names:"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_architecture_of_ones_own(clean):
    card = zoo.Card("mine", ("y = x",), "arXiv:0000.00000, none.")

    @zoo.register("my-attention", card)
    def _mine():
        return {"scorer": layers.AdditiveScorer(5), "order": "attend_update", "num_layers": 2}

    model = zoo.build("my_attention", units=8, embedding_size=6, source=9, target=9)
    assert model.decoder.context.attention.scorer.units == 5
    assert not model.decoder.parallel
    other = zoo.build("my_attention", units=4, embedding_size=6, source=9, target=9)
    assert other.decoder.context.attention.scorer is not model.decoder.context.attention.scorer
    with pytest.raises(ValueError, match="registered already"):
        zoo.register("my_attention", card)
    with pytest.raises(TypeError, match="unknown option 'scores'"):
        zoo.register("other", card)(lambda: {"scores": 1})
    with pytest.raises(ValueError, match="dot"):
        zoo.register("a.b", card)


def test_weights_from_a_path(tmp_path):
    model = small_models.small("combined")
    model.save(tmp_path / "m.keras")
    again = zoo.build("combined", weights=tmp_path / "m.keras")
    assert again.generate(small_models.WORDS) == model.generate(small_models.WORDS)
    with pytest.raises(ValueError, match="holds 'combined'"):
        zoo.build("attention", weights=tmp_path / "m.keras")
    with pytest.raises(TypeError, match="bring their own"):
        zoo.build("combined", weights=tmp_path / "m.keras", units=3)


# What contracts/test_combinations.py has too: in `make evidence` alone.
COMBINED = [
    {"cell": "gru", "num_layers": 2, "residual": True},
    {"cell": "simple_rnn", "bidirectional": False},
    {"input_feeding": True, "start": "summary"},
    {"order": "attend_update", "readout": "maxout", "readout_state": "previous"},
    {"context": "fixed", "summary": "gated", "bridge": "summary"},
    {"context": "fixed", "summary": "concat", "max_source": 12},
]
VARIETY = [
    *(COMBINED if small_models.EVIDENCE else []),
    {"scorer": "coverage", "copy": "pointer", "input_feeding": True, "keys": "projected"},
    {"encoder": "conv", "encoder_layers": 3, "bridge": "zeros", "copy": "pointer"},
    {"window": "local_p", "normaliser": "sparsemax", "num_heads": 2},
    {"tie_readout": True, "readout": "maxout", "recurrent_dropout": 0.1},
    {"dtype": "float64", "scorer": "scaled_dot"},
    {"scorer": "location_sensitive", "order": "attend_update", "coverage_loss": 0.5},
    {"decoder_cell": "cho", "order": "attend_update", "cell": "gru_before"},
    {"reverse_source": True, "start": "zeros", "share_embeddings": False},
]


@pytest.mark.parametrize(
    "options", small_models.some(VARIETY, 4), ids=lambda o: "-".join(map(str, o.values()))
)
def test_options_train_save_and_generate(options, tmp_path):
    source, target = small_models.tokenizers()
    options = {"units": 8, "embedding_size": 6, "max_source": 12, **options}
    model = zoo.build("attention", source=source, target=target, **options)
    model.compile(keras.optimizers.Adam(0.02), run_eagerly=True)
    few = small_models.FEW, small_models.FEW_SPOKEN
    history = model.fit(*few, epochs=4, verbose=0, seed=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.generate(small_models.WORDS) == model.generate(small_models.WORDS)
    source_ids, target_in = small_models.some_ids(model)
    whole = model({"source": source_ids, "target_in": target_in})
    memory, state = model.encode(source_ids)
    for t in range(target_in.shape[1]):
        logits, _, state = model.step(target_in[:, t], state, memory)
        assert abs(logits - whole[:, t]).numpy().max() < 2e-5
