"""Small Python models of many kinds, and one real server that has them all, as to start one takes eight seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Workspace, free_ports, port_options

PYTHON = 'backend: "python"\n'
INPUTS = 'name: "INPUT0" data_type: {0} dims: [ 16 ] }} , {{ name: "INPUT1" data_type: {0} dims: [ 16 ]'
OUTPUTS = 'name: "OUTPUT0" data_type: {0} dims: [ 16 ] }} , {{ name: "OUTPUT1" data_type: {0} dims: [ 16 ]'
SIMPLE = PYTHON + f"max_batch_size: 8\ninput [ {{{{ {INPUTS} }}}} ]\noutput [ {{{{ {OUTPUTS} }}}} ]"
IDENTITY = PYTHON + (
    'max_batch_size: 8\ninput [ { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]\n'
    'output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] } ]'
)
SEQUENCE = PYTHON + (
    'max_batch_size: 0\ninput [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    'output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    "instance_group [ { kind: KIND_CPU count: 2 } ]\n"  # a sequence holds an instance until it ends
    "sequence_batching { max_sequence_idle_microseconds: 60000000 control_input [\n"
    '  { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },\n'
    '  { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] } ] }\n'
)
PARAMETERS = PYTHON + (
    'max_batch_size: 0\ninput [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]\n'
    'output [ { name: "OUTPUT" data_type: TYPE_STRING dims: [ 1 ] } ]'
)
HEAD = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

def read(request, name):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()

def answer(**outputs):
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])

class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.respond(request) for request in requests]

    def respond(self, request):
"""
ADD_SUB = """
        a, b = read(request, "INPUT0"), read(request, "INPUT1")
        if a.dtype == np.object_:
            a, b = a.astype(np.int32), b.astype(np.int32)
            text = np.vectorize(lambda number: str(number).encode(), otypes="O")
            return answer(OUTPUT0=text(a + b), OUTPUT1=text(a - b))
        return answer(OUTPUT0=a + b, OUTPUT1=a - b)
"""
# Notes what it is handed, and takes as many seconds for it; less than none: until there is a file `go`.
NOTING = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.notes = Path(args["model_repository"]) / "notes"

    def execute(self, requests):
        answers = []
        for request in requests:
            value = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            with self.notes.open("a") as notes:
                print(float(value.max()), file=notes)
            time.sleep(max(0, float(value.max())))
            while value.max() < 0 and not self.notes.with_name("go").exists():
                time.sleep(0.01)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value * 2)]))
        return answers
"""
NOTING_CONFIG = (
    PYTHON
    + """
max_batch_size: 1
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 60000000 } }
"""
)
MODELS = {
    "noting": (NOTING_CONFIG, NOTING),
    "simple": (SIMPLE.format("TYPE_INT32"), HEAD + ADD_SUB),
    "simple_string": (SIMPLE.format("TYPE_STRING"), HEAD + ADD_SUB),
    "simple_identity": (IDENTITY, HEAD + '        return answer(OUTPUT0=read(request, "INPUT0"))\n'),
    "simple_sequence": (
        SEQUENCE,
        HEAD
        + """
        key, start = int(read(request, "CORRID")[0]), bool(read(request, "START")[0])
        self.sums[key] = (0 if start else self.sums[key]) + read(request, "INPUT")
        return answer(OUTPUT=self.sums[key].astype(np.int32))
""",
    ),
    "parameters": (
        PARAMETERS,
        HEAD + "        return answer(OUTPUT=np.array([request.parameters().encode()], np.object_))\n",
    ),
}


@dataclass(frozen=True)
class Small:
    """The server with those models: its URLs by protocol, and where it takes the models from."""

    urls: dict[str, str]
    served: Path
    admin_key: str


@contextmanager
def serving(root: Path) -> Iterator[Small]:
    """Serve them for as long as the block runs."""
    workspace, ports = Workspace(root), free_ports()
    for name, (config, code) in MODELS.items():
        version = workspace.repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(code)
        (version.parent / "config.pbtxt").write_text(config)
    workspace.must("deploy", "up", "--detach", "--repository", workspace.repository, *port_options(ports))
    urls = {kind: f"{kind}://127.0.0.1:{port}" for kind, port in zip(("http", "grpc"), ports, strict=False)}
    key = (workspace.root / "artifacts" / "server" / "admin.key").read_text().strip()
    yield Small(urls, workspace.served, key)
    workspace.must("deploy", "down")
