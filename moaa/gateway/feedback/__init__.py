"""From use to data: questions, answers and ratings of keys that agreed, kept on S3.

settings       the fields in the gateway's file
answer_reader  what an answer said, from its bytes
records        rows that wait for their rating, and the files that they become
routes         POST /v1/feedback
"""
