"""Corpora: work on many rows at a time, in order, on all cores, and never on all rows at once."""

from __future__ import annotations

import collections
import contextvars
import functools
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.kernels import cores
from keras_attn.models.inputs import checked_texts
from keras_attn.models.request import DRAWN
from keras_attn.search import fold

BATCHES = 32  # of a window, among which sources of like length find each other


def workers() -> int:
    """Return how many batches are searched at a time: a loop by itself keeps no CPU busy."""
    return 1 if tf.config.list_logical_devices("GPU") else min(cores.available(), cores.MOST)


def in_order(calls: Iterable[Callable[[], Any]], number: int) -> Iterator:
    """Yield what calls return, in order; `number` run at a time, and no more are read ahead.

    Errors come in their turn too, those of reading behind what was read before. Who stops early,
    or is interrupted, does not wait for calls under way.
    """
    calls = iter(calls)
    waiting: collections.deque[Future] = collections.deque()
    pool = ThreadPoolExecutor(number)

    def fill():
        try:
            for call in itertools.islice(calls, number - len(waiting)):
                here = contextvars.copy_context()  # `kernels.plain` among others
                waiting.append(pool.submit(here.run, call))
        except Exception as error:
            failed: Future = Future()
            failed.set_exception(error)
            waiting.append(failed)

    try:
        fill()
        while waiting:
            yield waiting.popleft().result()
            fill()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def generated(generate: Callable, sources: Iterator, batch_size: int, options: dict) -> Iterator:
    """Yield what `generate` gives of each source, while the sources are read.

    Args:
        generate: Function of a list of sources and options, see `Generation.generate`.
        sources: Strings.
        batch_size: Sources of a batch.
        options: Of `generate`, the same for all sources.

    Raises:
        TypeError: a source is not a string; those before it are answered first.
    """
    seed: Any = options.get("seed")
    drawn = [name for name in DRAWN if options.get(name) is not None]
    seed = random.getrandbits(62) if seed is None and drawn else seed

    def calls():
        for start, texts in _windows(checked_texts("source", sources), BATCHES * batch_size):
            seeds = fold(seed, start + np.arange(len(texts))).numpy() if drawn else None
            asked = {**options, "batch_size": batch_size, "seed": seeds}
            yield functools.partial(generate, texts, **asked)  # its warnings are not ours

    for found in in_order(calls(), 2):
        yield from zip(*found, strict=True) if isinstance(found, tuple) else found


def _windows(sources: Iterator[Any], size: int) -> Iterator[tuple[int, list]]:
    """Yield lists of up to `size` sources, each with the number of those before it."""
    for start in itertools.count(0, size):
        window: list = []
        try:
            window.extend(itertools.islice(sources, size))
        except Exception:
            if window:
                yield start, window  # what was read is answered first
            raise
        if not window:
            return
        yield start, window
