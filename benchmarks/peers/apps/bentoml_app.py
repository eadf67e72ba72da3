# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, attr-defined"
# What it imports is in an environment of its own.
"""BentoML: a batchable API, which puts the lists of several requests together.

https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html
A batchable API takes lists in JSON, so bytes travel in base64; answers are strings, as no list of numbers is cheaper.
"""

import base64

import bentoml
from work import BINARY, Work, settings

SETTINGS = settings()


@bentoml.service(workers=SETTINGS["workers"], logging={"access": {"enabled": False}}, traffic={"timeout": 30})
class Task:
    """The task behind BentoML's adaptive batching."""

    def __init__(self) -> None:
        """Load the task in a worker."""
        self.work = Work.of_environment()

    @bentoml.api(
        route="/predict",
        batchable=SETTINGS["batchable"],
        max_batch_size=SETTINGS["max_batch_size"],
        max_latency_ms=SETTINGS["max_latency_ms"],
    )
    def predict(self, bodies: list[str]) -> list[str]:
        """Answer the bodies of one request, or of several."""
        answers = self.work.many([base64.b64decode(body) for body in bodies])
        if self.work.media_type == BINARY:
            answers = [base64.b64encode(answer) for answer in answers]
        return [answer.decode() for answer in answers]
