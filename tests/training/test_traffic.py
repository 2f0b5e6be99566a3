from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from alexnet.training.traffic import bytes_sent, data_parallel_bytes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The two ends of a TCP connection of this process with itself."""
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with socket.socket(request.param) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip(f"{host} is not here")
        listener.listen(1)
        with socket.create_connection(listener.getsockname()[:2]) as sender:
            receiver, _ = listener.accept()
            with receiver:
                yield sender, receiver


def send(pair: Pair, count: int) -> None:
    """Send ``count`` bytes and wait until they have arrived."""
    sender, receiver = pair
    thread = threading.Thread(target=sender.sendall, args=(bytes(count),))
    thread.start()
    while count:
        count -= len(receiver.recv(1 << 16))
    thread.join()


def sent() -> int:
    count = bytes_sent()
    assert count is not None
    return count


def test_a_megabyte_over_tcp_is_counted_once(pair: Pair) -> None:
    before = sent()
    send(pair, 1_000_000)
    assert 1_000_000 <= sent() - before <= 1_100_000  # what was sent again counts again
    send(pair[::-1], 300_000)  # back, in the same process: it is sent, too
    assert 1_300_000 <= sent() - before <= 1_400_000


def test_asking_sends_nothing_and_closes_nothing(pair: Pair) -> None:
    assert sent() == sent()
    send(pair, 10)


def test_what_is_no_tcp_connection_does_not_count() -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        before = sent()
        one.sendall(bytes(5000))
        datagrams.sendto(bytes(500), ("127.0.0.1", 9))
        assert sent() == before


def test_data_parallelism_sends_each_gradient_in_a_ring() -> None:
    """2 (n - 1) / n of the float32 gradients: with two processes all of them, once."""
    assert data_parallel_bytes(60_965_224, 1) == 0
    assert data_parallel_bytes(60_965_224, 2) == 4 * 60_965_224
    assert data_parallel_bytes(100, 4) == 600
