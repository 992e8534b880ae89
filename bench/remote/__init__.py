"""Benchmarks of remote reads: the same boxes over HTTP from a server with settable delays; answers are checked.

Run from the root of the repository as ``python -m bench remote``; bench/README.md says what is measured.

    ../server      the range server: a small program in Rust, built on first use
    server.py      starts, controls and stops it
    boss.py        a server of BossDB that is controlled in the same way
    selftest.py    whether its answers are right
    workloads.py   what is read, under which delays: boxes as data, seeded
    volumes.py     what it is read from: volumes of ``bench.volumes``, and arrays of many links to their shards
    engines.py     who reads it: one adapter a library, one interface; fetch.py: the floor, bytes without decoding
    worker.py      one process an engine: reads, checks, counts requests when told to
    runner.py      alternates the workers, collects samples
    report.py      JSON -> Markdown
"""
