"""The command line of tritonserver for given settings."""

from collections.abc import Iterator, Set
from pathlib import Path

from contracts import model_config
from contracts.running import record
from deploy.devices import chosen
from deploy.triton.environment import Triton, has_option
from deploy.triton.launch import Secret
from deploy.triton.settings import ADMIN_HEADER, Settings, admin_key

# Whoever reaches these can run code in the server, read another caller's tensors, or blind its operator. Statistics
# and configurations only tell, and perf_analyzer wants them without a key.
_RESTRICTED = "model-repository,shared-memory,trace,logging"
# Beside a socket, to one that asks for keys itself, gRPC is no way around it: its port is anybody's on this machine.
_REST = "health,metadata,inference,model-config,statistics"
_HTTP_LIMIT = "http-max-input-size"
_CLIENT_MEMORY = "allow-client-shm"


def tritonserver_command(
    triton: Triton, settings: Settings, shared_memory: str, left_out: Set[str] = frozenset()
) -> list[str | Secret]:
    """Return the program to start, with its arguments.

    Args:
        shared_memory: What the names of the Python backend's regions in /dev/shm begin with.
        left_out: The models that are not loaded.

    Raises:
        SettingsError: the admin key is unusable.
    """
    return [
        str(triton.executable),
        *triton.arguments,
        f"--model-repository={settings.repository}",
        *([f"--model-config-name={model_config.plain(name)}"] if (name := config_name(triton, settings)) else []),
        # Explicit: in the other modes one bad model ends the server, or every file change is a reload.
        "--model-control-mode=explicit",
        *_models(settings.repository, left_out),
        "--exit-on-error=false",  # stay up to say which model and why; `up` stops it then
        # Unless asked for: config.pbtxt is the contract, not a hint.
        *([] if settings.auto_complete else ["--disable-auto-complete-config"]),
        f"--exit-timeout-secs={settings.drain_s}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory}",
        *_addresses(settings),
        *_security(settings),
        *_observability(settings),
        *([f"--cache-config=local,size={settings.cache_bytes}"] if settings.cache_bytes else []),
        *(["--rate-limit=execution_count"] if settings.rate_limit else []),
        *_http_limit(triton, settings),
        *([f"--{_CLIENT_MEMORY}=true"] if settings.allow_client_shm and asks_for_client_memory(triton) else []),
        *([f"--log-verbose={settings.log_verbose}"] if settings.log_verbose else []),
    ]


def config_name(triton: Triton, settings: Settings) -> str | None:
    """Return which of a model's configurations to take: None is config.pbtxt, which is for a GPU.

    Only the pip-installed server has the backend that runs an ensemble in one process.
    """
    name = chosen.choose(settings.device, native=triton.native).config_name
    return model_config.as_ensembles(name) if name and (settings.ensembles or triton.native) else name


def asks_for_client_memory(triton: Triton) -> bool:
    """Tell whether this Triton maps clients' shared memory only where it is told to: 2.68 (26.04) and later."""
    return has_option(triton, _CLIENT_MEMORY)


def _models(repository: Path, left_out: Set[str]) -> list[str]:
    folders = sorted(path.parent.name for path in repository.glob(f"*/{model_config.FILE_NAME}"))
    return [f"--load-model={name}" for name in folders if name not in left_out]


def _addresses(settings: Settings) -> Iterator[str]:
    # IPv6 for HTTP as libevent wants it, for gRPC as gRPC does.
    is_v6 = ":" in settings.host
    yield f"--grpc-address={record.in_url(settings.host)}"
    over_tcp = ("grpc", "metrics") if settings.http_socket else ("http", "grpc", "metrics")
    if settings.http_socket:
        yield f"--http-address=unix:{settings.http_socket}"
    for name in over_tcp:
        if name != "grpc":
            yield f"--{name}-address={'ipv6:' if is_v6 else ''}{settings.host}"
        yield f"--{name}-port={getattr(settings, f'{name}_port')}"
        if name != "metrics":  # those on which the key is sent are held for it: see neighbours/held_ports.py
            yield f"--reuse-{name}-port=true"


def _http_limit(triton: Triton, settings: Settings) -> Iterator[str]:
    # 2.59 (25.06) and later refuse more than 64 MB; those before have neither the limit nor the option.
    if settings.http_max_bytes and has_option(triton, _HTTP_LIMIT):
        yield f"--{_HTTP_LIMIT}={settings.http_max_bytes}"


def _security(settings: Settings) -> Iterator[str | Secret]:
    key = admin_key(settings.admin_key_file)
    over_grpc = f"{_RESTRICTED},{_REST}" if settings.http_socket else _RESTRICTED
    for option, closed in (("http-restricted-api", _RESTRICTED), ("grpc-restricted-protocol", over_grpc)):
        yield Secret(f"--{option}={closed}:{ADMIN_HEADER}=", key)
    if tls := settings.tls:
        yield f"--grpc-server-cert={tls.certificate}"
        yield f"--grpc-server-key={tls.key}"
        if tls.client_ca:
            yield f"--grpc-root-cert={tls.client_ca}"
        yield "--grpc-use-ssl-mutual=true" if tls.client_ca else "--grpc-use-ssl=true"


def _observability(settings: Settings) -> Iterator[str]:
    # Triton's latencies are counters that only grow, unless it is told to keep quantiles.
    yield "--metrics-config=summary_latencies=true"
    if traces := settings.traces:
        yield "--trace-config=mode=opentelemetry"
        yield f"--trace-config=opentelemetry,url={traces.endpoint}"
        yield "--trace-config=opentelemetry,resource=service.name=triton"
        yield "--trace-config=level=TIMESTAMPS"
        yield f"--trace-config=rate={traces.rate}"
