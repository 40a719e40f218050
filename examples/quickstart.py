"""Train `attention` to read dates, look at it, export it, and run the export without Keras."""

import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from keras_attn import serving, text, zoo
from keras_attn.datasets import dates

EPOCHS, BATCH_SIZE = 8, 64
build = Path(__file__).resolve().parent.parent / "build"

# 1. Data: dates as people write them in 40 locales and more -> ISO 8601.
data = dates.load()
print(
    f"{len(data.train.sources)} pairs, such as "
    f"{data.train.sources[0]!r} -> {data.train.targets[0]!r}"
)

# 2. Build: tokenisers from the data, an architecture from the zoo.
keras.utils.set_random_seed(0)
model = zoo.build(
    "attention",
    source=text.CharacterTokenizer.learn(data.train.sources),
    target=text.CharacterTokenizer.learn(data.train.targets),
    size="small",
)

# 3. Fit: plain Keras, on strings.
steps = EPOCHS * (len(data.train.sources) // BATCH_SIZE)
rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
start = time.perf_counter()
model.fit(*data.train, batch_size=BATCH_SIZE, epochs=EPOCHS, validation_data=tuple(data.validation))
print(f"Trained in {time.perf_counter() - start:.0f} s.")

# 4. Generate.
measured = model.generation_metrics(*data.test)
print(f"Exact match on {len(data.test.sources)} held-out dates: {measured['exact_match']:.1%}")

# 5. Look: which characters each character of the answer came from.
picture = build / "alignments.png"
picture.parent.mkdir(parents=True, exist_ok=True)
shown = max(data.test.sources[:200], key=lambda source: len(source) if source.isascii() else 0)
model.attend(shown).plot(picture)

# 6. Export, and run the export in a process without Keras and without TensorFlow's Python.
path = model.export(serving.next_version(build / "saved_models" / "attention.dates"))
session = Path(serving.__file__).with_name("session.py")
command = [sys.executable, str(session), path, *data.test.sources[:10]]
lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
print("The export, run through TensorFlow's C API alone:")
for source, target, line in zip(data.test.sources, data.test.targets, lines, strict=False):
    print(f"  {source:>34}  ->  {line}   (expected {target})")

print(
    f"""
The picture:  {picture}
The export:   {path}
Try next:     model.generate(["3. Mai 1999"]), model.score(...), model.save("dates.keras")
              zoo.names(), print(zoo.card("combined")), your own pairs of strings: see README.md"""
)
