"""What a person sees of a training."""

from __future__ import annotations

import io

import small_models
from rich.console import Console

from keras_attn import training


def test_one_line_an_epoch():
    model = small_models.small("context_as_init", **small_models.CHEAP)
    model.compile()
    text = io.StringIO()
    progress = training.Progress(Console(file=text, width=40))
    pairs = small_models.FEW, small_models.FEW_SPOKEN
    model.fit(*pairs, epochs=3, verbose=0, callbacks=[progress], validation_data=pairs)
    lines = [line for line in text.getvalue().splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("val loss" in line and line.endswith(" s") for line in lines)
