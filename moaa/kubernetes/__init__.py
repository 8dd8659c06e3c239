"""What moaa does on Kubernetes. The official Python client logs in and sends the requests.

names      labels, annotations and names that the charts, the launcher and the reaper share
pods       in words: what a pod waits for, or why it ended
kinds      the kinds of objects that moaa reads or writes
request    one request to the API server
transport  sends requests through the official client, and retries failures that may pass
errors     refusals of the API server, as errors that say what to do
api        `Cluster`: get, list, create, patch, delete, watch, logs
leases     who uses an engine or a training: Lease objects, and whether they change
replicas   how many replicas a served model has, with a lease and without one
discovery  whether the cluster knows a kind of object
mirror     a copy of all objects of one kind, kept up to date by a watch
logs       a container's log, followed across broken connections
reaper     scales down and deletes what has no holder

names, pods, kinds and request do no I/O.
"""
