"""How requests travel to one server and responses back: gRPC and HTTP, for threads and for asyncio."""

from clients.settings import Address, TransportOptions
from clients.transports.base import Transport
from clients.transports.grpc import AsyncGrpcTransport, GrpcTransport
from clients.transports.http import AsyncHttpTransport, HttpTransport


def transport_of(address: Address, options: TransportOptions) -> Transport:
    """Make the transport for threads that speaks the address's protocol."""
    return (GrpcTransport if address.protocol == "grpc" else HttpTransport)(address, options)


def async_transport_of(address: Address, options: TransportOptions) -> Transport:
    """Make the one for the running event loop."""
    return (AsyncGrpcTransport if address.protocol == "grpc" else AsyncHttpTransport)(address, options)
