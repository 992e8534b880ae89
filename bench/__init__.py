"""Benchmarks of voxfetch and its peers: the same reads, the same volumes, alternating runs, checked answers.

Run from the root of the repository as ``python -m bench --help``; README.md says what is measured.

    workloads.py  what is read: boxes as data, seeded
    volumes.py    what it is read from: synthetic and real volumes, written by foreign writers, cached
    layouts.py    how they are stored, and all volumes by name
    writers.py    those writers, one function a format
    formats.py    formats beside Zarr, from disk and over HTTP, in one report
    engines/      who reads it: one adapter a library, one interface
    worker.py     one process per engine and volume: times one run when told to
    runner.py     alternates the workers, collects samples
    report.py     JSON -> Markdown
    start.py      new interpreters instead of workers: imports, first voxels
    limits/       counts, memory and times of voxfetch alone where there is very much of something
    arguments.py, circumstances.py, document.py   what all benchmarks share: options, what numbers depend on, tables
    remote/       the same over HTTP
    server/       its server, in Rust
    serve/        servers: voxfetch's and others
"""
