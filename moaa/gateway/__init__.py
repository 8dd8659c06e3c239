"""One OpenAI endpoint for many models: plain ones, mixtures, and the promoted one.

config        the file of a gateway, checked
state         what one running gateway knows: backends, limits, counters, the connections
backend       the replicas of one model: the next request goes to the one with the fewest in flight
checks        asks replicas that failed whether they answer again
catalogue     a model's name -> who answers
mixtures      models that answer together under one name
proxy         a request passed on to a plain model, byte for byte
relay         the bytes of a stream on their way to the client
wire          OpenAI's errors, whatever an engine said
split_model   the promoted model, whose slots share its traffic: shares (which slot), guard (is it
              worse), slots (its ConfigMap), traffic_split (all three together)
cluster_link  discovery (replicas from EndpointSlices), waker (leases), the ConfigMaps
readiness     waits until a model that was asleep is up
access        who asks, and how much that key may ask
app           the routes; server: the process; listener: its HTTP; metrics: numbers for Prometheus
"""
