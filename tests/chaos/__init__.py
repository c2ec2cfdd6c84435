"""The fault matrix: what breaks, in which phase of a move, on real parts; and what is left of the VM afterwards.

`python -m tests.chaos --help` runs it. docs/reliability.md has the results, and says what each outcome means.
"""
