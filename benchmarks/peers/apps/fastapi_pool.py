"""FastAPI as its documentation has it for work that blocks: a plain `def`, which runs in a pool of threads.

https://fastapi.tiangolo.com/async/#path-operation-functions
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio.to_thread
from fastapi import Body, FastAPI, Response
from work import BINARY, Work, settings  # type: ignore[import-not-found]  # beside it, where it runs

work = Work.of_environment()


@asynccontextmanager
async def _pool(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings().get("pool", 40)
    yield


app = FastAPI(lifespan=_pool)


@app.post("/predict")
def predict(body: Annotated[bytes, Body(media_type=BINARY)]) -> Response:
    """Answer in a thread of the pool."""
    return Response(work.one(body), media_type=work.media_type)
