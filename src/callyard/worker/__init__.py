"""The processes that run calls: the zygote, workers, ranks, jobs."""
