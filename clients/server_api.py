"""What a client can ask of a server besides inference: health, metadata, statistics, model control, shared memory.

The methods have the names of KServe's protocol and Triton's extensions to it; results are the server's JSON.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from clients.core.request import Query, checked_version

LOAD_TIMEOUT_S = 300.0  # an engine may take minutes to load and warm up

Version = str | int


class ServerApi(ABC):
    """For threads. All raise a ClientError, as `Client.infer`."""

    @abstractmethod
    def _query(self, query: Query, timeout_s: float | None = None) -> Any:
        """Ask one of the servers; return its JSON."""

    def server_metadata(self) -> dict[str, Any]:
        """Return the server's name, version and extensions."""
        return dict(self._query(Query("server_metadata")))

    def model_metadata(self, model: str, version: Version = "") -> dict[str, Any]:
        """Return versions, platform, inputs and outputs; `metadata` has the latter two as objects."""
        return dict(self._query(Query("model_metadata", model, checked_version(version))))

    def model_config(self, model: str, version: Version = "") -> dict[str, Any]:
        """Return the configuration, completed by Triton."""
        return dict(self._query(Query("model_config", model, checked_version(version))))

    def statistics(self, model: str = "", version: Version = "") -> list[dict[str, Any]]:
        """Return counts and durations (ns) of each version of a model, or of all models."""
        return list(self._query(Query("statistics", model, checked_version(version))))

    def repository_index(self) -> list[dict[str, Any]]:
        """List every model in the repository, whether it is loaded, and why not.

        Restricted: see TransportOptions.admin_key.
        """
        return list(self._query(Query("repository_index")))

    def load_model(
        self, model: str, *, config: Mapping[str, Any] | None = None, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        """Load a model, or load it again; sent once. Restricted.

        Args:
            config: In place of the one in the repository.
        """
        self._query(_load(model, config), timeout_s)

    def unload_model(self, model: str, *, unload_dependents: bool = False, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Unload a model, and if asked to, the steps of an ensemble; sent once. Restricted."""
        self._query(_unload(model, unload_dependents), timeout_s)

    def shared_memory_status(self) -> list[dict[str, Any]]:
        """List the regions of system shared memory that the server has mapped. Restricted."""
        return list(self._query(Query("shared_memory_status")))

    def register_shared_memory(self, region: str, key: str, size_bytes: int, *, timeout_s: float | None = None) -> None:
        """Have the server map /dev/shm/`key` under the name `region`; sent once. Restricted. SharedMemory does it."""
        query = Query("register_shared_memory", region=region, key=key, size_bytes=size_bytes)
        self._query(query, timeout_s)

    def unregister_shared_memory(self, region: str, *, timeout_s: float | None = None) -> None:
        """Have the server unmap it. Restricted."""
        self._query(Query("unregister_shared_memory", region=region), timeout_s)


class AsyncServerApi(ABC):
    """The same for asyncio."""

    @abstractmethod
    async def _query(self, query: Query, timeout_s: float | None = None) -> Any:
        """Ask one of the servers; return its JSON."""

    async def server_metadata(self) -> dict[str, Any]:
        """As ServerApi's."""
        return dict(await self._query(Query("server_metadata")))

    async def model_metadata(self, model: str, version: Version = "") -> dict[str, Any]:
        """As ServerApi's."""
        return dict(await self._query(Query("model_metadata", model, checked_version(version))))

    async def model_config(self, model: str, version: Version = "") -> dict[str, Any]:
        """As ServerApi's."""
        return dict(await self._query(Query("model_config", model, checked_version(version))))

    async def statistics(self, model: str = "", version: Version = "") -> list[dict[str, Any]]:
        """As ServerApi's."""
        return list(await self._query(Query("statistics", model, checked_version(version))))

    async def repository_index(self) -> list[dict[str, Any]]:
        """As ServerApi's."""
        return list(await self._query(Query("repository_index")))

    async def load_model(
        self, model: str, *, config: Mapping[str, Any] | None = None, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        """As ServerApi's."""
        await self._query(_load(model, config), timeout_s)

    async def unload_model(
        self, model: str, *, unload_dependents: bool = False, timeout_s: float = LOAD_TIMEOUT_S
    ) -> None:
        """As ServerApi's."""
        await self._query(_unload(model, unload_dependents), timeout_s)

    async def shared_memory_status(self) -> list[dict[str, Any]]:
        """As ServerApi's."""
        return list(await self._query(Query("shared_memory_status")))

    async def register_shared_memory(
        self, region: str, key: str, size_bytes: int, *, timeout_s: float | None = None
    ) -> None:
        """As ServerApi's."""
        query = Query("register_shared_memory", region=region, key=key, size_bytes=size_bytes)
        await self._query(query, timeout_s)

    async def unregister_shared_memory(self, region: str, *, timeout_s: float | None = None) -> None:
        """As ServerApi's."""
        await self._query(Query("unregister_shared_memory", region=region), timeout_s)


def _load(model: str, config: Mapping[str, Any] | None) -> Query:
    return Query("load_model", model, parameters={} if config is None else {"config": json.dumps(config)})


def _unload(model: str, unload_dependents: bool) -> Query:
    return Query("unload_model", model, parameters={"unload_dependents": True} if unload_dependents else {})
