"""What scanners, rooms and exports do to a scan: noise, shading, ghosts, tables,
padding.

Every function takes a scan and returns a new one; the foreground follows the definition
(nothing outside the skin, nothing outside the field of view). MR functions work on any
scale.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.fft
import scipy.ndimage as nd

from .alterations import surface_distance
from .painting import rotation
from .scan import (
    Scan,
    coordinates,
    cropped,
    flipped,
    padded,
    resampled,
    rough_field,
    smooth_field,
    turned,
)


def top_of(scan: Scan) -> float:
    """The 99th percentile of the values above the lowest: the scan's scale."""
    values = scan.values[::3, ::3, ::3]
    above = values[values > values.min()]
    return float(np.percentile(above, 99)) if above.size > 50 else 1.0


# --- MR ------------------------------------------------------------


def shaded(rng: np.random.Generator, scan: Scan) -> Scan:
    """Receive-coil shading: smooth, or falling off 2 to 5 times towards one side."""
    field = rng.uniform(0.05, 0.3) * smooth_field(rng, scan.shape, 3)
    if rng.random() < 0.4:
        axis = int(rng.choice(3, p=[0.2, 0.4, 0.4]))
        n = scan.shape[axis]
        start = rng.uniform(0, 0.6)
        ramp = np.clip((np.arange(n) / n - start) / (1 - start), 0, 1)
        ramp = ramp if rng.random() < 0.4 else ramp[::-1]
        ramp = ramp ** rng.uniform(1, 2.5) * np.log(rng.uniform(2, 5))
        field = field - ramp.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return replace(scan, values=scan.values * np.exp(field))


def saturated(rng: np.random.Generator, scan: Scan) -> Scan:
    """A saturation band or a slab without signal: darker, still anatomy."""
    axis = int(rng.choice(3, p=[0.1, 0.4, 0.5]))
    n = scan.shape[axis]
    wide = rng.uniform(20, 60) / scan.spacing[axis]
    place = rng.uniform(0, n)
    distance = np.abs(np.arange(n) - place) - wide / 2
    gain = 1 - rng.uniform(0.4, 0.85) * np.clip(-distance / 4 + 0.5, 0, 1)
    gain = gain.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return replace(scan, values=scan.values * gain)


def ghosted(rng: np.random.Generator, scan: Scan) -> Scan:
    """Faint copies of the body or of its bright parts along the phase direction."""
    axis = int(rng.integers(0, 3))
    n = scan.shape[axis]
    source = scan.values
    if rng.random() < 0.6:
        low = np.percentile(source[::3, ::3, ::3], rng.uniform(90, 98.5))
        source = np.maximum(source - low, 0) * rng.uniform(1, 3)
    shift = n // 2 if rng.random() < 0.4 else int(rng.uniform(0.1, 0.5) * n)
    size = rng.uniform(0.02, 0.15)
    total = np.roll(source, shift, axis)
    if rng.random() < 0.6:
        total = total + np.roll(source, -shift, axis)
    if rng.random() < 0.4:
        field = smooth_field(rng, scan.shape, 3)
        total = total * np.clip(0.5 + field, 0, 2)
    return replace(scan, values=scan.values + np.float32(size) * total)


def zippered(rng: np.random.Generator, scan: Scan) -> Scan:
    """A line of noise across the picture."""
    axis = int(rng.integers(0, 3))
    values = scan.values.copy()
    place = int(rng.integers(0, scan.shape[axis]))
    line = np.moveaxis(values, axis, 0)[place]
    line += (
        top_of(scan) * rng.uniform(0.03, 0.3) * np.abs(rng.standard_normal(line.shape, np.float32))
    )
    return replace(scan, values=values)


