"""Run programs that models wrote: in a pod without network, token, or anything to write.

inside.py    what runs in the pod: it looks whether it is shut in, then runs each program
objects.py   the Job, as plain data
run.py       programs in, outcomes out: one Job for many programs
"""
