"""The result cache: one HDF5 file for each call, found by its key."""