def wrapped(rng: np.random.Generator, scan: Scan) -> Scan:
    """A field of view too small: what is cut on one side appears on the other."""
    axis = int(rng.choice(3, p=[0.3, 0.6, 0.1]))
    n = scan.shape[axis]
    cut = int(n * rng.uniform(0.04, 0.14))
    low, high = np.zeros(3, int), np.array(scan.shape)
    front = rng.random() < 0.6
    if front:
        high[axis] -= cut
    else:
        low[axis] = cut
    out = cropped(scan, low, high)
    lost = scan.values.take(range(n - cut, n) if front else range(cut), axis)
    values = out.values.copy()
    view = np.moveaxis(values, axis, 0)
    fold = np.moveaxis(lost, axis, 0)
    if front:
        view[:cut] += fold
    else:
        view[-cut:] += fold
    return replace(out, values=values)


def voided(rng: np.random.Generator, scan: Scan) -> Scan:
    """A metal void with a bright rim inside the body."""
    at = np.array([rng.uniform(0.2, 0.8) * n for n in scan.shape])
    axes = np.ogrid[tuple(slice(n) for n in scan.shape)]
    radius = rng.uniform(8, 28)
    r = (
        np.sqrt(sum(((a - c) * s) ** 2 for a, c, s in zip(axes, at, scan.spacing, strict=True)))
        / radius
    )
    r = r.astype(np.float32) + 0.15 * smooth_field(rng, scan.shape, 8)
    gain = np.clip((r - 0.8) / 0.3, rng.uniform(0, 0.15), 1)
    gain = gain + rng.uniform(0, 1) * np.exp(-(((r - 1.15) / 0.12) ** 2))
    return replace(scan, values=scan.values * gain.astype(np.float32))


def with_markers(rng: np.random.Generator, scan: Scan) -> Scan:
    """Capsules or pads that shine on the skin; they are not anatomy."""
    if scan.foreground is None or not scan.foreground.any():
        return scan
    values = scan.values.copy()
    body = np.argwhere(scan.foreground[::4, ::4, ::4]) * 4
    centre = body.mean(0)
    for _ in range(int(rng.integers(1, 6))):
        direction = rng.normal(size=3) / scan.spacing
        direction /= np.linalg.norm(direction)
        steps = centre + np.arange(1, max(scan.shape))[:, None] * direction
        steps = np.rint(steps).astype(int)
        steps = steps[((steps >= 0) & (steps < scan.shape)).all(1)]
        on = scan.foreground[tuple(steps.T)]
        if not on.any() or on[-1]:
            continue
        place = steps[np.flatnonzero(on)[-1]]
        size = np.array([rng.uniform(3, 9)] * 3) * rng.uniform(0.6, 1.6, 3)
        low = np.maximum(0, np.floor(place - size / scan.spacing)).astype(int)
        high = np.minimum(scan.shape, np.ceil(place + size / scan.spacing) + 1).astype(int)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.ogrid[box]
        r = sum(
            ((a - c) * s / m) ** 2
            for a, c, s, m in zip(axes, place, scan.spacing, size, strict=True)
        )
        blob = (r < 1) & ~scan.foreground[box]
        values[box][blob] = top_of(scan) * rng.uniform(0.15, 0.9)
    return replace(scan, values=values)


def noisy(rng: np.random.Generator, scan: Scan, most: float = 0.06) -> Scan:
    """Rician noise (MR), of up to `most` of the scale, sometimes correlated."""
    sigma = np.float32(top_of(scan) * np.exp(rng.uniform(np.log(0.003), np.log(most))))
    noise = [rng.standard_normal(scan.shape, np.float32) for _ in range(2)]
    if rng.random() < 0.25:
        width = rng.uniform(0.4, 0.8)
        noise = [nd.gaussian_filter(n, width) * (1 + 2 * width) for n in noise]
    values = np.hypot(scan.values + sigma * noise[0], sigma * noise[1])
    return replace(scan, values=values, background="noise")


def quantised(rng: np.random.Generator, scan: Scan) -> Scan:
    """Whole numbers on a scanner's scale."""
    top = np.exp(rng.uniform(np.log(120), np.log(4000)))
    return replace(scan, values=np.rint(scan.values * np.float32(top / top_of(scan))))


