"""A guest made ready for the device model of the place that it moves to; what is done and why: docs/preparing.md."""
