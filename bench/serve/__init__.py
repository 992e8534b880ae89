"""Benchmarks of ``voxfetch serve``, and of servers that do what it does.

command.py       the command: both parts, then the report
chunks.py        what is served: the chunks of a sharded volume, where they lie, what their bodies are compared with
servers.py       who serves them: one function a server, all behind ``Server``
programs.py      two of them as programs of their own, for the environments of their libraries
process.py       a server as a process on one core: ready or not, CPU time, its end
load.py          wrk and its script, load.lua
throughput.py    part 1: requests a second, of one core
image.py         what is viewed: an image of several levels, and what its chunks hold
neuroglancer.py  which chunks Neuroglancer asks for, in which order, and how
view.py          part 2: a cold view of a distant image, directly and through ``voxfetch serve``
browser.py       the same by Neuroglancer itself, in Chromium: whether the model asks for what it does
report.py        JSON -> Markdown
"""
