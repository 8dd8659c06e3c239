"""Retraining that CI may start again and again: what is new, what it may cost, how it ended.

inputs       what a model is made from, as digests; compared with production's lineage
budget       the plan's sums, and whether they are within a budget
outcome      how a retraining ended, from the run's records; the exit statuses
progress     the last retraining of a model, kept on S3
ways         where the run takes place: here, on Kubeflow, in a Job of a cluster
account      what happened, for people and programs; as JSON
markdown     the same as Markdown, for job summaries and comments
junit        the same as JUnit XML: one test case for each rule of the gate
"""
