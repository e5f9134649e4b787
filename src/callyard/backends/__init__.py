"""Backends: this machine, nodes of a cluster, jobs of a scheduler, another executor.

`base` is the seam, and `registry` leads from `Executor(backend=...)` to a backend. `live_base` is common to calls on
workers: on this machine (`local`), and on nodes (`cluster`), whose agents `scheduler_launch` starts, in an allocation
or by `pilot_jobs`. In `batch/` calls are jobs; `cached/` stands in front of each backend if there is a cache; `pep3148`
passes calls on to another executor.
"""
