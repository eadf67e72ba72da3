"""Which of our environment variables a server's processes get: models run code of their authors, and need few.

What else is in there may be a secret: ADMIN_KEY, a cloud's or MLflow's, Terraform's TF_VAR_*, a password in a URL.
"""

import re
from collections.abc import Collection, Mapping

VARIABLE = "MODEL_ENV"
_NAMES = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "HOME", "MODEL_LAYERS", "GLIBC_TUNABLES", "OTEL_RESOURCE_ATTRIBUTES"}
)
# Locale; loader and allocators; CUDA, drivers and what counts threads; Triton, its backends and their libraries.
_PREFIXES = (
    *("LC_", "LD_", "MALLOC_", "TCMALLOC_", "PYTHON", "OPAL_", "UCX_"),
    *("CUDA_", "_CUDA_", "NVIDIA_", "NCCL_", "CUDNN_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_"),
    *("TRITON", "TRT_", "TENSORRT_", "ORT_", "TF_CPP_", "TF_FORCE_", "TOKENIZERS_"),
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|HEADERS", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^/\s]*@")
# Bytecode that is kept elsewhere than where nobody else can plant it would be run in place of a model's source.
_NEVER = frozenset({"PYTHONPYCACHEPREFIX"})


def allowed(environment: Mapping[str, str], also: Collection[str] = ()) -> dict[str, str]:
    """Choose what a server is given of an environment.

    Args:
        also: Names of more, which the user has said; as MODEL_ENV says others, "A,B", for whatever starts a server.
    """
    named = {*also, *environment.get(VARIABLE, "").split(",")}
    return {name: value for name, value in environment.items() if name in named or _is_harmless(name, value)}


def _is_harmless(name: str, value: str) -> bool:
    if name in _NEVER or _PASSWORD_IN_URL.search(value):
        return False
    return name in _NAMES or (name.startswith(_PREFIXES) and not _SECRET.search(name))
