"""One piece of work as a user would have it done by another library, once.

    python benches/compare/peers.py WORK PEER --data FOLDER --threads N

Prints a line of JSON: `seconds` of the work itself, on voxels that are in memory already unless reading
them is the work; `check`, a number that shows that the same was done. Imports are not in the time.
Arrays are (i, j, k); files: `image.nii.gz`, `mask.nii.gz`, `other.nii.gz` in FOLDER.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SPACING_MM = 1.5
TOLERANCE_MM = 2.0
# nnU-Net's 3d_fullres plan of a body at 1.5 mm: six stages, two convolutions each.
FEATURES = (32, 64, 128, 256, 320, 320)
WINDOW = 128

Work = Callable[[], object]


def main() -> None:
    """Does the work and prints how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work")
    parser.add_argument("peer")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    work = PEERS[arguments.work][arguments.peer](arguments.data, arguments.threads)
    start = time.perf_counter()
    check = work()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "check": check}))


def nibabel_image(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as they are stored, and spacing [mm]."""
    import nibabel

    image = nibabel.load(path)
    return np.asanyarray(image.dataobj), np.array(image.header.get_zooms()[:3], float)


def mask_of(data: Path, name: str = "mask") -> tuple[np.ndarray, np.ndarray]:
    """A mask as booleans, and its spacing [mm]."""
    voxels, spacing = nibabel_image(data / f"{name}.nii.gz")
    return np.asfortranarray(voxels != 0), spacing


def itk(threads: int):
    """SimpleITK on so many threads."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return SimpleITK


def first_voxel(image) -> float:
    """Shows that an image of SimpleITK was made, at no cost."""
    return float(image.GetPixel(*[0] * 3))


def load_nibabel(data: Path, threads: int) -> Work:
    return lambda: int(nibabel_image(data / "image.nii.gz")[0].sum(dtype=np.int64))


def load_itk(data: Path, threads: int) -> Work:
    sitk = itk(threads)
    return lambda: sitk.ReadImage(str(data / "image.nii.gz")).GetNumberOfPixels()


def save_nibabel(data: Path, threads: int) -> Work:
    import nibabel

    voxels, _ = nibabel_image(data / "image.nii.gz")
    image = nibabel.Nifti1Image(voxels, nibabel.load(data / "image.nii.gz").affine)
    target = data / "nibabel.nii.gz"
    return lambda: (nibabel.save(image, target), target.stat().st_size)[1]


def save_itk(data: Path, threads: int) -> Work:
    sitk = itk(threads)
    image = sitk.ReadImage(str(data / "image.nii.gz"))
    target = data / "itk.nii.gz"
    return lambda: (sitk.WriteImage(image, str(target), True), target.stat().st_size)[1]


def new_shape(shape: tuple[int, ...], spacing: np.ndarray) -> list[int]:
    """Voxels at the new spacing over the same field of view."""
    return [max(1, round(n * mm / SPACING_MM)) for n, mm in zip(shape, spacing, strict=True)]


def resample_itk(interpolator: str) -> Callable[[Path, int], Work]:
    def begin(data: Path, threads: int) -> Work:
        sitk = itk(threads)
        image = sitk.ReadImage(str(data / "image.nii.gz"))
        resampler = sitk.ResampleImageFilter()
        resampler.SetInterpolator(getattr(sitk, interpolator))
        resampler.SetOutputSpacing([SPACING_MM] * 3)
        resampler.SetSize(new_shape(image.GetSize(), np.array(image.GetSpacing())))
        resampler.SetOutputDirection(image.GetDirection())
        # The outer faces stay where they are.
        half = [0.5 * (SPACING_MM / mm - 1) for mm in image.GetSpacing()]
        resampler.SetOutputOrigin(image.TransformContinuousIndexToPhysicalPoint(half))
        resampler.SetDefaultPixelValue(-1000)
        return lambda: first_voxel(resampler.Execute(image))

    return begin


def resample_monai(data: Path, threads: int) -> Work:
    import torch
    from monai.transforms import EnsureChannelFirst, LoadImage, Spacing

    torch.set_num_threads(threads)
    image = EnsureChannelFirst()(LoadImage(image_only=True)(data / "image.nii.gz"))
    spacing = Spacing(pixdim=(SPACING_MM,) * 3, mode="bilinear", dtype=np.float32)
    return lambda: float(spacing(image).mean())


def resample_torchio(data: Path, threads: int) -> Work:
    import torchio

    itk(threads)
    image = torchio.ScalarImage(data / "image.nii.gz")
    image.load()
    resample = torchio.Resample(SPACING_MM)
    return lambda: float(resample(image).data.float().mean())


def resample_scipy(order: int) -> Callable[[Path, int], Work]:
    def begin(data: Path, threads: int) -> Work:
        from scipy import ndimage

        voxels, spacing = nibabel_image(data / "image.nii.gz")
        voxels = voxels.astype(np.float32)
        factors = [
            n / m for n, m in zip(new_shape(voxels.shape, spacing), voxels.shape, strict=True)
        ]
        zoom = {"order": order, "mode": "mirror", "grid_mode": False}
        return lambda: float(ndimage.zoom(voxels, factors, **zoom).mean())

    return begin


def resample_nnunet(order: int) -> Callable[[Path, int], Work]:
    """As nnU-Net's `resample_data_or_seg` calls scikit-image."""

    def begin(data: Path, threads: int) -> Work:
        from skimage.transform import resize

        voxels, spacing = nibabel_image(data / "image.nii.gz")
        voxels = voxels.astype(np.float32)
        shape = new_shape(voxels.shape, spacing)
        how = {"order": order, "mode": "edge", "anti_aliasing": False, "preserve_range": True}
        return lambda: float(resize(voxels, shape, **how).mean())

    return begin


def resample_volresample(data: Path, threads: int) -> Work:
    import volresample

    volresample.set_num_threads(threads)
    voxels, spacing = nibabel_image(data / "image.nii.gz")
    voxels = np.ascontiguousarray(voxels, np.float32)
    shape = tuple(new_shape(voxels.shape, spacing))
    return lambda: float(volresample.resample(voxels, shape, mode="linear").mean())


def components_scipy(data: Path, threads: int) -> Work:
    from scipy import ndimage

    mask, _ = mask_of(data)
    return lambda: int(ndimage.label(mask, np.ones((3, 3, 3)))[1])


def components_itk(data: Path, threads: int) -> Work:
    sitk = itk(threads)
    mask = sitk.ReadImage(str(data / "mask.nii.gz"))
    components = sitk.ConnectedComponentImageFilter()
    components.SetFullyConnected(True)
    return lambda: (components.Execute(mask), components.GetObjectCount())[1]


def components_cc3d(data: Path, threads: int) -> Work:
    import cc3d

    mask, _ = mask_of(data)
    return lambda: int(cc3d.connected_components(mask, connectivity=26, return_N=True)[1])


def holes_scipy(data: Path, threads: int) -> Work:
    from scipy import ndimage

    mask, _ = mask_of(data)
    return lambda: int(ndimage.binary_fill_holes(mask).sum())


def holes_itk(data: Path, threads: int) -> Work:
    sitk = itk(threads)
    mask = sitk.ReadImage(str(data / "mask.nii.gz"))
    return lambda: first_voxel(sitk.BinaryFillhole(mask))


def holes_fill_voids(data: Path, threads: int) -> Work:
    import fill_voids

    mask, _ = mask_of(data)
    return lambda: int(fill_voids.fill(mask).sum())


def distance_scipy(data: Path, threads: int) -> Work:
    from scipy import ndimage

    mask, spacing = mask_of(data)
    return lambda: float(ndimage.distance_transform_edt(~mask, sampling=spacing).max())


def distance_itk(data: Path, threads: int) -> Work:
    sitk = itk(threads)
    mask = sitk.ReadImage(str(data / "mask.nii.gz"))
    how = {"insideIsPositive": False, "squaredDistance": True, "useImageSpacing": True}
    maps = sitk.SignedMaurerDistanceMap
    return lambda: first_voxel(maps(mask, **how))


def distance_edt(data: Path, threads: int) -> Work:
    import edt

    mask, spacing = mask_of(data)
    air = np.asfortranarray(~mask)
    how = {"anisotropy": tuple(spacing), "parallel": threads, "black_border": False}
    return lambda: float(edt.edtsq(air, **how).max()) ** 0.5


def surfaces_deepmind(data: Path, threads: int) -> Work:
    import surface_distance

    (one, spacing), (other, _) = mask_of(data), mask_of(data, "other")

    def work() -> float:
        distances = surface_distance.compute_surface_distances(other, one, spacing)
        surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM)
        return float(surface_distance.compute_robust_hausdorff(distances, 95))

    return work


