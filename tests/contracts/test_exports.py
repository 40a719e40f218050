"""Every architecture, exported and run through the C API alone, answers as it does here."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import small_models
from apart import SESSION, check

from keras_attn import text, zoo
from keras_attn.serving import inspection

RUN = Path(__file__).parent.parent / "run_export.py"
OF_IDS = {"ids", "ids_beam", "encode", "step"}


def sources():
    """Return 200 strings: words, and all that could go wrong."""
    rng = random.Random(0)
    alphabet = "abcdefghijklmnopqrstuvwxyz üïøé"
    odd = [
        "",
        " ",
        "\n",
        "\0",
        "a\0b",
        "🙂",
        "👩‍👩‍👧",
        "e\u0301",
        "\ufeffabc",
        "ЖЖЖ",
        "</s>",
        "<pad><s>",
        "<unk>",
        "x" * 11,
        "x" * 12,
        "x" * 10_000,
        "a" * 10_000,
        b"\xff\xfe",
        b"abc\x80",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x99",
    ]
    words = ["".join(rng.choices(alphabet, k=rng.randrange(1, 16))) for _ in range(200 - len(odd))]
    return odd + words


def run(path, requests, *flags):
    """Return the answers, and the signatures, of an export in a process of its own."""
    lines = [
        json.dumps({"signature": name, "source": encoded(batch), **dict(*others)})
        for name, batch, *others in requests
    ]
    done = subprocess.run(
        [sys.executable, str(RUN), str(SESSION), str(path), *flags],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *answers, signatures = map(json.loads, done.stdout.splitlines())
    return answers, signatures


def encoded(batch):
    return [base64.b64encode(b).decode() for b in batch]


def decoded(texts):
    return [base64.b64decode(text).decode("utf-8", "replace") for text in texts]


def close_call(model, source, other):
    """Return the gap between the two best logits where another target parts from the model's."""
    ids = model.search([source]).token_ids[0, 0]
    others = [*model.codec.target_ids([other], [source]).to_list()[0], 2]
    rows = [*model.codec.source_ids([source]).to_list()[0][: model.max_source - 1], 2]
    memory, state = model.encode(np.array([rows], np.int32))
    previous = np.array([1])
    for step, token in enumerate(ids):
        logits, _, state = model.step(previous, state, memory)
        if token != others[step]:
            best = np.sort(np.array(logits)[0, 2:])
            return best[-1] - best[-2]
        previous = np.array([token])
    raise AssertionError(f"{other!r} is what the model says, or goes on behind that")


@pytest.mark.parametrize("name", small_models.EXPORTED)
def test_export_equals_generate(name, tmp_path):
    model = small_models.talkative(name)
    path = tmp_path / "a model" / "1"
    model.export(path, beam_size=3, verbose=False)
    strings = sources()
    with pytest.warns(UserWarning, match="sources were longer than"):
        texts, found = model.generate(strings), model.search(strings)
    batch = [s if isinstance(s, bytes) else s.encode() for s in strings]
    requests = [("serving_default", batch), ("serving_default", []), ("serving_default", batch[:1])]
    requests += searches(batch, texts)
    if model.decoder.attends:
        requests.append(("attend", batch))
    answers, signatures = run(path, requests)

    said = decoded(answers[0]["target"])
    differing = [i for i, text in enumerate(said) if text != texts[i]]
    assert all(close_call(model, strings[i], said[i]) < 1e-4 for i in differing), differing
    same = np.setdiff1d(np.arange(200), differing)
    scores = np.array(answers[0]["score"])
    allowed = 1e-5 * np.maximum(1, np.abs(found.scores[:, 0]))
    assert (np.abs(scores - found.scores[:, 0]) <= allowed)[same].all()
    assert len(differing) <= 2, "near ties are rare"
    assert answers[1] == {"target": [], "score": []}
    assert answers[2]["target"] == answers[0]["target"][:1]
    assert len(set(texts)) > 20  # the model says different things

    answer = {"target": ["string", [-1]], "score": ["float32", [-1]]}
    assert signatures["serving_default"] == {
        "inputs": {"source": ["string", [-1]]},
        "outputs": answer,
    }
    assert set(signatures) == {request[0] for request in requests} | OF_IDS
    check(path, set(signatures))
    check_kernels(path)
    check_searches(model, strings, texts, answers[3:11])
    if model.decoder.attends:
        check_attend(model, answers[11], signatures["attend"], found, same, batch)


# What has no kernel on GPUs: of strings, of tables and of ragged tensors, and the shapes of those.
TEXT_OPS = set(
    "DenseBincount ExpandDims Fill GatherV2 HashTableV2 LookupTableFindV2 RaggedGather RaggedRange "
    "RaggedTensorToTensor ReduceJoin Reshape SelectV2 StaticRegexReplace StringJoin StringLower "
    "StringSplitV2 AsString Tile UnicodeDecode UnicodeEncode UnicodeTranscode Unique ConcatV2 "
    "Equal Pad PadV2 UnsortedSegmentJoin".split()
)

