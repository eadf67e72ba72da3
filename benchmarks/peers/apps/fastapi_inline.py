"""FastAPI by hand: the graph runs in the event loop itself, in as many processes as uvicorn has workers."""

from fastapi import FastAPI, Request, Response
from work import Work  # type: ignore[import-not-found]  # beside it, where it runs

work = Work.of_environment()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Answer in the loop: while one request computes, its process does nothing else."""
    return Response(work.one(await request.body()), media_type=work.media_type)
