"""BERT as its paper has it, in numpy, one text at a time and with BERT's own names: what `minilm` is held against.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805; the mean over the tokens and the unit length are of Reimers and
Gurevych 2019. Nothing here is padded, so nothing can leak in from what is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, softmax

WIDTH, HEADS, VOCABULARY, POSITIONS = 384, 12, 30_522, 512

Weights = Mapping[str, NDArray[np.float32]]


def random_weights(layers: int, wider: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights by the names that they have in a model.safetensors of BERT's."""
    chance = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings": (VOCABULARY, WIDTH),
        "embeddings.position_embeddings": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings": (2, WIDTH),
        "pooler.dense": (WIDTH, WIDTH),
    }
    linear = {"attention.self.query": (WIDTH, WIDTH), "attention.self.key": (WIDTH, WIDTH)}
    linear |= {"attention.self.value": (WIDTH, WIDTH), "attention.output.dense": (WIDTH, WIDTH)}
    linear |= {"intermediate.dense": (wider, WIDTH), "output.dense": (WIDTH, wider)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(layers):
        shapes |= {f"encoder.layer.{layer}.{name}": shape for name, shape in linear.items()}
        norms += [f"encoder.layer.{layer}.{name}.LayerNorm" for name in ("attention.output", "output")]
    found = {f"{name}.weight": chance.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    of_linear = [name for name in shapes if ".layer." in name or name.startswith("pooler")]
    found |= {f"{name}.bias": chance.normal(0, 0.05, shapes[name][0]).astype(np.float32) for name in of_linear}
    found |= {f"{name}.weight": chance.normal(1, 0.1, WIDTH).astype(np.float32) for name in norms}
    found |= {f"{name}.bias": chance.normal(0, 0.1, WIDTH).astype(np.float32) for name in norms}
    return found


def embed(weights: Weights, tokens: Sequence[int]) -> NDArray[np.float64]:
    """The unit vector [384] of one text."""

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    tables = (f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type"))
    words, positions, segments = (weights[name].astype(np.float64) for name in tables)
    x = norm(words[list(tokens)] + positions[: len(tokens)] + segments[0], "embeddings.LayerNorm")
    layers = sum(name.endswith("intermediate.dense.weight") for name in weights)
    for layer in (f"encoder.layer.{number}" for number in range(layers)):
        query, key, value = (
            linear(x, f"{layer}.attention.self.{name}").reshape(len(x), HEADS, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        seen = softmax(query @ key.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS), axis=-1) @ value
        seen = linear(seen.transpose(1, 0, 2).reshape(len(x), WIDTH), f"{layer}.attention.output.dense")
        x = norm(x + seen, f"{layer}.attention.output.LayerNorm")
        wide = linear(x, f"{layer}.intermediate.dense")
        wide = wide * 0.5 * (1 + erf(wide / np.sqrt(2)))  # GELU
        x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(axis=0)
    unit: NDArray[np.float64] = mean / np.linalg.norm(mean)
    return unit
