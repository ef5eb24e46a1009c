"""Layers of neural networks (``NeuralNetwork.proto``) as MIL operations, by family.

Each family has a ``TABLE``: name of the layer's field in ``NeuralNetworkLayer`` -> a function
that writes the operations of one such layer. What the layers compute is specified in the
comments of https://github.com/apple/coremltools/blob/9.0/mlmodel/format/NeuralNetwork.proto
"""

from collections.abc import Mapping

from fluxvae.mil.layers import elementwise, linear, rank5, recurrent, reduce, shape, spatial
from fluxvae.mil.layers.graph import Graph, Layer, Translate

TRANSLATORS: Mapping[str, Translate] = {
    **elementwise.TABLE,
    **linear.TABLE,
    **rank5.TABLE,
    **recurrent.TABLE,
    **reduce.TABLE,
    **shape.TABLE,
    **spatial.TABLE,
}

__all__ = ["TRANSLATORS", "Graph", "Layer"]
