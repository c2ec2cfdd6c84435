"""AMST: frames, hello, window, liveness and the TCP lanes that carry them."""
