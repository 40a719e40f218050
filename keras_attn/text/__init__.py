"""Text: tokenisers, and the pipeline from strings to batches."""

from keras_attn.text.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    WhitespaceTokenizer,
)

__all__ = ["ByteTokenizer", "CharacterTokenizer", "Tokenizer", "WhitespaceTokenizer"]
