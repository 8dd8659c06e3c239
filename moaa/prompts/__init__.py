"""The prompts of a run.

sources      rows of files, data sets and S3
prompt       one row -> a prompt
selection    the three sets without what is repeated or near to the evaluation prompts
overlap      which texts repeat each other
"""
