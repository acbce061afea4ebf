"""Search a folder of your own images by text.

    python examples/search_photographs.py my-images "a red car" "a pineapple"

The bundled model knows drawings of emoji. For photographs, train a model by `ashnets train own-photographs` and give
its folder with --model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import ashnets


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder of images; subfolders are searched, too")
    parser.add_argument("queries", nargs="+", help="texts to search for")
    parser.add_argument("--model", default="ashnets-tiny", help="name or folder of a model")
    parser.add_argument("--top", type=int, default=3, help="images to show for each text")
    given = parser.parse_args(arguments)

    search = ashnets.ImageSearch(given.images, given.model)  # indexes what is new in the folder
    for reason in search.unreadable.values():
        print("left out:", reason)
    for query in given.queries:
        print(f"{query}, among {len(search)} images:")
        for hit in search(query, top=given.top):
            print(f"  {hit['score']:.3f}  {hit['path']}")


if __name__ == "__main__":
    main()
