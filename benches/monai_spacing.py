"""MONAI's `Spacing` with its own load and save, as the peer of `voxmask-resample`.

    python benches/monai_spacing.py in.nii.gz out.nii.gz SPACING_MM THREADS

Prints a line of JSON: the seconds from before the load to after the save, without imports.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from monai.transforms import EnsureChannelFirst, LoadImage, SaveImage, Spacing


def main() -> None:
    """Resamples one volume."""
    source, target = sys.argv[1:3]
    spacing = float(sys.argv[3])
    torch.set_num_threads(int(sys.argv[4]))
    start = time.perf_counter()
    image = EnsureChannelFirst()(LoadImage(image_only=True)(source))
    image = Spacing(pixdim=(spacing,) * 3, mode="bilinear", dtype=np.float32)(image)
    folder, name = Path(target).parent, Path(target).name.removesuffix(".nii.gz")
    save = SaveImage(
        output_dir=folder,
        output_postfix="",
        separate_folder=False,
        output_dtype="int16",
        print_log=False,
    )
    save(image, filename=str(folder / name))
    print(json.dumps({"seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
