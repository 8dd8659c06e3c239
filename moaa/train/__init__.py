"""Training: TRL's trainers under DeepSpeed, started by torchrun.

    torchrun --nproc_per_node 2 -m moaa.train sft --job s3://bucket/run/sft/3f…/job.json

What a rank does, in reading order:
     job          what is trained, on what data, with which settings
    run          the training from top to bottom: data, model, steps, result
    rendering, tokens, data     conversations become texts, then token ids
     deepspeed, trainers     the settings become configurations; TRL's trainers
     steps                   what is done at each step of a training
     checkpoints, checkpoint_files      how a training survives a killed machine
    publish          the finished model, kept until it is on S3
    ranks, protocol, disk     how ranks agree, what they print for the launcher, a full disk

What starts the ranks, shows their progress and turns their failure into one error:
     launch       starts a training as the recipe says, and returns its result
    process      on this machine
    cluster      on Kubernetes, with `objects` (TrainJob or Job), `lease` and `pod_watch`
     log_reader, failure     find the reason of a failure
"""
