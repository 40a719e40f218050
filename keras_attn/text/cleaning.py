"""Text made uniform before it is split: invalid UTF-8 repaired, letters lowercased or folded."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """What is done to text before it is split into tokens; an immutable value.

    Args:
        lowercase: Bool, whether to lowercase.
        nfkc: Bool, whether to normalise to Unicode's form NFKC, which unifies what is spelt alike:
            full-width letters, ligatures, composed and decomposed accents. Needs tensorflow-text.
        casefold: Bool, whether to fold case, which is more than lowercase (Straße is strasse) and
            includes NFKC. Needs tensorflow-text.

    Raises:
        ValueError: A flag is not a bool.
    """

    lowercase: bool = False
    nfkc: bool = False
    casefold: bool = False

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, bool | np.bool_):
                raise ValueError(f"Invalid `{name}`: expected True or False. Received: {value!r}.")
            object.__setattr__(self, name, bool(value))  # NumPy's is no JSON

    @property
    def needs_tf_text(self) -> bool:
        """Whether tensorflow-text does a part of it, here and wherever an export runs."""
        return self.nfkc or self.casefold

    def apply(self, strings: Any) -> Any:
        """Clean text.

        Args:
            strings: String tensor (B,), any bytes.

        Returns:
            String tensor (B,), valid UTF-8: every ill-formed piece has become U+FFFD.

        Raises:
            ImportError: tensorflow-text is needed and not installed.
        """
        strings = tf.strings.unicode_transcode(strings, "UTF-8", "UTF-8", errors="replace")
        if self.nfkc:
            strings = tensorflow_text("nfkc=True").normalize_utf8(strings, "NFKC")
        if self.lowercase:
            strings = _lower(strings)
        if self.casefold:
            strings = tensorflow_text("casefold=True").case_fold_utf8(strings)
        return strings


def tensorflow_text(needed_by: str) -> Any:
    """Import tensorflow_text, which registers its operations.

    Args:
        needed_by: What needs it, for the error.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import tensorflow_text as module
    except ImportError as error:
        raise ImportError(
            f"{needed_by} needs tensorflow-text: `pip install tensorflow-text` "
            "(there is no wheel for Windows)."
        ) from error
    return module


def _lower(strings: Any) -> Any:
    """Lowercase valid UTF-8 (B,), alike on every machine.

    `tf.strings.lower` asks the process's locale: a Turkish one makes of I a dotless i. So what
    Turkish disputes is done before it (Lithuanian disputes only some accented I). It also drops
    whatever follows a NUL, so it gets the pieces between NULs; and since `reduce_join` ignores a
    NUL as its separator, each piece brings its own.
    """
    strings = tf.strings.lower(strings)  # ASCII letters
    strings = tf.strings.regex_replace(strings, "\u0130", "i\u0307")  # capital I with a dot
    pieces = tf.strings.split(strings, sep=b"\0")  # (B, None), no row is empty
    lowered = tf.strings.lower(pieces.values, encoding="utf-8") + b"\0"
    joined = tf.strings.reduce_join(pieces.with_values(lowered), axis=1)
    lengths = tf.strings.length(joined) - 1
    return tf.strings.substr(joined, tf.zeros_like(lengths), lengths)  # (B,)
