"""What the local server bears: many clients at once, good requests and bad ones.

    python benchmarks/load.py MODEL.keras [--clients 32] [--seconds 60]

The model is exported and served by `keras-attn serve` in a process of its own. Half of the clients
ask by REST, half by gRPC, each as fast as it is answered: texts of mixed lengths, empty, odd and
too long ones among them, one to eight at a time, for all that a `Client` can ask, and now and then
something malformed. Every good answer is compared with the model's own (of `attend` the tokens),
every bad request has to get the protocol's error, and memory may not go on growing. It does for the
first one or two thousand requests, which a fast machine answers in half a minute: measure for
minutes there. That is oneDNN, which keeps what it makes for each shape: without it
(TF_ENABLE_ONEDNN_OPTS=0) memory has been seen not to grow at all. Results go to load.json and
load.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from measuring import commit, machine

HERE = Path(__file__).parent
BEAM = 3
DRAWN = {"temperature": 1.0, "top_k": 5}
ODD = ["", " ", "\0", "a\0b", "🙂", "e\u0301", "\ufeffabc", "x" * 500, "ab " * 400, "</s>"]
STEEPEST = 10  # MB a minute that memory may grow by in the second half
PAGE = """# Load: what the local server bears

`keras-attn serve --warm-up` of a model of {weights:,} weights, on loopback; {clients} clients for
{seconds:g} s, half of them by REST, half by gRPC, each as fast as it is answered, on the same
{cores} cores as the server. Made by `benchmarks/load.py`; the data is load.json.

| | |
|---|---|
| good requests answered right | {right:,} of {good:,} |
| texts in them | {texts:,}, {rate:,.0f} a second |
| bad requests with the protocol's error | {refused:,} of {bad:,} |
| no requests: refused by HTTP, hung up on by gRPC, the next one answered | {away:,} of {broken:,} |
| clients that went on to the end | {done} of {clients} |
| milliseconds a request, median / 99 % | {median:.1f} / {late:.1f} |
| memory of the server, MB: after the first second / at the end / most | {first} / {last} / {most} |
| and what it grows by in the second half, MB a minute | {slope:.1f} |

The good requests are, by turns of chance: {kinds}. {machine}, commit {commit}.
"""


def memory(pid: int) -> int:
    """Return the resident memory of a process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return 0


def texts_of(model, number: int) -> list[str]:
    """Return texts of the model's tokens, of mixed lengths."""
    chance = np.random.default_rng(0)
    size = model.source.vocabulary_size
    rows = [chance.integers(4, size, chance.integers(1, 25)) for _ in range(number)]
    plain = [model.source.detokenize([row]).numpy()[0].decode("utf-8", "replace") for row in rows]
    return list(dict.fromkeys([*plain, *ODD]))


def bad_requests(client, text):
    """Return calls that a server has to refuse, with the code of each."""
    return [
        ("INVALID_ARGUMENT", lambda: client.predict(source=[[text]])),
        ("INVALID_ARGUMENT", lambda: client.predict(nothing=[text])),
        ("INVALID_ARGUMENT", lambda: client.predict("score", source=[text], target=[])),
        (None, lambda: client.predict("nothing", source=[text])),
    ]


def answers_of(model, texts: list[str]) -> dict[str, dict]:
    """Return what a model says of each text, by what is asked."""
    seeds = list(range(len(texts)))
    found = {
        kind: model.generate(texts, return_scores=True, **options)
        for kind, options in {
            "greedy": {},
            "beam": {"beam_size": BEAM},
            "sample": DRAWN | {"seed": seeds},
        }.items()
    }
    rows = {kind: list(zip(*both, strict=True)) for kind, both in found.items()}
    rows["score"] = rows["greedy"]
    rows["seed"] = seeds
    rows["stream"] = [list(model.stream(text)) for text in texts]
    if model.attends:
        rows["attend"] = [shown.target_tokens for shown in model.attend(texts)]
    return {
        text: dict(zip(rows, row, strict=True))
        for text, *row in zip(texts, *rows.values(), strict=True)
    }


def asked(client, kind: str, some: list[str], answers: dict) -> bool:
    """Ask for something, and return whether it is what the model itself says."""
    expected = [answers[text][kind] for text in some]
    if kind == "stream":
        return list(client.stream(some[0])) == expected[0]
    if kind == "attend":
        return [shown.target_tokens for shown in client.attend(some)] == expected
    texts, scores = (list(side) for side in zip(*expected, strict=True))
    if kind == "score":
        found = texts, client.score(some, texts)
    else:
        options = {"greedy": {}, "beam": {"beam_size": BEAM}, "sample": DRAWN}[kind]
        options |= {"seed": [answers[text]["seed"] for text in some]} if kind == "sample" else {}
        found = client.generate(some, return_scores=True, **options)
    return found[0] == texts and np.allclose(found[1], scores, rtol=1e-5, atol=1e-5)


