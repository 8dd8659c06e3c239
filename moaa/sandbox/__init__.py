"""Runs programs that models wrote, in a pod without network, token or writable folder.

inside.py    runs in the pod: it checks that the pod is isolated, then runs each program
objects.py   the Job, as plain data
run.py       programs in, outcomes out: one Job for many programs
"""
