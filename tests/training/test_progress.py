"""What a person sees of a training."""

from __future__ import annotations

import io

import keras
import pytest
import small_models
from rich.console import Console

from keras_attn import training, zoo


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


class Broken(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_the_cursor_comes_back_when_a_person_breaks_off(tmp_path):
    source, target = small_models.tokenizers()
    model = zoo.build("context_as_init", source=source, target=target, **small_models.CHEAP)
    text = io.StringIO()
    progress = training.Progress(Console(file=text, width=40, force_terminal=True))
    pairs = small_models.FEW, small_models.FEW_SPOKEN
    with pytest.raises(KeyboardInterrupt):
        training.train(model, pairs, pairs, tmp_path, epochs=1, callbacks=[progress, Broken()])
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert text.getvalue().count(hidden) == text.getvalue().count(shown) == 1
    progress.stop()  # again, or before anything began
    training.Progress().stop()
