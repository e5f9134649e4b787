"""The words of `ssh` about a connection that has failed, and what they mean for another attempt."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTHING_HEARD", "Refusal", "last_words", "refusal_of"]

NOTHING_HEARD = "nothing was heard from the gateway any more"


class Refusal(NamedTuple):
    """A failed connection: a sentence for people, and whether another attempt may go better without a person."""

    sentence: str
    passes: bool


# A part of ssh's words -> what it means, and what to do. The first that is there counts.
_MEANINGS = {
    "remote host identification has changed": (
        "the key of the host is another one than before, so perhaps it is another host; if its administrators say that "
        "the key was changed, remove the old one (ssh-keygen -R) and connect once by hand"
    ),
    "host key verification failed": (
        "the key of the host is not known yet; connect once by hand, `ssh {where}`, compare the key, and answer yes"
    ),
    "permission denied (": (
        "the login was refused, and is not tried again; `ssh {where}` must work without a question: load your key into "
        "an agent (ssh-add), or log in once over a shared connection (ControlMaster)"
    ),
    "too many authentication failures": "the login was refused; name the right key, IdentityFile in its configuration",
    "could not resolve hostname": "there is no host of this name; look at its spelling, and at the network",
    "bad configuration option": "ssh does not understand its configuration",
    "connection refused": "no SSH server answers there; look at the name and the port, or try later",
    "no route to host": "the host cannot be reached; look at the network",
    "network is unreachable": "the host cannot be reached; look at the network",
    "timed out": "the host does not answer; look at the network",
    "not responding": "the connection was lost",
    "kex_exchange_identification": "the server dropped the connection, perhaps it has too many; try later",
    "connection reset": "the connection was lost",
    "broken pipe": "the connection was lost",
    "closed by": "the server closed the connection",
    "ssh_dispatch_run_fatal": "the connection was lost",
    "connect to host": "the host cannot be reached; look at the network",  # is down, as the network may be
}
_LASTING = frozenset(list(_MEANINGS)[:6]) - {
    "could not resolve hostname"
}  # a laptop without a network resolves nothing


def refusal_of(words: str, status: int | None, where: str) -> Refusal:
    """Return the meaning of what ssh wrote before its end, with this exit status."""
    text = words.lower()
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    # Of ssh itself, or it was killed, or goes on. Any other status is that of the shell there, as are the words.
    is_own = status is None or status < 0 or status == 255
    for part, meaning in _MEANINGS.items() if is_own else ():
        if part in text:
            said = next(line for line in reversed(lines) if part in line.lower())
            return Refusal(
                f"no connection to {where}: {meaning.format(where=where)} (ssh: {said})", part not in _LASTING
            )
    said = f"; it wrote: {lines[-1]}" if lines else ""
    if is_own:
        return Refusal(f"no connection to {where}: ssh failed{said}", bool(not lines))
    return Refusal(
        f"no gateway on {where}: the shell there ended with status {status} before Python began{said}; perhaps a "
        "line of SSH(setup=...) fails, the interpreter cannot be run, or a start-up file (.bashrc, .cshrc) exits: "
        f"`ssh {where} exec /bin/sh -c true` must end with status 0 and print nothing",
        False,
    )


def last_words(words: str, own_only: bool) -> str:
    """Return the last line in brackets, for a sentence; with `own_only` the last of ssh's own, as calls print, too."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    if own_only:
        parts = (NOTHING_HEARD, *_MEANINGS)
        lines = [line for line in lines if any(part in line.lower() for part in parts)]
    return f" ({lines[-1]})" if lines else ""
