"""Who gives the resources: this machine, nodes of a cluster, jobs, another executor.

`base` is the seam, `choose` goes from what users say to a backend. `streamed` is what live calls share: `local`, and
`live` on nodes, to which `slurm_live` or `pilots` get agents. `detached/` is calls that are jobs, `memory/` what stands
in front of each backend if calls are remembered.
"""
