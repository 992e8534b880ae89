"""Shows an image in napari: `python examples/napari_view.py SOURCE`, a path or a URL of anything that voxfetch opens.

With `--headless` the layers are told and no window is opened. Needs `pip install "voxfetch[napari]"`, and for the
window a Qt, such as `pip install "napari[all]"`.
"""

from __future__ import annotations

import argparse

from voxfetch.napari import layers


def main() -> None:
    """Reads the command line, and shows or prints the layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="such as PATH.zarr, s3://bucket/image.zarr or precomputed://gs://bucket/volume")
    parser.add_argument("--headless", action="store_true", help="print the layers, open no window")
    arguments = parser.parse_args()
    found = layers(arguments.source)
    if arguments.headless:
        for data, keywords, kind in found:
            levels = data if isinstance(data, list) else [data]
            shapes = ", ".join(str(level.shape) for level in levels)
            print(f"{kind:6} {keywords['name']}: {levels[0].dtype} ({', '.join(keywords['axis_labels'])}), {shapes}")
        return
    import napari

    viewer = napari.Viewer()
    for one in found:
        viewer.add_layer(napari.layers.Layer.create(*one))
    napari.run()


if __name__ == "__main__":
    main()
