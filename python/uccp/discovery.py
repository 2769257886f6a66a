"""Services: `with client.discovery.register("billing", port=8080):`, `client.discovery.discover("billing")`."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from uccp import _contract, errors
from uccp.connection import Connection
from uccp.coordination import Keeper

SERVICE_TTL_S = 30.0


@dataclasses.dataclass(frozen=True)
class Instance:
    """One instance of a service."""

    id: str
    name: str
    address: str
    port: int
    version: str
    metadata: Mapping[str, str]
    labels: Mapping[str, str]
    healthy: bool


def _instance(one: Any) -> Instance:
    return Instance(
        id=one.id,
        name=one.service_name,
        address=one.address,
        port=one.port,
        version=one.version,
        metadata=dict(one.metadata),
        labels=dict(one.labels),
        healthy=one.healthy,
    )


class Registration:
    """An instance that this process keeps registered with heartbeats; used with `with`, or deregister()."""

    def __init__(self, connection: Connection, keeper: Keeper, fields: dict[str, Any]) -> None:
        self._connection = connection
        self._keeper = keeper
        self._fields = fields
        self.instance = self._register()
        self._renewal = keeper.add(float(fields["ttl"]) / 3, self._renew)

    @property
    def id(self) -> str:
        return self.instance.id

    def _register(self) -> Instance:
        return _instance(self._connection.call("ServiceDiscovery/Register", service=self._fields))

    def _renew(self) -> bool:
        try:
            self._connection.call("ServiceDiscovery/Heartbeat", within=float(self._fields["ttl"]) / 3, id=self.id)
        except errors.NotFound:  # it expired while the cluster was not reached: registered again
            self.instance = self._register()
        except errors.UccpError:
            pass  # the next heartbeat tries again; meanwhile the platform judges its health
        return True

    def deregister(self) -> None:
        """Takes it out. Idempotent."""
        self._keeper.remove(self._renewal)
        try:
            self._connection.call("ServiceDiscovery/Deregister", id=self.id)
        except errors.NotFound:
            pass

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *_: object) -> None:
        self.deregister()


class Discovery:
    """The services of the client's namespace."""

    def __init__(self, connection: Connection, keeper: Keeper) -> None:
        self._connection = connection
        self._keeper = keeper

    def register(
        self, name: str, *, port: int, address: str | None = None, ttl: float = SERVICE_TTL_S, **fields: Any
    ) -> Registration:
        """Registers an instance and keeps it alive; other fields are those of the contract's ServiceRegistration."""
        return Registration(
            self._connection,
            self._keeper,
            {"service_name": name, "address": address or socket.gethostname(), "port": port, "ttl": ttl, **fields},
        )

    def discover(self, name: str, **fields: Any) -> list[Instance]:
        """Healthy instances, best first; other fields are those of the contract's DiscoverRequest."""
        return [
            _instance(one) for one in self._connection.call("ServiceDiscovery/Discover", name=name, **fields).services
        ]

    def watch(self, name: str, *, since: str = "") -> Iterator[tuple[str, Instance]]:
        """Yields (ADDED, UPDATED or REMOVED, instance): first all there are, then each change."""
        with self._connection.stream("ServiceDiscovery/WatchServices", name=name, since=since or None) as stream:
            for event in stream:
                kind = _contract.enum_name(event, "kind")
                if event.HasField("service"):
                    yield kind, _instance(event.service)
