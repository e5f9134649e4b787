"""The protocol between the driver and the zygote: the kinds of frames; their senders say what is in them.

driver -> zygote    SPAWN, WATCH, UNWATCH, KILL, WITHDRAW, END
                    ASK    whether it answers
zygote -> driver    SPAWNED, EXITED, UNWATCHED, WITHDRAWN
                    ALIVE  the answer

In the place of the sequence number the zygote says how many frames of the driver's it has dealt with.
"""

SPAWN, WATCH, UNWATCH, KILL, WITHDRAW, END, ASK = range(101, 108)
SPAWNED, EXITED, UNWATCHED, WITHDRAWN, ALIVE = range(111, 116)
