"""Hold an exported model to what lies beside it, without TensorFlow's Python, Keras and this code.

python check_export.py SESSION_FILE MODEL [--tf-text]: replays golden.jsonl and the warm-up
requests, searches by `encode` and `step`, and asks what could go wrong; prints what was counted as
JSON.
"""

from __future__ import annotations

import concurrent.futures
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
from run_export import forbidden, loaded

BOS, EOS = 1, 2
CLOSE = 1e-4  # of the two best logits: rounding may turn them round
WORDS = ["abc", "", "hello", "x" * 40, " ", "e\u0301ü", "a b c", "zzz", "m", "cab"]


def close(found, expected):
    """Whether scores are equal, up to rounding."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    return np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected))


def padded(rows):
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), max(lengths, default=0)), np.int32)
    for row, of in zip(ids, rows, strict=True):
        row[: len(of)] = of
    return {"source_ids": ids, "source_lengths": lengths}


def stepped(model, rows, means):
    """Search greedily by `encode` and `step`: ids, log p, the closest calls, and alignments.

    An ensemble's `step` gives means of log p, which do not add up to 1.
    """
    given = model.run("encode", **padded(rows))
    token, ids, gaps = np.full(len(rows), BOS, np.int32), [], np.full(len(rows), np.inf)
    shown: list = []
    score, ended = np.zeros(len(rows)), np.zeros(len(rows), bool)
    empty = np.array([row[0] == EOS for row in rows])
    for _ in range(model.signatures["ids"].outputs["target_ids"].shape[1]):
        following = model.run("step", token=token, **given)
        logits = following.pop("logits").astype(float)
        alignments = following.pop("alignments", None)
        if alignments is not None:
            shown.append(np.where(ended[:, None], 0, alignments))
        given |= following
        total = 0 if means else np.logaddexp.reduce(logits, axis=1, keepdims=True)
        log_p = logits - total
        two = np.sort(logits[:, EOS:])[:, -2:]
        gaps = np.where(ended | empty, gaps, np.minimum(gaps, two[:, 1] - two[:, 0]))
        best = np.where(empty, EOS, EOS + logits[:, EOS:].argmax(axis=1)).astype(np.int32)
        score += np.where(ended, 0, log_p[np.arange(len(rows)), best])
        token = np.where(ended, 0, best).astype(np.int32)
        ended |= token == EOS
        ids.append(token)
    return np.array(ids).T, score, gaps, np.array(shown)


def golden(model, path):
    """Replay golden.jsonl; return how many rows are equal, and how many were close calls."""
    lines = (path / "assets.extra" / "golden.jsonl").read_text("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    assert len(rows) == 10 and rows[0]["source"] == ""
    sources = [row["source_ids"] for row in rows]
    said = model.run(source=[row["source"] for row in rows])
    of_ids = model.run("ids", **padded(sources))
    about = (path / "assets.extra" / "keras_attn.json").read_text("utf-8")
    means = json.loads(about).get("kind") == "ensemble"
    ids, score, gaps, alignments = stepped(model, sources, means)
    sums = alignments.sum(-1)[ids.T > 0] if len(alignments) else np.ones(1)
    assert (alignments >= 0).all() and (sums <= 1 + 1e-5).all()
    if "Window" not in about.replace("GlobalWindow", ""):  # others need not sum to 1
        np.testing.assert_allclose(sums, 1, atol=1e-5)
    near = 0
    for i, row in enumerate(rows):
        target = [*row["target_ids"], *[0] * (ids.shape[1] - len(row["target_ids"]))]
        same = [said["target"][i].decode() == row["target"]]
        same += [of_ids["target_ids"][i].tolist() == target, ids[i].tolist() == target]
        if not all(same):
            assert gaps[i] < CLOSE, (row, same, gaps[i])
            near += 1
            continue
        assert of_ids["target_lengths"][i] == len(row["target_ids"])
        if len(alignments):
            found = alignments[:, i]
            expected = of_ids["alignments"][i, : len(found), : found.shape[1]]
            np.testing.assert_allclose(found, expected, atol=1e-5)
        scores = said["score"][i], of_ids["score"][i], score[i]
        assert close(scores, row["score"]).all(), (row, scores)
        gap = row.get("gap")  # version 0.1 told none
        assert gap is None or abs(gaps[i] - gap) <= CLOSE * max(1, gap), (row, gaps[i])
    return {"golden": len(rows) - near, "close calls": near}


def records(file):
    """Yield the records of a TFRecord file."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 16 + length


