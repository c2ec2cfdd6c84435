"""The search attributes of every NovaCron workflow: one module, so that a query finds all of them.

A namespace on SQL has room for 10 Keyword, 3 KeywordList and 3 Double attributes: add with care. Every value set is an
event in the history, so workflows set them on a change of phase, not on every report.
"""

from __future__ import annotations

from temporalio.common import SearchAttributeKey

VM_ID = SearchAttributeKey.for_keyword("VmId")
SITE = SearchAttributeKey.for_keyword("Site")
PHASE = SearchAttributeKey.for_keyword("Phase")
INITIATOR = SearchAttributeKey.for_keyword("Initiator")
"""Who asked: user@machine from our own client, "temporal" for a start by Temporal's CLI or UI."""
HOST_IDS = SearchAttributeKey.for_keyword_list("HostIds")
PROGRESS = SearchAttributeKey.for_float("Progress")
"""Percent, 0 to 100."""

ALL = (VM_ID, SITE, PHASE, INITIATOR, HOST_IDS, PROGRESS)
"""What a namespace needs before a workflow of ours runs in it."""
