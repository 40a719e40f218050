"""Answers texts with a model that was exported for ONNX or LiteRT, which stands in this folder.

    python answer.py TEXT...          # or a text a line on standard input

It needs NumPy and either onnxruntime or ai-edge-litert, nothing else. As a module:

    from answer import Model
    Model("folder").generate(["a text", "another"])
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PAD, BOS, EOS, UNK = range(4)
AT_A_TIME = 64  # sources, where a graph takes any number
BLANKS = re.compile("[ \t\n\v\f\r]+")


def readable(tokeniser: str, cleaning: dict[str, bool]) -> bool:
    """Return whether Python's own operations make tokens of text as TensorFlow's do."""
    kinds = ("CharacterTokenizer", "WhitespaceTokenizer", "ByteTokenizer")
    return tokeniser in kinds and not cleaning["casefold"]


class Vocabulary:
    """How a text becomes tokens and ids, and ids become text, as in training.

    Args:
        tokens: The text of every id, in id order.
        about: Has "tokeniser" and "cleaning", as keras_attn.json.

    Raises:
        NotImplementedError: text of that kind needs TensorFlow's operations.
    """

    def __init__(self, tokens: list[str], about: dict[str, Any]):
        self.tokens, self.cleaning = tokens, about["cleaning"]
        self.kind = about["tokeniser"].removesuffix("Tokenizer").lower()
        if not readable(about["tokeniser"], self.cleaning):
            raise NotImplementedError(
                f"texts of a {about['tokeniser']}, and texts whose case is folded, become ids by "
                "TensorFlow's operations alone; use Model.search_ids."
            )
        self.ids = {token: i for i, token in enumerate(tokens) if i > UNK}

    def pieces(self, text: str | bytes) -> list[str]:
        """Return the tokens of a text, known or not; of bytes, their names."""
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")
        elif not isinstance(text, bytes):
            raise TypeError(f"sources: expected texts, got {type(text).__name__}.")
        text = text.decode("utf-8", "replace")
        if self.cleaning["nfkc"]:
            text = unicodedata.normalize("NFKC", text)
        if self.kind == "byte":
            data = text.encode()
            data = data.lower() if self.cleaning["lowercase"] else data
            return [self.tokens[UNK + 1 + value] for value in data]
        if self.cleaning["lowercase"]:
            text = "\0".join(part.lower() for part in text.split("\0"))
        return list(text) if self.kind == "character" else [x for x in BLANKS.split(text) if x]

    def join(self, tokens: list[str]) -> str:
        """Return the text of tokens."""
        if self.kind != "byte":
            return (" " if self.kind == "whitespace" else "").join(tokens)
        known = (self.ids.get(token) for token in tokens)
        spelt = [
            token.encode() if i is None else bytes([i - UNK - 1])
            for i, token in zip(known, tokens, strict=True)
        ]
        return b"".join(spelt).decode("utf-8", "replace")


class Model:
    """A model of this folder, or another.

    Args:
        folder: Has keras_attn.json and the graphs.
        int8: Whether LiteRT runs the graphs with weights of 8 bits.
        whole: Whether ONNX's greedy.onnx searches, instead of Python by `encode` and `step`, which
            `stream` goes by all the same.

    Raises:
        FileNotFoundError: there is no such model.
        ImportError: what runs it is not installed.
        ValueError: ONNX has no weights of 8 bits here, or LiteRT no whole search.
    """

    def __init__(
        self, folder: Any = Path(__file__).parent, *, int8: bool = False, whole: bool = False
    ):
        self.folder = Path(folder)
        self.about = json.loads((self.folder / "keras_attn.json").read_text("utf-8"))
        self.max_source, self.max_target = self.about["max_source"], self.about["max_target"]
        self.sizes = [self.about["vocabularies"][side]["size"] for side in ("source", "target")]
        self.rows = self.about["batch_size"]  # None is any number
        if self.about["runtime"] == "onnx":
            if int8:
                raise ValueError("int8: only LiteRT's graphs come with weights of 8 bits.")
            graph, end = _onnx, ".onnx"
        else:
            if whole:
                raise ValueError("whole: only ONNX's graphs come with a whole search.")
            graph, end = _litert, ".int8.tflite" if int8 else ".tflite"
        self._graph = functools.cache(lambda name: graph(self.folder / f"{name}{end}"))
        self._searched = self._at_once if whole else self._by_steps
        for name in ("greedy",) if whole else ("encode", "step"):
            self._graph(name)  # says now if it is missing

    @functools.cached_property
    def source(self) -> Vocabulary:
        """The vocabulary of sources."""
        return self._vocabulary("source")

    @functools.cached_property
    def target(self) -> Vocabulary:
        """The vocabulary of targets."""
        return self._vocabulary("target")

    def generate(self, sources: Any) -> Any:
        """Return the best target of a text, or of each of a list, greedily."""
        if isinstance(sources, str | bytes):
            return self.generate([sources])[0]
        return [target for target, _ in self.search(sources)]

    def search(self, sources: list[str]) -> list[tuple[str, float]]:
        """Return the best target of each source, and its log p, greedily."""
        if isinstance(sources, str | bytes):
            raise TypeError("sources: expected a list of texts, got one text.")
        pieces = [self.source.pieces(source) for source in sources]
        found = self.search_ids([self._ids(row) for row in pieces])
        return [
            (self._text(ids, row), score) for (ids, score), row in zip(found, pieces, strict=True)
        ]

    def stream(self, source: str) -> Iterator[str]:
        """Yield the tokens of the best target of one source as they come."""
        pieces = self.source.pieces(source)
        for tokens, _ in self._steps([self._row(self._ids(pieces))]):
            if tokens[0] == EOS:
                return
            yield self._token(int(tokens[0]), pieces)

    def search_ids(self, sources: list[list[int]]) -> list[tuple[list[int], float]]:
        """Return ids up to EOS, and log p, of sources of ids.

        A source is what stands before its first EOS; an id that is none of a token is UNK.
        """
        rows, size = [self._row(source) for source in sources], self.rows or AT_A_TIME
        found: list[tuple[list[int], float]] = []
        for i in range(0, len(rows), size):
            found += self._searched(rows[i : i + size])
        return found

    def _row(self, source):
        """Return the ids of a source, known and cut, without EOS."""
        try:
            ids = [int(i) for i in source]
        except TypeError as error:
            raise TypeError(f"sources: expected lists of ids, got {source!r}.") from error
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        ids = ids[: self.max_source - 1]
        limit = self.sizes[0] + (len(ids) if self.about["copies"] else 0)
        return [i if PAD < i < limit else UNK for i in ids]

    def _at_once(self, sources):
        found = self._graph("greedy")(source_ids=_padded(sources))
        rows = ([i for i in row if i != PAD] for row in found["target_ids"].tolist())
        return list(zip(rows, found["score"].tolist(), strict=True))

    def _by_steps(self, sources):
        ids: list[list[int]] = [[] for _ in sources]
        scores = [0.0] * len(sources)
        for tokens, gained in self._steps(sources):
            for row, (token, log_p) in enumerate(zip(tokens, gained, strict=False)):
                if row < len(ids) and ids[row][-1:] != [EOS]:
                    ids[row].append(int(token))
                    scores[row] += float(log_p)
        return list(zip(ids, scores, strict=True))

    def _steps(self, sources):
        """Yield the tokens (B,) of every step and their log p, until all targets have ended."""
        rows = [*sources, *([] for _ in range((self.rows or len(sources)) - len(sources)))]
        source_ids = _padded(rows)
        given = self._graph("encode")(source_ids=source_ids)
        empty = source_ids[:, 0] == EOS
        token, ended = np.full(len(rows), BOS, np.int32), np.arange(len(rows)) >= len(sources)
        for _ in range(self.max_target):
            found = self._graph("step")(token=token, **given)
            given |= {k.removeprefix("next_"): x for k, x in found.items() if k.startswith("next_")}
            log_p = _log_softmax(found["logits"].astype(np.float64))
            log_p[:, [PAD, BOS]] = -np.inf
            token = np.where(empty, EOS, log_p.argmax(axis=1)).astype(np.int32)
            yield token, log_p[np.arange(len(rows)), token]
            ended |= token == EOS
            if ended.all():
                return

    def _vocabulary(self, side: str) -> Vocabulary:
        tokens = json.loads((self.folder / f"{side}_vocabulary.json").read_text("utf-8"))
        return Vocabulary(tokens, self.about["vocabularies"][side])

    def _ids(self, pieces: list[str]) -> list[int]:
        """Return ids; a model that copies gives unknown tokens ids by their first place."""
        known = self.source.ids
        if not self.about["copies"]:
            return [known.get(piece, UNK) for piece in pieces]
        first = {piece: self.sizes[0] + i for i, piece in reversed(list(enumerate(pieces)))}
        return [known.get(piece, first[piece]) for piece in pieces]

    def _token(self, i: int, pieces: list[str]) -> str:
        tokens, place = self.target.tokens, i - self.sizes[1]
        if place < 0:
            return tokens[i]
        return pieces[place] if place < min(len(pieces), self.max_source - 1) else tokens[UNK]

    def _text(self, ids: list[int], pieces: list[str]) -> str:
        tokens = [self._token(i, pieces) for i in ids if i not in (PAD, BOS, EOS)]
        return self.target.join(tokens)


def _padded(rows):
    """Return rows of ids as one array, EOS and PAD behind each."""
    ids = np.full((len(rows), max(map(len, rows)) + 1), PAD, np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row) + 1] = [*row, EOS]
    return ids


def _log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def _onnx(file: Path) -> Callable:
    """Return a function of arrays by name to arrays by name."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("ONNX needs onnxruntime: pip install onnxruntime") from error
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = {x.name for x in session.get_inputs()}
    outputs = [x.name for x in session.get_outputs()]

    def run(**given):
        given = {name: x for name, x in given.items() if name in inputs}
        return dict(zip(outputs, session.run(outputs, given), strict=True))

    return run


def _litert(file: Path) -> Callable:
    """Return a function of arrays by name to arrays by name."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError("LiteRT needs ai-edge-litert: pip install ai-edge-litert") from error
    interpreter = Interpreter(model_path=str(file))
    run = interpreter.get_signature_runner()
    inputs = run.get_input_details()

    def answer(**given):
        return run(**{name: given[name] for name in inputs})

    return answer


def main():
    """Answer texts from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="*", help="else a text a line of standard input")
    parser.add_argument("--int8", action="store_true", help="LiteRT: weights of 8 bits")
    parser.add_argument("--whole", action="store_true", help="ONNX: search by greedy.onnx")
    given = parser.parse_args()
    lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    try:
        model = Model(int8=given.int8, whole=given.whole)
        for text in [os.fsencode(text) for text in given.texts] or lines:
            sys.stdout.buffer.write(model.generate(text).encode("utf-8", "replace") + b"\n")
            sys.stdout.flush()
    except (ImportError, NotImplementedError, OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
