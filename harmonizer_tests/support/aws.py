"""A server that speaks the APIs of AWS, as moto simulates them."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from moto.dynamodb.models.table import Table
from moto.server import ThreadedMotoServer

_put_item = Table.put_item
_one_by_one = threading.Lock()


def _put_atomically(table: Table, *args: Any, **kwargs: Any) -> Any:
    """Look at an item's condition and put it in one step, as DynamoDB does.

    Threads of moto's server come between the two: about one of 30 conditional puts of the same
    item by eight clients at once is won by two of them where threads take turns often.
    """
    with _one_by_one:
        return _put_item(table, *args, **kwargs)


patch.object(Table, "put_item", _put_atomically).start()


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
