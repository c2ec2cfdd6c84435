"""Every decoder of the data path, fed with damaged input: `make fuzz`, or `python -m tests.fuzz --help`."""
