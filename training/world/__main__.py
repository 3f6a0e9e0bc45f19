"""Draw something of the drawn world.

python -m training.world sheet OUT.png
python -m training.world clip INDEX OUT.mp4
python -m training.world portrait OUT.png
python -m training.world group OUT.png
python -m training.world pair OUT.png
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from hallo3_core.errors import InputError
from hallo3_core.network.config import FPS

from .clips import clip, person_of
from .drawing import draw
from .film import film
from .motion import still
from .pair import beside, centred, still_pair
from .visemes import still_mouth

EXAMPLE = 30
"""Number in the test split of the person in the example portrait."""
BESIDE = 34
"""Number of the other person in the group picture."""
SIDE = 512
"""Height of the examples, in pixels."""
PEOPLE, SMALL = 24, (160, 160)
"""Of the sheet: how many there are, and the size of each picture."""
MOUTHS = ((0, 0, 0), (0.15, 0.6, 0), (0.45, 0.9, 0), (1, 0.2, 0), (0.35, -0.6, 1))


def sheet(path: Path) -> None:
    """People, two in a row. Each is shown with several shapes of the mouth."""
    pose = still(1)[0]
    strips = [
        np.concatenate([draw(person, pose, still_mouth(*m), SMALL).picture for m in MOUTHS], 1)
        for person in (person_of("train", index) for index in range(PEOPLE))
    ]
    rows = [np.concatenate(strips[i : i + 2], 1) for i in range(0, PEOPLE, 2)]
    Image.fromarray(np.concatenate(rows)).save(path)


def portrait(path: Path) -> None:
    frame = draw(person_of("test", EXAMPLE), still(1)[0], still_mouth(), (SIDE, SIDE))
    Image.fromarray(frame.picture).save(path)


def group(path: Path) -> None:
    """Two people in front of one wall, each in the middle of a 3:2 part. The second is smaller."""
    near, other = person_of("test", EXAMPLE), person_of("test", BESIDE)
    people = (centred(near), centred(replace(other, size=0.62)))
    picture = still_pair(beside(*people, ratio=3), (SIDE, 3 * SIDE))
    Image.fromarray(picture).save(path, optimize=True)


def pair(path: Path) -> None:
    """Two people in front of one wall, each in the middle of a half of a 3:2 picture."""
    people = (centred(person_of("test", number)) for number in (EXAMPLE, BESIDE))
    Image.fromarray(still_pair(beside(*people), (SIDE, 3 * SIDE // 2))).save(path, optimize=True)


def main() -> None:
    match sys.argv[1:]:
        case ["sheet", path]:
            sheet(Path(path))
        case ["clip", index, path]:
            film(clip("train", int(index), (256, 384), 5 * FPS), Path(path))
        case ["portrait", path]:
            portrait(Path(path))
        case ["group", path]:
            group(Path(path))
        case ["pair", path]:
            pair(Path(path))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
