"""The kinds of frames between the driver and the zygote; the senders describe the contents.

driver -> zygote    SPAWN, WATCH, UNWATCH, KILL, WITHDRAW, END
                    ASK    a question whether the zygote is alive
zygote -> driver    SPAWNED, EXITED, UNWATCHED, WITHDRAWN
                    ALIVE  the answer

In the place of the sequence number the zygote gives the number of the driver's frames it has dealt with.
"""

SPAWN, WATCH, UNWATCH, KILL, WITHDRAW, END, ASK = range(101, 108)
SPAWNED, EXITED, UNWATCHED, WITHDRAWN, ALIVE = range(111, 116)