def contrast_changed(rng: np.random.Generator, scan: Scan) -> Scan:
    """A power of the intensities."""
    top = top_of(scan)
    x = np.clip(scan.values / np.float32(top), 0, 4) ** np.float32(rng.uniform(0.65, 1.45))
    return replace(scan, values=x * np.float32(top))


# --- air ------------------------------------------------------------


def air_zeroed(rng: np.random.Generator, scan: Scan) -> Scan:
    """Air set to one value: outside a mask a little off the skin, or below a level.

    A scanner's or a tool's, done before any de-facing; never an anonymization area.
    """
    value = float(rng.choice([-1000, -1024, -2000], p=[0.4, 0.5, 0.1])) if scan.ct else 0.0
    if scan.ct:
        value = min(value, float(scan.values.min())) if rng.random() < 0.5 else value
    if scan.foreground is None or rng.random() < 0.35:
        level = -800 if scan.ct else top_of(scan) * rng.uniform(0.03, 0.1)
        keep = scan.values > level
        if rng.random() < 0.5:
            keep = nd.binary_opening(keep)
    else:
        edge = rng.choice([0.0, 2.0, 5.0, 9.0], p=[0.35, 0.25, 0.25, 0.15])
        wobble = rng.uniform(0, 1.5) * smooth_field(rng, scan.shape, 10)
        keep = surface_distance(scan) + wobble > -edge
    values = np.where(keep, scan.values, np.float32(value))
    return replace(scan, values=values, background="zeroed")


def air_denoised(rng: np.random.Generator, scan: Scan) -> Scan:
    """Air smoothed to faint patches, as by a denoising filter; whole numbers."""
    sigma = rng.uniform(0.8, 2.0)
    smooth = nd.gaussian_filter(scan.values, sigma, truncate=2.5)
    inside = np.clip(surface_distance(scan) / 4 + 1, 0, 1)
    values = smooth + inside * (scan.values - smooth)
    if not scan.ct:
        values = np.maximum(values - (1 - inside) * top_of(scan) * rng.uniform(0, 0.02), 0)
    if top_of(scan) > 50:
        values = np.rint(values)
    return replace(scan, values=values.astype(np.float32), background="denoised")


# --- CT ------------------------------------------------------------


def ct_noisy(rng: np.random.Generator, scan: Scan) -> Scan:
    """Noise of 4 to 60 HU, a little correlated; whole numbers, mostly from -1024."""
    sigma = np.exp(rng.uniform(np.log(4), np.log(60)))
    noise = rng.standard_normal(scan.shape, np.float32)
    if rng.random() < 0.5:
        noise = nd.gaussian_filter(noise, 0.6) * 2.2
    values = scan.values + np.float32(sigma) * noise
    lowest = -1024 if rng.random() < 0.8 else -3000
    return replace(scan, values=np.clip(np.rint(values), lowest, 3071), background="air")


def with_table(rng: np.random.Generator, scan: Scan) -> Scan:
    """A couch behind the body: a denser shell around foam, flat or curved."""
    if scan.foreground is None or not scan.foreground.any():
        return scan
    i = (np.arange(scan.shape[0]) - scan.shape[0] / 2) * scan.spacing[0]
    j = np.arange(scan.shape[1]) * scan.spacing[1]
    rows = np.flatnonzero(scan.foreground.any((0, 2)))
    top = rows[0] * scan.spacing[1] - rng.choice([-3.0, 0.0, rng.uniform(0, 25)])
    half = rng.uniform(120, 280)
    surface = (
        top + rng.choice([0, 1]) * rng.uniform(0.0003, 0.0015) * i**2 - 0.02 * rng.normal() * i
    )
    deep = rng.uniform(12, 70)
    below = surface[:, None] - j[None]
    on = (below > 0) & (below < deep) & (np.abs(i) < half)[:, None]
    wall = on & ((below < 3) | (below > deep - 3) | (np.abs(i) > half - 4)[:, None])
    hard, soft = rng.uniform(-600, 500), rng.uniform(-1000, -850)
    profile = np.where(wall, hard, soft).astype(np.float32)
    mask = on[..., None] & ~scan.foreground
    values = np.where(mask, np.maximum(profile[..., None], scan.values), scan.values)
    return replace(scan, values=values)