def replayed(session, model, path):
    """Run the warm-up requests as a server would; return the signatures in them."""
    names = []
    for record in records(path / "assets.extra" / "tf_serving_warmup_requests"):
        request = dict(session.fields(dict(session.fields(record))[6]))[1]
        parts = list(session.fields(request))
        (spec,) = (dict(session.fields(value)) for number, value in parts if number == 1)
        inputs = [dict(session.fields(value)) for number, value in parts if number == 2]
        tensors = {entry[1].decode(): entry[2] for entry in inputs}
        answer = model.run_protos(spec[3].decode(), tensors)
        assert all(len(value) == 2 for value in answer.values())
        names.append(spec[3].decode())
    return sorted(names)


def refused(session, call):
    """Return the code of the error of a call that has to fail."""
    try:
        answer = call()
    except session.SessionError as error:
        return error.code
    raise AssertionError(f"not refused: {answer}")


def edges(session, model):
    """Ask what could go wrong: an error or a result, never a crash."""
    most = model.signatures["ids"].outputs["target_ids"].shape[1]
    no = np.zeros(0, np.int32)
    assert model.run(source=[])["target"].shape == (0,)
    for width in (0, 3):
        nothing = {"source_ids": np.zeros((0, width), np.int32), "source_lengths": no}
        for name in ("ids", "ids_beam"):
            assert all(len(x) == 0 for x in model.run(name, **nothing).values())
        encoded = model.run("encode", **nothing)
        assert all(len(x) == 0 for x in encoded.values())
        assert len(model.run("step", token=no, **encoded)["logits"]) == 0
    unwidened = {"source_ids": np.zeros((2, 0), np.int32), "source_lengths": [0, 9]}
    empty = model.run("ids", **unwidened)
    assert empty["target_ids"][:, :2].tolist() == [[EOS, 0]] * 2
    assert model.run("ids_beam", **unwidened)["target_ids"][:, 0, :2].tolist() == [[EOS, 0]] * 2
    assert all(len(x) == 2 for x in model.run("encode", **unwidened).values())
    assert close(empty["score"], model.run(source=["", ""])["score"]).all()
    # lengths, ends and ids outside their range mean the nearest that is inside
    ids = np.array([[5, 6, 2, 0], [5, 6, 9, 9], [5, 6, 2, 7], [5, 6, 2, 0]], np.int32)
    found = model.run("ids", source_ids=ids, source_lengths=[3, 2, 4, 99])
    assert all((row == found["target_ids"][0]).all() for row in found["target_ids"])
    assert close(found["score"], found["score"][0]).all()
    strange = model.run(
        "ids",
        source_ids=[[5, 2**31 - 1, 2], [5, -1, 2], [5, 0, 2], [5, 3, 2], [5, -(2**31), 2]],
        source_lengths=[3] * 5,
    )
    assert all((row == strange["target_ids"][3]).all() for row in strange["target_ids"])
    negative = model.run("ids", source_ids=[[5, 2]], source_lengths=[-7])
    assert negative["target_ids"][0, 0] == EOS
    assert model.run("ids", source_ids=[[5] * 2000], source_lengths=[2000])["score"][0] < 0
    odd = {"token": [-1, 10**9, 3], **model.run("encode", **padded([[5, 6, EOS]] * 3))}
    logits = model.run("step", **odd)["logits"]
    np.testing.assert_allclose(logits, logits[[2] * 3], atol=1e-5)
    # requests that are not as the signatures say
    lengths = next(name for name in odd if name.endswith("_lengths"))
    wrong = [
        lambda: model.run(source="abc"),
        lambda: model.run(source=[["abc"]]),
        lambda: model.run("beam", source="abc"),
        lambda: model.run("score", source=["a", "b"], target=["a"]),
        lambda: model.run("options", source=[["abc"]], **options(1)),
        lambda: model.run("sample", source=[["abc"]], **draws(1)),
        lambda: model.run("ids", source_ids=[5, 2], source_lengths=[2]),
        lambda: model.run("ids", source_ids=[[5, 2]], source_lengths=[2, 2]),
        lambda: model.run("ids", source_ids=[[5, 2]], source_lengths=[[2]]),
        lambda: model.run("step", **(odd | {"token": [1]})),
        lambda: model.run("step", **(odd | {lengths: [[1]] * 3})),
    ]
    if "attend" in model.signatures:
        wrong.append(lambda: model.run("attend", source=[["abc"]]))
        assert all(len(x) == 0 for x in model.run("attend", source=[]).values())
    for name in sequences(model)[1:]:  # of other positions than the first one's
        wrong.append(lambda name=name: model.run("step", **(odd | {name: odd[name][:, :1]})))
    codes = {refused(session, call) for call in wrong}
    assert codes == {"INVALID_ARGUMENT"}, codes
    clamped(model, most)
    hebrew, arabic = "\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627 abc"
    of_two = model.run(source=[hebrew, arabic])["target"].tolist()
    assert model.run(source=[hebrew, arabic] * 128)["target"].tolist() == of_two * 128
    long = [b"a" * 100_000, b"\xff" * 1_000_000, "🙂".encode() * 10_000]
    assert len(model.run(source=long)["target"]) == 3
    assert np.isfinite(model.run("score", source=long, target=long[::-1])["score"]).all()
    return len(wrong)


