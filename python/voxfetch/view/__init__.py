"""What people look at: a page of our own, and Neuroglancer with the states that it needs.

| module | what |
|-|-|
| `client` | the files of both, to be served |
| `neuroglancer` | scenes of sources -> a state of Neuroglancer -> its address; pure |
| `page` | the page: HTML, JavaScript and CSS as they are, without a build |
"""
