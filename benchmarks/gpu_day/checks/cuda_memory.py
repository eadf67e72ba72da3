"""Inputs that lie in the GPU's memory: a region that this process allocates and Triton opens by its IPC handle."""

import base64
import ctypes
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

import numpy as np
import torch
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

from benchmarks.gpu_day.checks import offline
from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.record import Record, SkippedError
from benchmarks.gpu_day.serving import Serving, serving
from contracts.golden import GoldenRequest
from deploy.neighbours import direct, listener
from deploy.triton.settings import ADMIN_HEADER

_REGION = "gpu-day"
_HANDLE_BYTES = 64  # cudaIpcMemHandle_t
_ROUND_TRIPS = 200


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_char * _HANDLE_BYTES),)


def look(day: Day, record: Record) -> None:
    """Ask by regions of CUDA memory and by requests in turn; answers and times side by side.

    Raises:
        SkippedError: the model takes what does not lie in one region, or the server opens no memory of clients.
    """
    release = offline.served(day)
    [request, *_] = release.requests
    if len(request.inputs) != 1 or next(iter(request.inputs.values())).dtype == np.object_:
        raise SkippedError(f"{release.model} takes more than one tensor of numbers")
    with serving(day, "cuda-memory", "--allow-client-shm") as server, InferenceServerClient(server.http) as client:
        [(name, values)] = request.inputs.items()
        with region(server, np.ascontiguousarray(values)):
            shared = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            shared.set_shared_memory(_REGION, values.nbytes)
            sent = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            sent.set_data_from_numpy(values)
            found = {"in the request": _ask(client, request, sent), "in CUDA memory": _ask(client, request, shared)}
    record.figure(round_trips=[{"input": way, "median ms": ms} for way, (_, ms) in found.items()])
    for way, (fault, _) in found.items():
        record.check(f"the answer to an input {way}", not fault, fault or "within the golden tolerance")


def _ask(client: InferenceServerClient, request: GoldenRequest, given: InferInput) -> tuple[str, float]:
    outputs, times_ms, faults = [InferRequestedOutput(name) for name in request.answers], [], []
    for _ in range(_ROUND_TRIPS):
        started = time.perf_counter()
        result = client.infer(request.model, [given], outputs=outputs)
        times_ms.append((time.perf_counter() - started) * 1e3)
        faults.append(request.fault({name: result.as_numpy(name) for name in request.answers}))
    return next((fault for fault in faults if fault), ""), statistics.median(times_ms)


@contextmanager
def region(server: Serving, values: NDArray[Any]) -> Iterator[None]:
    """Copy `values` to the GPU and have the server open that memory for as long as the block runs.

    By cudaMalloc, as a handle is one of a whole allocation: PyTorch's allocator puts many tensors into one.

    Raises:
        SkippedError: CUDA, or the server, refuses.
    """
    cuda = _runtime()
    pointer, handle = ctypes.c_void_p(), _Handle()
    _must(cuda, cuda.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(values.nbytes)), "cudaMalloc")
    try:
        host_to_device = 1
        copied = cuda.cudaMemcpy(pointer, values.ctypes.data_as(ctypes.c_void_p), values.nbytes, host_to_device)
        _must(cuda, copied, "cudaMemcpy")
        # Fails in WSL 2, and on a MIG slice for a process on another one.
        _must(cuda, cuda.cudaIpcGetMemHandle(ctypes.byref(handle), pointer), "cudaIpcGetMemHandle")
        raw = ctypes.string_at(ctypes.byref(handle), _HANDLE_BYTES)
        body = {"raw_handle": {"b64": base64.b64encode(raw).decode()}, "device_id": 0, "byte_size": values.nbytes}
        _post(server, "register", body)
        try:
            yield
        finally:
            _post(server, "unregister", {})
    finally:
        cuda.cudaFree(pointer)


def _post(server: Serving, verb: str, body: dict[str, object]) -> None:
    key = (server.artifacts / "server" / "admin.key").read_text().strip()
    request = Request(
        f"http://{server.http}/v2/cudasharedmemory/region/{_REGION}/{verb}",
        json.dumps(body).encode(),
        {ADMIN_HEADER: key, "Content-Type": "application/json"},
    )
    running = json.loads((server.artifacts / "server" / "server.json").read_text())
    listener.check(running["triton"]["pid"], running["host"], running["http_port"])
    try:
        direct.open_url(request, timeout_s=10).close()
    except HTTPError as error:
        said = error.read().decode(errors="replace")
        raise SkippedError(f"the server does not {verb} CUDA memory", note=said) from error


def _runtime() -> ctypes.CDLL:
    """Return the CUDA runtime that PyTorch has loaded, with a context on the first GPU."""
    torch.zeros(1, device="cuda")
    major = str(torch.version.cuda).partition(".")[0]
    library = ctypes.CDLL(f"libcudart.so.{major}")
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return library


def _must(cuda: ctypes.CDLL, code: int, call: str) -> None:
    if code:
        raise SkippedError(f"{call} failed: {cuda.cudaGetErrorString(code).decode()}")
