"""The kinds of frames between the driver and the zygote; what is in them is said at their senders.

driver -> zygote    SPAWN, WATCH, UNWATCH, KILL, WITHDRAW, END
zygote -> driver    SPAWNED, EXITED, UNWATCHED, WITHDRAWN
"""

SPAWN, WATCH, UNWATCH, KILL, WITHDRAW, END = range(101, 107)
SPAWNED, EXITED, UNWATCHED, WITHDRAWN = range(111, 115)
