"""The measurements of large arguments and results on the nodes of an allocation, beside a bare connection with TLS."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import get_context
from statistics import median

from bench import work
from bench.peers import Peer, Pool
from bench.rows import MEGABYTE, Effort, elapsed, repeated, warm, writable
from bench.slurm import LIVE, cluster
from callyard.transport.certificates import Identity, agent_context, driver_context, make_identity

SHARED = 2_000_000  # float64, so 16 MB
CALLS = 16


def array_rate(peer: Peer, effort: Effort) -> float:
    """There and a new array back; both ways are counted."""
    if peer.name == "tls":
        return _bare_rate(8 * effort.node_array)
    import numpy as np

    array = np.random.default_rng(0).random(effort.node_array)

    def there_and_back() -> float:
        array[0] += 1  # so that nobody can answer from memory
        start = time.perf_counter()
        result = writable(pool.get(pool.submit(work.negative, array)))
        took = time.perf_counter() - start
        assert (result[0], result[-1]) == (-array[0], -array[-1])
        return took

    with _nodes(peer, 1) as pool:
        there_and_back()
        return 2 * 8 * effort.node_array / MEGABYTE / median(repeated(there_and_back, effort.seconds, 3))


def shared_time(peer: Peer, effort: Effort, calls: int) -> float:
    """One array as the argument of so many calls on two nodes."""
    import numpy as np

    arrays = np.random.default_rng(0)

    def once() -> float:
        array = arrays.random(SHARED)  # a new one, which no node has
        return elapsed(lambda: pool.gather([pool.submit(work.length, array) for _ in range(calls)]))

    with _nodes(peer, 2) as pool:
        once()
        return median(repeated(once, effort.seconds, 3)) * 1e3


@contextmanager
def _nodes(peer: Peer, count: int) -> Iterator[Pool]:
    with cluster() as there, there.allocation(count, "-t10", "--ntasks-per-node=1", "-c4") as variables:
        os.environ.update(variables)
        with LIVE[peer.name]() as executor:
            pool = Pool(executor.submit)
            warm(pool)
            yield pool


def _bare_rate(size: int) -> float:
    """Echo so many bytes between two processes, with the settings of Callyard's own connections."""
    driver, agent = make_identity("driver"), make_identity("agent")
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = (server.getsockname()[1], agent, driver.certificate, size)
        echo = get_context("spawn").Process(target=_echo, args=arguments)
        echo.start()
        connection, _ = server.accept()
        with closing(driver_context(driver, agent.certificate).wrap_socket(connection, server_side=True)) as tls:
            data, received = bytes(size), memoryview(bytearray(size))

            def there_and_back() -> float:
                return elapsed(lambda: (tls.sendall(data), _receive(tls, received)))

            there_and_back()
            took = median(there_and_back() for _ in range(3))
        echo.join()
    return 2 * size / MEGABYTE / took


def _echo(port: int, agent: Identity, driver: str, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with closing(agent_context(agent, driver).wrap_socket(plain)) as tls:
            received = memoryview(bytearray(size))
            for _ in range(4):
                _receive(tls, received)
                tls.sendall(received)


def _receive(tls: ssl.SSLSocket, received: memoryview) -> None:
    place = 0
    while place < len(received):
        place += tls.recv_into(received[place:])
