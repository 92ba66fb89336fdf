"""A server that speaks the APIs of AWS, as moto simulates them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer


@contextmanager
def aws_server(*, empty: bool = False) -> Iterator[str]:
    """Serve on the loopback interface; yield the URL.

    Args:
        empty: whether what other servers of this process hold is removed before.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    if empty:
        urllib.request.urlopen(f"{url}/moto-api/reset", data=b"").close()
    try:
        yield url
    finally:
        server.stop()
