"""Run an exported model in a process without TensorFlow's Python, Keras and this package.

python run_export.py SESSION_FILE MODEL [--tf-text] < requests > answers: JSON lines, each
{"signature": name, "source": [base64, ...], number: [...]} -> {output: nested lists, strings as
base64}.
"""

import base64
import importlib.util
import json
import sys

import numpy as np


def plain(array):
    if array.dtype == object:
        array = np.vectorize(lambda b: base64.b64encode(b).decode(), otypes=[object])(array)
    return array.tolist()


KINDS = {"seed": "int64", "top_p": "float32", "temperature": "float32", "length_penalty": "float32"}
KINDS |= dict.fromkeys(("beam_size", "max_length", "top_k"), "int32")


def given(name, values):
    if name in ("source", "target"):
        return np.array([base64.b64decode(s) for s in values], dtype=object)
    return np.array(values, KINDS[name])


def loaded(file):
    """Return the module of a session's file, which stands alone."""
    spec = importlib.util.spec_from_file_location("session", file)
    session = importlib.util.module_from_spec(spec)
    sys.modules["session"] = session
    spec.loader.exec_module(session)
    return session


def forbidden():
    """Return what should not have been imported."""
    return {"tensorflow", "tensorflow_text", "keras", "keras_attn"} & {
        name.split(".")[0] for name in sys.modules
    }


def main():
    session = loaded(sys.argv[1])
    libraries = session.tf_text_libraries() if "--tf-text" in sys.argv else ()
    with session.Session(sys.argv[2], libraries) as model:
        for line in sys.stdin:
            request = json.loads(line)
            name = request.pop("signature")
            answer = model.run(name, **{key: given(key, x) for key, x in request.items()})
            print(json.dumps({key: plain(value) for key, value in answer.items()}), flush=True)
        described = {
            name: {
                side: {k: [t.dtype, t.shape] for k, t in getattr(signature, side).items()}
                for side in ("inputs", "outputs")
            }
            for name, signature in model.signatures.items()
        }
        print(json.dumps(described))
    assert not forbidden(), forbidden()


if __name__ == "__main__":
    main()