def with_wrapping(rng: np.random.Generator, scan: Scan) -> Scan:
    """Head holder, cushion, pad, blanket or clothes: layers near or on the skin."""
    if scan.foreground is None or not scan.foreground.any():
        return scan
    outside = -surface_distance(scan)
    kind = rng.choice(["holder", "pad", "clothes", "hood"])
    start = rng.uniform(0, 1.0) if kind != "holder" else rng.uniform(0, 12)
    thick = {"holder": 5, "pad": 22, "clothes": 3, "hood": 8}[kind] * rng.uniform(0.6, 1.6)
    layer = (outside > start) & (outside < start + thick)
    fade = smooth_field(rng, scan.shape, 4)
    if kind in ("holder", "pad"):
        rows = np.flatnonzero(scan.foreground.any((0, 2)))
        middle = rows[0] + (rows[-1] - rows[0]) * rng.uniform(0.15, 0.55)
        layer &= (np.arange(scan.shape[1]) < middle)[None, :, None]
    else:
        layer &= fade > rng.uniform(-1, 0.6)
    if rng.random() < 0.5:
        ks = np.arange(scan.shape[2]) / scan.shape[2]
        layer &= ((ks > rng.uniform(0, 0.4)) & (ks < rng.uniform(0.6, 1.1)))[None, None]
    density = rng.uniform(-950, -300) if kind != "holder" else rng.uniform(-800, 250)
    texture = rng.uniform(0, 150) * rough_field(rng, scan.shape, 3)
    values = np.where(layer & ~scan.foreground, density + texture, scan.values)
    return replace(scan, values=values.astype(np.float32))


def with_streaks(rng: np.random.Generator, scan: Scan) -> Scan:
    """Metal streaks from a point (teeth, hip) over a few slices, across the skin."""
    values = scan.values.copy()
    at = [rng.uniform(0.3, 0.7) * n for n in scan.shape]
    i = (np.arange(scan.shape[0])[:, None] - at[0]) * scan.spacing[0]
    j = (np.arange(scan.shape[1])[None] - at[1]) * scan.spacing[1]
    angle, r = np.arctan2(j, i), np.hypot(i, j) + 3
    reach = rng.uniform(5, 20)
    decay = rng.uniform(150, 700) * np.exp(-r / rng.uniform(30, 90))
    orders, phases = rng.integers(3, 24, 4), rng.uniform(0, 6.28, 4)
    for k in range(scan.shape[2]):
        size = np.exp(-(((k - at[2]) * scan.spacing[2] / reach) ** 2))
        if size < 0.1:
            continue
        phases += rng.normal(0, 0.4, 4)
        waves = sum(np.cos(q * angle + a) for q, a in zip(orders, phases, strict=True))
        values[..., k] += (waves * size * decay).astype(np.float32)
    return replace(scan, values=np.clip(values, -1024, 3071))


