"""Pictures: alignments as a heat map."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

import numpy as np


class Alignments(NamedTuple):
    """Which source token each target token looked at.

    Attributes:
        source_tokens: S str, `</s>` at the end.
        target_tokens: T str.
        matrix: Float (T, S), one distribution a row.
    """

    source_tokens: list[str]
    target_tokens: list[str]
    matrix: np.ndarray

    @property
    def figure(self) -> Any:
        """The heat map, as a matplotlib figure."""
        return self.plot()

    def plot(self, path: Any = None) -> Any:
        """Draw the heat map: source tokens across, target tokens down, dark where it looked.

        Args:
            path: Where to save it, for example "alignments.png", or None.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install matplotlib") from error
        rows, columns = self.matrix.shape
        figure = Figure(figsize=(1.5 + 0.3 * columns, 1.2 + 0.3 * rows), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(self.matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        across, down = (
            [_visible(t) for t in ts] for ts in (self.source_tokens, self.target_tokens)
        )
        axes.set_xticks(range(columns), across, parse_math=False)
        axes.set_yticks(range(rows), down, parse_math=False)
        axes.tick_params(top=True, bottom=False, labeltop=True, labelbottom=False, length=0)
        for label in axes.get_xticklabels():
            label.set_rotation(90 if len(label.get_text()) > 1 else 0)
        axes.set_xlabel("source")
        axes.set_ylabel("target")
        figure.colorbar(image, ax=axes, label="alignment")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def to_html(self) -> str:
        """Return the matrix as an HTML table; tokens are escaped."""
        head = "".join(f"<th>{html.escape(_visible(t))}</th>" for t in self.source_tokens)
        lines = [f"<tr><th></th>{head}</tr>"]
        for token, row in zip(self.target_tokens, self.matrix, strict=True):
            cells = "".join(
                f'<td style="background:rgba(8,81,156,{value:.3f})" title="{value:.3f}">&nbsp;</td>'
                for value in row.tolist()
            )
            lines.append(f"<tr><th>{html.escape(_visible(token))}</th>{cells}</tr>")
        return f'<table class="alignments">{"".join(lines)}</table>'


def _visible(token: str) -> str:
    """Return a token so that it can be seen."""
    return "␣" if token == " " else token
