"""Mixtures that are served: proposers and an aggregator answer under one name.

settings      the fields of a mixture in the gateway's file
question      what a client asks, read from the request
model         a mixture as one of the gateway's models
run           one request, from the question to the last chunk
members       the proposers, asked and counted; aggregation: the aggregator, or its fallback
engines       calls to engines
proposals     proposals that are used again; preview: those that a client sees while it waits
tally, chunks what an answer has cost; the events of a stream
"""