def round_field(rng: np.random.Generator, scan: Scan) -> Scan:
    """Constant padding outside the round field of view, or beyond slanted edges."""
    i = (np.arange(scan.shape[0]) + 0.5) / scan.shape[0] - 0.5
    j = (np.arange(scan.shape[1]) + 0.5) / scan.shape[1] - 0.5
    value = float(
        rng.choice(
            [-3024, -2048, -2000, -1500, -1024, -1000, 0],
            p=[0.2, 0.15, 0.2, 0.1, 0.2, 0.05, 0.1],
        )
    )
    if not scan.ct:
        value = 0.0
    if rng.random() < 0.75:
        radius = rng.uniform(0.42, 0.52)
        seen = (np.hypot(i[:, None], j[None]) < radius)[..., None]
    else:
        k = (np.arange(scan.shape[2]) + 0.5) / scan.shape[2] - 0.5
        a, b = rng.normal(0, 0.35, 2)
        seen = np.abs(j[None, :, None] + a * k[None, None] + b * i[:, None, None]) < rng.uniform(
            0.4, 0.55
        )
    seen = np.broadcast_to(seen, scan.shape)
    values = np.where(seen, scan.values, np.float32(value))
    body = None if scan.foreground is None else scan.foreground & seen
    return replace(scan, values=values, foreground=body)


def turned_frame(rng: np.random.Generator, scan: Scan) -> Scan:
    """Zero wedges on every side, as after a rotation onto another grid."""
    matrix = np.eye(4)
    turn = rng.normal(0, 9, 3) * (rng.random(3) < 0.6) * np.pi / 180
    size = np.array(scan.shape) * scan.spacing
    matrix[:3, :3] = rotation(turn) @ np.diag(scan.spacing)
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(scan.shape) - 1) / 2)
    points = coordinates(scan.shape, matrix)
    half = size / 2 * rng.uniform(0.92, 1.02)
    seen = np.ones(scan.shape, bool)
    for axis in range(3):
        if scan.shape[axis] > 30:
            seen &= np.abs(points[axis]) < half[axis]
    value = np.float32(rng.choice([-1024, -1000, 0]) if scan.ct else 0)
    values = np.where(seen, scan.values, value)
    body = None if scan.foreground is None else scan.foreground & seen
    return replace(scan, values=values, foreground=body)


def bowed_frame(rng: np.random.Generator, scan: Scan) -> Scan:
    """Zeros beyond bowed edges, as where a scanner undoes its gradients' distortion."""
    place = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) for n in scan.shape), indexing="ij", sparse=True
    )
    seen = np.ones(scan.shape, bool)
    for axis in range(3):
        if scan.shape[axis] < 20:
            continue
        across = sum(place[a] ** 2 for a in range(3) if a != axis and scan.shape[a] >= 20)
        bow = np.float32(rng.uniform(-0.1, 0.1))
        edge = np.float32(rng.uniform(0.93, 1.0)) - abs(bow) + bow * (1 - across)
        seen &= np.abs(place[axis]) < edge
    value = np.float32(-1024 if scan.ct else 0)
    body = None if scan.foreground is None else scan.foreground & seen
    return replace(scan, values=np.where(seen, scan.values, value), foreground=body)


# --- export ------------------------------------------------------------


def edge_padded(rng: np.random.Generator, scan: Scan, most: int = 24) -> Scan:
    """Constant voxels added on some sides (a cube, a rotation, a tilt fix)."""
    low = rng.integers(0, most, 3) * (rng.random(3) < 0.5)
    high = rng.integers(0, most, 3) * (rng.random(3) < 0.5)
    thin = scan.spacing > 2.5
    low[thin], high[thin] = low[thin] // 5, high[thin] // 5
    value = float(rng.choice([-3024, -1024, -1000, 0])) if scan.ct else 0.0
    if rng.random() < 0.1:
        value = float(scan.values.min())
    return padded(scan, low, high, value)


def higher_bottom(rng: np.random.Generator, scan: Scan) -> Scan:
    """A head whose field of view ends higher: at the chin, the mouth, the nose."""
    low = np.zeros(3, int)
    low[2] = int(scan.shape[2] * rng.uniform(0.05, 0.45))
    return cropped(scan, low, scan.shape) if scan.shape[2] - low[2] >= 6 else scan