def sequences(model):
    """Return the names of the tensors of `step` that have a position for each of the source's."""
    inputs = model.signatures["step"].inputs
    return [x for x in inputs if x.startswith("memory_") and len(inputs[x].shape) > 2]


def options(rows, **changed):
    """Return arguments of `options` for so many rows."""
    given = {"beam_size": 2, "length_penalty": 0.5, "max_length": 9} | changed
    return {name: np.full(rows, value) for name, value in given.items()}


def draws(rows, **changed):
    """Return arguments of `sample` for so many rows."""
    given = {"seed": 7, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_length": 9} | changed
    return {name: np.full(rows, value) for name, value in given.items()}


def clamped(model, most):
    """Numbers outside of their range mean the nearest that is inside."""
    words = ["hello", "abc", "cab"]
    widest = model.signatures["beam"].outputs["target"].shape[1]

    def same(name, given, than):
        found, expected = (model.run(name, source=words, **x) for x in (given, than))
        assert found["target"].tolist() == expected["target"].tolist(), (name, given)
        assert close(found["score"], expected["score"]).all()

    for name, given in (("options", options), ("sample", draws)):
        same(name, given(3, max_length=5000), given(3, max_length=most))
        for low in (0, -1, -(2**31)):
            same(name, given(3, max_length=low), given(3, max_length=1))
    same("options", options(3, beam_size=1000), options(3, beam_size=widest))
    for odd, meant in ((-3.0, 0.0), (math.nan, 0.0), (math.inf, 10.0)):
        same("options", options(3, length_penalty=odd), options(3, length_penalty=meant))
    for beam_size in (0, -9):
        same("options", options(3, beam_size=beam_size), options(3, beam_size=1))
    same("sample", draws(3, top_k=-3), draws(3))
    same("sample", draws(3, top_k=2**31 - 1), draws(3))
    same("sample", draws(3, top_p=7.0), draws(3))
    for top_p in (-1.0, 0.0):
        same("sample", draws(3, top_p=top_p), draws(3, top_k=1))
    for temperature in (-1.0, math.nan):
        same("sample", draws(3, temperature=temperature), draws(3, temperature=0.0))
    for seed in (-(2**63), 2**63 - 1):
        drawn = draws(3, seed=seed, temperature=0.0) | {"top_p": np.array([0.5, 1, math.nan])}
        assert len(model.run("sample", source=words, **drawn)["target"]) == 3


def together(model):
    """Neighbours in a batch, padding and threads change nothing; return how many were asked."""
    words = [f"{WORDS[i % 10]}{'abc'[i % 3] * (i % 4)}" for i in range(120)]
    singles = [model.run(source=[word]) for word in words]
    texts = [one["target"][0] for one in singles]
    scores = np.array([one["score"][0] for one in singles])
    batch = model.run(source=words)
    assert close(batch["score"], scores).all()
    assert sum(a != b for a, b in zip(batch["target"], texts, strict=True)) == 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda word: model.run(source=[word])["target"][0], words))
    assert asked == texts
    rows = padded([[5, 6, EOS], [7, EOS]])
    wide = rows | {"source_ids": np.pad(rows["source_ids"], [(0, 0), (0, 50)], constant_values=9)}
    narrow, wider = (model.run("ids", **given) for given in (rows, wide))
    assert all(close(x, wider[name]).all() for name, x in narrow.items())
    return len(words)