def surfaces_monai(data: Path, threads: int) -> Work:
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    torch.set_num_threads(threads)
    (one, spacing), (other, _) = mask_of(data), mask_of(data, "other")
    one, other = (torch.from_numpy(np.ascontiguousarray(m))[None, None] for m in (one, other))
    how = {"include_background": True, "spacing": spacing.tolist()}

    def work() -> float:
        compute_surface_dice(one, other, [TOLERANCE_MM], **how)
        return float(compute_hausdorff_distance(one, other, percentile=95, **how))

    return work


def surfaces_medpy(data: Path, threads: int) -> Work:
    from medpy.metric.binary import hd95

    (one, spacing), (other, _) = mask_of(data), mask_of(data, "other")
    return lambda: float(hd95(one, other, voxelspacing=spacing))


def foreground_otsu(data: Path, threads: int) -> Work:
    """From file to file: Otsu's threshold, the largest piece, holes filled."""
    import nibabel
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    def work() -> int:
        image = nibabel.load(data / "image.nii.gz")
        voxels = np.asanyarray(image.dataobj)
        labels, _ = ndimage.label(voxels > threshold_otsu(voxels))
        mask = labels == np.bincount(labels.ravel())[1:].argmax() + 1
        mask = ndimage.binary_fill_holes(mask).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), data / "otsu.nii.gz")
        return int(mask.sum())

    return work


