"""Who trains: TRL's trainers under DeepSpeed, started by torchrun.

    torchrun --nproc_per_node 2 -m moaa.train sft --job s3://bucket/run/sft/3f…/job.json

Read in this order: `job.py` (what is asked for), `run.py` (what a rank does, top to bottom),
`tokens.py` and `data.py` (conversations become token ids), `deepspeed.py` (numbers become a
configuration), `checkpoints.py` (what survives a kill). `launch.py` is the other side: it starts
the ranks, shows their progress and turns their failure into one error.
"""