def merged(model):
    """Requests that a server merges, padding tensors as it does, are answered as they are alone."""
    parts = [["hello"], ["", "abc"], ["a b c", "x" * 40, "zz"]]
    ids = [[[5, 6, 7, 8, EOS]], [[EOS], [6, EOS]], [[7] * 9 + [EOS], [8, 5, EOS], [EOS]]]
    encoded = [model.run("encode", **padded(rows)) for rows in ids]
    state = [{"token": np.full(len(rows), 5 + i, np.int32)} for i, rows in enumerate(ids)]
    stepped = [token | given for token, given in zip(state, encoded, strict=True)]
    after = [model.run("step", **given) for given in stepped]
    again = [
        given | {name: x for name, x in found.items() if name in given}
        for given, found in zip(stepped, after, strict=True)
    ]
    sources = [{"source": part} for part in parts]
    asked = {
        **{name: sources for name in ("serving_default", "beam", "attend")},
        "options": [given | options(len(given["source"])) for given in sources],
        "sample": [given | draws(len(given["source"])) for given in sources],
        "score": [{"source": part, "target": part[::-1]} for part in parts],
        **{name: [padded(rows) for rows in ids] for name in ("ids", "ids_beam", "encode")},
    }
    asked = {name: given for name, given in asked.items() if name in model.signatures}
    assert {*asked, "step"} == set(model.signatures)
    wide = model.run("step", **as_merged(stepped))  # whose state is as wide as the longest source
    rows = np.split(np.arange(len(wide["logits"])), np.cumsum([len(x) for x in ids])[:-1])
    behind = [
        given | {name: x[of] for name, x in wide.items() if name in given}
        for of, given in zip(rows, stepped, strict=True)
    ]
    for one, two in zip(behind, again, strict=True):
        close_to(model.run("step", **one), model.run("step", **two), "step after a merged one")
    requests = list(asked.items())
    for name, given in [*requests, ("step", stepped), ("step", again)]:
        alone = [model.run(name, **request) for request in given]
        whole, begin = model.run(name, **as_merged(given)), 0
        for request, found in zip(given, alone, strict=True):
            rows = len(next(iter(request.values())))
            close_to({key: x[begin : begin + rows] for key, x in whole.items()}, found, name)
            begin += rows
    return len(requests) + 2


def close_to(found, expected, name):
    """Hold tensors to others, which may be narrower."""
    for key, there in expected.items():
        here = found[key][tuple(map(slice, there.shape))]
        if there.dtype.kind in "fc":
            assert np.allclose(here, there, rtol=1e-5, atol=1e-5), (name, key)
        else:
            assert (here == there).all(), (name, key)


def as_merged(requests):
    """Join tensors of several requests, each padded by its first element to the largest.

    A server refuses all of them if one has rows of nothing, which cannot be padded so.
    """
    joined = {}
    for name in requests[0]:
        arrays = [np.asarray(request[name]) for request in requests]
        assert all(array.size for array in arrays), name
        sizes = np.max([array.shape[1:] for array in arrays], axis=0).astype(int)
        joined[name] = np.concatenate(
            [
                np.pad(
                    array,
                    [(0, 0), *((0, m - n) for m, n in zip(sizes, array.shape[1:], strict=True))],
                    constant_values=array.flat[0],
                )
                for array in arrays
            ]
        )
    return joined


def main():
    session = loaded(sys.argv[1])
    path = Path(sys.argv[2])
    libraries = session.tf_text_libraries() if "--tf-text" in sys.argv else ()
    with session.Session(str(path), libraries) as model:
        found = golden(model, path)
        found["warm-up"] = replayed(session, model, path)
        found["refused"] = edges(session, model)
        found["together"] = together(model)
        found["merged"] = merged(model)
        found["sequences"] = len(sequences(model))
    assert not forbidden(), forbidden()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
