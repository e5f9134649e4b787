"""Functions and data on their way between processes: pickles, packed objects, buffers in shared memory."""
