"""Benchmark of random crops for training: ``python -m bench crops``; bench/README.md says what is measured.

loaders.py    who loads: one data set for all peers, over the adapters of ``bench.engines`` and ``bench.remote``
worker.py     one process an engine: an epoch of batches, each sample compared by a checksum
command.py    alternates the workers; JSON and Markdown
"""
