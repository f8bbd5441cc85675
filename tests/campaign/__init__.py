"""The campaign against the program: what happens to it, and what it must never answer.

    python -m tests.campaign --minutes 60        or: make campaign

inputs   mutated datasets, checkpoints, command lines and run folders, thousands of them
kills    `kill -9` and other signals at random times in recording, offline and online training and
         evaluation; the end must be equal, bit by bit, to that of a run that nobody disturbed
faults   no space, no permission, low limits, two processes in one folder

See docs/reference/reliability.md.
"""
