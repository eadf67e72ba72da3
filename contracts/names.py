"""What a model may be called: its folder, and so its model in Triton, a part of addresses and of MLflow's names."""

import re

# Triton 2.51 ends at a blank or a `!` in a model's folder; a `/` or `..` would lead out of the repository.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RULE = "letters, digits, _ . and -, the first a letter or a digit"


def is_model_name(name: object) -> bool:
    """Tell whether a model may be called that."""
    return isinstance(name, str) and MODEL_NAME.fullmatch(name) is not None
