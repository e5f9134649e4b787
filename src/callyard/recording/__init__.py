"""The recording of runs: what happens to calls becomes events, for a file, a function, the log, and a record."""
