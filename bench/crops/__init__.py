"""Benchmark of random crops for training: batches of torch tensors, from disk and over HTTP; answers are checked.

Run from the root of the repository as ``python -m bench crops``; bench/README.md says what is measured.

    loaders.py    who loads: one data set for all peers, over the adapters of ``bench.engines`` and ``bench.remote``
    worker.py     one process an engine: an epoch of batches, each sample compared by a checksum
    command.py    alternates the workers; JSON and Markdown
    sharing.py    a command of its own: what eight consumers fetch of what one fetches
    consumer.py   another one: whether blocks() keeps ahead of its consumer
"""
