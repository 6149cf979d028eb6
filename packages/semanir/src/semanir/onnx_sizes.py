# SPDX-License-Identifier: Apache-2.0
"""Any height and width for an ONNX graph that takes multiples of a grid."""

from __future__ import annotations

from typing import Any

_INSIDE_IN, _INSIDE_OUT = "image_on_grid", "restored_on_grid"


def allow_any_size(model: Any, grid: int, upscale: int) -> Any:
    """Put nodes around a graph that extend the image to multiples of the grid, and cut the result.

    The image is extended as :func:`semanir.functional.pad_to_multiple` does: mirrored as far as it reaches,
    then its last row or column repeated. torch's exporter cannot do it itself: it would have to prove, for
    every size, that the padded one is a multiple.

    Args:
        model: ONNX model (``onnx.ModelProto``) of one input and one output, ``(1, C, H, W)``.
        grid: Pixels.
        upscale: Output over input side.

    Returns:
        The model; input and output keep their names.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    (given,), (result,) = graph.input, graph.output
    image, restored = given.name, result.name
    for node in graph.node:
        node.input[:] = [_INSIDE_IN if name == image else name for name in node.input]
        node.output[:] = [_INSIDE_OUT if name == restored else name for name in node.output]
    constants = {"zero": 0, "one": 1, "grid": grid, "upscale": upscale, "axis_2": 2, "axis_3": 3}
    graph.initializer.extend(
        helper.make_tensor(f"size_{name}", TensorProto.INT64, [1], [value])
        for name, value in constants.items()
    )
    scalars = {"zero_scalar": 0, "one_scalar": 1}
    graph.initializer.extend(
        helper.make_tensor(f"size_{name}", TensorProto.INT64, [], [value]) for name, value in scalars.items()
    )
    before = [helper.make_node("Shape", [image], ["size_all"])]
    name = image
    for axis in (2, 3):
        nodes, name = _extend(name, axis, _INSIDE_IN if axis == 3 else f"size_{axis}_extended")
        before += nodes
    after: list[Any] = [
        helper.make_node("Concat", ["size_2_side", "size_3_side"], ["size_sides"], axis=0),
        helper.make_node("Mul", ["size_sides", "size_upscale"], ["size_ends"]),
        helper.make_node("Concat", ["size_zero", "size_zero"], ["size_starts"], axis=0),
        helper.make_node("Concat", ["size_axis_2", "size_axis_3"], ["size_axes"], axis=0),
        helper.make_node("Slice", [_INSIDE_OUT, "size_starts", "size_ends", "size_axes"], [restored]),
    ]
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *own, *after])
    for value, names in ((given, ("height", "width")), (result, ("restored_height", "restored_width"))):
        for axis, name in zip((2, 3), names, strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    return model


def _extend(source: str, axis: int, target: str) -> tuple[list[Any], str]:
    """Return nodes that extend one axis: pixel ``p`` of the result is ``max(0, s - 1 - |p - (s - 1)|)``."""
    from onnx import helper

    def at(name: str) -> str:
        return f"size_{axis}_{name}"

    nodes = [
        helper.make_node("Gather", ["size_all", f"size_axis_{axis}"], [at("side")], axis=0),
        helper.make_node("Add", [at("side"), "size_grid"], [at("more")]),
        helper.make_node("Sub", [at("more"), "size_one"], [at("most")]),
        helper.make_node("Div", [at("most"), "size_grid"], [at("grids")]),
        helper.make_node("Mul", [at("grids"), "size_grid"], [at("padded")]),
        helper.make_node("Squeeze", [at("padded"), "size_zero"], [at("padded_scalar")]),
        helper.make_node(
            "Range", ["size_zero_scalar", at("padded_scalar"), "size_one_scalar"], [at("position")]
        ),
        helper.make_node("Sub", [at("side"), "size_one"], [at("last")]),
        helper.make_node("Sub", [at("position"), at("last")], [at("beyond")]),
        helper.make_node("Abs", [at("beyond")], [at("distance")]),
        helper.make_node("Sub", [at("last"), at("distance")], [at("mirrored")]),
        helper.make_node("Max", [at("mirrored"), "size_zero"], [at("index")]),
        helper.make_node("Gather", [source, at("index")], [target], axis=axis),
    ]
    return nodes, target
