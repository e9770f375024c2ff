"""imagecorruptions on the other side of a pipe, because it needs older libraries than this project.

Run by benchmarks/corruptions.py with the Python that has it. Reads lines `name severity`, answers each with the
processor time of one image in milliseconds, the shortest of several.
"""

import functools
import json
import sys
import time

import numpy as np
import skimage.filters

REPEATS = 5


def gaussian_of_old(image, sigma=1, multichannel=False, **options):
    """scikit-image lost `multichannel` in 0.20, of which imagecorruptions 1.1.2 does not know."""
    return GAUSSIAN(image, sigma, channel_axis=-1 if multichannel else None, **options)


GAUSSIAN = skimage.filters.gaussian
skimage.filters.gaussian = gaussian_of_old


def shortest(run) -> float:
    run()  # compiles, fills caches
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds)


def main() -> None:
    import imagecorruptions

    image = np.repeat(np.load(sys.argv[1])[:, :, None], 3, axis=2)
    for line in sys.stdin:
        name, severity = line.split()
        run = functools.partial(imagecorruptions.corrupt, image, corruption_name=name, severity=int(severity))
        print(json.dumps(shortest(run)), flush=True)


if __name__ == "__main__":
    main()
