"""Checks before a run: everything that would make it fail later.

finding   the result of one check; terminal prints findings
run       which models a run starts, loads and trains
inputs    store, API keys, prompts, models, endpoints
template  which conversations the target's chat template can be trained on
labeller      whether the models for scores are reward models
system_role   whether the models that get system messages support them
machine   engines, trainings and disks of this machine
cluster   objects, rights, room and clocks of the cluster
capacity  whether the nodes and quotas have room
slots     whether the slots for the promotion exist
rights    whether the run's account may do what the run does
clocks    whether the clocks agree
kinds     the kinds of objects that only preflight reads
"""
