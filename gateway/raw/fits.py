"""Whether a request fits its model: names, types and shapes, and as many bytes as these say."""

from collections.abc import Iterator

from gateway.raw.header import Request, Sent
from gateway.raw.strict import refused
from gateway.triton.models import Model, Tensor

# Bytes of an element. Not BYTES: each of those has four that say how many follow.
SIZES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
MOST_STRINGS = 65_536  # of a tensor: they are counted one by one
_CLASSIFIED = frozenset(("FP32", "FP64", *(name for name in SIZES if "INT" in name)))


def check(request: Request, model: Model) -> int:
    """Compare a request with its model's signature.

    Returns:
        Its rows: the batch, 1 of a model that has none.

    Raises:
        Refusal: 400.
    """
    seen = set()
    for sent in request.inputs:
        described = model.input.get(sent.name)
        if described is None:
            raise refused("an input has a name that the model does not know")
        if sent.name in seen:
            raise refused("an input is there twice")
        seen.add(sent.name)
        _fits(sent, described, model.max_batch_size)
    if any(tensor.name not in seen and not tensor.optional for tensor in model.inputs):
        raise refused("an input of the model is missing")
    _outputs(request, model)
    if not model.max_batch_size or not request.inputs:
        return 1
    rows = {sent.shape[0] for sent in request.inputs}
    if len(rows) > 1:
        raise refused("the inputs have different numbers of rows")
    return rows.pop()


def _outputs(request: Request, model: Model) -> None:
    seen = set()
    for name, parameters in request.outputs:
        described = model.output.get(name)
        if described is None:
            raise refused("an output has a name that the model does not know")
        if name in seen:
            raise refused("an output is there twice")
        seen.add(name)
        if "classification" in parameters and described.datatype not in _CLASSIFIED:  # of strings it ends Triton 2.51
            raise refused("an output of this datatype has no classification")


def _fits(sent: Sent, described: Tensor, most_rows: int) -> None:
    if sent.datatype != described.datatype:
        raise refused("an input has another datatype than the model")
    batched = most_rows > 0
    if len(sent.shape) != len(described.dims) + batched:
        raise refused("the shape of an input has another number of dimensions than the model")
    if batched and sent.shape[0] > most_rows:
        raise refused(f"the batch-size must be <= {most_rows}")  # clients learn it from Triton's words
    elements = sent.shape[0] if batched else 1
    if elements < 1:
        raise refused("the shape of an input is not one that the model takes")
    for size, expected in zip(sent.shape[batched:], described.dims, strict=True):
        if size < 1 or expected not in (-1, size):
            raise refused("the shape of an input is not one that the model takes")
        elements *= size
    if sent.datatype == "BYTES":
        if elements > MOST_STRINGS:
            raise refused(f"an input has more than {MOST_STRINGS} strings")
        if elements * 4 > sent.size:
            raise _contradiction()
    elif sent.size != elements * SIZES[sent.datatype]:
        raise _contradiction()


class Strings:
    """Counts the strings in the tensors of a request while their bytes pass, without keeping them.

    Triton counts them, too, but takes 2^32 + 1 for one.
    """

    def __init__(self, request: Request) -> None:
        self._plan = _plan(request)
        self._skip = 0  # bytes until the next length
        self._left = 0  # strings of this tensor
        self._tensor_left = 0  # its bytes
        self._length = b""  # of a string, as far as it has come
        self._next()

    @classmethod
    def of(cls, request: Request) -> "Strings | None":
        """Return one, if there is anything to count."""
        return cls(request) if any(sent.datatype == "BYTES" for sent in request.inputs) else None

    def feed(self, piece: bytes) -> None:
        """Read on.

        Raises:
            Refusal: 400: a tensor has not as many strings as its shape says.
        """
        at = 0
        while at < len(piece):
            if self._skip:
                step = min(self._skip, len(piece) - at)
                self._skip -= step
                self._tensor_left -= step
                at += step
            else:
                taken = piece[at : at + 4 - len(self._length)]
                self._length += taken
                self._tensor_left -= len(taken)
                at += len(taken)
                if len(self._length) == 4:
                    self._skip = int.from_bytes(self._length, "little")
                    self._length = b""
                    self._left -= 1
            if self._tensor_left <= 0 or self._skip > self._tensor_left:
                self._end()

    def _end(self) -> None:
        if self._left or self._skip or self._length or self._tensor_left:
            raise _contradiction()
        self._next()

    def _next(self) -> None:
        """Go on to the next tensor; one that is no strings is skipped as one."""
        for strings, size in self._plan:
            if not size:
                continue
            self._tensor_left, self._left = size, strings
            self._skip = size if strings == 0 else 0
            if strings and strings * 4 > size:
                raise _contradiction()
            return
        self._tensor_left = 0


def _plan(request: Request) -> Iterator[tuple[int, int]]:
    for sent in request.inputs:
        elements = 0
        if sent.datatype == "BYTES":
            elements = 1
            for size in sent.shape:
                elements *= size
        yield elements, sent.size


def _contradiction() -> Exception:
    return refused("the shape of an input and its bytes contradict each other")
