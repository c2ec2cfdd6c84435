"""What may speak against a move: pure checks of a VM's sheet against the facts of the host that is to take it.

A check answers with what is wrong, in one sentence, or with nothing. One that cannot know says so; it never passes for
want of an answer. Which of them are blockers, why they matter and what to do is data: the table in
clouds/kvm/admission.py.
"""