SUBWORD_OPS = TEXT_OPS | set(
    "Add FastWordpieceTokenizeWithOffsets NormalizeUTF8 SentencepieceOp SentencepieceTokenizeOp "
    "StringLength Substr".split()
)
FOLDING_OPS = TEXT_OPS | {"CaseFoldUTF8"}


# What int32 does in loops, in host memory: sizes and counters, as tokens and scores are none.
OF_SIZES = set(
    "AddV2 BroadcastTo ConcatV2 Equal ExpandDims FloorDiv GreaterEqual Identity Less Maximum "
    "Minimum Mul Pack Range Reshape Shape StridedSlice Sub Unpack".split()
)


def check_kernels(path, text_ops=TEXT_OPS, kernels=frozenset()):
    """Hold what a GPU would run to: all of ids, no loop on the CPU, nothing pinned."""
    found = inspection.inspect(path)
    assert not found.pinned
    known = {inspection.GPU, inspection.HOST, inspection.CPU}
    for name, counted in found.operations.items():
        kinds = {(op.kind, op.looped) for op in counted}
        assert {kind for kind, _ in kinds} <= known | kernels, name
        assert (inspection.CPU, True) not in kinds, name
        on_cpu = {op.op for op in counted if op.kind == inspection.CPU}
        assert on_cpu <= (set() if name in OF_IDS else text_ops), (name, on_cpu)
        looped = {op.op for op in counted if op.kind == inspection.HOST and op.looped}
        assert looped <= OF_SIZES, (name, looped - OF_SIZES)


SOME = slice(0, 60)  # of the strings, all that could go wrong and some words
BEAMS = {"beam_size": [1, 2, 3, 99, -1, 3] * 10, "max_length": [9, 3, 99, 5, -7, 9] * 10}
PENALTY = {"length_penalty": [0.0, 0.5, 2.0, -1.0, 0.0, 0.6] * 10}
DRAWS = {
    "seed": list(range(-30, 30)),
    "temperature": [0.5, 1.0, 2.0] * 20,
    "top_k": [0, 3, 0, 2, 0, -1] * 10,
    "top_p": [1.0, 1.0, 0.9, 1.0, 0.5, 1.0] * 10,
    "max_length": BEAMS["max_length"],
}


def searches(batch, texts):
    """Return requests to the signatures that search, of strings and of none."""
    targets = encoded(text.encode() for text in texts[SOME])
    inputs = {"beam": {}, "options": BEAMS | PENALTY, "sample": DRAWS, "score": {"target": targets}}
    return [
        (name, batch[rows], {key: values[rows] for key, values in given.items()})
        for rows in (SOME, slice(0, 0))
        for name, given in inputs.items()
    ]


