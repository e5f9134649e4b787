"""The program that a gateway is: one conversation over standard input and output."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from io import BufferedReader, FileIO

from ...system.process_title import set_title
from ..batch.call_pickles import hold_arguments
from .message_streams import MessageReader, MessageWriter
from .remote import Gateway

__all__ = ["main"]


class _DriversLog(logging.Handler):
    """Sends warnings and errors in the log of this process to the driver's."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(logging.WARNING)
        self._gateway = gateway

    def emit(self, record: logging.LogRecord) -> None:
        self._gateway.warn(self.format(record), record.levelno)


def main(directory: str) -> None:
    """Talk to a driver over standard input and output, which no one else shall read or write from here on."""
    set_title("gateway")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what a user's module prints is no message
    os.close(nothing)
    hold_arguments()
    # Below the home, wherever start-up files and lines of `setup` have gone.
    directory = os.path.abspath(os.path.join(os.path.expanduser("~"), os.path.expanduser(directory)))
    with BufferedReader(FileIO(reading, "rb"), 1 << 16) as stream:
        gateway = Gateway(directory, MessageReader(stream), MessageWriter(writing))
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: gateway.warn(str(message))
        logging.getLogger("callyard").addHandler(_DriversLog(gateway))
        orderly = gateway.run()
    if not orderly and not getattr(gateway._backend, "detached", False):
        os._exit(0)  # live calls end with their driver, and with them their workers
