"""Small ONNX files with the inputs and outputs of the real ones."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hallo3_core.portrait.finders import DETECTOR, RECOGNISER

STRIDES = (8, 16, 32)
SIZE = 640


def save(path: Path, nodes: list, inputs: list, outputs: list, constants=()) -> None:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(constants))
    opset = [helper.make_opsetid("", 13)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def tensor(name: str, *shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def mdx_net(path: Path, bins: int = 3072, frames: int = 256, gain: float = 1.0) -> Path:
    """A network that gives what it is given, times `gain`."""
    shape = ("batch_size", 4, bins, frames)
    factor = numpy_helper.from_array(np.array(gain, np.float32), "gain")
    node = helper.make_node("Mul", ["input", "gain"], ["output"])
    save(path, [node], [tensor("input", *shape)], [tensor("output", *shape)], [factor])
    return path


def antelopev2(folder: Path, faces: list[tuple[int, int, int, float]]) -> Path:
    """The two networks of antelopev2 that are needed.

    The detector always sees `faces` (column and row of an anchor of stride 32 in the 640 x 640
    picture, half the side of the box in strides, score). The other network gives the mean of each
    colour of the aligned face, in the first three of its 512 numbers.
    """
    nodes, outputs, constants = [], [], []
    # what depends on the picture by nothing, so that the graph has its input
    nodes.append(helper.make_node("ReduceMean", ["input.1"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "none"], ["nothing"]))
    constants.append(numpy_helper.from_array(np.array(0, np.float32), "none"))
    for kind, width in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in STRIDES:
            cells = SIZE // stride
            values = np.zeros((cells * cells * 2, width), np.float32)
            for column, row, half, score in faces if stride == 32 else ():
                spots = [(-0.5, -0.4), (0.5, -0.4), (0, 0.1), (-0.4, 0.5), (0.4, 0.5)]
                landmarks = [half * step for spot in spots for step in spot]
                content = {"score": [score], "bbox": [half] * 4, "kps": landmarks}
                values[(row * cells + column) * 2] = content[kind]
            name = f"{kind}_{stride}"
            constants.append(numpy_helper.from_array(values, f"{name}_values"))
            nodes.append(helper.make_node("Add", [f"{name}_values", "nothing"], [name]))
            outputs.append(tensor(name, len(values), width))
    save(folder / DETECTOR, nodes, [tensor("input.1", 1, 3, "?", "?")], outputs, constants)

    pads = numpy_helper.from_array(np.array([0, 0, 0, 509], np.int64), "pads")
    nodes = [
        helper.make_node("ReduceMean", ["input.1"], ["colours"], axes=[2, 3], keepdims=0),
        helper.make_node("Pad", ["colours", "pads"], ["1333"]),
    ]
    given = [tensor("input.1", "None", 3, 112, 112)]
    save(folder / RECOGNISER, nodes, given, [tensor("1333", "None", 512)], [pads])
    return folder