def ask(url, folder, answers, until, counts, times, lock, seed):
    """Be a client until a time."""
    from keras_attn.serving import Client, ServerError

    client, chance = Client(url, "model", folder=folder), random.Random(seed)
    texts = list(answers)
    kinds = [kind for kind in answers[texts[0]] if kind != "seed"]
    here, mine = Counter(), []
    while time.perf_counter() < until:
        some = chance.sample(texts, chance.randint(1, 8))
        begun = time.perf_counter()
        if chance.random() < 0.1:
            code, call = chance.choice(bad_requests(client, some[0]))
            here["bad"] += 1
            try:
                call()
            except ServerError as error:
                wanted = (code,) if code else ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
                here["refused"] += error.code in wanted
        elif chance.random() < 0.05:
            here["broken"] += 1
            refused = (broken if url.startswith("http") else noise)(url, chance)
            here["turned away"] += refused and asked(client, "greedy", some, answers)
        else:
            kind = chance.choice(kinds)
            some = some[:1] if kind == "stream" else some
            here["good"] += 1
            here["texts"] += len(some)
            with contextlib.suppress(ServerError):
                here["right"] += asked(client, kind, some, answers)
        mine.append(time.perf_counter() - begun)
    with lock:
        counts.update(here)
        counts["clients done"] += 1
        times.extend(mine)


def broken(url: str, chance: random.Random) -> bool:
    """Send what is no request, and return whether it is refused."""
    path = "/v1/models/model:predict"
    size, body, status = chance.choice(
        [
            ("9", b'{"inputs"', b" 400 "),  # no JSON
            ("9", b"\xff" * 9, b" 400 "),
            ("x", b"", b" 411 "),
            ("9" * 5000, b"", b" 413 "),
            (str(2**40), b"x" * 2**20, b" 413 "),
            ("100", b"{", b""),  # which hangs up
        ]
    )
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 60) as raw:
        raw.sendall(f"POST {path} HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode() + body)
        raw.shutdown(socket.SHUT_WR)
        answer = raw.makefile("rb").read()
    return status in answer if status else answer == b""


def noise(url: str, chance: random.Random) -> bool:
    """Send what is no gRPC, and return whether the server hangs up."""
    sent = chance.choice([b"GET / HTTP/1.1\r\n\r\n", chance.randbytes(500), b""])
    host, _, port = url.removeprefix("grpc://").partition(":")
    with socket.create_connection((host, int(port)), 60) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            raw.makefile("rb").read()
    return True


def served(path: Path):
    """Start the server; return its process and URLs."""
    command = [sys.executable, "-m", "keras_attn_cli", "serve", str(path)]
    command += ["--rest-port", "0", "--grpc-port", "0", "--warm-up"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("REST "):
            rest, also = line.removeprefix("REST ").strip().split(", gRPC ")
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, (rest.rpartition("/v1")[0], f"grpc://{also}")
    raise SystemExit("the server did not start")


def run(model, clients: int, seconds: float) -> dict:
    """Load a server, and return what was counted."""
    answers = answers_of(model, texts_of(model, 500))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.export(path / "1", beam_size=BEAM, verbose=False)
        process, urls = served(path)
        counts, times, lock, used = Counter(), [], threading.Lock(), []
        until = time.perf_counter() + seconds
        threads = [
            threading.Thread(
                target=ask, args=(urls[i % 2], path / "1", answers, until, counts, times, lock, i)
            )
            for i in range(clients)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            used.append(memory(process.pid))
        process.terminate()
        code = process.wait(30)
    if code:
        raise SystemExit(f"the server ended with {code}")
    return {
        **counts,
        "clients": clients,
        "seconds": seconds,
        "median": 1e3 * float(np.median(times)),
        "late": 1e3 * float(np.quantile(times, 0.99)),
        "memory": used,
        "slope": 60 * float(np.polyfit(range(len(used) // 2), used[-(len(used) // 2) :], 1)[0]),
        "kinds": [kind for kind in next(iter(answers.values())) if kind != "seed"],
        "commit": commit(),
        "weights": model.count_params(),
        "machine": machine(),
    }


def page(found: dict) -> str:
    """Return the page of the counts."""
    return PAGE.format(
        **{key: value for key, value in found.items() if key not in ("kinds", "machine")},
        kinds=", ".join(found["kinds"]),
        machine=found["machine"]["cpu"],
        away=found["turned away"],
        done=found["clients done"],
        rate=found["texts"] / found["seconds"],
        first=found["memory"][1],
        last=found["memory"][-2],
        most=max(found["memory"]),
        cores=found["machine"]["cores"],
    )


def main():
    """Measure, and write the results."""
    import keras

    import keras_attn  # noqa: F401

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    model = keras.saving.load_model(given.model).in_full_precision()  # as it is exported
    found = run(model, given.clients, given.seconds)
    (HERE / "load.json").write_text(json.dumps(found, indent=1) + "\n")
    (HERE / "load.md").write_text(page(found))
    print(page(found))
    wanted = {"right": "good", "refused": "bad", "turned away": "broken", "clients done": "clients"}
    if short := [key for key, all_of in wanted.items() if found[key] != found[all_of]]:
        raise SystemExit(f"not all of what was asked: {', '.join(short)}")
    if found["slope"] > STEEPEST:
        raise SystemExit(f"memory went on growing, by {found['slope']:.1f} MB a minute")


if __name__ == "__main__":
    main()
