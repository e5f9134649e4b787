"""The file format of the cache: values as HDF5 datasets and pickles, behind a header with a checksum."""
