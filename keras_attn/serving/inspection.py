"""Inspection: what an exported model is, and which of its operations a GPU has kernels for.

TensorFlow's wheel registers its GPU kernels on every machine, so the registry tells without a GPU
which operation of which dtypes has one, and whether that computes in host memory all the same, as
most of int32 do. It is asked through the C API.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tensorflow.core.framework import kernel_def_pb2, op_def_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from keras_attn.serving import session

GPU, HOST, CPU, GPU_ONLY, UNKNOWN = "gpu", "gpu in host memory", "cpu only", "gpu only", "unknown"
KINDS = (GPU, HOST, CPU, GPU_ONLY, UNKNOWN)
# What the executor runs itself, or replaces: its place is that of what it stands for.
NO_KERNEL = {"Placeholder", "PlaceholderWithDefault", "_Arg", "_Retval", "Const"}
LOOPS = {"While": ("body", "cond"), "StatelessWhile": ("body", "cond")}


class Operation(NamedTuple):
    """Nodes of a signature that are alike.

    Attributes:
        op: String, such as "MatMul".
        dtypes: Tuple of strings, the dtypes of its attributes in the order of their names.
        kind: GPU (computes there), HOST (a GPU kernel that computes in host memory), CPU (there is
            no GPU kernel), GPU_ONLY (there is no other), or UNKNOWN (no such operation here).
        looped: Whether it is in a loop.
    """

    op: str
    dtypes: tuple[str, ...]
    kind: str
    looped: bool


class Inspection(NamedTuple):
    """What is known of an exported model.

    Attributes:
        about: Dict, what `keras_attn.json` says, empty where it is not there.
        tensorflow: String, the version that wrote the graph.
        files: Dict from a file's path in the folder to its bytes.
        weights: Dict from a variable's name to its dtype and shape.
        operations: Dict from a signature to a `Counter` of its `Operation`s.
        pinned: Names of nodes with a device of their own.
    """

    about: dict[str, Any]
    tensorflow: str
    files: dict[str, int]
    weights: dict[str, tuple[str, tuple[int, ...]]]
    operations: dict[str, Counter[Operation]]
    pinned: list[str]


def inspect(path: Any) -> Inspection:
    """Look at an exported model, without running it.

    Args:
        path: The folder that holds `saved_model.pb`.

    Raises:
        FileNotFoundError: there is no SavedModel.
    """
    folder = Path(path)
    if not (folder / "saved_model.pb").is_file():
        raise FileNotFoundError(f"path: there is no saved_model.pb in {str(path)!r}.")
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0]
    about = folder / "assets.extra" / "keras_attn.json"
    every = (
        *graph.graph_def.node,
        *(n for f in graph.graph_def.library.function for n in f.node_def),
    )
    return Inspection(
        about=json.loads(about.read_text("utf-8")) if about.exists() else {},
        tensorflow=graph.meta_info_def.tensorflow_version,
        files={
            str(file.relative_to(folder)): file.stat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
        weights={
            node.attr["shared_name"].s.decode(): _variable(node)
            for node in graph.graph_def.node
            if node.op == "VarHandleOp"
        },
        operations={
            name: Counter(operations(graph, name))
            for name in sorted(graph.signature_def)
            if name != "__saved_model_init_op"
        },
        pinned=[node.name for node in every if node.device],
    )


def lines(found: Inspection, places: dict[str, Any] | None = None) -> Iterator[str]:
    """Yield an inspection as text.

    Args:
        found: From `inspect`.
        places: From `placement.placed`, if it was asked.
    """
    about = found.about
    if about:
        made = ", ".join(f"{name} {version}" for name, version in about["made_with"].items())
        yield f"{about['name']}: {about['kind']}, RNN kernel {about['rnn_kernel']}; {made}"
        if about["needs_tf_text"]:
            yield "needs tensorflow-text's operations"
    sizes = [math.prod(shape) for _, shape in found.weights.values()]
    yield f"graph: TensorFlow {found.tensorflow}, {len(sizes)} variables, {sum(sizes):,} weights"
    for name, (dtype, shape) in found.weights.items():
        yield f"  {dtype}{list(shape)} {name}"
    yield f"files: {sum(found.files.values()):,} bytes"
    yield from (f"  {size:>12,} {name}" for name, size in found.files.items())
    if found.pinned:
        yield f"pinned to a device: {', '.join(found.pinned)}"
    for name, counted in found.operations.items():
        yield f"{name}: {_signature(about, name)}"
        yield "  nodes: " + ", ".join(f"{total(counted, kind)} {kind}" for kind in KINDS)
        for kind in (HOST, CPU, GPU_ONLY, UNKNOWN):
            for looped in (True, False):
                alike = {op for op in counted if (op.kind, op.looped) == (kind, looped)}
                if alike and (kind != HOST or looped):
                    where = f"{kind}{', in a loop' * looped}"
                    yield f"  {where}: {' '.join(sorted({op.op for op in alike}))}"
        for device, ops in (places or {}).get(name, {}).items():
            shown = "" if device.startswith("GPU") else f": {' '.join(ops)}"
            yield f"  placed on {device}: {sum(ops.values())}{shown}"


def total(operations: Counter[Operation], kind: str) -> int:
    """Return the number of nodes of a kind."""
    return sum(number for op, number in operations.items() if op.kind == kind)


def _signature(about, name):
    """Return what goes into a signature and what comes out, if that is known."""
    table = about.get("signatures", {}).get(name, {"inputs": {}, "outputs": {}})
    sides = (
        ", ".join(f"{key} {dtype}{shape}" for key, (dtype, shape) in table[side].items())
        for side in ("inputs", "outputs")
    )
    return " → ".join(sides)


def _variable(node):
    shape = tuple(dim.size for dim in node.attr["shape"].shape.dim)
    return _named(node.attr["dtype"].type), shape


def operations(meta_graph, signature: str) -> Iterator[Operation]:
    """Yield the operation of every node that a signature runs, in functions and loops too."""
    for node, looped in _nodes(meta_graph, signature):
        if node.op not in NO_KERNEL:
            types = _types(node)
            dtypes = tuple(_named(t) for _, found in sorted((types or {}).items()) for t in found)
            yield Operation(node.op, dtypes, _kind(node.op, types), looped)


def _nodes(meta_graph, signature: str):
    """Yield (node, looped) of all that the outputs of a signature need."""
    functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    outputs = meta_graph.signature_def[signature].outputs.values()
    todo, needed, seen = [info.name for info in outputs], set(), set()

    def visited(node, looped):
        called = [(node.op, looped)] if node.op in functions else []
        if node.op not in functions:
            yield node, looped
        for name, value in node.attr.items():
            within = looped or name in LOOPS.get(node.op, ())
            for function in (value.func, *value.list.func):
                called.append((function.name, within))
        for key in called:
            if key[0] in functions and key not in seen:
                seen.add(key)
                for inner in functions[key[0]].node_def:
                    yield from visited(inner, key[1])

    while todo:
        name = todo.pop().lstrip("^").split(":")[0]
        if name in nodes and name not in needed:
            needed.add(name)
            todo += nodes[name].input
            yield from visited(nodes[name], looped=False)


def _types(node) -> dict[str, list[int]] | None:
    """Return the dtypes of a node by attribute, defaults included; None for an unknown op."""
    definition = _definition(node.op)
    if definition is None:
        return None
    found = {}
    for attr in definition.attr:
        value = node.attr[attr.name] if attr.name in node.attr else attr.default_value
        if attr.type == "type":
            found[attr.name] = [value.type]
        elif attr.type == "list(type)":
            found[attr.name] = list(value.list.type)
    return found


def _kind(op: str, types: dict[str, list[int]] | None) -> str:
    """Return the kind of an operation of these dtypes, see `Operation`."""
    if types is None:
        return UNKNOWN
    kernels = [kernel for kernel in _kernels(op) if _fits(kernel, types)]
    on_gpu = [kernel for kernel in kernels if kernel.device_type in ("GPU", "DEFAULT")]
    on_cpu = [kernel for kernel in kernels if kernel.device_type in ("CPU", "DEFAULT")]
    if not on_gpu:
        return CPU
    if not on_cpu:
        return GPU_ONLY
    outputs = {output.name for output in _definition(op).output_arg}
    at_host = outputs and all(outputs <= set(kernel.host_memory_arg) for kernel in on_gpu)
    return HOST if at_host else GPU


def _fits(kernel, types) -> bool:
    """Return whether a kernel takes these dtypes."""
    return all(
        not constraint.allowed_values.list.type
        or set(types.get(constraint.name, ())) <= set(constraint.allowed_values.list.type)
        for constraint in kernel.constraint
    )


def _named(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


_known: dict[str, Any] = {}


def _definition(op: str) -> Any:
    """Return the definition of an operation, or None; libraries that come later bring more."""
    if op not in _known:
        found = op_def_pb2.OpList.FromString(session.all_ops())
        _known.update({op.name: op for op in found.op})
    return _known.get(op)


_found: dict[str, Any] = {}


def _kernels(op: str):
    """Return the kernels of an operation that this TensorFlow has, on any device."""
    if op not in _found:
        listed = kernel_def_pb2.KernelList.FromString(session.kernels(op))
        _found[op] = list(listed.kernel)
    return _found[op]
