"""Request to prediction: `python -m clients classify PATH…`, and a small typed library.

from clients import Classifier

with Classifier("127.0.0.1:8001") as classifier:
    print(classifier.classify(Path("shoe.png").read_bytes()).label)
"""

from clients.classifier import Classifier, Prediction
from clients.errors import ClientError, InferenceError, InvalidInputError, ServerUnavailableError

__all__ = [
    "Classifier",
    "ClientError",
    "InferenceError",
    "InvalidInputError",
    "Prediction",
    "ServerUnavailableError",
]
