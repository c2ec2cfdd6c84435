"""A site without hypervisors, as large as wished: the real workflows, queues and workers, with hosts that are records.

`site` holds the hosts and what is true of them, `faults` says what goes wrong, `host` is the activities of one host,
and `workers` runs one real Temporal worker per host. tests/workflow/test_contract.py holds it to the real activities.
"""
