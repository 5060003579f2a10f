"""The network interface that a server of MLflow's listens on."""

import ipaddress
import socket

from poselib.errors import InputError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an interface.

    Raises:
        InputError: no such name.
    """
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise InputError(
            f"--host {host} is not known ({error.strerror}): give a name or address of this machine"
        ) from error
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def check_free(host: str, port: int) -> None:
    """Refuse a port that a server could not listen on.

    Raises:
        InputError: it is taken, not this machine's, or no port at all.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"--port must lie in 1..65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"port {port} on {host} cannot be used ({error}): choose another --port") from error


def in_address(host: str) -> str:
    """A host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
