"""What voxfetch keeps to however large the data and however many the reads: ``python -m bench limits``.

arrays.py     arrays of very many chunks that take little disk
figures.py    one number and its limit
planning.py   planning, arrays of 2^34 chunks, indexes in memory: arrays on disk
crowds.py     an epoch over 10,000 shards, 10,000 reads at once, requests a second: over HTTP
gil.py        how long a read keeps other Python threads waiting
command.py    the command: each group in a process of its own, the report
"""
