"""Pictures of alignments."""

import numpy as np

from keras_attn.plots import Alignments

SHOWN = Alignments(["a", " ", "<b>", "$", "</s>"], ["x$y", "</s>"], np.eye(2, 5))


def test_figure_shows_tokens_and_matrix(tmp_path):
    figure = SHOWN.plot(tmp_path / "a.png")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "␣", "<b>", "$", "</s>"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x$y", "</s>"]
    np.testing.assert_array_equal(axes.images[0].get_array(), SHOWN.matrix)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert SHOWN.figure is not None


def test_html_is_escaped():
    page = SHOWN.to_html()
    assert "&lt;b&gt;" in page and "<b>" not in page and page.count("<td") == 10
