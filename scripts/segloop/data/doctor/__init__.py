"""What is wrong with a data set: every bad record named, the rest told usable or not, a repaired copy on request.

Folders of runs will be examined beside data sets; what is found has the same form (`findings`).
"""
