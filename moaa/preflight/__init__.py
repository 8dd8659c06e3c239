"""Checks before a run: everything that would make it fail later.

finding   one thing that was checked; terminal prints findings
run       which models a run starts, loads and trains
inputs    store, API keys, prompts, models, endpoints
template  what the target's chat template can be trained on
labeller      whether the models that only score are such models
system_role   whether the models that get system messages have that role
machine   engines, trainings and disks of this machine
cluster   objects, rights, room and clocks of the cluster
capacity  whether the nodes and quotas have room
slots     whether the slots that the run promotes to are there
rights    whether the run's account may do what the run does
clocks    whether the clocks agree
kinds     the kinds of objects that only preflight reads
"""