def close(found, expected):
    """Whether scores are equal, up to rounding."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    return np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected))


def check_searches(model, strings, texts, answers):
    """Hold what the signatures say to what the model itself says."""
    beam, options, sample, score = answers[:4]
    strings, count = strings[SOME], len(strings[SOME])
    lengths = np.clip(BEAMS["max_length"], 1, model.max_target)
    beams = {
        "beam_size": np.clip(BEAMS["beam_size"], 1, 3),
        "length_penalty": np.maximum(PENALTY["length_penalty"], 0),
        "max_length": lengths,
    }
    draws = DRAWS | {
        "max_length": lengths,
        "top_k": np.where(np.array(DRAWS["top_k"]) > 0, DRAWS["top_k"], 999),
    }
    with pytest.warns(UserWarning, match="longer than"):
        found = model.search(strings, beam_size=3)
        expected = {
            "options": (*model.generate(strings, **beams, return_scores=True), options),
            "sample": (*model.generate(strings, **draws, return_scores=True), sample),
        }
        several = model.generate(strings, beam_size=3, num_return=3)
        scores = model.score(strings, texts[SOME])
    for name, (here, scored, there) in expected.items():
        same = np.array(here) == np.array(decoded(there["target"]))
        assert same.sum() >= count - (name == "options"), (name, "near ties are rare")
        assert close(there["score"], scored)[same].all(), name
        check_ties(np.array(scored)[~same], np.array(there["score"])[~same])
    assert np.shape(beam["score"]) == (count, 3)
    there = np.isfinite(found.scores)
    assert (np.isfinite(beam["score"]) == there).all()
    several = [[*found, "", "", ""][:3] for found in several]  # as many as there are
    same = np.array(several) == np.array([decoded(row) for row in beam["target"]])
    assert same[:, 0].sum() >= count - 1 and same.mean() > 0.98, "near ties are rare"
    assert close(np.array(beam["score"])[there & same], found.scores[there & same]).all()
    check_ties(found.scores[there & ~same], np.array(beam["score"])[there & ~same])
    assert close(score["score"], scores).all()
    nothing = {"target": [], "score": []}
    assert answers[4:] == [nothing, nothing, nothing, {"score": []}]


def check_ties(expected, found):
    """Where the best targets differ, they are as good as each other."""
    assert (np.abs(found - expected) < 1e-4).all(), (found, expected)


def check_attend(model, answer, signature, found, same, batch):
    """Look at the tokens and alignments of the `attend` signature."""
    rows, steps, tokens = len(batch), model.max_target, model.max_source
    assert np.shape(answer["alignments"]) == (rows, steps, tokens)
    assert np.shape(answer["source_tokens"]) == (rows, tokens)
    assert np.shape(answer["target_tokens"]) == (rows, steps)
    lengths = found.lengths[:, 0]
    assert (np.array(answer["target_lengths"]) == lengths)[same].all()
    expected = np.zeros((rows, steps, tokens))
    used = found.alignments[:, 0]
    expected[:, : used.shape[1], : used.shape[2]] = used
    np.testing.assert_allclose(np.array(answer["alignments"])[same], expected[same], atol=1e-5)
    i = batch.index(b"a\0b")
    shown = decoded(answer["source_tokens"][i])
    unknown = "\0" if model.decoder.gate.copies else "<unk>"
    assert shown[:5] == ["a", unknown, "b", "</s>", "<pad>"]
    assert signature["outputs"]["target_lengths"] == ["int32", [-1]]
    assert signature["outputs"]["alignments"][0] == "float32"


PHRASES = ["the cat sat", "a dog sat on the mat", "dogs, cats", "ﬁne Straße", "½ naïve"] * 3
TOKENISERS = {
    "unigram": lambda: text.SentencePieceTokenizer.learn(PHRASES, 60, nfkc=True),
    "wordpiece": lambda: text.WordPieceTokenizer.learn(PHRASES, 90, lowercase=True),
    "bpe": lambda: text.SentencePieceTokenizer.learn(PHRASES, 60, kind="bpe"),
    "folded characters": lambda: text.CharacterTokenizer.learn(PHRASES, casefold=True),
}


@pytest.mark.parametrize("kind", small_models.some(TOKENISERS, 1))
def test_subwords_learn_reload_and_export(kind, tmp_path):
    both = TOKENISERS[kind]()
    shared = {"source": both, "target": both, "share_embeddings": True}
    options = {"size": "tiny", "max_target": 12, **small_models.CHEAP}
    model = zoo.build("attention_dot", **shared, **options)
    small_models.randomised(model, scale=0.35)  # more, and float32 errs by more than is allowed
    model.compile("adam", run_eagerly=True)
    model.fit(PHRASES, PHRASES, verbose=0, seed=0)
    strings = [*PHRASES[:5], *sources()[:21], *sources()[30:70]]
    with pytest.warns(UserWarning, match="sources were longer than"):
        texts = model.generate(strings)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="sources were longer than"):
        assert keras.saving.load_model(tmp_path / "model.keras").generate(strings) == texts
    model.export(tmp_path / "1", verbose=False)
    batch = [s if isinstance(s, bytes) else s.encode() for s in strings]
    (answer,), made = run(tmp_path / "1", [("serving_default", batch)], "--tf-text")
    if small_models.EVIDENCE:
        text_ops = FOLDING_OPS if kind == "folded characters" else SUBWORD_OPS
        check_kernels(tmp_path / "1", text_ops)
        check(tmp_path / "1", set(made), "--tf-text")
    said = decoded(answer["target"])
    differing = [i for i, text in enumerate(said) if text != texts[i]]
    assert all(close_call(model, strings[i], said[i]) < 1e-4 for i in differing), differing
    assert len(differing) <= 2 and len(set(texts)) > 10


def several():
    names = ("combined", "attention")
    return zoo.ensemble([small_models.small(name, **small_models.CHEAP) for name in names])


OTHERS = {
    "ensemble": (several, "cpu"),
    "portable": (lambda: small_models.small("attention"), "portable"),
    "gru, portable": (lambda: small_models.small("combined", cell="gru"), "portable"),
}


@pytest.mark.parametrize("what", OTHERS if small_models.EVIDENCE else ["ensemble"])
def test_what_is_no_single_model_on_loops_passes_all_checks(what, tmp_path):
    make, kernel = OTHERS[what]
    path = tmp_path / "letters" / "1"
    make().export(path, rnn_kernel=kernel, verbose=False)
    check(path, set(inspection.inspect(path).operations))
    if small_models.EVIDENCE:
        check_kernels(path, kernels={inspection.GPU_ONLY} if kernel == "portable" else frozenset())
