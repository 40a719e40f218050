"""The page beside an exported model names all that it answers, and how it is served."""

import json
import re
from pathlib import Path

from keras_attn.serving import readme

PATH = Path("/models/my model/7")

SIDES = {
    "inputs": {"source": ["string", [-1]]},
    "outputs": {"target": ["string", [-1, 4]], "alignments": ["float32", [-1, 7, -1]]},
}
DESCRIBED = {
    "name": "my_model",
    "made_with": {"keras_attn": "9.9"},
    "max_source": 31,
    "max_target": 7,
    "beam_size": 4,
    "needs_tf_text": False,
    "rnn_kernel": "cpu",
    "lowest_tensorflow": "2.99",
    "special_ids": {"<pad>": 0, "</s>": 2},
    "copies": False,
    "vocabularies": {"source": {"size": 30}, "target": {"size": 20}},
    "signatures": {"beam": SIDES},
}


def test_it_says_what_is_answered_and_how_to_serve():
    page = readme.readme(DESCRIBED, PATH)
    assert "target=/models/my_model" in page and '"$PWD/my model"' in page
    row = (
        "| `beam` | `source` string [B] | `target` string [B, 4], `alignments` float32 [B, 7, S] |"
    )
    assert row in page
    assert "`beam` the 4 best" in page and "cut at 31 tokens" in page and "end at 7" in page
    assert "--batching_parameters_file=/models/my_model/batching.config" in page
    unknown = readme.readme(DESCRIBED | {"lowest_tensorflow": None}, PATH)
    assert "has not been looked for" in unknown and "None" not in unknown
    assert "2.99" in page and "core operations alone" in page and "`attend`" not in page
    asked = re.findall(r"curl -d '(.*?)'", page, re.DOTALL)
    assert [list(json.loads(body)) for body in asked] == [
        ["instances"],
        ["signature_name", "instances"],
    ]
    assert not set("{}") & set(re.sub(r"curl -d '.*?'", "", page, flags=re.DOTALL))
    assert "`max_length` from 1 to 7" in page and "`beam_size` from 1 to 4" in page


def test_it_says_what_else_there_is():
    signatures = {"attend": SIDES, "beam": SIDES}
    page = readme.readme(DESCRIBED | {"needs_tf_text": True, "signatures": signatures}, PATH)
    assert "run on every device" in page
    for kind, says in {"portable": "a loop\nelsewhere", "cudnn": "runs on GPUs alone"}.items():
        assert says in readme.readme(DESCRIBED | {"rnn_kernel": kind}, PATH)
    assert "tensorflow-text's operations" in page and "- `attend` shows" in page


def test_it_says_that_a_server_takes_numbers():
    page = readme.readme(DESCRIBED, Path("/models/mine"))
    assert "move it to `mine/1` first" in page and "holds this version" not in page


def test_it_says_what_copies_are():
    logits = {"logits": ["float32", [-1, -1]], "state": ["float32", [-1, -1]]}
    step = {"step": {"inputs": {"state": logits["state"]}, "outputs": logits}}
    page = readme.readme(DESCRIBED | {"copies": True, "signatures": step}, PATH)
    assert "with V = 20" in page and "with Vs = 30" in page
    assert "`logits` float32 [B, V + S], `state` float32 [B, S]" in page