def smaller_view(rng: np.random.Generator, scan: Scan, least_mm: float = 60.0) -> Scan:
    """A random box of the scan, cut through the body."""
    low, high = np.zeros(3, int), np.array(scan.shape)
    for axis in range(3):
        if rng.random() < 0.5:
            n = scan.shape[axis]
            keep = max(
                rng.uniform(0.55, 1) * n,
                min(n, least_mm / scan.spacing[axis]),
                min(n, 6),
            )
            low[axis] = int(rng.uniform(0, n - keep + 1e-6))
            high[axis] = min(n, low[axis] + int(np.ceil(keep)))
    return cropped(scan, low, high)


def interpolated(rng: np.random.Generator, scan: Scan) -> Scan:
    """On finer voxels than were measured: along the two finest axes the outer part of k-space is
    empty, as where a scanner fills it with zeros. All of such a scan is smooth.
    """
    values = scan.values
    for axis in np.argsort(scan.spacing, kind="stable")[:2]:
        count = values.shape[axis]
        share = scipy.fft.rfftfreq(count) / (0.5 * rng.uniform(0.4, 0.8))
        kept = np.clip((1.0 - share) / rng.uniform(0.02, 0.4), 0.0, 1.0).astype(np.float32)
        shape = [len(kept) if a == axis else 1 for a in range(3)]
        spectrum = scipy.fft.rfft(values, axis=axis) * kept.reshape(shape)
        values = scipy.fft.irfft(spectrum, count, axis=axis)
    values = np.abs(values) if scan.values.min() >= 0 else values
    if scan.background == "zeroed":  # scanners mask the air afterwards
        values = np.where(scan.values == scan.values.min(), scan.values, values)
    return replace(scan, values=values.astype(np.float32))


def zoomed(rng: np.random.Generator, scan: Scan) -> Scan:
    """Resampled by 0.8 to 1.3, linear: constants stay, their rim does not."""
    return resampled(scan, scan.spacing * rng.uniform(0.8, 1.3), smooth=rng.random() < 0.5)


def sized(rng: np.random.Generator, scan: Scan) -> Scan:
    """Another body size: the spacing is changed, not the voxels."""
    return replace(
        scan,
        spacing=scan.spacing * np.exp(rng.normal(0, 0.07)) * np.exp(rng.normal(0, 0.03, 3)),
    )


def misoriented(rng: np.random.Generator, scan: Scan) -> Scan:
    """Flips (often left-right only) and quarter turns of a wrong header."""
    if rng.random() < 0.5:
        scan = flipped(scan, 0)
    u = rng.random()
    if u < 0.15:
        for axis in range(3):
            if rng.random() < 0.5:
                scan = flipped(scan, axis)
    elif u < 0.27:
        order = [(0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)][int(rng.integers(0, 5))]
        scan = turned(scan, order)
        if rng.random() < 0.5:
            scan = flipped(scan, int(rng.integers(0, 3)))
    return scan


def exported(rng: np.random.Generator, scan: Scan) -> Scan:
    """Another scale of the numbers: CT with its offset left in, a window, values in
    [0, 1].
    """
    u, values = rng.random(), scan.values
    if scan.ct:
        if u < 0.1:
            lowest = min(0.0, float(values.min()) + 1024)
            return replace(scan, values=values + 1024 - lowest, ct=False)
        if u < 0.15:
            low, high = rng.uniform(-190, -100), rng.uniform(150, 400)
            return replace(scan, values=np.clip(values, low, high), ct=False)
        if u < 0.19:
            low, high = rng.choice([-1024.0, -1000.0]), rng.uniform(800, 3000)
            x = (np.clip(values, low, high) - low) / (high - low)
            return replace(scan, values=x.astype(np.float32), ct=False)
        return scan
    if u < 0.08:
        x = values / np.float32(max(values.max(), 1e-6))
        return replace(scan, values=x)
    if u < 0.11:
        shift = np.float32(values[::3, ::3, ::3].mean())
        spread = np.float32(values[::3, ::3, ::3].std() + 1e-6)
        return replace(scan, values=np.maximum((values - shift) / spread, -100))
    return scan
