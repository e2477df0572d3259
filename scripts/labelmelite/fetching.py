"""Images from the web: only below the URL bases that the owner named, checked before and while they are read."""

import http.client
import ipaddress
import socket
import ssl
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from labelmelite.errors import ApiError
from segloop.errors import SegloopError

TIMEOUT: Final = 20.0
MAX_BYTES: Final = 64 << 20
_REDIRECTS: Final = 3


class Fetcher:
    """Fetches files below allowed URL bases.

    A base whose name leads to a private address when the server starts was meant that way by its owner, such as an
    image server in the laboratory. Any other name that leads to one later is refused, so that nobody reaches into the
    network of the server by changing a name's address. The connection goes to the address that was checked.

    Parameters
    ----------
    bases
        URLs that end in "/".

    Raises
    ------
    SegloopError
        If a base is no http or https URL.
    """

    def __init__(self, bases: tuple[str, ...]) -> None:
        self._private: dict[str, bool] = {}
        for base in bases:
            parts = urlsplit(base)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
                raise SegloopError(f"{base!r} is no URL of a folder of images, such as https://example.org/images/")
            self._private[base] = any(is_private(address) for address in _addresses(parts.hostname, _port(base)))

    def fetch(self, base: str, name: str) -> bytes:
        """Return the file `name` below `base`.

        Raises
        ------
        ApiError
            `forbidden` if the base is not allowed or leads elsewhere, `unavailable` if the file cannot be had.
        """
        if base not in self._private:
            raise ApiError("forbidden", "Images of this address are not allowed here.")
        url = urljoin(base, quote(name))
        for _ in range(_REDIRECTS + 1):
            if not url.startswith(base):
                raise ApiError("forbidden", f"The image server sends {name} to another place, which is not allowed.")
            try:
                found, url = self._get(base, url)
            except (OSError, http.client.HTTPException) as error:
                raise ApiError("unavailable", f"The image {name} could not be fetched ({error}).") from None
            if found is not None:
                return found
        raise ApiError("unavailable", f"The image {name} could not be fetched (too many redirects).")

    def _get(self, base: str, url: str) -> tuple[bytes | None, str]:
        parts = urlsplit(url)
        assert parts.hostname is not None
        connection = self._connect(base, parts.scheme, parts.hostname, _port(url))
        try:
            connection.request("GET", parts.path or "/", headers={"Host": parts.netloc, "User-Agent": "LabelMeLite"})
            response = connection.getresponse()
            return self._read(response, url)
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, url: str) -> tuple[bytes | None, str]:
        with response:
            if response.status in (301, 302, 303, 307, 308):
                return None, urljoin(url, response.headers.get("Location", ""))
            if response.status != 200:
                raise http.client.HTTPException(f"status {response.status}")
            data = response.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ApiError("too_large", f"The image is larger than {MAX_BYTES >> 20} MiB.")
            return data, url

    def _connect(self, base: str, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
        addresses = _addresses(host, port)
        if not addresses:
            raise OSError(f"the name {host} is not known")
        if not self._private[base] and any(is_private(address) for address in addresses):
            raise ApiError("forbidden", f"{host} leads to a private address, which is not allowed.")
        plain = socket.create_connection((addresses[0], port), timeout=TIMEOUT)
        if scheme == "http":
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
            connection.sock = plain
            return connection
        secure = http.client.HTTPSConnection(host, port, timeout=TIMEOUT)
        secure.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        return secure


def is_private(address: str) -> bool:
    """Return whether an IP address is none of the public internet."""
    try:
        return not ipaddress.ip_address(address.partition("%")[0]).is_global
    except ValueError:
        return True


def _addresses(host: str, port: int) -> list[str]:
    try:
        return list(
            dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        )
    except OSError:
        return []


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)
