"""What moaa does on Kubernetes, by plain REST: names, leases, and the one module that talks to the
API server.

names     labels, annotations and names that the charts, the launcher and the reaper share (pure)
leases    who uses an engine or a training, until when (pure)
api       the cluster: configuration, requests, watches, errors that say which right is missing
"""
