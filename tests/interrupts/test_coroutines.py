"""A `with` block in a coroutine: Ctrl-C ends it, and other cancellations do not hold up the loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gate import Gate

from callyard import Executor

PROGRAM = """
import asyncio, os, signal, sys, time
from callyard import Executor

async def block():
    with Executor(max_workers=1) as executor:
        futures = [executor.submit(time.sleep, 1000) for _ in range(2)]
        FUTURES.extend(futures)
        while not futures[0].running():
            await asyncio.sleep(0.01)
        READY.append(1)
        await asyncio.sleep(1000)

async def main(blocks):
    await asyncio.gather(*(block() for _ in range(blocks)), interrupt(blocks))

async def interrupt(blocks):
    while len(READY) < blocks:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
FUTURES, READY = [], []
try:
    asyncio.run(main(int(sys.argv[1])))
except KeyboardInterrupt:
    print(sorted("cancelled" if future.cancelled() else type(future.exception()).__name__ for future in FUTURES))
"""


@pytest.mark.parametrize("blocks", [1, 2])
def test_ctrl_c_ends_what_runs(blocks: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(blocks)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == f"{['WorkerLost'] * blocks + ['cancelled'] * blocks}\n", done.stderr


def test_a_cancelled_coroutine_is_not_held_up(tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    async def block(futures: list[Any]) -> None:
        with Executor(max_workers=1) as executor:
            futures += [executor.submit(gate.hold, 7), executor.submit(gate.hold, 8)]
            gate.arrived()
            await asyncio.sleep(1000)

    async def main() -> list[Any]:
        futures: list[Any] = []
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(block(futures), 0.5)
        return futures

    running, waiting = asyncio.run(main())  # ends although nobody has opened the gate
    assert waiting.cancelled()
    gate.open()
    assert running.result() == 7
    gate.close()


def test_a_cancellation_inside_the_block_is_not_its_end() -> None:
    async def main() -> int:
        task = asyncio.ensure_future(asyncio.sleep(1000))
        await asyncio.sleep(0)
        task.cancel()
        with Executor(max_workers=1) as executor:
            future = executor.submit(pow, 2, 10)
            with pytest.raises(asyncio.CancelledError):
                await task
        return future.result()

    assert asyncio.run(main()) == 1024
