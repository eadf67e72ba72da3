"""The proofs a variant must pass before anybody is served by it.

Each gate compares the variant with the checkpoint on the same held-out inputs.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.manifest import Gate
from contracts.spec import Limits

Logits = NDArray[np.floating[Any]]  # [N, classes]
Labels = NDArray[np.int64]  # [N]


def accuracy(logits: Logits, labels: Labels) -> float:
    """Share of inputs whose largest logit is the label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def prove(logits: Logits, reference: Logits, labels: Labels, limits: Limits) -> tuple[Gate, ...]:
    """Compare a variant's logits with the checkpoint's, image by image."""
    finite = np.isfinite(logits)
    drop = (accuracy(reference, labels) - accuracy(logits, labels)) * 100
    agreement = float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())
    difference = float(np.abs(logits - reference)[finite].max(initial=0.0))
    return (
        Gate("accuracy drop, points", round(drop, 6), limits.accuracy_drop_points, "at most"),
        Gate("top-1 agreement", agreement, limits.agreement, "at least"),
        Gate("largest logit difference", difference, limits.logit_difference, "at most"),
        Gate("inf or nan logits", float((~finite).sum()), 0, "at most"),
    )
