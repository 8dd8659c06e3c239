"""The prompts of a run.

sources      rows of files, data sets and S3
prompt       one row -> a prompt
shapes       which texts of a row are the user's
transcript   whether one text is a whole conversation
selection    the three sets, without repeated prompts and those near to the evaluation prompts
overlap      which texts repeat each other
"""
