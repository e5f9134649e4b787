"""The process of a zygote: its start beside the driver, and what becomes of its forks.

`main` is run as `python -c "... main()" SOCKET STDERR DRIVER SCRIPT`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from ..system.process_title import set_title
from ..system.processes import become_subreaper, default_signals, die_with_parent, open_standard_descriptors, watch_end
from .start import BecomeWorker, serve
from .zygote import Zygote


def main() -> None:
    """Be the zygote, and in each of its forks a worker."""
    sock, errors, driver = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    set_title("zygote", sys.argv[4])
    default_signals()
    open_standard_descriptors()
    _use_as_stderr(errors)
    become_subreaper()
    watched = watch_end(driver)
    if watched is None:
        die_with_parent(driver)
    elif os.getppid() != driver:  # the driver had ended before it was watched
        os._exit(1)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # the zygote ends with the driver, not with the terminal
    try:
        Zygote(sock, driver, watched).run()
    except BecomeWorker as worker:
        stream, log_fd, guard = worker.stream, worker.log_fd, worker.guard
    serve(stream, log_fd, guard)


def _use_as_stderr(errors: int) -> None:
    """Replace the file used as stderr so far, which the driver reads after a failed start of this process."""
    os.write(errors, os.pread(2, os.fstat(2).st_size, 0))
    os.dup2(errors, 2)
    os.close(errors)
