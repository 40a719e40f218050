"""Text: tokenisers, and the pipeline from strings to batches."""

from typing import Any

from keras_attn.text.subwords import SentencePieceTokenizer, WordPieceTokenizer
from keras_attn.text.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    WhitespaceTokenizer,
)

KINDS: dict[str, Any] = {
    "character": CharacterTokenizer,
    "whitespace": WhitespaceTokenizer,
    "byte": ByteTokenizer,
    "wordpiece": WordPieceTokenizer,
    "sentencepiece": SentencePieceTokenizer,
}

__all__ = [
    "KINDS",
    "ByteTokenizer",
    "CharacterTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "WhitespaceTokenizer",
    "WordPieceTokenizer",
]