def foreground_network(data: Path, threads: int) -> Work:
    """One window of a network of nnU-Net's size; `windows` says how many a scan takes."""
    import torch

    torch.set_num_threads(threads)
    network = unet(torch.nn).eval()
    window = torch.zeros(1, 1, *[WINDOW] * 3)

    def work() -> float:
        with torch.inference_mode():
            return float(network(window).numel())

    return work


def unet(nn):
    """A plain 3-D U-Net as nnU-Net plans it: instance norm, leaky ReLU, strided convolutions."""

    def stage(inputs: int, outputs: int, stride: int):
        def convolution(inputs: int, stride: int):
            return (
                nn.Conv3d(inputs, outputs, 3, stride, 1),
                nn.InstanceNorm3d(outputs, affine=True),
                nn.LeakyReLU(inplace=True),
            )

        return nn.Sequential(*convolution(inputs, stride), *convolution(outputs, 1))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = list(zip((1, *FEATURES), FEATURES, strict=False))
            self.down = nn.ModuleList(stage(a, b, 1 + (n > 0)) for n, (a, b) in enumerate(pairs))
            backwards = list(zip(FEATURES[:0:-1], FEATURES[-2::-1], strict=True))
            self.up = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, 2) for a, b in backwards)
            self.merge = nn.ModuleList(stage(2 * b, b, 1) for _, b in backwards)
            self.head = nn.Conv3d(FEATURES[0], 2, 1)

        def forward(self, x):
            import torch

            skips = []
            for down in self.down:
                x = down(x)
                skips.append(x)
            skips.pop()
            for up, merge in zip(self.up, self.merge, strict=True):
                x = merge(torch.cat([up(x), skips.pop()], 1))
            return self.head(x)

    return UNet()


def network_onnxruntime(data: Path, threads: int) -> Work:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    weights = Path(__file__).resolve().parents[2] / "models/foreground/refinement.onnx"
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    cells = (np.arange(7 * 96**3) % 89 / 89).astype(np.float32).reshape(1, 7, 96, 96, 96)

    def run() -> float:
        return float(session.run(["logits"], {session.get_inputs()[0].name: cells})[0].mean())

    run()
    return run


PEERS: dict[str, dict[str, Callable[[Path, int], Work]]] = {
    "load": {"nibabel": load_nibabel, "SimpleITK": load_itk},
    "save": {"nibabel": save_nibabel, "SimpleITK": save_itk},
    "linear": {
        "SimpleITK": resample_itk("sitkLinear"),
        "MONAI": resample_monai,
        "TorchIO": resample_torchio,
        "scipy": resample_scipy(1),
        "scikit-image as nnU-Net": resample_nnunet(1),
        "volresample": resample_volresample,
    },
    "cubic": {
        "SimpleITK": resample_itk("sitkBSpline"),
        "scipy": resample_scipy(3),
        "scikit-image as nnU-Net": resample_nnunet(3),
    },
    "components": {
        "cc3d": components_cc3d,
        "SimpleITK": components_itk,
        "scipy": components_scipy,
    },
    "holes": {"fill_voids": holes_fill_voids, "SimpleITK": holes_itk, "scipy": holes_scipy},
    "distance": {"edt": distance_edt, "SimpleITK": distance_itk, "scipy": distance_scipy},
    "surfaces": {
        "MONAI": surfaces_monai,
        "surface-distance": surfaces_deepmind,
        "MedPy (HD95 alone)": surfaces_medpy,
    },
    "network": {"ONNX Runtime": network_onnxruntime},
    "foreground": {
        "Otsu, scikit-image": foreground_otsu,
        "nnU-Net's size, one window": foreground_network,
    },
}


if __name__ == "__main__":
    main()
